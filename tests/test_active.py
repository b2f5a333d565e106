"""Descent that touches active neurons only, against the same descent of everything by automatic differentiation."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from widthwise import seeds
from widthwise.active import Active
from widthwise.data import signals
from widthwise.data.base import Endless
from widthwise.layers import initialise, unstack
from widthwise.networks import base
from widthwise.samples import Samples
from widthwise.study import Training
from widthwise.training import Events, Interrupted, begin

TRAINING = Training(
    optimiser="normalised_sgd",
    schedule="constant",
    rate=0.006,
    weight_decay=0.003,
    batch_size=32,
    fresh=25,
    epochs=2,
)


def samples(rows=96, **options):
    whole = signals.read(**options)
    n = torch.arange(rows)
    return Samples(
        checksum="none",
        train=whole.train[:rows],
        labels=whole.train_labels[:rows],
        ids=n,
        trained=torch.ones(rows, dtype=torch.bool),
        test=whole.test[:300],
        test_labels=whole.test_labels[:300],
        test_ids=n,
        classes=2,
        shape=tuple(whole.train.shape[1:]),
        mean=(0.0,),
        std=(1.0,),
        augment=False,
        endless=Endless(signals, options),
    )


def fleet(neurons, member_seeds, dtype=torch.float32, shape=(6, 16), **options):
    network = base.build("threshold_mlp", shape, 2, Fraction(neurons), len(member_seeds), **options)
    initialise(network, [seeds.stream(s, "init") for s in member_seeds])
    return network.to(dtype)


def trained(network, member_seeds, of, training=TRAINING, state=None, **events):
    state = state or begin(network, training.optimiser)
    return Active(network, member_seeds, of, [training] * len(member_seeds), state, Events(**events), None).run()


def dense(network, member_seeds, of, training):
    """Train by the definition: every parameter, patches as they are, gradients by automatic differentiation."""
    parameters = list(network.parameters())
    per_epoch = training.fresh or len(of.training_rows) // training.batch_size
    for step in range(training.epochs * per_epoch):
        rows, labels = zip(*[one_batch(of, s, training, *divmod(step, per_epoch)) for s in member_seeds], strict=True)
        logits = network(torch.stack(rows).to(parameters[0].dtype))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.stack(labels).flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss / logits.shape[1], parameters)
        with torch.no_grad():
            descend(parameters, gradients, training)
    return network.state_dict()


def one_batch(of, seed, training, epoch, step):
    size = training.batch_size
    if training.fresh:
        signs, noise = (
            part[step] for part in of.endless.draw(seeds.stream(seed, "fresh", epoch), training.fresh, size)
        )
        q = signs.shape[1]
        rows = torch.zeros(size, q + noise.shape[1], q + noise.shape[2])
        rows[:, :q, :q], rows[:, q:, q:] = torch.diag_embed(signs), noise
        return rows, (of.endless.label(signs) > 0).long()
    order = torch.randperm(len(of.training_rows), generator=seeds.stream(seed, "order", epoch))
    chosen = order[step * size : (step + 1) * size]
    return of.training_rows[chosen], of.training_labels[chosen]


def descend(parameters, gradients, training):
    rate, decay = training.rate, training.weight_decay
    if training.decay == "inside":
        gradients = [g + decay * p for g, p in zip(gradients, parameters, strict=True)]
    norm = sum(g.flatten(1).square().sum(1) for g in gradients).sqrt().clamp_min(1e-30)
    for p, g in zip(parameters, gradients, strict=True):
        if training.decay == "outside":
            p.mul_(1 - rate * decay)
        p.sub_(rate * g / norm.view(-1, *[1] * (p.ndim - 1)))


@pytest.mark.parametrize("decay", ["outside", "inside"])
@pytest.mark.parametrize(("neurons", "members"), [(1500, 1), (100, 5)])
def test_it_is_the_descent_of_all_parameters(neurons, members, decay, seed):
    of, own = samples(), list(range(seed, seed + members))
    training = TRAINING.model_copy(update={"decay": decay, "fresh": 100, "epochs": 3})
    ours = trained(fleet(neurons, own, torch.float64), own, of, training).weights
    theirs = dense(fleet(neurons, own, torch.float64), own, of, training)
    assert {name: float((ours[name] - theirs[name]).abs().max()) for name in theirs} == pytest.approx(
        dict.fromkeys(theirs, 0.0), abs=1e-12
    )


@pytest.mark.parametrize(
    "options",
    [
        {"patches": 5},
        {"patches": 9, "dimension": 12, "noise": 0.5},
        {"added": 1, "products": (2, 2), "balanced": False},
        {"added": 0, "products": (4,)},
    ],
    ids=str,
)
def test_it_is_that_descent_on_signals_of_every_kind(options, seed):
    of = samples(**options)
    training = TRAINING.model_copy(update={"fresh": 15})
    ours, theirs = (
        find(fleet(150, [seed, seed + 1], torch.float64, of.shape, threshold=0.4), [seed, seed + 1], of, training)
        for find in (lambda *given: trained(*given).weights, dense)
    )
    assert all(float((ours[name] - theirs[name]).abs().max()) < 1e-12 for name in theirs)


def test_a_fixed_training_set_is_gone_through_in_each_members_order(seed):
    of = samples()
    training = TRAINING.model_copy(update={"fresh": None, "epochs": 8})
    ours = trained(fleet(150, [seed, seed + 1], torch.float64), [seed, seed + 1], of, training).weights
    theirs = dense(fleet(150, [seed, seed + 1], torch.float64), [seed, seed + 1], of, training)
    assert all(float((ours[name] - theirs[name]).abs().max()) < 1e-12 for name in theirs)


def test_no_bit_of_a_member_depends_on_its_companions(seed):
    of, found = samples(), []
    for others, place in ((1, 0), (2, 2), (5, 3), (12, 0)):
        own = list(range(seed + 1, seed + 1 + others))
        own.insert(place, seed)
        state = trained(fleet(100, own), own, of)
        history = [{k: v for k, v in e.items() if k != "seconds"} for e in state.histories[place]]
        found.append((unstack(state.weights, place), history))
    for weights, history in found[1:]:
        assert not [name for name, t in found[0][0].items() if not torch.equal(t, weights[name])]
        assert history == found[0][1]


@pytest.mark.parametrize(("neurons", "members"), [(800, 1), (100, 3)])
def test_stopped_anywhere_and_going_on_gives_the_same_bits(neurons, members, seed):
    of, own, asked = samples(), list(range(seed, seed + members)), []
    whole = trained(fleet(neurons, own), own, of)

    def stopping():
        asked.append(True)
        return len(asked) == 33

    saved = []
    network = fleet(neurons, own)
    with pytest.raises(Interrupted):
        trained(network, own, of, save=saved.append, stopping=stopping)
    state = replace(saved[0])
    assert state.step == 33
    again = trained(fleet(neurons, own), own, of, state=state)
    assert all(torch.equal(t, again.weights[name]) for name, t in whole.weights.items())
    assert [[e["train_loss"] for e in h] for h in whole.histories] == [
        [e["train_loss"] for e in h] for h in again.histories
    ]


def test_a_network_that_has_stopped_stays_what_it_was_whoever_goes_on(seed):
    of, own = samples(), [seed, seed + 1, seed + 2]
    training = TRAINING.model_copy(update={"epochs": 6})
    at = sorted(h[1]["train_loss"] for h in trained(fleet(100, own), own, of, training).histories)
    stops = training.model_copy(update={"stop_below": (at[0] + at[1]) / 2})
    together = trained(fleet(100, own), own, of, stops)
    lengths = [len(h) for h in together.histories]
    assert len(set(lengths)) > 1, "all stopped at once"
    for k in own:
        alone = trained(fleet(100, [k, k]), [k, k], of, stops)
        place = own.index(k)
        ours, theirs = unstack(together.weights, place), unstack(alone.weights, 0)
        assert all(torch.equal(t, theirs[name]) for name, t in ours.items())
        told = [
            [{n: v for n, v in e.items() if n != "seconds"} for e in s.histories[j]]
            for s, j in ((together, place), (alone, 0))
        ]
        assert told[0] == told[1]


def test_a_network_stops_where_its_loss_is_small_or_flat(seed):
    of, own = samples(), [seed, seed + 1, seed + 2]
    small = trained(fleet(100, own), own, of, TRAINING.model_copy(update={"epochs": 9, "stop_below": 9.0}))
    assert [[e.get("stopped") for e in h] for h in small.histories] == [["small"]] * 3
    still = TRAINING.model_copy(update={"epochs": 9, "stop_flat": 2, "rate": 1e-9})
    flat = trained(fleet(100, own), own, of, still)
    assert all(h[-1]["stopped"] == "flat" for h in flat.histories)


def test_a_gradient_too_small_to_be_squared_moves_nothing(seed):
    of, network = samples(), fleet(100, [seed, seed + 1])
    network.head.bias.data.fill_(200.0)  # sure of one class; those samples are right, to the last bit
    training = TRAINING.model_copy(update={"fresh": None, "epochs": 2, "weight_decay": 0.0, "batch_size": 16})
    of.endless.label = lambda signs: torch.ones(signs.shape[:-1])
    before = {name: t.clone() for name, t in network.state_dict().items()}
    after = trained(network, [seed, seed + 1], of, training).weights
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_activates_neurons_is_counted(seed):
    of, network = samples(), fleet(400, [seed])
    weight = network.neurons.weight.detach().clone()[0]
    state = trained(network, [seed], of, TRAINING.model_copy(update={"epochs": 1, "rate": 1e-12, "weight_decay": 0.0}))
    (told,) = state.histories[0]
    noise = of.endless.parts(of.test)[1]
    for k in range(5):
        reached = weight[:, k].abs() > network.neurons.threshold
        assert told[f"activated_v{k + 1}"] == int(reached.sum())
        best = (weight[reached, k].abs() / weight[reached].norm(dim=1)).amax() if reached.any() else 0
        assert told[f"cosine_v{k + 1}"] == pytest.approx(float(best), abs=1e-6)
    each = (noise.flatten(0, 1) @ weight[:, 5:].T > network.neurons.threshold).sum(1).double().mean()
    assert told["activated_noise"] == pytest.approx(float(each), abs=0.05)
