"""One update of all parameters of a fleet against PyTorch's optimiser, one network at a time."""

import pytest
import torch
from torch import nn

from widthwise import seeds
from widthwise.descent import ALIGNED, Descent, at_rest
from widthwise.layers import BatchNorm2d, Linear, initialise


def fleet(members, seed=0):
    network = nn.Sequential(Linear(members, 5, 3), BatchNorm2d(members, 2)).double()
    initialise(network, [seeds.stream(seed, k) for k in range(members)])
    return network


def descent_of(network, optimiser="sgd"):
    return Descent(network, at_rest(network, optimiser), optimiser)


PLAIN = {
    "sgd": lambda own, rate, decay: torch.optim.SGD(own, rate, 0.9, weight_decay=decay),
    "adamw": lambda own, rate, decay: torch.optim.AdamW(own, rate, weight_decay=decay),
}


def losses(network, x):
    """Return a loss of every member that moves each of its parameters."""
    return sum((p.flatten(1) * x[name]).square().sum(1) + p.flatten(1).sum(1) for name, p in network.named_parameters())


@pytest.mark.parametrize("optimiser", PLAIN)
@pytest.mark.parametrize("members", [1, 3])
def test_every_member_moves_as_by_pytorchs_optimiser_at_its_own_rate_and_decay(members, optimiser, seed):
    rates, decays = [0.1, 0.03, 0.2][:members], [0.0, 0.1, 0.01][:members]
    network = fleet(members, seed)
    x = {
        name: torch.rand(p[0].numel(), generator=seeds.stream(seed, name)).double()
        for name, p in network.named_parameters()
    }
    plain = [[nn.Parameter(p[k].clone()) for p in network.parameters()] for k in range(members)]
    descent = descent_of(network, optimiser)
    told = (torch.tensor(rates, dtype=torch.float64), 0.9, torch.tensor(decays, dtype=torch.float64))
    for step in range(4):
        descent.begin()
        losses(network, x).sum().backward()
        descent.gather()
        descent.step(*told, step)
    for k, own in enumerate(plain):
        optimizer = PLAIN[optimiser](own, rates[k], decays[k])
        for _ in range(4):
            optimizer.zero_grad()
            sum((p.flatten() * v).square().sum() + p.sum() for p, v in zip(own, x.values(), strict=True)).backward()
            optimizer.step()
        for ours, theirs in zip(network.parameters(), own, strict=True):
            torch.testing.assert_close(ours[k], theirs, rtol=1e-12, atol=1e-12)


def test_every_parameter_begins_where_a_vector_does_and_none_overlap():
    network = fleet(3)
    descent_of(network)
    rows = [(p.storage_offset(), p[0].numel()) for p in network.parameters()]
    assert all(start * 8 % ALIGNED == 0 for start, _ in rows)
    assert all(a + n <= b for (a, n), (b, _) in zip(sorted(rows), sorted(rows)[1:], strict=False))
    assert len({p.stride(0) for p in network.parameters()}) == 1


@pytest.mark.parametrize("optimiser", PLAIN)
def test_weights_and_momenta_are_carried_over(optimiser):
    network = fleet(2)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    momentum = {name: torch.rand_like(p) for name, p in at_rest(network, optimiser).items()}
    assert len(momentum) == len(before) * (2 if optimiser == "adamw" else 1)
    found = Descent(network, momentum, optimiser).momentum()
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    assert found.keys() == momentum.keys()
    assert all(torch.equal(v, momentum[name]) for name, v in found.items())


@pytest.mark.parametrize("optimiser", PLAIN)
def test_a_member_that_is_not_a_number_moves_no_other(optimiser):
    found = []
    for poisoned in (False, True):
        network = fleet(3)
        if poisoned:
            next(network.parameters()).data[1] = torch.nan
        descent = descent_of(network, optimiser)
        descent.begin()
        losses(network, dict.fromkeys(dict(network.named_parameters()), 1.0)).sum().backward()
        descent.gather()
        descent.step(torch.full((3,), 0.1).double(), 0.9, torch.full((3,), 0.1).double())
        found.append([p[[0, 2]].clone() for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
