"""The perceptron against the module anyone would write, and what it refuses."""

from fractions import Fraction

import pytest
import torch
from fleets import assert_equals_plain_modules, fleet, samples
from reference import PlainPerceptron

from widthwise.errors import UsageError
from widthwise.networks import base, mlp


@pytest.mark.parametrize("members", [1, 2, 5])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_member_has_the_gradients_and_features_of_the_plain_module(members, depth, seed):
    member_seeds = range(seed, seed + members)
    network = fleet("mlp", (1, 8, 8), "1/4", member_seeds, torch.float64, hidden=52, depth=depth)
    plain = PlainPerceptron(64, [13] * depth, 10).double()
    assert_equals_plain_modules(network, plain, *samples((1, 8, 8), member_seeds, torch.float64))


def test_depth_one_is_the_network_with_one_hidden_layer():
    names = list(base.build("mlp", (64,), 10, Fraction(1), depth=1).state_dict())
    assert names == ["hidden.0.weight", "hidden.0.bias", "head.weight", "head.bias"]


def test_samples_of_any_shape_are_flattened(seed):
    images = samples((3, 4, 5), [seed])[0]
    network = fleet("mlp", (3, 4, 5), "1/16", [seed])
    assert torch.equal(network(images), network(images.flatten(2)))


def test_widths_are_those_of_every_hidden_layer():
    assert mlp.widths(Fraction(1, 4), hidden=64, depth=3) == (16, 16, 16)


@pytest.mark.parametrize("options", [{"depth": 0}, {"hidden": 0}, {"depth": -1}])
def test_a_perceptron_without_a_hidden_layer_is_refused(options):
    with pytest.raises(UsageError, match="depth and hidden of at least 1"):
        mlp.widths(Fraction(1), **options)
