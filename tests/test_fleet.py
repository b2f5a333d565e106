import dataclasses
import logging
from fractions import Fraction

import pytest
import torch

from small import DEVICE, on_a_processor, run, samples
from widthwise import fleet
from widthwise.config import Network
from widthwise.store import Store
from widthwise.training import Interrupted


def final(store, r):
    entry = store.get("runs", r.key)
    return entry.tensors("final"), [{**e, "seconds": 0} for e in entry.json("history")]


def equal(a, b):
    return a[1] == b[1] and all(torch.equal(a[0][n], b[0][n]) for n in a[0])


def with_training(r, **changed):
    return dataclasses.replace(r, training=r.training.model_copy(update=changed))


def test_a_store_keeps_initial_and_final_weights_snapshots_history_and_the_resolved_run(tmp_path):
    store, r = Store(tmp_path), run(epochs=8)
    fleet.train_fleet([r], samples(), store, device=DEVICE)
    entry = store.get("runs", r.key)
    assert {"initial.safetensors", "final.safetensors", "history.json"} < set(entry.files)
    assert entry.facts["network"]["kind"] == "mlp"
    assert entry.facts["parameters"] == 16 * 16 + 16 + 16 * 16 + 16 + 16 * 4 + 4
    assert entry.facts["features"] == 16
    assert "torch" in entry.provenance["versions"]
    assert any(name.startswith("at_") for name in entry.files)
    assert not list((tmp_path / "partial").iterdir())


@on_a_processor
def test_a_networks_bits_are_the_same_however_the_work_was_cut(tmp_path):
    runs = [run(seed) for seed in range(5)]
    together, apart = Store(tmp_path / "a"), Store(tmp_path / "b")
    fleet.train_fleet(runs, samples(), together, device=DEVICE)
    fleet.train_fleet(runs[:2], samples(), apart, device=DEVICE)
    fleet.train_fleet(
        runs[2:3], samples(), apart, device=DEVICE
    )  # a lone leftover, beside a companion that is thrown away
    fleet.train_fleet(runs[3:], samples(), apart, device=DEVICE)
    assert all(equal(final(together, r), final(apart, r)) for r in runs)


@pytest.mark.parametrize("told", [{}, {"optimiser": "adamw", "schedule": "cosine", "rate": 0.01}], ids=str)
def test_an_interrupted_fleet_goes_on_inside_its_training_whatever_the_new_fleets(told, tmp_path):
    runs = [with_training(run(seed), **told) for seed in range(4)]
    whole, store = Store(tmp_path / "whole"), Store(tmp_path / "cut")
    fleet.train_fleet(runs, samples(), whole, device=DEVICE)
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        fleet.train_fleet(runs, samples(), store, stopping=lambda: next(calls) == 7, device=DEVICE)
    found = fleet.checkpoints(store)
    assert {found[r.key].step for r in runs} == {7}
    seen = []
    fleet.train_fleet(runs[1:3], samples(), store, progress=lambda step, steps: seen.append(step), device=DEVICE)
    assert seen[0] == 8
    fleet.train_fleet(runs, samples(), store, device=DEVICE)
    assert all(equal(final(whole, r), final(store, r)) for r in runs)


@on_a_processor
def test_a_run_of_bfloat16_is_another_and_bitwise_the_same_however_cut(tmp_path):
    plain = run()
    half = [with_training(run(seed), precision="bfloat16") for seed in range(3)]
    together, apart = Store(tmp_path / "a"), Store(tmp_path / "b")
    fleet.train_fleet([*half, plain], samples(), together, device=DEVICE)
    for r in half:
        fleet.train_fleet([r], samples(), apart, device=DEVICE)
    assert all(equal(final(together, r), final(apart, r)) for r in half)
    weights = final(together, half[0])[0]
    assert all(t.dtype == torch.float32 for t in weights.values())
    assert not any(torch.equal(t, weights[n]) for n, t in final(together, plain)[0].items() if t.any())


@pytest.mark.parametrize("kind", ["mlp", "resnet18", "vgg16", "transformer"])
def test_the_precision_that_is_asked_for_is_taken_on_any_device(kind):
    made = dataclasses.replace(run(), network=Network(kind=kind))
    for device in ("cpu", "cuda"):
        forms = [fleet.form(with_training(made, precision=p), device) for p in ("float32", "bfloat16")]
        assert [form.autocast for form in forms] == [None, torch.bfloat16]
        assert forms[0].kind == forms[1].kind


def test_members_at_unequal_steps_are_not_put_together():
    runs = [run(seed) for seed in range(4)]
    cut = fleet.groups(runs, {runs[0].key: 3, runs[2].key: 3})
    assert [[r.seed for r in group] for group in cut] == [[0, 2], [1, 3]]


def test_fleets_hold_equal_architectures_of_at_most_the_tables_size():
    narrow = [run(seed, Fraction(1, 2)) for seed in range(40)]
    wide = [dataclasses.replace(run(seed, hidden=512)) for seed in range(3)]
    cut = fleet.groups(narrow + wide)
    assert sum(map(len, cut)) == 43
    assert max(map(len, cut)) <= fleet.form(narrow[0]).size
    assert [len(group) for group in fleet.groups(narrow, processes=3)] == [13, 13, 14]
    many = [run(seed, Fraction(1, 2)) for seed in range(2 * fleet.form(narrow[0]).size + 1)]
    assert len(fleet.groups(many)) == 3
    assert len(fleet.groups(many, processes=2)) == 4  # two for each, none waits while the other trains a third
    assert len(fleet.groups(many[:3], processes=4)) == 1  # none of one
    assert all(len({r.width for r in group}) == 1 for group in cut)
    assert [len(group) for group in cut if group[0].width == 1] == [1, 1, 1]


def test_what_is_trained_is_not_trained_again(tmp_path):
    store, runs = Store(tmp_path), [run(0), run(1)]
    fleet.train_fleet(runs[:1], samples(), store, device=DEVICE)
    before = store.get("runs", runs[0].key).files
    seen = []
    fleet.train_fleet(runs, samples(), store, progress=lambda step, steps: seen.append(step), device=DEVICE)
    assert store.get("runs", runs[0].key).files == before
    assert max(seen) == len(seen) == 15


def test_a_damaged_checkpoint_is_said_and_its_training_starts_again(tmp_path, caplog):
    store, r = Store(tmp_path), run()
    calls = iter(range(1, 100))
    with pytest.raises(Interrupted):
        fleet.train_fleet([r], samples(), store, stopping=lambda: next(calls) == 4, device=DEVICE)
    (path,) = tmp_path.glob("partial/*/checkpoint.safetensors")
    path.write_bytes(path.read_bytes()[:50])
    with caplog.at_level(logging.WARNING, "widthwise"):
        fleet.train_fleet([r], samples(), store, device=DEVICE)
    assert "damaged" in caplog.text
    assert store.get("runs", r.key) is not None


def test_a_grid_of_rates_and_decays_is_a_fleet(tmp_path):
    grid = [
        with_training(r, rate=rate, weight_decay=decay)
        for r in (run(0), run(1))
        for rate in (0.1, 0.05)
        for decay in (0.0, 1e-3)
    ]
    assert [len(group) for group in fleet.groups(grid)] == [8]
    store, alone = Store(tmp_path / "grid"), Store(tmp_path / "alone")
    fleet.train_fleet(grid, samples(), store, device=DEVICE)
    fleet.train_fleet(grid[2:3], samples(), alone, device=DEVICE)
    assert equal(final(store, grid[2]), final(alone, grid[2]))
    assert len({final(store, r)[1][-1]["train_loss"] for r in grid}) == 8


def test_a_run_that_diverges_is_told_and_kept_as_one_and_the_others_are_as_without_it(tmp_path, caplog):
    wild = with_training(run(0), rate=1e30)
    store, without = Store(tmp_path / "a"), Store(tmp_path / "b")
    with caplog.at_level(logging.WARNING, "widthwise"):
        fleet.train_fleet([wild, run(1), run(2)], samples(), store, device=DEVICE)
    fleet.train_fleet([run(1), run(2)], samples(), without, device=DEVICE)
    assert f"{wild.key} has diverged in epoch" in caplog.text
    assert store.get("runs", wild.key).facts["diverged"] is True
    assert store.get("runs", run(1).key).facts["diverged"] is False
    assert all(equal(final(store, run(k)), final(without, run(k))) for k in (1, 2))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_form_is_a_function_of_the_run_and_the_kind_of_device(device):
    for kind in ("resnet18", "vgg16", "mlp"):
        made = dataclasses.replace(run(), network=Network(kind=kind), width=Fraction(1, 16))
        found = fleet.form(made, device)
        assert found == fleet.form(dataclasses.replace(made, seed=9), device)
        assert (found.size > 1) == found.together
        assert (found.autocast is not None) == (device == "cuda" and kind != "mlp")
