"""A time is read, a study is fitted to it, and what was picked is kept."""

import pytest

from widthwise import budget, machine
from widthwise.config import load_study
from widthwise.errors import UsageError
from widthwise.store import Store

STUDY = {
    "data": {"kind": "cifar10", "rows": 16_000},
    "network": {"kind": "mlp", "hidden": 16, "depth": 1},
    "training": {"epochs": 20, "batch_size": 100},
    "widths": ["1", "1/2"],
    "wide": 2,
    "concatenations": {"1/2": 1},
    "studies": ["width_gap"],
}


@pytest.fixture
def step(monkeypatch):
    """Let a step of one network take so many seconds, and everything else nearly nothing."""
    took = {"seconds": 0.2}
    monkeypatch.setattr(machine, "step_seconds", lambda runs, shape, batch, device: took["seconds"] * len(runs))
    monkeypatch.setattr(machine, "rates", lambda: (1e15, 1e15))
    monkeypatch.setattr(budget.samples, "decode", lambda data, store: None)  # CIFAR-10 need not be here
    return took


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2d", 172_800)])
def test_a_time_is_a_number_and_a_unit(text, seconds):
    assert budget.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-3m", "0m", "three hours"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match=r"--budget is a time such as 30m, 2h or 1d, not"):
        budget.seconds(text)


def test_a_study_that_fits_stays_as_it_is(step, tmp_path):
    study = load_study(STUDY)
    assert budget.fitted(study, Store(tmp_path), 1e5)[0] == study


def test_epochs_are_the_first_to_go_and_then_rows(step, tmp_path):
    study, store = load_study(STUDY), Store(tmp_path)
    less, told = budget.fitted(study, store, 800.0)  # of about 1,200: 4 networks of 20 epochs of 144 steps
    assert less.data.rows == 16_000
    assert 5 <= less.training.epochs < 20
    assert f"{less.training.epochs} epochs (the file has 20)" in told
    least, _ = budget.fitted(study, store, 150.0)
    assert least.data.rows < 16_000
    assert least.training.epochs >= 5
    assert least.data.test_rows == study.data.test_rows


def test_what_was_picked_is_kept_though_the_machine_is_slower_now(step, tmp_path):
    study, store = load_study(STUDY), Store(tmp_path)
    first = budget.fitted(study, store, 800.0)
    step["seconds"] = 100.0
    assert budget.fitted(study, store, 800.0) == first
    with pytest.raises(UsageError, match=r"13 min are too few for this study: 5 epochs of 1,000 rows take about"):
        budget.fitted(study, Store(tmp_path / "other"), 800.0)


def test_the_size_of_fleets_that_is_asked_for_counts(step, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "step_seconds", lambda runs, shape, batch, device: 0.2)  # however many train as one
    study, means = load_study(STUDY | {"wide": 8}), {"device": "cpu", "jobs": 1}
    pairs, all_of_them = (
        budget.fitted(study, Store(tmp_path / str(size)), 1500.0, **means, fleet_size=size)[0] for size in (2, 8)
    )
    assert pairs.training.epochs < all_of_them.training.epochs
