import dataclasses
from fractions import Fraction

import pytest
import torch

from small import samples
from widthwise import seeds
from widthwise.config import Training
from widthwise.errors import DataError
from widthwise.images import normalise
from widthwise.layers import initialise, unstack
from widthwise.networks.base import build
from widthwise.networks.resnet18 import ResNet18
from widthwise.training import SNAPSHOTS, Events, Interrupted, begin, rate_at, steps_of, train


def fleet(member_seeds, kind="mlp", **options):
    network = build(kind, (1, 4, 4), 4, Fraction(1), len(member_seeds), **(options or {"hidden": 16}))
    initialise(network, [seeds.stream(s, "init") for s in member_seeds])
    return network


def trained(member_seeds, training, seed=0, events=None):
    network = fleet(member_seeds)
    start = begin(network, training.optimiser if isinstance(training, Training) else training[0].optimiser)
    return train(network, member_seeds, samples(seed), training, start, events or Events())


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


def test_one_cycle_rises_to_the_rate_and_falls_to_almost_nothing():
    training = Training(epochs=1, rate=0.4, schedule="one_cycle")
    rates = [rate_at(training, step, 100) for step in range(100)]
    assert max(rates) == rates[29] == pytest.approx(0.4)
    assert rates[:30] == sorted(rates[:30])
    assert rates[29:] == sorted(rates[29:], reverse=True)
    assert rates[-1] < 0.001


def test_steps_divide_the_rate_by_ten_at_a_half_and_at_three_quarters():
    training = Training(epochs=1, rate=0.1, schedule="steps")
    rates = [rate_at(training, step, 300) for step in (0, 149, 150, 224, 225, 299)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_cosine_falls_from_the_rate_to_zero_as_pytorchs_schedule_does():
    training = Training(epochs=1, rate=0.4, schedule="cosine")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    for step in range(50):
        assert rate_at(training, step, 50) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_a_fleet_of_one_trains_as_an_ordinary_module_under_pytorchs_sgd(seed):
    training = Training(epochs=2, rate=0.05, batch_size=32, schedule="steps")
    data = samples(seed)
    network = fleet([seed])
    start = begin(network)
    plain = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU(),
        torch.nn.Linear(16, 4),
    )  # fmt: skip
    for own, value in zip(plain.parameters(), unstack(start.weights, 0).values(), strict=True):
        own.data.copy_(value)
    end = train(network, [seed], data, training, start)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=training.weight_decay)
    per_epoch, steps = steps_of(training, 160)
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(160, generator=seeds.stream(seed, "order", step // per_epoch))
        rows = order[step % per_epoch * 32 :][:32]
        optimizer.param_groups[0]["lr"] = rate_at(training, step, steps)
        loss = torch.nn.functional.cross_entropy(
            plain(normalise(data.training_rows[rows], data.mean, data.std)), data.training_labels[rows]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for own, value in zip(plain.parameters(), unstack(end.weights, 0).values(), strict=True):
        torch.testing.assert_close(own.data, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_members_bits_do_not_depend_on_companions_place_or_fleet_size(seed, optimiser):
    training = Training(epochs=2, rate=0.1, batch_size=32, optimiser=optimiser)
    pair = trained([seed, seed + 1], training)
    five = trained([seed + 3, seed + 2, seed + 4, seed + 1, seed], training)
    assert same(unstack(pair.weights, 0), unstack(five.weights, 4))
    assert same(unstack(pair.weights, 1), unstack(five.weights, 3))
    assert [h["train_loss"] for h in pair.histories[0]] == [h["train_loss"] for h in five.histories[4]]


@pytest.mark.parametrize(("stop", "optimiser"), [(1, "sgd"), (4, "sgd"), (5, "sgd"), (9, "sgd"), (4, "adamw")])
def test_a_training_resumed_at_any_step_goes_on_as_if_it_had_never_stopped(seed, stop, optimiser):
    rate = {"sgd": 0.1, "adamw": 0.01}[optimiser]
    training = Training(epochs=3, rate=rate, batch_size=32, augment=True, optimiser=optimiser)
    whole = trained([seed, seed + 1], training)
    kept = []
    steps = iter(range(1, 100))
    events = Events(save=lambda s: kept.append(dataclasses.replace(s)), stopping=lambda: next(steps) == stop)
    with pytest.raises(Interrupted):
        trained([seed, seed + 1], training, events=events)
    assert kept[0].step == stop
    network = fleet([seed, seed + 1])
    resumed = train(network, [seed, seed + 1], samples(0), training, kept[0])
    assert same(whole.weights, resumed.weights)
    for a, b in zip(whole.histories, resumed.histories, strict=True):
        assert [{**x, "seconds": 0} for x in a] == [{**x, "seconds": 0} for x in b]


def test_a_checkpoint_is_saved_every_so_often(seed):
    saved = []
    events = Events(save=lambda s: saved.append(s.step), save_every=0.0)
    trained([seed], Training(epochs=1, batch_size=32), events=events)
    assert saved == [1, 2, 3, 4, 5]


def test_snapshots_are_of_the_first_epoch_at_each_training_accuracy(seed):
    taken = []
    events = Events(snapshot=lambda k, name, weights: taken.append((k, name)))
    end = trained([seed, seed + 1], Training(epochs=12, rate=0.1, batch_size=32), events=events)
    for k, history in enumerate(end.histories):
        best = max(epoch["train_accuracy"] for epoch in history)
        expected = {f"at_{share}" for share in SNAPSHOTS if share <= best}
        names = [name for member, name in taken if member == k]
        assert len(names) == len(set(names))
        assert set(names) == expected
        assert "at_0.5" in expected


def test_history_has_loss_accuracies_rate_and_seconds_of_every_epoch(seed):
    end = trained([seed], Training(epochs=4, rate=0.1, batch_size=32))
    (history,) = end.histories
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3, 4]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert history[-1]["test_accuracy"] > 0.4
    assert all(set(e) == {"epoch", "rate", "train_loss", "train_accuracy", "test_accuracy", "seconds"} for e in history)


def test_no_epochs_leave_the_initial_weights(seed):
    network = fleet([seed])
    before = begin(network).weights
    assert same(trained([seed], Training(epochs=0)).weights, before)


def test_members_may_have_rates_and_decays_of_their_own(seed):
    """Each then trains as in a fleet whose members all have its rate and decay."""
    base = Training(epochs=2, rate=0.1, batch_size=32)
    grid = [base.model_copy(update={"rate": r, "weight_decay": d}) for r, d in ((0.1, 0.0), (0.03, 0.01))]
    together = trained([seed, seed + 1], grid)
    for k, training in enumerate(grid):
        alike = trained([seed, seed + 1], training)
        assert same(unstack(together.weights, k), unstack(alike.weights, k))
        assert together.histories[k][-1]["rate"] == alike.histories[k][-1]["rate"]


@pytest.mark.parametrize("poisoned", [[1], [0, 2], [0, 1, 2]], ids=str)
def test_members_that_diverge_leave_and_the_others_end_bit_for_bit_as_without_them(seed, poisoned):
    training, members = Training(epochs=3, rate=0.1, batch_size=32), [seed, seed + 1, seed + 2]
    clean = trained(members, training)
    network = fleet(members)
    start = begin(network)
    for k in poisoned:
        start.weights["head.bias"][k] = torch.nan
    seen = []
    events = Events(progress=lambda step, steps: seen.append(network.members))
    end = train(network, members, samples(0), training, start, events)
    for k in range(3):
        if k in poisoned:
            assert [epoch.get("diverged") for epoch in end.histories[k]] == [True]
            assert end.weights["head.bias"][k].isnan().all()
        else:
            assert same(unstack(end.weights, k), unstack(clean.weights, k))
            assert [e["train_loss"] for e in end.histories[k]] == [e["train_loss"] for e in clean.histories[k]]
    assert seen[-1] == max(2, 3 - len(poisoned)) or len(seen) == 5


def test_a_rate_that_is_too_high_diverges_and_says_so(seed):
    base = Training(epochs=4, rate=0.1, batch_size=32)
    end = trained([seed, seed + 1], [base.model_copy(update={"rate": 1e30}), base])
    assert end.histories[0][-1]["diverged"] is True
    assert len(end.histories[1]) == 4


def test_a_resumed_training_goes_on_without_those_that_had_diverged(seed):
    training, members = Training(epochs=3, rate=0.1, batch_size=32), [seed, seed + 1, seed + 2]
    kept, steps = [], iter(range(1, 100))
    events = Events(save=lambda s: kept.append(dataclasses.replace(s)), stopping=lambda: next(steps) == 7)
    network = fleet(members)
    start = begin(network)
    start.weights["head.bias"][0] = torch.nan
    with pytest.raises(Interrupted):
        train(network, members, samples(0), training, start, events)
    resumed = train(fleet(members), members, samples(0), training, kept[0])
    clean = trained(members, training)
    assert len(resumed.histories[0]) == 1
    assert all(same(unstack(resumed.weights, k), unstack(clean.weights, k)) for k in (1, 2))


def test_shared_batches_are_one_order_and_augmentation_for_all(seed):
    """Members of one start and different seeds then stay equal, and do not otherwise."""
    for shared in (True, False):
        training = Training(epochs=2, rate=0.1, batch_size=32, augment=True, shared_batches=shared)
        network = fleet([seed, seed])
        end = train(network, [seed, seed + 1], samples(0), training, begin(network))
        assert same(unstack(end.weights, 0), unstack(end.weights, 1)) is shared


def test_bits_with_shared_batches_do_not_depend_on_companions(seed):
    training = Training(epochs=2, rate=0.1, batch_size=32, augment=True, shared_batches=True)
    pair, five = trained([seed, seed + 1], training), trained([seed + 4, seed + 2, seed, seed + 3, seed + 1], training)
    assert same(unstack(pair.weights, 0), unstack(five.weights, 2))


# A lone thin network, whose steps are one call ------------------------------------------------------------


def thin(seed, training, events=None, state=None):
    """Train a ResNet-18 of 4 channels on the small samples and return its last state."""
    network = build("resnet18", (1, 4, 4), 4, Fraction(1, 16), 1)
    initialise(network, [seeds.stream(seed, "init")])
    return train(network, [seed], samples(0), training, state or begin(network, training.optimiser), events or Events())


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_thin_network_that_learns_in_one_call_ends_where_autograd_does(optimiser, augment, seed, monkeypatch):
    training = Training(epochs=1, rate=1e-3, batch_size=32, augment=augment, optimiser=optimiser)
    ours = thin(seed, training)
    monkeypatch.setattr(ResNet18, "learner", lambda *_: None)
    theirs = thin(seed, training)
    for name, weight in theirs.weights.items():
        torch.testing.assert_close(ours.weights[name], weight, rtol=0, atol=2e-2 * max(1.0, float(weight.abs().max())))
    assert ours.histories[0][0]["train_loss"] == pytest.approx(theirs.histories[0][0]["train_loss"], rel=1e-2)
    assert ours.histories[0][0]["train_accuracy"] == pytest.approx(theirs.histories[0][0]["train_accuracy"], abs=0.05)


@pytest.mark.parametrize("stop", [1, 5, 7])
def test_a_thin_network_resumed_at_any_step_goes_on_as_if_it_had_never_stopped(stop, seed):
    training, kept, steps = Training(epochs=2, rate=0.05, batch_size=32, augment=True), [], iter(range(1, 100))
    events = Events(save=lambda s: kept.append(dataclasses.replace(s)), stopping=lambda: next(steps) == stop)
    with pytest.raises(Interrupted):
        thin(seed, training, events)
    assert same(thin(seed, training).weights, thin(seed, training, state=kept[0]).weights)


def test_labels_beyond_a_networks_classes_are_refused_by_name(seed):
    network = build("mlp", (1, 4, 4), 3, Fraction(1), 1, hidden=8, depth=1)
    with pytest.raises(DataError, match="CLASSES of the data set: 3 are too few, a training row has label 3"):
        train(network, [seed], samples(0), Training(epochs=1), begin(network))
