"""Fleets of drawn weights, their samples, and the comparison of a fleet with ordinary modules."""

from fractions import Fraction

import torch
from torch.nn import functional as F

from small import DEVICE
from widthwise import dropout, layers, seeds
from widthwise.networks import base


def fleet(kind, shape, scale, member_seeds, dtype=torch.float32, **options):
    """Return a fleet of one member a seed, its weights and dropout streams drawn."""
    network = base.build(kind, shape, 10, Fraction(scale), len(member_seeds), **options)
    layers.initialise(network, [seeds.stream(s, "init") for s in member_seeds])
    dropout.give_streams(network, [seeds.stream(s, "dropout") for s in member_seeds])
    return network.to(DEVICE, dtype)


def samples(shape, member_seeds, dtype=torch.float32, batch=4):
    """Return every member's own inputs (m, batch, ...) and labels (m, batch)."""
    streams = [seeds.stream(s, "samples") for s in member_seeds]
    inputs = torch.stack([torch.randn(batch, *shape, generator=g) for g in streams])
    labels = torch.stack([torch.randint(10, (batch,), generator=g) for g in streams])
    return inputs.to(DEVICE, dtype), labels.to(DEVICE)


def learn(network, inputs, labels):
    """Leave in the fleet the gradient of the sum of its members' losses, as a training takes it."""
    gradients = {name: torch.full_like(p, torch.nan) for name, p in network.named_parameters()}
    own = network.train().learner(gradients, tuple(inputs.shape[1:]))
    if own is None:
        F.cross_entropy(network(inputs).flatten(0, 1), labels.flatten(), reduction="sum").backward()
        return
    own(inputs, labels)
    for name, parameter in network.named_parameters():
        parameter.grad = gradients[name] * inputs.shape[1]  # of the mean


def assert_equals_plain_modules(network, plain, inputs, labels):
    """Hold a float64 fleet to one ordinary module a member: features, logits, gradients and statistics.

    In batches of every member's own, and in one batch that all share.
    """
    _assert_equals(network, plain, inputs, labels)
    network.train().zero_grad()
    _assert_equals(network, plain, inputs[:1].expand_as(inputs), labels[:1].expand_as(labels))


def _assert_equals(network, plain, inputs, labels):
    plain, states = plain.to(DEVICE), network.state_dict()
    before = [layers.unstack(states, k) for k in range(network.members)]
    learn(network, inputs, labels)
    network.eval()
    with torch.no_grad():
        features, logits = network.features(inputs), network(inputs)
    for k, state in enumerate(before):
        plain.load_state_dict(state, strict=True)
        plain.train().zero_grad()
        F.cross_entropy(plain(inputs[k]), labels[k], reduction="sum").backward()
        for (name, own), (_, ours) in zip(plain.named_parameters(), network.named_parameters(), strict=True):
            assert_close(ours.grad[k], own.grad, f"gradient of {name}, member {k}")
        for name, buffer in plain.named_buffers():
            assert_close(network.state_dict()[name][k], buffer, f"{name}, member {k}")
        plain.eval()
        with torch.no_grad():
            assert_close(features[k], plain.features(inputs[k]), f"features, member {k}")
            assert_close(logits[k], plain(inputs[k]), f"logits, member {k}")


def assert_close(ours, own, what):
    """Hold two tensors equal to 1e-12 of the largest number in them, or of 1 where all are smaller."""
    scale = max(float(own.abs().max()), 1.0)
    torch.testing.assert_close(ours, own, rtol=0, atol=1e-12 * scale, msg=lambda text: f"{what}: {text}")
