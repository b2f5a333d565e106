"""Slices of a wide network's initial weights: together they are the wide network, as far as they can be."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from small import run, samples
from widthwise import fleet
from widthwise.config import Data, Network, Run, Training, load_study
from widthwise.errors import UsageError


def sliced(seed, width, scale="kept", **network):
    made = run(seed, Fraction(width), **network)
    training = made.training.model_copy(update={"init": "slice_of_wide", "init_scale": scale})
    return type(made)(made.data, made.data_checksum, made.network, training, made.width, seed)


def weights(runs):
    return [state for r in runs for state in fleet.initial_weights([r], samples())]


def test_with_one_hidden_layer_the_slices_side_by_side_are_the_wide_start():
    (wide,) = weights([run(1, depth=1)])
    parts = weights([sliced(seed, "1/4", depth=1) for seed in range(4, 8)])  # wide network 1 is cut into 4 .. 7
    assert torch.equal(torch.cat([p["hidden.0.weight"] for p in parts]), wide["hidden.0.weight"])
    assert torch.equal(torch.cat([p["head.weight"] for p in parts], 1), wide["head.weight"])


def test_a_deeper_networks_slices_are_blocks_on_its_diagonal():
    (wide,) = weights([run(0, depth=3)])
    parts = weights([sliced(seed, "1/2", depth=3) for seed in (0, 1)])
    for k, part in enumerate(parts):
        own = slice(8 * k, 8 * k + 8)
        assert torch.equal(part["hidden.2.weight"], wide["hidden.2.weight"][own, own])
        assert torch.equal(part["hidden.4.weight"], wide["hidden.4.weight"][own, own])


def test_an_adapted_scale_is_he_normal_in_the_narrow_network():
    (kept,), (adapted,) = (weights([sliced(0, "1/4", scale)]) for scale in ("kept", "adapted"))
    assert torch.equal(adapted["hidden.0.weight"], kept["hidden.0.weight"])  # of the samples' inputs, which all see
    for name in ("hidden.2.weight", "head.weight"):
        torch.testing.assert_close(adapted[name], 2 * kept[name])
    assert not adapted["hidden.2.bias"].any()


def test_slices_of_attention_have_their_part_of_every_head():
    """One slice's queries, keys and values of a head are of the wide network's same ones."""
    heads, hidden, options = 2, 16, {"heads": 2, "units": 32, "depth": 1}
    text = replace(samples(), shape=(5, 4), classes=3)

    def start(seed, width):
        training = Training(init="slice_of_wide", init_scale="kept")
        network = Network(kind="transformer", hidden=hidden, **options)
        return fleet.initial_weights([Run(Data(), "none", network, training, Fraction(width), seed)], text)[0]

    wide, parts = start(0, "1"), [start(seed, "1/2") for seed in (0, 1)]
    key = "layers.0.self_attn"
    whole = wide[f"{key}.in_proj_weight"].view(3, heads, 2, 4, hidden)  # q k v, heads, slices, numbers
    mixing = wide[f"{key}.out_proj.weight"].view(hidden, heads, 2, 4)
    for k, part in enumerate(parts):
        own = slice(8 * k, 8 * k + 8)  # of the hidden state
        assert torch.equal(part[f"{key}.in_proj_weight"].view(3, heads, 4, 8), whole[:, :, k, :, own])
        assert torch.equal(part[f"{key}.out_proj.weight"].view(8, heads, 4), mixing[own, :, k])


def test_shared_neurons_are_one_sequence_whatever_the_width():
    def neurons(width, seeds):
        training = Training(init="shared_neurons", optimiser="normalised_sgd", epochs=1)
        network = Network(kind="threshold_mlp", hidden=4)
        runs = [Run(Data(kind="signals"), "none", network, training, Fraction(width), seed) for seed in seeds]
        of = replace(samples(), shape=(6, 16), classes=2)
        return torch.cat([state["neurons.weight"] for state in fleet.initial_weights(runs, of)])

    wide = neurons(24_000, [0])
    assert torch.equal(neurons(6000, range(4)), wide)
    assert torch.equal(neurons(100, range(95, 105)), wide[9500:10_500])
    assert float(wide.std()) == pytest.approx(0.6 / 3.2, rel=0.01)


def test_a_slice_does_not_depend_on_companions():
    alone, beside = weights([sliced(5, "1/2")]), fleet.initial_weights([sliced(s, "1/2") for s in (3, 5)], samples())
    assert all(torch.equal(alone[0][name], beside[1][name]) for name in alone[0])


def test_the_key_says_of_which_network_a_run_is_a_slice():
    assert sliced(0, "1/2").key != run(0, Fraction(1, 2)).key
    assert sliced(0, "1/2").key != sliced(0, "1/2", "adapted").key
    quarter_of_64, half_of_32 = sliced(0, "1/4", hidden=64), sliced(0, "1/2", hidden=32)
    assert quarter_of_64.canonical()["network"]["widths"] == half_of_32.canonical()["network"]["widths"]
    assert quarter_of_64.key != half_of_32.key
    assert sliced(0, "1").key == run(0).key  # the wide network is no slice


def test_a_width_that_does_not_divide_the_wide_network_is_refused():
    raw = {"training": {"init": "slice_of_wide"}, "widths": [1, "3/4"], "network": {"hidden": 16}}
    with pytest.raises(UsageError, match="widths: 3/4 is no slice of a wide network: slice_of_wide takes 1/2"):
        load_study(raw)
