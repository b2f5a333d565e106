"""Members of fleets against ordinary modules over whole trainings: the same path, and the same distribution."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch
from fleets import fleet, samples
from reference import PlainPerceptron, PlainResNet18, PlainVGG16
from torch.nn import functional as F

from small import DEVICE
from widthwise import layers, seeds
from widthwise.data import digits
from widthwise.descent import Descent, at_rest
from widthwise.images import normalise
from widthwise.networks import base

CASES = {
    "mlp": ((1, 8, 8), "1/4", {"hidden": 52, "depth": 4}, lambda: PlainPerceptron(64, [13] * 4, 10)),
    "resnet18": ((3, 16, 16), "1/16", {}, lambda: PlainResNet18(3, 4, 10)),
    "vgg16": ((3, 32, 32), "1/16", {"dropout": 0.0}, lambda: PlainVGG16(3, 4, 10, False)),
}


@pytest.mark.parametrize(("steps", "rate"), [(5, 0.1), (20, 0.001)])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("kind", CASES)
def test_a_member_follows_the_path_of_the_plain_module(kind, members, steps, rate, seed):
    """Rounding grows from step to step: five at the recipe's rate, twenty at a hundredth of it."""
    shape, scale, options, make = CASES[kind]
    member_seeds = range(seed, seed + members)
    network = fleet(kind, shape, scale, member_seeds, torch.float64, **options).train()
    plain = [make().to(DEVICE, torch.float64) for _ in member_seeds]
    for k, module in enumerate(plain):
        module.load_state_dict(layers.unstack(network.state_dict(), k))
    inputs, labels = samples(shape, member_seeds, torch.float64, batch=16 * steps)
    batches = list(zip(inputs.split(16, 1), labels.split(16, 1), strict=True))
    descend(network, batches, rate)
    for k, module in enumerate(plain):
        optimizer = torch.optim.SGD(module.train().parameters(), rate, 0.9, weight_decay=5e-4)
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(module(x[k]), y[k]).backward()
            optimizer.step()
        for name, ours in layers.unstack(network.state_dict(), k).items():
            theirs = module.state_dict()[name].double()
            scale = max(float(theirs.abs().max()), 1e-3)
            torch.testing.assert_close(
                ours.double(), theirs, rtol=0, atol=1e-9 * scale, msg=lambda m, n=name: f"{n} {m}"
            )


def descend(network, batches, rate, decay=5e-4):
    """Train a fleet on batches (m, batch, ...)."""
    some = next(network.parameters())
    rates, decays = (some.new_full((network.members,), value) for value in (rate, decay))
    descent = Descent(network, at_rest(network))
    learn = network.learner(descent.parts, tuple(batches[0][0].shape[1:]))
    for x, y in batches:
        if learn:
            learn(x, y)
        else:
            descent.begin()
            F.cross_entropy(network(x).flatten(0, 1), y.flatten(), reduction="sum").div(y.shape[1]).backward()
            descent.gather()
        descent.step(rates, 0.9, decays)


# Distribution -------------------------------------------------------------------------------------------

N, UNITS, EPOCHS, BATCH, RATE = 30, 8, 6, 32, 0.05
SERIAL, FLEET = range(N), range(N, 2 * N)


@pytest.fixture(scope="module")
def populations():
    """Return accuracies (60,) and features (60, rows, units) on test rows: 30 plain networks, then 30 of a fleet."""
    data = digits.read(None)
    train, test = (normalise(x, digits.MEAN, digits.STD) for x in (data.train, data.test))
    network = base.build("mlp", (1, 8, 8), 10, Fraction(1), 2 * N, hidden=UNITS, depth=2)
    layers.initialise(network, [seeds.stream(s, "init") for s in range(2 * N)])
    batches = [[train[rows] for rows in orders(s, len(train))] for s in range(2 * N)]
    labels = [[data.train_labels[rows] for rows in orders(s, len(train))] for s in range(2 * N)]
    together = copy.deepcopy(network)
    layers.keep(together, list(FLEET))
    steps = [(torch.stack([batches[s][k] for s in FLEET]), torch.stack([labels[s][k] for s in FLEET]))
             for k in range(len(batches[0]))]  # fmt: skip
    descend(together, steps, RATE)
    logits, features = [], []
    for s in SERIAL:
        module = PlainPerceptron(64, [UNITS] * 2, 10)
        module.load_state_dict(layers.unstack(network.state_dict(), s))
        optimizer = torch.optim.SGD(module.parameters(), RATE, 0.9, weight_decay=5e-4)
        for x, y in zip(batches[s], labels[s], strict=True):
            optimizer.zero_grad()
            F.cross_entropy(module(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            logits.append(module(test))
            features.append(module.features(test))
    with torch.no_grad():
        own = test.expand(N, *test.shape)
        logits, features = torch.stack(logits), torch.stack(features)
        logits, features = torch.cat([logits, together(own)]), torch.cat([features, together.features(own)])
    accuracies = (logits.argmax(2) == data.test_labels).double().mean(1)
    return accuracies.numpy(), features.double().numpy()


def orders(seed, rows):
    """Return the row numbers of every batch of a training."""
    found = [torch.randperm(rows, generator=seeds.stream(seed, "order", epoch)) for epoch in range(EPOCHS)]
    return [order[k : k + BATCH] for order in found for k in range(0, rows - BATCH + 1, BATCH)]


def test_accuracies_of_a_fleet_are_those_of_serial_networks_to_one_seeds_deviation(populations):
    """Two one-sided tests at 5 %: the means differ by less than one standard deviation over seeds."""
    accuracies, _ = populations
    one, other = accuracies[:N], accuracies[N:]
    deviation = np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2)
    error = deviation * np.sqrt(2 / N)
    assert abs(one.mean() - other.mean()) + 1.672 * error < deviation  # t of 58 degrees of freedom
    assert accuracies.mean() > 0.8


def test_features_of_a_fleet_span_those_of_serial_networks_as_those_do_each_other(populations):
    """A permutation test on which network is whose, of span errors across less the mean of those within."""
    _, features = populations
    errors = np.array([[span(a, b) if a is not b else np.nan for b in features] for a in features])
    generator = np.random.default_rng(0)
    observed = excess(errors, np.arange(2 * N) < N)
    permuted = [excess(errors, generator.permutation(2 * N) < N) for _ in range(999)]
    assert (1 + sum(abs(p) >= abs(observed) for p in permuted)) / 1000 > 0.01


def excess(errors, serial):
    across = (errors[serial][:, ~serial].mean() + errors[~serial][:, serial].mean()) / 2
    return across - (np.nanmean(errors[serial][:, serial]) + np.nanmean(errors[~serial][:, ~serial])) / 2


def span(source, target):
    """Return the share of the target's variance, on the second half of the rows, that the source leaves there."""
    half = len(source) // 2
    design = np.column_stack([np.ones(len(source)), source])
    moments = design[:half].T @ design[:half] + 1e-3 * np.eye(design.shape[1])
    weights = np.linalg.solve(moments, design[:half].T @ target[:half])
    rest, own = target[half:] - design[half:] @ weights, target[half:] - target[half:].mean(0)
    return (rest**2).sum() / (own**2).sum()
