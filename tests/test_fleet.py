import dataclasses
import logging
from fractions import Fraction

import pytest
import torch

from small import run, samples
from widthwise import fleet
from widthwise.store import Store
from widthwise.training import Interrupted


def final(store, r):
    entry = store.get("runs", r.key)
    return entry.tensors("final"), [{**e, "seconds": 0} for e in entry.json("history")]


def equal(a, b):
    return a[1] == b[1] and all(torch.equal(a[0][n], b[0][n]) for n in a[0])


def test_a_store_keeps_initial_and_final_weights_snapshots_history_and_the_resolved_run(tmp_path):
    store, r = Store(tmp_path), run(epochs=8)
    fleet.train_fleet([r], samples(), store)
    entry = store.get("runs", r.key)
    assert {"initial.safetensors", "final.safetensors", "history.json"} < set(entry.files)
    assert entry.facts["network"]["kind"] == "mlp"
    assert entry.facts["parameters"] == 16 * 16 + 16 + 16 * 16 + 16 + 16 * 4 + 4
    assert entry.facts["features"] == 16
    assert "torch" in entry.provenance["versions"]
    assert any(name.startswith("at_") for name in entry.files)
    assert not list((tmp_path / "partial").iterdir())


def test_a_networks_bits_are_the_same_however_the_work_was_cut(tmp_path):
    runs = [run(seed) for seed in range(5)]
    together, apart = Store(tmp_path / "a"), Store(tmp_path / "b")
    fleet.train_fleet(runs, samples(), together)
    fleet.train_fleet(runs[:2], samples(), apart)
    fleet.train_fleet(runs[2:3], samples(), apart)  # a lone leftover, beside a companion that is thrown away
    fleet.train_fleet(runs[3:], samples(), apart)
    assert all(equal(final(together, r), final(apart, r)) for r in runs)


def test_an_interrupted_fleet_goes_on_inside_its_training_whatever_the_new_fleets(tmp_path):
    runs = [run(seed) for seed in range(4)]
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "cut")
    fleet.train_fleet(runs, samples(), whole)
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        fleet.train_fleet(runs, samples(), store, stopping=lambda: next(calls) == 7)
    found = fleet.checkpoints(store)
    assert {found[r.key].step for r in runs} == {7}
    seen = []
    fleet.train_fleet(runs[1:3], samples(), store, progress=lambda step, steps: seen.append(step))
    assert seen[0] == 8
    fleet.train_fleet(runs, samples(), store)
    assert all(equal(final(whole, r), final(store, r)) for r in runs)


def test_members_at_unequal_steps_are_not_put_together():
    runs = [run(seed) for seed in range(4)]
    cut = fleet.groups(runs, {runs[0].key: 3, runs[2].key: 3})
    assert [[r.seed for r in group] for group in cut] == [[0, 2], [1, 3]]


def test_fleets_hold_equal_architectures_of_at_most_the_tables_size():
    narrow = [run(seed, Fraction(1, 2)) for seed in range(40)]
    wide = [dataclasses.replace(run(seed, hidden=512)) for seed in range(3)]
    cut = fleet.groups(narrow + wide)
    assert sum(map(len, cut)) == 43
    assert max(map(len, cut)) <= 16
    assert all(len({r.width for r in group}) == 1 for group in cut)
    assert [len(group) for group in cut if group[0].width == 1] == [1, 1, 1]


def test_what_is_trained_is_not_trained_again(tmp_path):
    store, runs = Store(tmp_path), [run(0), run(1)]
    fleet.train_fleet(runs[:1], samples(), store)
    before = store.get("runs", runs[0].key).files
    seen = []
    fleet.train_fleet(runs, samples(), store, progress=lambda step, steps: seen.append(step))
    assert store.get("runs", runs[0].key).files == before
    assert max(seen) == len(seen) == 15


def test_a_damaged_checkpoint_is_said_and_its_training_starts_again(tmp_path, caplog):
    store, r = Store(tmp_path), run()
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        fleet.train_fleet([r], samples(), store, stopping=lambda: next(calls) == 4)
    (path,) = tmp_path.glob("partial/*/checkpoint.safetensors")
    path.write_bytes(path.read_bytes()[:50])
    with caplog.at_level(logging.WARNING, "widthwise"):
        fleet.train_fleet([r], samples(), store)
    assert "damaged" in caplog.text
    assert store.get("runs", r.key) is not None
