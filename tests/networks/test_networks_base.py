"""Counts, the paper's table, widths that are whole numbers, and one network as an ordinary module."""

import copy
import pickle
from fractions import Fraction

import pytest
import torch
from fleets import fleet, samples
from reference import PlainResNet18

from small import DEVICE
from widthwise import layers
from widthwise.errors import UsageError
from widthwise.networks import base
from widthwise.networks.base import Single, count_matching, scaled

WIDTHS = ("1", "1/2", "1/4", "1/8", "1/16")
SHAPE = (3, 32, 32)


@pytest.mark.parametrize(("kind", "expected"), [("resnet18", (1, 4, 16, 64, 251)), ("vgg16", (1, 4, 16, 64, 254))])
def test_matching_by_parameters_is_the_papers_table(kind, expected):
    assert tuple(count_matching(kind, width, by="parameters") for width in WIDTHS) == expected
    assert [count_matching(kind, width, by="features") for width in WIDTHS] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("by", ["features", "parameters"])
@pytest.mark.parametrize("kind", ["mlp", "resnet18"])
def test_the_count_is_the_smallest_that_is_enough(kind, by):
    size = base.parameter_count if by == "parameters" else base.feature_count
    wide = size(kind, SHAPE, 10, Fraction(1, 2))
    for width in (Fraction(1, 2), Fraction(3, 4), Fraction(1, 16)):
        m = count_matching(kind, width, by=by, base=Fraction(1, 2))
        narrow = size(kind, SHAPE, 10, Fraction(1, 2) * width)
        assert m * narrow >= wide > (m - 1) * narrow


def test_a_width_is_relative_to_the_base_and_may_be_written_in_any_way():
    counts = [count_matching("resnet18", w, by="parameters", base=b) for w, b in [(0.25, 2), ("1/4", "2")]]
    assert counts[0] == counts[1] == count_matching("resnet18", Fraction(1, 4), by="parameters", base=Fraction(2))


@pytest.mark.parametrize("width", [0, -1, 2, "1/0", "wide", float("nan"), float("inf")])
def test_a_width_outside_0_to_1_is_refused(width):
    with pytest.raises(UsageError, match=f"a width is a fraction above 0.* not {width}"):
        count_matching("resnet18", width, by="features")


def test_matching_by_anything_else_is_refused():
    with pytest.raises(UsageError, match='by "features" or "parameters", not by "flops"'):
        count_matching("resnet18", Fraction(1, 2), by="flops")


def test_a_fraction_of_a_channel_is_refused_with_the_nearest_scales():
    with pytest.raises(UsageError, match=r"64 at scale 1/3 would have 64/3 .*: 21/64 \(21\) and 11/32 \(22\)"):
        scaled(64, Fraction(1, 3))
    with pytest.raises(UsageError, match=r"64 at scale 1/100 would have 16/25 .*: 1/64 \(1\)\."):
        scaled(64, Fraction(1, 100))
    with pytest.raises(UsageError, match="64 at scale 1/3"):
        count_matching("resnet18", Fraction(1, 3), by="features")


def test_a_scale_that_gives_whole_numbers_is_exact():
    assert [scaled(64, Fraction(k, 64)) for k in (1, 3, 64, 128)] == [1, 3, 64, 128]


def test_an_unknown_network_or_option_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r'no network "resnet81".*Did you mean resnet18'):
        base.build("resnet81", SHAPE, 10, Fraction(1))
    with pytest.raises(UsageError, match=r'mlp has no option "dept".*Did you mean depth'):
        base.build("mlp", SHAPE, 10, Fraction(1), dept=3)


def test_one_network_loads_into_the_plain_module_and_back(seed):
    single = Single(fleet("resnet18", SHAPE, "1/16", [seed])).eval()
    plain = PlainResNet18(3, 4, 10).to(DEVICE).eval()
    plain.load_state_dict(single.state_dict(), strict=True)
    images = samples(SHAPE, [seed])[0][0]
    with torch.no_grad():
        torch.testing.assert_close(single(images), plain(images), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(single.features(images), plain.features(images), rtol=1e-4, atol=1e-4)
        assert torch.equal(single.head(single.features(images)), single(images))
    other = Single(fleet("resnet18", SHAPE, "1/16", [seed + 1]))
    other.load_state_dict(plain.state_dict(), strict=True)
    for name, own in other.state_dict().items():
        assert torch.equal(own, single.state_dict()[name])


def test_one_network_inside_another_module_keeps_its_plain_names(seed):
    single = Single(fleet("mlp", (64,), "1/16", [seed]))
    wrapped = torch.nn.Sequential(torch.nn.Flatten(), single)
    assert list(wrapped.state_dict()) == [f"1.{name}" for name in single.state_dict()]
    copied = copy.deepcopy(wrapped)
    copied.load_state_dict(wrapped.state_dict(), strict=True)
    inputs = samples((64,), [seed])[0][0]
    assert torch.equal(copied(inputs), wrapped(inputs))
    assert torch.equal(pickle.loads(pickle.dumps(single))(inputs), single(inputs))


def test_weights_that_do_not_belong_are_named_plainly(seed):
    single = Single(fleet("mlp", (64,), "1/16", [seed]))
    state = single.state_dict()
    state["tail.weight"] = state.pop("head.weight")
    with pytest.raises(RuntimeError, match=r'(?s)Missing.*"head.weight".*Unexpected.*"tail.weight"'):
        single.load_state_dict(state)


def test_a_member_of_a_fleet_is_one_network(seed):
    member_seeds = [seed, seed + 1, seed + 2]
    network = fleet("resnet18", SHAPE, "1/16", member_seeds).eval()
    inputs, _ = samples(SHAPE, member_seeds)
    single = Single(base.build("resnet18", SHAPE, 10, Fraction(1, 16))).to(DEVICE).eval()
    with torch.no_grad():
        for k in range(3):
            single.load_state_dict(layers.unstack(network.state_dict(), k))
            torch.testing.assert_close(single(inputs[k]), network(inputs)[k], rtol=1e-4, atol=1e-4)
