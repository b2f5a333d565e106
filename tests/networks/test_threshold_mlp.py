"""The toy's network, against the same written in the layers of torch."""

import math
from fractions import Fraction

import pytest
import torch
from fleets import samples
from torch import nn

from widthwise import seeds
from widthwise.errors import UsageError
from widthwise.layers import unstack
from widthwise.networks import base


class Plain(nn.Module):
    """One network as the paper writes it."""

    def __init__(self, neurons, threshold):
        super().__init__()
        self.first, self.threshold = nn.Linear(16, neurons, bias=False), threshold
        self.layers = nn.Sequential(*[m for n in (neurons, 64, 64) for m in (nn.Linear(n, 64), nn.ReLU())])
        self.head = nn.Linear(64, 1)

    def forward(self, x):
        return self.head(self.layers((self.first(x) - self.threshold).relu().sum(1)))[:, 0]


def test_it_is_the_papers_network(seed):
    network = base.build("threshold_mlp", (6, 16), 2, Fraction(200), 2, threshold=0.4).double()
    for k, layer in enumerate(network.parameters()):
        layer.data.normal_(generator=seeds.stream(seed, "weights", k)).mul_(0.2)
    inputs = samples((6, 16), [seed, seed + 1], torch.float64)[0].cpu()
    for k in range(2):
        state, plain = unstack(network.state_dict(), k), Plain(200, 0.4).double()
        names = ("first.weight", *(f"layers.{n}.{p}" for n in (0, 2, 4) for p in ("weight", "bias")))
        plain.load_state_dict(dict(zip((*names, "head.weight", "head.bias"), state.values(), strict=True)))
        logits = network(inputs)[k]
        assert torch.equal(logits[:, 0], torch.zeros(4))
        torch.testing.assert_close(logits[:, 1], plain(inputs[k]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("neurons", "networks"), [(100, 200), (250, 100), (10_000, 4), (30_000, 2)])
@pytest.mark.parametrize("ratio", [2.7, 3.2])
def test_as_many_neurons_are_activated_at_the_start_as_theory_says(neurons, networks, ratio, seed):
    shared = list(range(seed, seed + networks))
    network = base.build("threshold_mlp", (6, 16), 2, Fraction(neurons), networks, ratio=ratio, hidden=1)
    network.neurons.initialise([seeds.stream(s, "init") for s in shared])
    share = math.erfc(ratio / math.sqrt(2))
    expected = neurons * networks * share
    counts = (network.neurons.weight[..., :5].abs() > network.neurons.threshold).sum((0, 1))
    assert ((counts - expected).abs() < 4.5 * math.sqrt(expected * (1 - share))).all()


@pytest.mark.parametrize(
    ("shape", "options", "told"),
    [
        ((3, 32, 32), {}, "takes samples of shape .patches, dimension., such as signals"),
        ((6, 16), {"threshold": 0.0}, "threshold is above 0, not 0.0"),
        ((6, 16), {"ratio": -1.0}, "ratio is above 0, not -1.0"),
    ],
)
def test_what_is_no_such_network_is_refused(shape, options, told):
    with pytest.raises(UsageError, match=told):
        base.build("threshold_mlp", shape, 2, Fraction(10), **options)
