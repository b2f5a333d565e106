"""Rates and weight decays are chosen for every width on the reserve, and enter what is reported."""

import math
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch

from small import study
from widthwise import cost, samples, tuning
from widthwise.config import load_study
from widthwise.design import Design
from widthwise.errors import UsageError
from widthwise.executors import base as executors
from widthwise.features import find
from widthwise.report import paper
from widthwise.store import Store

GRID = {"rates": [1e-4, 0.2], "weight_decays": [0.0, 1e-3]}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return a study with its trials, the store and the results."""
    asked, store = study(tuning=GRID, wide=2, concatenations={"1/2": 1}), Store(tmp_path_factory.mktemp("tuned"))
    return asked, store, executors.run(asked, store, jobs=1)


def test_every_width_has_the_same_grid_and_the_reported_networks_are_trained_as_chosen(done):
    _, store, results = done
    trials = [row for row in results.rows if row.measure == "log_loss"]
    assert [row.width for row in trials] == ["1"] * 4 + ["1/2"] * 4
    rates = {row.width: row.value for row in results.rows if row.study == "tuning" and row.statistic == "rate"}
    assert rates == {"1": 0.2, "1/2": 0.2}  # of two, the one that learns in three epochs
    for network in results.networks:
        assert network.seed != tuning.SEED
        assert store.get("runs", network.key).facts["training"]["rate"] == 0.2


def test_the_loss_is_that_of_the_reserve_alone(done):
    asked, store, results = done
    rows = samples.load(asked.data, store)
    design = Design(asked, (1, 8, 8), 10)
    run = tuning.trials(design, rows.checksum)[Fraction(1)][3]
    logits = find(store, run, "final")["train"].tensors("features")["logits"]
    own = torch.log_softmax(logits.double(), 1)[torch.arange(len(logits)), rows.labels]
    (told,) = [r.value for r in results.rows if r.statistic == "rate 0.2, weight decay 0.001" and r.width == "1"]
    assert told == pytest.approx(-float(own[~rows.trained].mean()), rel=1e-9)


def test_a_second_run_trains_nothing_and_says_the_same(done, monkeypatch):
    asked, store, results = done
    monkeypatch.setattr(executors.fleet, "train_fleet", lambda *a, **k: pytest.fail("trained again"))
    assert executors.run(asked, store, jobs=1).rows == results.rows
    assert cost.missing(asked, store) == []
    assert cost.plan(asked, store, jobs=1).seconds["training"] == 0


def test_a_report_has_what_was_chosen(done):
    (table,) = [t for t in paper.tables(done[2]) if t.name == "paper_tuning"]
    assert [row[:2] for row in table.rows] == [("1", 0.2), ("1/2", 0.2)]


def test_a_trial_that_diverged_is_never_chosen():
    design = Design(study(tuning=GRID), (1, 8, 8), 10)
    trials = tuning.trials(design, "c")
    losses = {width: [float("inf"), 2.0, 1.0, 1.0] for width in trials}
    assert all(training == trials[w][2].training for w, training in tuning.chosen(trials, losses).items())


def test_tuning_without_a_reserve_is_refused():
    with pytest.raises(
        UsageError, match=r"tuning: rates are chosen on rows that no network trains on; give data.reserve"
    ):
        load_study({"tuning": GRID, "data": {"kind": "digits", "reserve": 0}})


def test_a_width_whose_trials_all_diverged_is_named_with_the_remedy(done, monkeypatch):
    asked, store, _ = done
    rows = samples.load(asked.data, store)
    trials = tuning.trials(Design(asked, (1, 8, 8), 10), rows.checksum)
    nothing = torch.full((len(rows.labels), 10), math.nan)
    entry = SimpleNamespace(tensors=lambda name: {"logits": nothing})
    monkeypatch.setattr(tuning.features, "find", lambda store, run, snapshot: {"train": entry})
    with pytest.raises(
        UsageError, match=r"every trial of width 1 diverged, at rates of 0.0001 to 0.2; give tuning.rates"
    ):
        tuning.losses(trials, rows, store)


def test_a_rate_that_is_given_twice_is_refused():
    with pytest.raises(UsageError, match=r"tuning.rates: each value once, not 0.1, 0.1"):
        load_study({"tuning": {"rates": [0.1, 0.1]}, "data": {"kind": "digits"}})
