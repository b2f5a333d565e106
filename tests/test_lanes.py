"""Convolutions and batch norms whose vectors hold images, against PyTorch's own."""

import pytest
import torch
from torch.nn import functional as F

from widthwise import lanes, seeds

needs_compiler = pytest.mark.skipif(lanes.compiled() is None, reason="no C++ compiler (CXX, c++)")

# batch, inputs, outputs, height, width, kernel, stride
CONVOLUTIONS = [
    (16, 3, 4, 8, 8, 3, 1),
    (128, 4, 4, 8, 8, 3, 1),
    (21, 2, 2, 6, 12, 3, 1),
    (40, 1, 1, 8, 8, 3, 1),
    (17, 1, 3, 8, 16, 3, 2),
    (32, 4, 8, 8, 8, 3, 2),
    (19, 5, 7, 6, 5, 3, 2),
    (35, 6, 5, 7, 7, 3, 2),
    (16, 16, 16, 4, 4, 3, 1),
    (24, 9, 13, 1, 1, 3, 1),
    (50, 4, 8, 8, 8, 1, 2),
    (16, 3, 2, 5, 7, 1, 1),
    (300, 64, 64, 16, 16, 3, 1),  # more than is kept in the cache at a time
]


def drawn(seed, *shape):
    return torch.randn(shape, generator=seeds.stream(seed, *shape), dtype=torch.float64)


def with_gradients(function, *tensors):
    """Return a function's value and the gradient of an uneven sum of it with respect to each tensor."""
    own = [t.clone().requires_grad_() for t in tensors]
    y = function(*own)
    y.sin().sum().backward()
    return [y.detach(), *(t.grad for t in own)]


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * float(b.abs().max()))


@needs_compiler
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_a_convolution_and_its_gradients_are_pytorchs(shape, seed):
    batch, inputs, outputs, h, w, kernel, stride = shape
    tensors = (drawn(seed, batch, inputs, h, w), drawn(seed, outputs, inputs, kernel, kernel), drawn(seed, outputs))
    padding = kernel // 2
    ours = with_gradients(lambda x, v, b: lanes.convolve(x, v, b, stride, padding), *tensors)
    theirs = with_gradients(lambda x, v, b: F.conv2d(x, v, b, stride, padding), *tensors)
    assert_equal(ours, theirs)
    assert lanes.lies(ours[0])
    bare = lanes.convolve(tensors[0], tensors[1], None, stride, padding)
    assert_equal([bare], [F.conv2d(tensors[0], tensors[1], None, stride, padding)])
    single = lanes.convolve(*(t.float() for t in tensors), stride, padding)
    torch.testing.assert_close(single, theirs[0].float(), rtol=0, atol=1e-5 * float(theirs[0].abs().max()))


@needs_compiler
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_any_padding_and_stride_are_pytorchs(padding, stride, seed):
    tensors = (drawn(seed, 18, 3, 6, 5), drawn(seed, 5, 3, 3, 3), drawn(seed, 5))
    ours = with_gradients(lambda x, v, b: lanes.convolve(x, v, b, stride, padding), *tensors)
    assert_equal(ours, with_gradients(lambda x, v, b: F.conv2d(x, v, b, stride, padding), *tensors))


@needs_compiler
@pytest.mark.parametrize("behind", ["", "relu", "added", "added relu"])
@pytest.mark.parametrize("shape", [(16, 4, 8, 8), (19, 3, 5, 6), (2, 16, 8, 8), (33, 1, 4, 4), (17, 8, 1, 1)], ids=str)
def test_a_batch_norm_its_gradients_and_its_statistics_are_pytorchs(shape, behind, seed):
    channels, found, relu = shape[1], [], "relu" in behind
    x, weight, bias = drawn(seed, *shape) * 3 + 1, drawn(seed, channels), drawn(seed, channels, 1)[:, 0]
    added = [drawn(seed + 1, *shape)] if "added" in behind else []

    def theirs(x, mean, var, weight, bias, momentum, eps, added=None, relu=False):
        y = F.batch_norm(x, mean, var, weight, bias, True, momentum, eps)
        y = y if added is None else y + added
        return F.relu(y) if relu else y

    for norm in (lanes.batch_norm, theirs):
        mean, var = drawn(seed, channels, 2)[:, 0].clone(), drawn(seed, channels, 3)[:, 0].square()

        def step(x, weight, bias, *added, norm=norm, mean=mean, var=var):
            return norm(x, mean, var, weight, bias, 0.1, 1e-5, *(added or [None]), relu)

        found.append([*with_gradients(step, x, weight, bias, *added), mean, var])
    assert_equal(*found)


@needs_compiler
def test_a_batch_norm_in_evaluation_is_pytorchs(seed):
    x, added = drawn(seed, 4, 6, 5, 16).permute(3, 0, 1, 2), drawn(seed, 16, 4, 6, 5)
    mean, weight, bias = (drawn(seed, 4, k)[:, 0] for k in (1, 2, 3))
    var = drawn(seed, 4, 4)[:, 0].square()
    theirs = F.batch_norm(x, mean, var, weight, bias, False, 0.1, 1e-5)
    bare = lanes.evaluated_batch_norm(x, mean, var, weight, bias, 1e-5)
    whole = lanes.evaluated_batch_norm(x, mean, var, weight, bias, 1e-5, added, relu=True)
    assert_equal([bare, whole], [theirs, F.relu(theirs + added)])
    assert lanes.lies(whole)


@needs_compiler
def test_a_batch_norm_of_far_away_numbers_keeps_its_variance(seed):
    x = (drawn(seed, 32, 4, 8, 8) + 1e4).float()
    unit = torch.ones(4)
    y = lanes.batch_norm(x, unit * 0, unit.clone(), unit, unit * 0, 0.1, 1e-5)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), unit, rtol=1e-3, atol=0)
    torch.testing.assert_close(y.mean((0, 2, 3)), unit * 0, rtol=0, atol=2e-3)


@needs_compiler
def test_a_batch_norm_keeps_its_variance_where_the_numbers_it_looks_at_first_are_unlike_the_rest(seed):
    x = drawn(seed, 16, 2, 16, 16)
    x.view(16, 2, 256)[:, :, ::8] += 1e3
    mean, var, unit = torch.zeros(2), torch.ones(2), torch.ones(2)
    lanes.batch_norm(x.float(), mean, var, unit, unit * 0, 1.0, 1e-5)
    truth = x.float().double().var((0, 2, 3)), x.float().double().mean((0, 2, 3))
    torch.testing.assert_close((var.double(), mean.double()), truth, rtol=3e-6, atol=0)


@needs_compiler
@pytest.mark.parametrize("shape", [(16, 3, 8, 8), (7, 2, 5, 7)], ids=str)
def test_pooling_and_its_gradient_are_pytorchs(shape, seed):
    x = drawn(seed, *shape)

    def ours(x):
        return lanes.max_pool(lanes.convolve(x, torch.eye(shape[1]).double()[:, :, None, None], None, 1, 0), 2)

    assert_equal(with_gradients(ours, x), with_gradients(lambda x: F.max_pool2d(x, 2), x))
    assert lanes.lies(ours(x))


@needs_compiler
@pytest.mark.parametrize(("heads", "size"), [(4, 4), (2, 3), (1, 1), (3, 8), (2, 32)])
def test_attention_and_its_gradient_are_pytorchs_of_each_text(heads, size, seed):
    lengths = [5, 0, 1, 64, 17, 2]
    starts = torch.tensor([0, *lengths]).cumsum(0)
    mixed = drawn(seed, sum(lengths), 3 * heads * size)

    def theirs(mixed):
        own = [part.view(-1, 3, heads, size).permute(1, 2, 0, 3).unsqueeze(1) for part in mixed.split(lengths)]
        found = [F.scaled_dot_product_attention(*qkv)[0] for qkv in own]  # (heads, tokens, size)
        return torch.cat([y.transpose(0, 1).flatten(1) for y in found])

    ours = with_gradients(lambda x: lanes.attention(x, starts, heads), mixed)
    assert_equal(ours, with_gradients(theirs, mixed))
    single = lanes.attention(mixed.float(), starts, heads)
    torch.testing.assert_close(single, ours[0].float(), rtol=0, atol=1e-5 * float(ours[0].abs().max()))


@needs_compiler
def test_attention_of_large_and_small_scores_stays_finite(seed):
    mixed = drawn(seed, 20, 24).float() * 1e3
    y, gradient = with_gradients(lambda x: lanes.attention(x, torch.tensor([0, 20]), 2), mixed)
    assert y.isfinite().all()
    assert gradient.isfinite().all()
    assert bool((y.amax(0) <= mixed[:, 16:].amax(0) + 1e-2).all())


@needs_compiler
def test_a_nan_stays_with_its_image(seed):
    x = drawn(seed, 40, 3, 6, 6)
    x[7] = float("nan")
    y = lanes.convolve(x, drawn(seed, 4, 3, 3, 3), None, 1, 1)
    assert y[7].isnan().all()
    assert y[torch.arange(40) != 7].isfinite().all()


@needs_compiler
def test_a_nan_goes_through_batch_norm_relu_and_attention(seed):
    x, unit = drawn(seed, 16, 2, 4, 4), torch.ones(2, dtype=torch.float64)
    x[3, 1, 2, 2] = float("nan")
    y, gradient, *_ = with_gradients(
        lambda x, w: lanes.batch_norm(x, unit * 0, unit.clone(), w, unit * 0, 0.1, 1e-5, None, True), x, unit
    )
    assert y[:, 1].isnan().all()
    assert gradient[:, 1].isnan().all()
    assert y[:, 0].isfinite().all()
    mixed = drawn(seed, 20, 24).float()
    mixed[4, 2] = float("nan")
    assert lanes.attention(mixed, torch.tensor([0, 12, 20]), 2)[:12, :4].isnan().any(1)[4]
    assert lanes.attention(mixed, torch.tensor([0, 12, 20]), 2)[12:].isfinite().all()


@needs_compiler
def test_an_image_has_the_same_bits_wherever_it_stands(seed):
    x, weight = drawn(seed, 48, 4, 6, 6).float(), drawn(seed, 4, 4, 3, 3).float()
    whole = lanes.convolve(x, weight, None, 1, 1)
    assert torch.equal(lanes.convolve(x[5:36], weight, None, 1, 1), whole[5:36])


def test_what_fits_is_thin_on_a_processor_and_of_one_dtype(monkeypatch):
    monkeypatch.setattr(lanes, "compiled", lambda: "there")
    x, weight = torch.zeros(32, 4, 8, 8), torch.zeros(4, 4, 3, 3)
    behind = torch.zeros(4, 8, 8, 32).permute(3, 0, 1, 2)  # images last in memory, as a thin layer leaves them
    assert lanes.fits(x, weight)
    assert not lanes.fits(x[:2], weight)
    assert not lanes.fits(x[:, :3], weight)
    assert not lanes.fits(x, weight.double())
    assert not lanes.fits(x, torch.zeros(4, 4, 5, 5))
    wide = torch.zeros(lanes.THIN + 1, 4, 3, 3)
    assert not lanes.fits(x, wide)
    assert lanes.fits(behind, wide)
    assert not lanes.fits(behind, torch.zeros(lanes.MOST + 1, 4, 3, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not lanes.fits(x, weight)
    monkeypatch.setattr(lanes, "compiled", lambda: None)
    assert not lanes.fits(x, weight)
    assert not lanes.lies(behind)
