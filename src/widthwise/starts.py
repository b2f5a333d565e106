"""Initial weights: drawn by every network for itself, or slices of a wide network's.

With `slice_of_wide` the networks of width 1/n begin as the n disjoint slices of a wide network's initial weights,
matched by features: network s is slice s mod n of the wide network with seed s // n. A slice has its own part of
every layer's inputs and outputs, and all of the samples' inputs and classes. With one hidden layer and the scale kept,
the n slices side by side *are* the wide start; a deeper wide network has, beside these blocks, the weights between
them. Those weights are missing from a slice's sums, so that its activations shrink from layer to layer by sqrt(1/n):
`adapted` multiplies each weight by sqrt(wide fan-in / narrow fan-in), which makes it He normal again; `kept` does not.

With `shared_neurons` the neurons of the networks of one width, seed after seed, are one endless sequence, the same for
every width: 300 networks of 100 neurons and one of 30,000 begin with the very same neurons. All else each draws itself.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from widthwise import seeds
from widthwise.config import Run
from widthwise.layers import initialise
from widthwise.networks import base as networks

CHUNK = 10_000  # neurons of the shared sequence that are drawn at a time


def start(network: networks.Network, runs: Sequence[Run], shape: tuple[int, ...], classes: int) -> None:
    """Give a fleet on the CPU its initial weights, each member's from its own run alone.

    Members are equal but for their seeds, rates and decays.
    """
    initialise(network, [seeds.stream(run.seed, "init") for run in runs])
    if runs[0].training.init == "shared_neurons":
        with torch.no_grad():
            for k, run in enumerate(runs):
                _take_neurons(network.neurons, k, run.seed)  # pyright: ignore[reportArgumentType]
    if runs[0].slices:
        with torch.no_grad():
            for k, run in enumerate(runs):
                own = {name: p[k] for name, p in network.named_parameters()}
                wide, piece = _wide(run, shape, classes), run.seed % run.slices
                _fill(own, wide, piece, _parts(network), adapted=run.training.init_scale != "kept")


def _take_neurons(layer: Any, k: int, seed: int) -> None:
    """Give member k its part of the sequence of neurons: as many as it has, behind those of all seeds before."""
    own = layer.weight[k]
    first, last = seed * len(own), (seed + 1) * len(own)
    for chunk in range(first // CHUNK, -(-last // CHUNK)):
        drawn = torch.randn(CHUNK, own.shape[1], generator=seeds.stream(0, "shared neurons", chunk)) * layer.deviation
        start = chunk * CHUNK
        a, b = max(first, start), min(last, start + CHUNK)
        own[a - first : b - first] = drawn[a - start : b - start]


def _wide(run: Run, shape: tuple[int, ...], classes: int) -> dict[str, Tensor]:
    """Return the initial weights of the wide network that a run is a slice of."""
    network = networks.build(run.network.kind, shape, classes, run.network.base, **run.network.options)
    initialise(network, [seeds.stream(run.seed // run.slices, "init")])
    return {name: p.detach()[0] for name, p in network.named_parameters()}


def _parts(network: networks.Network) -> dict[str, tuple[int, ...]]:
    """Return, by weight, into how many parts its dimensions fall, of each of which a slice has its own: as of heads."""
    told = [(name, getattr(module, "parts", {})) for name, module in network.named_modules()]
    return {f"{name}.{weight}": counts for name, parts in told for weight, counts in parts.items()}


def _fill(
    own: Mapping[str, Tensor],
    wide: Mapping[str, Tensor],
    piece: int,
    parts: Mapping[str, tuple[int, ...]],
    *,
    adapted: bool,
) -> None:
    """Fill a network's weights with its slice of the wide network's, in which only hidden layers are wider."""
    for name, weight in own.items():
        part = wide[name]
        for dim, (width, count) in enumerate(zip(weight.shape, parts.get(name, (1,) * weight.ndim), strict=True)):
            if part.shape[dim] != width:
                each = part.unflatten(dim, (count, -1)).narrow(dim + 1, piece * width // count, width // count)
                part = each.flatten(dim, dim + 1)
        scale = sqrt(wide[name][0].numel() / weight[0].numel()) if adapted and weight.ndim > 1 else 1.0
        weight.copy_(part * scale)
