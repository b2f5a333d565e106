"""How many networks train as one: the fastest number that was measured, kept, and never a bit of a network."""

from dataclasses import replace
from fractions import Fraction
from math import log2

import pytest

from small import run, samples, study
from widthwise import calibration, fleet, machine
from widthwise.config import Training
from widthwise.executors import base as executors
from widthwise.store import Store

USUAL = fleet.form(run()).size


def take(monkeypatch, seconds):
    """Let a step of n networks take `seconds(n)`; return the numbers that are asked for."""
    asked = []

    def step_seconds(runs, shape, batch, device):
        asked.append(len(runs))
        return seconds(len(runs))

    monkeypatch.setattr(machine, "step_seconds", step_seconds)
    return asked


def size(made=None, networks=1000, batch=32, processes=1):
    return calibration.size(made or run(), (1, 4, 4), batch, networks, "cpu", processes)


@pytest.mark.parametrize("fastest", [2, 8, 128, 256])
def test_the_fastest_size_is_taken_and_measured_once(fastest, monkeypatch):
    asked = take(monkeypatch, lambda n: n * (1 + abs(log2(n / fastest)) / 10))
    assert size() == fastest
    assert size() == fastest
    assert len(set(asked)) == len(asked) > 1
    size(batch=64)
    assert len(asked) > len(set(asked))


def test_the_tables_size_stays_unless_another_is_clearly_faster(monkeypatch):
    take(monkeypatch, lambda n: n if n == USUAL else 0.97 * n)
    assert size() == USUAL


def test_larger_fleets_are_not_asked_where_the_rate_has_fallen(monkeypatch):
    asked = take(monkeypatch, lambda n: float(n * n))
    assert size() == 2
    assert asked == [2, 4]


@pytest.mark.parametrize(("networks", "most"), [(1, 2), (2, 2), (5, 4), (40, 32)])
def test_no_fleet_is_larger_than_there_are_networks(networks, most, monkeypatch):
    asked = take(monkeypatch, lambda n: 1.0)
    assert size(networks=networks) == most
    assert max(asked, default=2) == most


def test_fleets_of_all_processes_fit_in_half_of_the_memory(monkeypatch):
    take(monkeypatch, lambda n: 1.0)
    forward = machine.forward(run())
    each = 20 * forward.parameters + 32 * forward.activations
    monkeypatch.setattr(calibration.memory, "physical", lambda: 2 * 3 * 17 * each)
    assert size(processes=3) == 16


def test_networks_that_train_alone_and_ones_whose_steps_change_are_not_measured(monkeypatch):
    asked = take(monkeypatch, lambda n: 1.0)
    assert size(run(hidden=512)) == 1
    assert size(replace(run(), training=Training(optimiser="normalised_sgd"))) == USUAL
    assert asked == []


def test_where_nothing_can_be_kept_it_is_measured_again(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(calibration, "cache_folder", lambda: tmp_path / "file" / "below")
    asked = take(monkeypatch, lambda n: 1.0 if n == 8 else float(n))
    assert [size(), size()] == [8, 8]
    assert len(asked) > len(set(asked))


def test_without_a_home_it_is_measured_again_and_what_fails_then_is_told_once(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    def failing(n):
        raise RuntimeError("no memory on the card")

    monkeypatch.setattr(calibration, "cache_folder", homeless)
    take(monkeypatch, lambda n: 1.0 if n == 8 else float(n))
    assert [size(), size()] == [8, 8]
    monkeypatch.undo()
    asked = take(monkeypatch, failing)
    with pytest.raises(RuntimeError, match="no memory"):
        size(batch=31)
    assert len(asked) == 1


def test_a_size_that_is_given_is_taken(monkeypatch):
    asked = take(monkeypatch, lambda n: 1.0)
    assert calibration.sizes((1, 4, 4), 160, "cpu", 1, 3)(run(), 1000) == 3
    assert asked == []


def test_no_bit_depends_on_the_size_of_fleets(tmp_path):
    whole = executors.run(study(), Store(tmp_path / "whole"), jobs=1)
    for given in (2, 4):
        other = executors.run(study(), Store(tmp_path / str(given)), jobs=1, fleet_size=given)
        assert whole.rows == other.rows


def test_what_arrives_together_trains_together_whatever_the_table_says(tmp_path, monkeypatch):
    built = []
    monkeypatch.setattr(fleet, "build", lambda *given, build=fleet.build: built.append(len(given[0])) or build(*given))
    runs = [run(seed, Fraction(1, 2), epochs=1) for seed in range(USUAL + 3)]
    fleet.train_fleet(runs, samples(), Store(tmp_path))
    assert max(built) == USUAL + 3
