"""Which signals networks of the toy have learned, and what became of the neurons that a signal activated.

A neuron w is activated by the signal v_k where |<w, v_k>| exceeds its threshold, of either sign. A network has learned
v_k when an activated neuron has |cosine| with v_k above 0.9. Duzgun, Jelassi and Li (2024), section 4; DEFINITIONS 7.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from widthwise import family
from widthwise.config import Network
from widthwise.errors import UsageError
from widthwise.measures.base import TRANSFORMATIONS, Score, Trained

VERSION = 1
NEEDS = frozenset({"networks"})
INVARIANT_TO = frozenset(TRANSFORMATIONS)  # It reads no features.
BINS = 20  # of cosines, from 0 to 1


def measure(networks: Sequence[Trained], *, cosine: float = 0.9) -> Score:
    """Return the share of networks that learned all signals, and of each network and signal the following arrays.

        learned         (networks, signals) 1 where it has
        best            (2, networks, signals) the largest |cosine| of an activated neuron at the start and end; or 0
        activated       (2, networks, signals) neurons that it activates at the start, and at the end
        kept, new       (networks, signals) of those at the end, the ones that were and were not so at the start
        cosines         (2, signals, 20) activated neurons of all networks by |cosine|, in bins from 0 to 1
        noise           (2, networks) neurons that a noise patch is expected to activate, at the start and the end
        train_accuracy, test_accuracy, train_loss, length    (networks,) at the end; length is in epochs

    Args:
        cosine: above it an activated neuron has learned its signal.

    Raises:
        UsageError: if `cosine` is not between 0 and 1.
    """
    if not 0 < cosine < 1:
        raise UsageError(f"a cosine is between 0 and 1, not {cosine}.")
    signals = sum(name.startswith("cosine_v") for name in networks[0].history[-1])
    found = [_fate(network, signals) for network in networks]
    best = torch.stack([f["best"] for f in found], 1)
    learned = (best[1] > cosine).double()
    last = [network.history[-1] for network in networks]
    arrays = {
        "learned": learned,
        "best": best,
        "activated": torch.stack([f["activated"] for f in found], 1),
        "kept": torch.stack([f["kept"] for f in found]),
        "new": torch.stack([f["new"] for f in found]),
        "cosines": torch.stack([f["cosines"] for f in found]).sum(0),
        "train_accuracy": _column(last, "train_accuracy"),
        "test_accuracy": _column(last, "test_accuracy"),
        "noise": torch.stack([f["noise"] for f in found], 1),
        "train_loss": _column(last, "train_loss"),
        "length": torch.tensor([float(len(network.history)) for network in networks], dtype=torch.float64),
    }
    return Score(float(learned.all(1).double().mean()), {"networks": len(networks), "cosine": cosine}, arrays)


def _fate(network: Trained, signals: int) -> dict[str, Tensor]:
    """Return what became of the neurons of one network."""
    threshold, reached, best, cosines, noise = _option(network.run.network, "threshold"), [], [], [], []
    norm = family.options(family.member("data", network.run.data.kind).read) | network.run.data.options
    for snapshot in ("initial", "final"):
        weight = network.weights(snapshot)["neurons.weight"].double()
        known = weight[:, :signals].abs()
        on: Bool[Tensor, "neurons signals"] = known > threshold
        alike = torch.where(on, known / weight.norm(dim=1, keepdim=True).clamp_min(1e-300), 0.0)
        reached.append(on)
        deviation = norm["noise"] * weight[:, signals:].norm(dim=1) / sqrt(weight.shape[1] - signals)
        noise.append(torch.special.ndtr(-threshold / deviation.clamp_min(1e-300)).sum())
        best.append(alike.amax(0))
        cosines.append(torch.stack([_histogram(alike[on[:, k], k]) for k in range(signals)]))
    start, end = reached
    return {
        "best": torch.stack(best),
        "activated": torch.stack([on.double().sum(0) for on in reached]),
        "kept": (start & end).double().sum(0),
        "new": (~start & end).double().sum(0),
        "cosines": torch.stack(cosines),
        "noise": torch.stack(noise),
    }


def _histogram(cosines: Float[Tensor, " neurons"]) -> Float[Tensor, " bins"]:
    return torch.histc(cosines.clamp(0, 1), bins=BINS, min=0.0, max=1.0)


def _column(last: Sequence[Any], name: str) -> Float[Tensor, " networks"]:
    return torch.tensor([end[name] for end in last], dtype=torch.float64)


def _option(network: Network, name: str) -> float:
    return (family.options(family.member("networks", network.kind).build) | network.options)[name]
