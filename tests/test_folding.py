"""Folded convolutions and batch norms against PyTorch's own."""

import pytest
import torch
from torch.nn import functional as F

from widthwise import folding, seeds

# inputs, outputs, height, width, kernel, stride: folded, and left as they are
CONVOLUTIONS = [
    (3, 4, 8, 8, 3, 1),
    (4, 4, 8, 8, 3, 1),
    (2, 2, 6, 12, 3, 1),
    (1, 1, 8, 8, 3, 1),
    (1, 3, 8, 16, 3, 2),
    (4, 8, 8, 8, 3, 2),
    (5, 7, 6, 6, 3, 2),
    (4, 4, 7, 7, 3, 1),
    (4, 4, 7, 7, 3, 2),
    (16, 16, 4, 4, 3, 1),
    (4, 8, 8, 8, 1, 2),
]


def drawn(seed, *shape):
    return torch.randn(shape, generator=seeds.stream(seed, *shape), dtype=torch.float64)


def images(seed, *shape):
    return drawn(seed, *shape).contiguous(memory_format=torch.channels_last)


def with_gradients(function, *tensors):
    """Return a function's value and the gradient of an uneven sum of it with respect to each tensor."""
    own = [t.clone().requires_grad_() for t in tensors]
    y = function(*own)
    y.sin().sum().backward()
    return [y.detach(), *(t.grad for t in own)]


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * float(b.abs().max()))


@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_a_convolution_and_its_gradients_are_pytorchs(shape, seed):
    inputs, outputs, h, w, kernel, stride = shape
    tensors = (images(seed, 3, inputs, h, w), drawn(seed, outputs, inputs, kernel, kernel), drawn(seed, outputs))
    padding = kernel // 2
    ours = with_gradients(lambda x, v, b: folding.convolve(x, v, b, stride, padding), *tensors)
    theirs = with_gradients(lambda x, v, b: F.conv2d(x, v, b, stride, padding), *tensors)
    assert_equal(ours, theirs)
    assert inputs == 1 or ours[0].is_contiguous(memory_format=torch.channels_last)  # one channel lies both ways
    bare = folding.convolve(tensors[0], tensors[1], None, stride, padding)
    assert_equal([bare], [F.conv2d(tensors[0], tensors[1], None, stride, padding)])


@pytest.mark.parametrize(
    "shape", [(4, 4, 8, 8), (4, 3, 5, 6), (2, 16, 8, 8), (3, 1, 4, 4), (4, 64, 2, 2), (8, 8, 1, 1)]
)
def test_a_batch_norm_its_gradients_and_its_statistics_are_pytorchs(shape, seed):
    channels, found = shape[1], []
    x, weight, bias = images(seed, *shape) * 3 + 1, drawn(seed, channels), drawn(seed, channels, 1)[:, 0]
    for norm in (folding.batch_norm, F.batch_norm):
        mean, var = drawn(seed, channels, 2)[:, 0].clone(), drawn(seed, channels, 3)[:, 0].square()

        def step(x, weight, bias, norm=norm, mean=mean, var=var):
            return norm(x, mean, var, weight, bias, True, 0.1, 1e-5)

        trained = with_gradients(step, x, weight, bias)
        found.append([*trained, mean, var, norm(x, mean, var, weight, bias, False, 0.1, 1e-5)])
    assert_equal(*found)


def test_a_batch_norm_of_far_away_numbers_keeps_its_variance(seed):
    x = images(seed, 8, 4, 8, 8) + 1e4
    unit = torch.ones(4, dtype=torch.float64)
    y = folding.batch_norm(x, unit * 0, unit.clone(), unit, unit * 0, True, 0.1, 1e-5)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), unit, rtol=1e-4, atol=0)
    torch.testing.assert_close(y.mean((0, 2, 3)), unit * 0, rtol=0, atol=1e-6)


def test_thin_layers_are_folded_and_wide_ones_are_not():
    """Or the tests above would hold PyTorch to itself."""
    calls = []
    x = torch.zeros(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    wide = torch.zeros(2, 64, 8, 8).contiguous(memory_format=torch.channels_last)
    original, F.conv2d = F.conv2d, lambda x, *rest, **options: calls.append(x.shape[1]) or original(x, *rest, **options)
    try:
        folding.convolve(x, torch.zeros(4, 4, 3, 3), None, 1, 1)
        folding.convolve(wide, torch.zeros(64, 64, 3, 3), None, 1, 1)
    finally:
        F.conv2d = original
    assert calls == [8, 64]
