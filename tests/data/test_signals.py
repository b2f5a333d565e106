"""The toy's samples: what they are made of is known, and what cannot be made is refused."""

import math

import pytest
import torch

from widthwise import seeds
from widthwise.data import signals
from widthwise.errors import UsageError


def test_every_signal_is_in_one_patch_and_the_others_are_noise_orthogonal_to_all():
    whole = signals.read(patches=8, dimension=12)
    known = whole.train[:500, :, :5]
    assert torch.equal((known != 0).sum((1, 2)), torch.full((500,), 5))
    assert torch.equal(known.abs().sum(1), torch.ones(500, 5))
    noisy = (known == 0).all(2)
    assert torch.equal(noisy.sum(1), torch.full((500,), 3))
    patches = whole.train[:500][noisy]
    assert torch.equal(patches[:, :5], torch.zeros(1500, 5))
    assert not whole.train[:500][~noisy][:, 5:].any()


def test_the_label_is_the_sign_of_the_sum_of_signs_and_products():
    whole = signals.read()
    s = whole.train[..., :5].sum(1)
    assert torch.equal(whole.train_labels == 1, s[:, 0] + s[:, 1] + s[:, 2] * s[:, 3] * s[:, 4] > 0)
    two = signals.read(added=1, products=(2, 2))
    s = two.test[..., :5].sum(1)
    assert torch.equal(two.test_labels == 1, s[:, 0] + s[:, 1] * s[:, 2] + s[:, 3] * s[:, 4] > 0)


def test_patches_lie_in_every_order_and_noise_has_its_norm():
    whole = signals.read(noise=0.7)
    place = (whole.train[:, :, 0] != 0).float().argmax(1)
    counts = place.bincount(minlength=6).double()
    assert ((counts - 50_000 / 6).abs() < 5 * math.sqrt(50_000 / 6)).all()
    _, noise = signals.parts(whole.train)
    assert float(noise.square().sum(2).mean()) == pytest.approx(0.49, rel=0.01)


@pytest.mark.parametrize(("batch", "each"), [(64, 2), (32, 1)])
def test_balanced_batches_have_every_pattern_of_signs_equally_often(batch, each, seed):
    signs, _ = signals.draw(seeds.stream(seed, "test"), 7, batch)
    for own in signs:
        _, counts = own.unique(dim=0, return_counts=True)
        assert counts.tolist() == [each] * 32


def test_what_is_left_of_a_balanced_batch_are_different_patterns_of_every_sign(seed):
    signs, _ = signals.draw(seeds.stream(seed, "test"), 400, 48)
    for own in signs[:20]:
        _, counts = own.unique(dim=0, return_counts=True)
        assert sorted(counts.tolist()) == [1] * 16 + [2] * 16
    assert float(signs.mean((0, 1)).abs().max()) < 5 * 0.06 / math.sqrt(400)  # of a batch's mean, about .06
    large, _ = signals.draw(seeds.stream(seed, "test"), 200, 64, dimension=20, patches=10, products=(3, 4), added=2)
    assert float(large.mean(1).abs().mean()) < 0.12


def test_signs_by_coins_are_independent(seed):
    signs, _ = signals.draw(seeds.stream(seed, "test"), 1, 20_000, balanced=False)
    second = signs[0].T @ signs[0] / 20_000
    assert float((second - torch.eye(5)).abs().max()) < 5 / math.sqrt(20_000)
    assert len(signs[0, :64].unique(dim=0)) < 32


def test_parts_and_truths_are_what_samples_were_made_of():
    whole = signals.read()
    signs, noise = signals.parts(whole.test)
    assert noise.shape == (10_000, 1, 11)
    truths = signals.truths(whole.test)
    assert signals.names() == ["s1", "s2", "s3", "s4", "s5", "s3s4s5"]
    assert torch.equal(truths[:, :5], signs)
    assert torch.equal(truths[:, 5], signs[:, 2:].prod(1))
    assert signals.names(added=0, products=(2, 3)) == ["s1", "s2", "s3", "s4", "s5", "s1s2", "s3s4s5"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"patches": 4}, "5 signals need a patch each; patches must be 5 or more"),
        ({"dimension": 5}, "5 orthogonal signals in 5 dimensions leave none for noise; dimension must be 6 or more"),
        ({"added": 1}, "2 signs and products can add up to 0, which is neither label; take an odd number"),
        ({"products": (1,)}, "products of 2 or more"),
        ({"added": 0, "products": ()}, "0 or more added signs"),
        (
            {"dimension": 20, "patches": 15, "products": (13,)},
            "15 signals have 2.15 patterns of signs; set it to false",
        ),
        ({"noise": -1.0}, "noise is the norm of a patch, 0 or above"),
    ],
)
def test_what_gives_no_labels_is_refused(options, told):
    with pytest.raises(UsageError, match=told):
        signals.read(**options)
