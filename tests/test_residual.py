"""A stem and residual blocks, layer by layer; and which networks of them learn in one call."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from widthwise import lanes, seeds
from widthwise.layers import BatchNorm2d, Conv2d, Linear
from widthwise.residual import residual_learner, residual_network

SHAPE = (16, 3, 8, 8)


def made(seed, members=1, eps=1e-5):
    """Return a stem, a block and a head in float64."""
    draw = seeds.stream(seed, "layers")
    layers = [(Conv2d(members, n, 4, 3, padding=1, bias=False), BatchNorm2d(members, 4)) for n in (3, 4, 4)]
    layers[2][1].eps = eps
    head = Linear(members, 4, 10)
    for layer in (*(each for pair in layers for each in pair), head):
        layer.initialise([draw] * members)
        layer.double()
    return layers[0], [layers[1:]], head


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_it_is_the_layers_one_after_the_other(eps, seed):
    stem, blocks, _ = made(seed, eps=eps)
    x = torch.randn(SHAPE, generator=seeds.stream(seed, "x"), dtype=torch.float64)

    def behind(layer, x, added=0):
        y = F.conv2d(x, layer[0].weight[0], padding=1)
        mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
        return F.relu((y - mean) / (var + layer[1].eps).sqrt() + added)

    first = behind(stem, x)
    expected = behind(blocks[0][1], behind(blocks[0][0], first), first)
    torch.testing.assert_close(residual_network(stem, blocks, x), expected.mean((2, 3)), rtol=0, atol=1e-11)
    assert [int(norm.num_batches_tracked) for _, norm in (stem, *blocks[0])] == [1, 1, 1]


@pytest.mark.skipif(lanes.compiled() is None, reason="no C++ compiler (CXX, c++)")
@pytest.mark.parametrize(
    ("members", "eps", "shape", "learns"),
    [
        (1, 1e-5, SHAPE, True),
        (1, 1e-3, SHAPE, False),  # norms that differ
        (2, 1e-5, SHAPE, False),
        (1, 1e-5, (8, 3, 8, 8), False),  # too few images
        (1, 1e-5, (16, 64), False),
    ],
)
def test_a_lone_thin_network_of_equal_norms_learns_in_one_call(members, eps, shape, learns, seed):
    stem, blocks, head = made(seed, members, eps)
    parameters = nn.ModuleList([*(nn.ModuleList(pair) for pair in (stem, *blocks[0])), head]).parameters()
    gradients = {p: torch.empty_like(p) for p in parameters}
    assert (residual_learner(stem, blocks, head, gradients, shape) is not None) == learns
