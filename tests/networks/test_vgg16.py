"""VGG-16 against the module anyone would write, its dropout, and what it refuses."""

from fractions import Fraction

import pytest
import torch
from fleets import assert_equals_plain_modules, fleet, samples
from reference import PlainVGG16

from small import on_a_processor
from widthwise import dropout, seeds
from widthwise.errors import UsageError
from widthwise.networks import base, vgg16

SHAPE = (3, 32, 32)


@pytest.mark.parametrize(("members", "batch"), [(1, 4), (1, 20), (3, 4)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_member_has_the_gradients_features_and_statistics_of_the_plain_module(members, batch, batch_norm, seed):
    member_seeds = range(seed, seed + members)
    network = fleet("vgg16", SHAPE, "1/16", member_seeds, torch.float64, batch_norm=batch_norm, dropout=0.0)
    plain = PlainVGG16(3, 4, 10, batch_norm).double()
    assert_equals_plain_modules(network, plain, *samples(SHAPE, member_seeds, torch.float64, batch))


def test_the_textbook_network_has_the_textbook_size():
    textbook = sum(p.numel() for p in PlainVGG16(3, 64, 10, False).parameters())
    assert base.parameter_count("vgg16", SHAPE, 10, Fraction(1)) == textbook == 14_719_818
    assert base.feature_count("vgg16", SHAPE, 10, Fraction(1)) == 512


def test_dropout_lies_between_features_and_head(seed):
    network = fleet("vgg16", SHAPE, "1/16", [seed, seed + 1], dropout=0.5)
    inputs, _ = samples(SHAPE, [seed, seed + 1])
    dropped = network.train().features(inputs)
    whole = network.eval().features(inputs)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])
    assert (whole[~kept] != 0).any()


@on_a_processor
def test_masks_of_a_member_are_its_own_streams(seed):
    logits = []
    for member_seeds in ([seed, seed + 1], [seed + 2, seed + 3, seed]):
        network = fleet("vgg16", SHAPE, "1/16", member_seeds, dropout=0.5)
        streams = [seeds.stream(s, "masks") for s in member_seeds]
        dropout.give_streams(network, streams)
        logits.append(network.train()(samples(SHAPE, member_seeds)[0])[member_seeds.index(seed)])
    assert torch.equal(*logits)


@pytest.mark.parametrize("size", [8, 31, 64])
def test_images_that_do_not_end_in_one_pixel_are_refused(size):
    with pytest.raises(UsageError, match=f"takes 32x32 to 63x63, not {size}x{size}"):
        base.build("vgg16", (3, size, size), 10, Fraction(1, 16))


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 2])
def test_a_dropout_that_is_no_share_below_one_is_refused(dropout):
    with pytest.raises(UsageError, match="dropout of at least 0 and below 1"):
        vgg16.widths(Fraction(1), dropout=dropout)
