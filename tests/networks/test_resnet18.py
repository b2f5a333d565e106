"""ResNet-18 against the module anyone would write, and the sizes of the paper."""

from fractions import Fraction

import pytest
import torch
from fleets import assert_equals_plain_modules, fleet, samples
from reference import PlainResNet18

from small import DEVICE
from widthwise.errors import UsageError
from widthwise.networks import base, resnet18

SHAPE = (3, 32, 32)


@pytest.mark.parametrize(("members", "batch"), [(1, 4), (1, 20), (2, 4), (3, 4)])
def test_every_member_has_the_gradients_features_and_statistics_of_the_plain_module(members, batch, seed):
    member_seeds = range(seed, seed + members)
    network = fleet("resnet18", SHAPE, "1/16", member_seeds, torch.float64)
    plain = PlainResNet18(3, 4, 10).double()
    assert_equals_plain_modules(network, plain, *samples(SHAPE, member_seeds, torch.float64, batch))


def test_the_textbook_network_has_the_textbook_size():
    assert base.parameter_count("resnet18", SHAPE, 10, Fraction(1)) == sum(
        p.numel() for p in PlainResNet18(3, 64, 10).parameters()
    )
    assert base.parameter_count("resnet18", SHAPE, 10, Fraction(1)) == 11_173_962
    assert base.feature_count("resnet18", SHAPE, 10, Fraction(1)) == 512


def test_small_grey_images_fit_too(seed):
    assert fleet("resnet18", (1, 8, 8), "1/16", [seed])(torch.zeros(1, 2, 1, 8, 8, device=DEVICE)).shape == (1, 2, 10)


def test_widths_are_the_channels_of_the_four_stages():
    assert resnet18.widths(Fraction(1, 8)) == (8, 16, 32, 64)


def test_samples_that_are_no_images_are_refused():
    with pytest.raises(UsageError, match=r"resnet18 takes images .* not samples of \(64,\)"):
        base.build("resnet18", (64,), 10, Fraction(1, 16))
