"""A step of a thin ResNet as one call, against PyTorch's own layers and autograd."""

from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch.nn import functional as F

from widthwise import backbone, lanes, native, seeds

needs_compiler = pytest.mark.skipif(lanes.compiled() is None, reason="no C++ compiler (CXX, c++)")
MOMENTUM, EPS, CLASSES = 0.1, 1e-5, 5

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
    # Above 0, the bias leaves few channels dead: a norm of a channel without variance enlarges rounding 300 times.
    bias = drawn(seed + 1, 1, outputs).abs()
    own = drawn(seed, 1, outputs, inputs, kernel, kernel), drawn(seed, 1, outputs), bias
    moved = drawn(seed + 2, 1, outputs).to(dtype), drawn(seed + 3, 1, outputs).square().to(dtype)
    own = tuple(t.to(dtype) for t in own)
    gradients = tuple(torch.full_like(t, float("nan")) for t in own)
    return backbone.Normed(own, gradients, (*moved, torch.zeros(1, dtype=torch.int64)), stride, kernel // 2)


def network(seed, inputs, channels, blocks, dtype=torch.float64):
    """Return a stem, blocks with a shortcut where one changes the shape, and a head."""
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
    own = drawn(seed, 1, CLASSES, channels).to(dtype), drawn(seed, 1, CLASSES).to(dtype)
    return stem, made, backbone.Head(own, tuple(torch.full_like(t, float("nan")) for t in own))


def parts(stem, blocks, head, what):
    """Return the tensors, gradients or running moments of all layers."""
    layers = (stem, *chain(*blocks), *(() if what == "running" else (head,)))
    return [t for own in layers for t in getattr(own, what)]


def plain(x, targets, stem, blocks, head):
    """Return what a step does by PyTorch's layers: loss, how many are right, gradients, running moments."""
    own = {id(t): t.clone().requires_grad_() for t in parts(stem, blocks, head, "tensors")}
    moved = {id(t): t.clone() for t in parts(stem, blocks, head, "running")}

    def normed(x, layer):
        weight, scale, bias = (own[id(t)][0] for t in layer.tensors)
        mean, var = (moved[id(t)][0] for t in layer.running[:2])
        moved[id(layer.running[2])] += 1
        y = F.conv2d(x, weight, None, layer.stride, layer.padding)
        return F.batch_norm(y, mean, var, scale, bias, True, MOMENTUM, EPS)

    x = F.relu(normed(x, stem))
    for first, second, *shortcut in blocks:
        added = normed(x, shortcut[0]) if shortcut else x
        x = F.relu(normed(F.relu(normed(x, first)), second) + added)
    weight, bias = (own[id(t)][0] for t in head.tensors)
    logits = F.linear(x.mean((2, 3)), weight, bias)
    loss = F.cross_entropy(logits, targets)
    loss.backward()
    return [loss.detach(), (logits.argmax(1) == targets).sum(), *(t.grad for t in own.values()), *moved.values()]


def samples(seed, shape, dtype=torch.float64):
    batch, inputs, _, h, w, _ = shape
    targets = torch.randint(CLASSES, (batch,), generator=seeds.stream(seed, "targets"))
    return drawn(seed, batch, inputs, h, w).to(dtype), targets


def learner(x, made):
    return backbone.Learner(tuple(x.shape), *made, MOMENTUM, EPS)


def learned(x, targets, made):
    """Return what a step does here, in the order of `plain`."""
    loss, hits = learner(x, made)(x[None], targets[None])
    return [loss[0], hits[0], *parts(*made, "gradients"), *parts(*made, "running")]


def assert_equal(ours, theirs, within=1e-9):
    for a, b in zip(ours, theirs, strict=True):
        # A kernel of one number before a norm has a gradient of 0: what is left is rounding.
        torch.testing.assert_close(a, b, rtol=0, atol=within * max(1.0, float(b.abs().max())))


@needs_compiler
@pytest.mark.parametrize("shape", NETWORKS, ids=str)
def test_a_step_is_that_of_pytorchs_layers_and_autograd(shape, seed):
    made, (x, targets) = network(seed, shape[1], shape[2], shape[5]), samples(seed, shape)
    theirs = plain(x, targets, *made)
    assert_equal(learned(x, targets, made), theirs)
    learn = learner(x, made)
    for _ in range(2):  # nothing is left of a step in the next one, but for running moments
        loss, hits = learn(x[None], targets[None])
        assert_equal([loss[0], hits[0], *parts(*made, "gradients")], theirs[: -len(parts(*made, "running"))])


@needs_compiler
def test_a_step_in_float32_is_that_of_float64_but_for_rounding(seed):
    shape = NETWORKS[0]
    single, double = (network(seed, shape[1], shape[2], shape[5], dtype) for dtype in (torch.float32, torch.float64))
    x, targets = samples(seed, shape, torch.float32)
    ours, theirs = learned(x, targets, single), plain(x.double(), targets, *double)
    # A ReLU may fall on the other side: of one number of 16 x 8 x 8, for which a tenth of a gradient is room enough.
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).double().norm()) <= 0.1 * float(b.double().norm()) + 1e-4


@needs_compiler
def test_samples_that_lie_otherwise_are_the_same(seed):
    shape, found = NETWORKS[4], []
    x, targets = samples(seed, shape)
    for lie in (x, lanes.laid(x), x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT):
        made = network(seed, shape[1], shape[2], shape[5])
        found.append([t.clone() for t in learned(lie, torch.stack([targets, targets], 1)[:, 0], made)])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@needs_compiler
def test_a_batch_of_another_shape_or_type_is_not_taken(seed):
    shape = NETWORKS[0]
    made, (x, targets) = network(seed, shape[1], shape[2], shape[5]), samples(seed, shape)
    learn = learner(x, made)
    for other, labels in ((x[:15], targets[:15]), (x.float(), targets), (x, targets.int()), (x, targets[:15])):
        with pytest.raises(AssertionError):
            learn(other[None], labels[None])


@needs_compiler
@pytest.mark.parametrize(
    "away", [(slice(None),), (slice(None), slice(None), 0), (slice(None), slice(None), 5), (slice(32),)]
)
def test_moments_of_far_away_numbers_keep_their_digits(away, seed):
    x = drawn(seed, 96, 1, 8, 8)
    x[away] += 1e3
    stem, blocks, head = network(seed, 1, 1, ((1, 1),), torch.float32)
    stem.tensors[0].zero_()[..., 1, 1] = 1  # what is between is x
    learn = backbone.Learner((96, 1, 8, 8), stem, blocks, head, 1.0, EPS)
    learn(x.float()[None], torch.zeros(1, 96, dtype=torch.int64))
    truth = [x.float().double().mean().item(), x.float().double().var().item()]
    assert [t.item() for t in stem.running[:2]] == pytest.approx(truth, rel=3e-6)


@needs_compiler
def test_a_nan_goes_through(seed):
    shape = NETWORKS[0]
    made, (x, targets) = network(seed, shape[1], shape[2], shape[5]), samples(seed, shape)
    x[3, 1, 2, 2] = float("nan")
    loss, *_ = learned(x, targets, made)
    assert loss.isnan()
    assert all(t.isnan().any() for t in parts(*made, "gradients"))


@needs_compiler
@pytest.mark.parametrize("top", [1e4, -1e4])
def test_logits_far_from_zero_make_no_overflow(top, seed):
    shape = NETWORKS[0]
    made, (x, targets) = network(seed, shape[1], shape[2], shape[5], torch.float32), samples(seed, shape, torch.float32)
    made[2].tensors[1][0, 1] = top
    loss, hits, *rest = learned(x, targets, made)
    assert all(t.isfinite().all() for t in rest)
    assert float(loss) == pytest.approx(float(plain(x, targets, *made)[0]), rel=1e-5)
    assert top < 0 or int(hits) == int((targets == 1).sum())


@needs_compiler
@pytest.mark.parametrize(
    ("channels", "blocks", "batch", "fits"),
    [
        (4, ((4, 1), (8, 2)), 16, True),
        (8, ((64, 2),), 16, True),
        (16, ((16, 1),), 16, False),  # not thin
        (8, ((129, 2),), 16, False),  # too wide behind
        (4, ((8, 3),), 16, False),  # rows that no kernel takes
        (4, ((4, 1),), 8, False),  # too few images
    ],
)
def test_thin_networks_of_usual_blocks_fit(channels, blocks, batch, fits, seed):
    stem, made, head = network(seed, 3, channels, blocks)
    shape = (batch, 3, 8, 8)
    assert backbone.fits(shape, stem, made, head) == fits
    assert not backbone.fits((batch, 2, 8, 8), stem, made, head)  # not what the stem takes
    assert not backbone.fits((batch, 3), stem, made, head)
    single = tuple(t.float() for t in stem.tensors)
    assert not backbone.fits(shape, replace(stem, tensors=single), made, head)
    assert not backbone.fits(
        shape, stem, made, replace(head, tensors=(head.tensors[0][..., :1].contiguous(), head.tensors[1]))
    )
    for wrong in ([layer(seed, blocks[0][0], channels, 1, 1), *made[0][1:]], [made[0][0], layer(seed, 4, 5, 3, 1)]):
        assert not backbone.fits(shape, stem, [wrong, *made[1:]], head)
    assert not backbone.fits(shape, stem, [made[0][:2], *made[1:]], head) or channels == blocks[0][0]


@needs_compiler
def test_without_its_library_nothing_fits(monkeypatch, seed):
    given = (16, 3, 8, 8), *network(seed, 3, 4, ((4, 1),))
    assert backbone.fits(*given)
    load = native.load
    monkeypatch.setattr(native, "load", lambda source: None if source == backbone.SOURCE else load(source))
    assert not backbone.fits(*given)
