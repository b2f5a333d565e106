"""The paper's Transformer against PyTorch's own layers; padding; what it refuses; how many match."""

from fractions import Fraction

import pytest
import torch
from fleets import assert_equals_plain_modules, fleet, samples
from reference import PlainTransformer

from small import DEVICE
from widthwise import dropout, seeds
from widthwise.errors import UsageError
from widthwise.networks import base, transformer
from widthwise.networks.base import count_matching

SHAPE = (64, 385)


def texts(member_seeds, lengths=(8, 3, 1, 6), inputs=12, dtype=torch.float64):
    """Return every member's own tokens (m, batch, longest, inputs + 1), padded with zeros, and labels."""
    x, labels = samples((max(lengths), inputs + 1), member_seeds, dtype, len(lengths))
    real = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).to(x.device)
    x[..., -1] = 1
    return x * real[..., None], labels


@pytest.mark.parametrize("members", [1, 2, 5])
def test_every_member_has_the_gradients_and_features_of_pytorchs_own_layers(members, seed):
    member_seeds = range(seed, seed + members)
    network = fleet("transformer", (8, 13), "1/8", member_seeds, torch.float64, units=104, depth=3)
    plain = PlainTransformer(12, 16, 13, 4, 3, 10).double()
    assert_equals_plain_modules(network, plain, *texts(member_seeds))


@pytest.mark.parametrize("members", [1, 3])
def test_features_do_not_depend_on_how_far_rows_are_padded_or_with_what(members, seed):
    network = fleet("transformer", (8, 13), "1/8", range(members)).eval()
    x = texts(range(members), dtype=torch.float32)[0]
    features = network.features(x)
    wider = torch.cat([x, torch.randn(members, 4, 24, 13, generator=seeds.stream(seed, "padding")).to(x)], 2)
    wider[..., 8:, -1] = 0
    close = {"rtol": 1e-5, "atol": 1e-6 if DEVICE == "cpu" else 1e-5}  # a card rounds by shape
    torch.testing.assert_close(network.features(wider), features, **close)
    alone = network.features(x[:, 1:2, :3])
    torch.testing.assert_close(alone, features[:, 1:2], **close)


@pytest.mark.parametrize("members", [1, 2])
def test_a_row_without_a_token_gives_zeros_and_finite_gradients(members):
    network = fleet("transformer", (8, 13), "1/8", range(members))
    x = texts(range(members), dtype=torch.float32)[0]
    x[:, 2] = 0
    features = network.features(x)
    features.square().sum().backward()
    assert not features[:, 2].any()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_dropout_draws_from_each_members_own_stream(seed):
    x = texts([seed, seed + 1], dtype=torch.float32)[0]

    def features(*member_seeds):
        return fleet("transformer", (8, 13), "1/8", member_seeds, dropout=0.5).features(x[-len(member_seeds) :])

    network = fleet("transformer", (8, 13), "1/8", [seed, seed + 1], dropout=0.5)
    assert dropout.draws(network)
    assert torch.equal(features(seed, seed + 1)[1], features(seed + 2, seed + 1)[1])
    assert torch.equal(features(seed), features(seed))  # alone, over real tokens only: in other places, by other draws
    assert not torch.allclose(network.features(x), network.eval().features(x))


def test_counts_that_match_are_these_of_an_input_of_384():
    widths = [Fraction(1, k) for k in (1, 2, 4, 8)]
    assert base.parameter_count("transformer", SHAPE, 3, Fraction(1)) == 1_369_091
    assert [count_matching("transformer", w, by="parameters") for w in widths] == [1, 4, 15, 50]
    assert [count_matching("transformer", w, by="features") for w in widths] == [1, 2, 4, 8]


def test_width_scales_the_size_of_a_head_and_not_their_number():
    narrow = base.build("transformer", SHAPE, 3, Fraction(1, 8))
    assert transformer.widths(Fraction(1, 8)) == (16, 128)
    assert {layer.self_attn.heads for layer in narrow.layers} == {4}


def test_heads_that_do_not_divide_a_width_are_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"have 6 numbers, which 4 heads do not divide; .* 1/32 \(4\) and 1/16 \(8\)"):
        transformer.widths(Fraction(3, 64))
    with pytest.raises(UsageError, match=r"have 2 numbers, which 4 heads do not divide; .* 1/32 \(4\)\."):
        transformer.widths(Fraction(1, 64))


@pytest.mark.parametrize("options", [{"heads": 0}, {"depth": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_options_out_of_bounds_are_refused(options):
    with pytest.raises(UsageError, match="transformer needs hidden, units, heads and depth of at least 1"):
        transformer.widths(Fraction(1), **options)


def test_images_are_refused():
    with pytest.raises(UsageError, match="transformer takes texts of shape"):
        base.build("transformer", (3, 32, 32), 10, Fraction(1))
