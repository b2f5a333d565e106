"""A stem and residual blocks as one operator, against PyTorch's own layers one after the other."""

from itertools import chain

import pytest
import torch
from torch.nn import functional as F

from widthwise import backbone, lanes, native, seeds

needs_compiler = pytest.mark.skipif(lanes.compiled() is None, reason="no C++ compiler (CXX, c++)")

# batch, inputs, channels of the stem, height, width; of each block its channels and stride
NETWORKS = [
    (16, 3, 4, 8, 8, ((4, 1), (8, 2))),
    (21, 2, 3, 6, 7, ((6, 2), (5, 1))),
    (40, 1, 1, 5, 5, ((1, 1), (1, 1), (2, 2))),
    (17, 3, 2, 4, 4, ((4, 2), (8, 2), (8, 1))),  # down to one pixel
    (130, 4, 8, 16, 16, ((8, 1), (16, 2))),
    (300, 3, 8, 32, 16, ((8, 1),)),  # more than is kept in the cache at a time
]


def drawn(seed, *shape):
    return torch.randn(shape, generator=seeds.stream(seed, *shape), dtype=torch.float64)


def layer(seed, outputs, inputs, kernel, stride, dtype=torch.float64):
    weight, scale, bias = (
        drawn(seed, 1, outputs, inputs, kernel, kernel),
        drawn(seed, 1, outputs),
        drawn(seed + 1, 1, outputs),
    )
    running = drawn(seed + 2, 1, outputs), drawn(seed + 3, 1, outputs).square()
    own, moved = (tuple(t.to(dtype) for t in some) for some in ((weight, scale, bias), running))
    return backbone.Normed(tuple(t.requires_grad_() for t in own), moved, stride, kernel // 2)


def network(seed, inputs, channels, blocks, dtype=torch.float64):
    """Return a stem and blocks, with a shortcut where a block changes the shape."""
    stem, made = layer(seed, channels, inputs, 3, 1, dtype), []
    for k, (outputs, stride) in enumerate(blocks):
        block = [
            layer(seed + 10 * k, outputs, channels, 3, stride, dtype),
            layer(seed + 10 * k + 5, outputs, outputs, 3, 1, dtype),
        ]
        if (outputs, stride) != (channels, 1):
            block.append(layer(seed + 10 * k + 7, outputs, channels, 1, stride, dtype))
        made.append(block)
        channels = outputs
    return stem, made


def plain(x, stem, blocks, momentum=0.1, eps=1e-5):
    """Return what the operator does, by PyTorch's layers."""

    def normed(x, layer):
        y = F.conv2d(x, layer.tensors[0][0], None, layer.stride, layer.padding)
        mean, var, scale, bias = (t[0] for t in (*layer.running, *layer.tensors[1:]))
        return F.batch_norm(y, mean, var, scale, bias, True, momentum, eps)

    x = F.relu(normed(x, stem))
    for first, second, *shortcut in blocks:
        added = normed(x, shortcut[0]) if shortcut else x
        x = F.relu(normed(F.relu(normed(x, first)), second) + added)
    return x.mean((2, 3))


def found(function, seed, shape, dtype=torch.float64):
    """Return the result, the gradients of an uneven sum of it, and the running moments."""
    batch, inputs, channels, h, w, blocks = shape
    x = drawn(seed, batch, inputs, h, w).to(dtype).requires_grad_()
    stem, made = network(seed, inputs, channels, blocks, dtype)
    y = function(x, stem, made, 0.1, 1e-5)
    y.sin().sum().backward()
    layers = [stem, *chain(*made)]
    return [
        y.detach(),
        x.grad,
        *(t.grad for own in layers for t in own.tensors),
        *(t for own in layers for t in own.running),
    ]


def assert_equal(ours, theirs, within=1e-9):
    for a, b in zip(ours, theirs, strict=True):
        # A kernel of one number before a norm has a gradient of 0: what is left is rounding.
        torch.testing.assert_close(a, b, rtol=0, atol=within * max(1.0, float(b.abs().max())))


@needs_compiler
@pytest.mark.parametrize("shape", NETWORKS, ids=str)
def test_it_is_pytorchs_layers_with_their_gradients_and_moments(shape, seed):
    assert_equal(found(backbone.backbone, seed, shape), found(plain, seed, shape))


@needs_compiler
def test_a_result_in_float32_is_that_of_float64_but_for_rounding(seed):
    shape = NETWORKS[0]
    single = found(backbone.backbone, seed, shape, torch.float32)[0]
    torch.testing.assert_close(single.double(), found(plain, seed, shape)[0], rtol=0, atol=1e-3)


@needs_compiler
def test_a_gradient_that_lies_otherwise_is_taken_as_it_is(seed):
    batch, inputs, channels, h, w, blocks = NETWORKS[4]
    stem, made = network(seed, inputs, channels, blocks)
    x = drawn(seed, batch, inputs, h, w)
    y = backbone.backbone(x, stem, made, 0.1, 1e-5)
    own = drawn(seed, *y.shape[::-1]).T
    ours = torch.autograd.grad((y * own).sum(), stem.tensors)
    assert_equal(ours, torch.autograd.grad((plain(x, stem, made) * own).sum(), stem.tensors))


@needs_compiler
def test_graphs_that_live_at_the_same_time_keep_apart_what_is_between(seed):
    batch, inputs, channels, h, w, blocks = NETWORKS[0]
    stem, made = network(seed, inputs, channels, blocks)
    images = [drawn(seed + k, batch, inputs, h, w) for k in range(3)]
    ours = [backbone.backbone(x, stem, made, 0.1, 1e-5) for x in images]
    theirs = [plain(x, stem, made) for x in images]
    for k in (1, 0, 2):  # as each way back gives its room to the next step
        mine, others = (torch.autograd.grad(ys[k].sin().sum(), stem.tensors) for ys in (ours, theirs))
        assert_equal(mine, others)
        again = backbone.backbone(images[k], stem, made, 0.1, 1e-5)
        assert torch.equal(again, ours[k])


@needs_compiler
def test_a_second_way_back_is_refused(seed):
    batch, inputs, channels, h, w, blocks = NETWORKS[0]
    stem, made = network(seed, inputs, channels, blocks)
    y = backbone.backbone(drawn(seed, batch, inputs, h, w), stem, made, 0.1, 1e-5).sum()
    y.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="go forward again"):
        y.backward()


@needs_compiler
@pytest.mark.parametrize(
    "away", [(slice(None),), (slice(None), slice(None), 0), (slice(None), slice(None), 5), (slice(32),)]
)
def test_moments_of_far_away_numbers_keep_their_digits(away, seed):
    x = drawn(seed, 96, 1, 8, 8)
    x[away] += 1e3
    stem = layer(seed, 1, 1, 3, 1, torch.float32)
    stem.tensors[0].detach().zero_()[..., 1, 1] = 1  # what is between is x
    block = [layer(seed, 1, 1, 3, 1, torch.float32) for _ in range(2)]
    backbone.backbone(x.float(), stem, [block], 1.0, 1e-5)
    truth = [x.float().double().mean().item(), x.float().double().var().item()]
    assert [t.item() for t in stem.running] == pytest.approx(truth, rel=3e-6)


@needs_compiler
def test_a_nan_goes_through(seed):
    batch, inputs, channels, h, w, blocks = NETWORKS[0]
    x = drawn(seed, batch, inputs, h, w)
    x[3, 1, 2, 2] = float("nan")
    y = backbone.backbone(x, *network(seed, inputs, channels, blocks), 0.1, 1e-5)
    assert y.isnan().any()


@needs_compiler
@pytest.mark.parametrize(
    ("channels", "blocks", "batch", "fits"),
    [
        (4, ((4, 1), (8, 2)), 16, True),
        (8, ((64, 2),), 16, True),
        (16, ((16, 1),), 16, False),  # not thin
        (8, ((72, 2),), 16, False),  # too wide behind
        (4, ((8, 3),), 16, False),  # rows that no kernel takes
        (4, ((4, 1),), 8, False),  # too few images
    ],
)
def test_thin_networks_of_usual_blocks_fit(channels, blocks, batch, fits, seed):
    x = drawn(seed, batch, 3, 8, 8)
    stem, made = network(seed, 3, channels, blocks)
    assert backbone.fits(x, stem, made) == fits
    assert not backbone.fits(x.float(), stem, made)
    assert not backbone.fits(x[:, :2], stem, made)  # not what the stem takes
    for wrong in ([layer(seed, blocks[0][0], channels, 1, 1), *made[0][1:]], [made[0][0], layer(seed, 4, 5, 3, 1)]):
        assert not backbone.fits(x, stem, [wrong, *made[1:]])
    assert not backbone.fits(x, stem, [made[0][:2], *made[1:]]) or channels == blocks[0][0]


@needs_compiler
def test_without_its_library_nothing_fits(monkeypatch, seed):
    given = drawn(seed, 16, 3, 8, 8), *network(seed, 3, 4, ((4, 1),))
    assert backbone.fits(*given)
    load = native.load
    monkeypatch.setattr(native, "load", lambda source: None if source == backbone.SOURCE else load(source))
    assert not backbone.fits(*given)
