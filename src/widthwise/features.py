"""What the last hidden layer says of each sample: every network's features and logits, in the store."""

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from widthwise.config import Run
from widthwise.devices import as_told
from widthwise.errors import DataError, UsageError
from widthwise.fleet import build, groups, initial_weights
from widthwise.layers import stack
from widthwise.networks import base as networks
from widthwise.ragged import Ragged
from widthwise.samples import PARTS, Samples
from widthwise.store import Entry, Store
from widthwise.training import Interrupted

BATCH = 500
VERSION = 1


def key_of(run: Run, snapshot: str, part: str) -> str:
    """Return the key of one network's features at a snapshot, on training rows (and reserve) or test rows."""
    return f"{run.key}-{snapshot}-{part}-v{VERSION}"


def find(store: Store, run: Run, snapshot: str) -> dict[str, Entry] | None:
    """Return both parts of a network's features, or None if either is missing."""
    entries = {part: store.get("features", key_of(run, snapshot, part)) for part in PARTS}
    return None if any(e is None for e in entries.values()) else entries  # pyright: ignore[reportReturnType]


def extract(
    runs: Sequence[Run],
    snapshot: str,
    samples: Samples,
    store: Store,
    *,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, of: None,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Read the features of runs that are equal but for their seeds, in float32 and evaluation mode.

    Args:
        snapshot: "initial" (which needs no training), "final", or "at_0.9" for a training accuracy.

    Raises:
        DataError: if a network's features are not finite: its training diverged.
    """
    for group in groups([run for run in runs if find(store, run, snapshot) is None], device=device):
        network = build(group, samples, device)
        weights = _weights(store, group, snapshot, samples)
        companions = [weights[0]] if network.members > len(weights) else []
        network.load_state_dict(stack(weights + companions))
        network.eval()
        total = len(samples.train) + len(samples.test)
        for part, rows, ids in (
            ("train", samples.train, samples.ids),
            ("test", samples.test, samples.test_ids),
        ):
            before = 0 if part == "train" else len(samples.train)
            features, logits = [], []
            for start in range(0, len(rows), BATCH):
                if stopping():
                    raise Interrupted
                read = _read(network, rows[start : start + BATCH].to(device), samples)
                features.append(read[0][: len(group)].cpu())
                logits.append(read[1][: len(group)].cpu())
                progress(before + min(start + BATCH, len(rows)), total)
            _store(store, group, snapshot, part, torch.cat(features, 1), torch.cat(logits, 1), ids)


def load_network(store: Store, key: str) -> networks.Single:
    """Return one trained network as an ordinary module, in evaluation mode.

    Raises:
        UsageError: if the store holds no such run.
    """
    entry = store.get("runs", key)
    if entry is None:
        there = store.keys("runs")
        some = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "") or "none"
        raise UsageError(f'the store {store.root} holds no run "{key}"; it has {some}.')
    facts = dict(entry.facts)
    network = dict(facts["network"])
    kind, base, width = network.pop("kind"), network.pop("base"), network.pop("width")
    scale = Fraction(base) * Fraction(width)
    single = networks.Single(networks.build(kind, tuple(facts["shape"]), facts["classes"], scale, **network))
    single.load_state_dict(entry.tensors("final"))
    return single.eval()


@torch.no_grad()
def _read(network: networks.Network, rows: Tensor | Ragged, samples: Samples) -> tuple[Tensor, Tensor]:
    """Return every member's features (members, rows, d) and logits (members, rows, classes)."""
    inputs = samples.inputs(rows)
    with as_told():
        features = network.features(inputs.expand(network.members, *inputs.shape))
        return features, network.head(features)


def _weights(store: Store, runs: Sequence[Run], snapshot: str, samples: Samples) -> list[dict[str, Tensor]]:
    if snapshot == "initial":
        return initial_weights(runs, samples)
    weights = []
    for run in runs:
        entry = store.get("runs", run.key)
        if entry is None:
            raise UsageError(f"{run.key} is not trained yet; its features at {snapshot} cannot be read.")
        weights.append(entry.tensors(snapshot))
    return weights


def _store(
    store: Store, runs: Sequence[Run], snapshot: str, part: str, features: Tensor, logits: Tensor, ids: Tensor
) -> None:
    for run, own, outputs in zip(runs, features, logits, strict=True):
        if not bool(torch.isfinite(own).all()):
            row, column = (~torch.isfinite(own)).nonzero()[0].tolist()
            raise DataError(
                f"the features of {run.key} are not finite (row {row}, feature {column}): its training diverged. "
                "Lower training.rate, or leave that seed out."
            )
        facts = {"run": run.key, "snapshot": snapshot, "part": part, "shape": list(own.shape)}
        tensors = {"features": own, "logits": outputs, "ids": ids}
        store.save("features", key_of(run, snapshot, part), tensors, facts)
