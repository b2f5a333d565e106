"""How many networks train as one, in which form; their checkpoints, and what of them is kept.

The form is a table: a pure function of the run, so that a network's bits do not depend on its companions, its
place, its fleet's size or how the work was cut.
"""

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from widthwise import devices, family
from widthwise.active import Active
from widthwise.config import Run, Training, digest
from widthwise.layers import stack, unstack
from widthwise.networks import base as networks
from widthwise.samples import Samples
from widthwise.starts import start
from widthwise.store import Entry, Store, save_tensors
from widthwise.training import Events, Loop, State, begin, diverged, steps_of, train

log = logging.getLogger("widthwise")
CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Form:
    """How a run is computed.

    Attributes:
        kind: "alone", one network at a time, its thin layers by `lanes`; "grouped", convolutions of a fleet as one
            of groups; "batched", matrix products of a fleet as one batched product.
        size: members of a fleet, at most.
        autocast: its dtype, if any.
    """

    kind: Literal["alone", "grouped", "batched"]
    size: int
    autocast: torch.dtype | None = None

    @property
    def together(self) -> bool:
        """Whether networks train in fleets of two or more."""
        return self.kind != "alone"


ALONE = Form("alone", 1)

# (narrowest hidden width below which, form); wider networks train alone. What it rests on: docs/fleets.md.
TABLE = {
    "cpu": {
        "mlp": ((65, Form("batched", 64)), (257, Form("batched", 16))),
        "threshold_mlp": ((1001, Form("batched", 32)),),
    },
    "cuda": {
        "resnet18": ((17, Form("grouped", 64)), (33, Form("grouped", 16))),
        "vgg16": ((17, Form("grouped", 64)), (33, Form("grouped", 16))),
        "mlp": ((129, Form("batched", 256)), (257, Form("batched", 64)), (1001, Form("batched", 16))),
        "transformer": ((33, Form("batched", 64)), (65, Form("batched", 16)), (129, Form("batched", 4))),
        "threshold_mlp": ((1001, Form("batched", 64)),),
    },
}
OTHERWISE = ((8, Form("grouped", 8)),)  # networks of a user's own
HALF_ON_CUDA = ("resnet18", "vgg16")


def form(run: Run, device: str = "cpu") -> Form:
    """Return the form of a run: from its architecture, narrowest layer and precision, and the kind of device."""
    kind = "cuda" if devices.is_card(device) else "cpu"
    narrowest = min(family.member("networks", run.network.kind).widths(run.scale, **run.network.options))
    found = next((form for below, form in _rules(kind, run.network.kind) if narrowest < below), ALONE)
    half = kind == "cuda" and run.network.kind in HALF_ON_CUDA
    half = half if run.training.precision is None else run.training.precision == "bfloat16"
    return replace(found, autocast=torch.bfloat16) if half else found


def groups(
    runs: Sequence[Run],
    steps: Mapping[str, int] | None = None,
    device: str = "cpu",
    processes: int = 1,
    size_of: Callable[[Run, int], int] | None = None,
) -> list[list[Run]]:
    """Return runs cut into fleets: equal but for seed, rate and weight decay, at equal steps.

    They are of the table's size, or where networks train together of what `size_of` says of a run and how many are
    alike; smaller where some of the processes would have none, or fewer than others.
    """
    alike: dict[tuple, list[Run]] = {}
    for run in runs:
        alike.setdefault((_shared(run), (steps or {}).get(run.key, 0)), []).append(run)
    cut = []
    for members in alike.values():
        usual = form(members[0], device)
        size = size_of(members[0], len(members)) if size_of and usual.together else usual.size
        pieces = -(-len(members) // size)
        pieces = max(pieces, min(-(-pieces // processes) * processes, len(members) // 2))
        cut += [members[k * len(members) // pieces : (k + 1) * len(members) // pieces] for k in range(pieces)]
    return cut


def _rules(device: str, kind: str) -> tuple[tuple[int, Form], ...]:
    if kind in TABLE["cpu"] or kind in TABLE["cuda"]:
        return TABLE[device].get(kind, ())
    return OTHERWISE


def _shared(run: Run) -> str:
    """Return what the members of a fleet have in common."""
    free = Training()
    training = run.training.model_copy(update={"rate": free.rate, "weight_decay": free.weight_decay})
    return digest(replace(run, seed=0, training=training).canonical(), 16)


def build(runs: Sequence[Run], samples: Samples, device: str = "cpu") -> networks.Network:
    """Return a fleet at its start: every member's weights drawn from its own seed.

    A lone member of a form that trains together gets a companion, a copy of itself, to be thrown away.
    """
    members = _with_companion(runs, device)
    first = members[0]
    network = networks.build(
        first.network.kind, samples.shape, samples.classes, first.scale, len(members), **first.network.options
    )
    start(network, members, samples.shape, samples.classes)
    return network.to(device)


def loop_of(run: Run) -> type[Loop]:
    """Return what takes the steps of a run's training."""
    return Active if run.training.optimiser == "normalised_sgd" else Loop


def initial_weights(runs: Sequence[Run], samples: Samples) -> list[dict[str, Tensor]]:
    """Return every run's weights before the first step, as plain state dicts."""
    state = build(runs, samples).state_dict()
    return [unstack(state, k) for k in range(len(runs))]


def train_fleet(
    runs: Sequence[Run],
    samples: Samples,
    store: Store,
    *,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda step, steps: None,
    stopping: Callable[[], bool] = lambda: False,
    save_every: float = 60.0,
) -> None:
    """Train runs that may differ in seed, rate and weight decay, from checkpoints if there are any, into the store.

    Raises:
        training.Interrupted: if `stopping()`; a checkpoint has been written.
    """
    with contextlib.ExitStack() as held:
        for key in sorted(run.key for run in runs):
            held.enter_context(store.lock(f"training-{key}"))
        missing = [run for run in runs if store.get("runs", run.key) is None]
        steps = {key: found.step for key, found in checkpoints(store).items()}
        for piece in groups(missing, steps, device, size_of=lambda run, alike: alike):
            _train_piece(piece, samples, store, device, progress, stopping, save_every)


def _train_piece(
    runs: list[Run],
    samples: Samples,
    store: Store,
    device: str,
    progress: Callable[[int, int], None],
    stopping: Callable[[], bool],
    save_every: float,
) -> None:
    network = build(runs, samples, device)
    members = _with_companion(runs, device)
    folder = store.partial(f"training-{digest(sorted(run.key for run in runs), 16)}")
    events = Events(
        save=lambda state: _save(folder / CHECKPOINT, runs, state),
        snapshot=lambda k, name, weights: _keep(store, runs, k, name, weights),
        progress=progress,
        stopping=stopping,
        save_every=save_every,
    )
    state = _resumed(network, members, checkpoints(store)) or begin(network, runs[0].training.optimiser)
    trainings, autocast = [run.training for run in members], form(runs[0], device).autocast
    own, loop = [run.seed for run in members], loop_of(runs[0])
    state = train(network, own, samples, trainings, state, events, autocast=autocast, loop=loop)
    for k, (run, initial) in enumerate(zip(runs, initial_weights(runs, samples), strict=True)):
        _finish(store, run, initial, unstack(state.weights, k), state.histories[k], samples)
    shutil.rmtree(folder, ignore_errors=True)


def _with_companion(runs: Sequence[Run], device: str) -> list[Run]:
    return list(runs) * 2 if form(runs[0], device).together and len(runs) == 1 else list(runs)


# Checkpoints --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """Where one run's unfinished training lies: a file, its place in it, and how many steps are done."""

    path: Path
    place: int
    step: int


def checkpoints(store: Store) -> dict[str, Checkpoint]:
    """Return the furthest checkpoint of every run that has one; a damaged file is said and removed."""
    found: dict[str, Checkpoint] = {}
    for path in sorted((store.root / "partial").glob(f"training-*/{CHECKPOINT}")):
        try:
            facts = _facts(path)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            log.warning("the checkpoint %s is damaged (%s); its training starts again.", path, error)
            path.unlink(missing_ok=True)
            continue
        for place, key in enumerate(facts["keys"]):
            if key not in found or found[key].step < facts["step"]:
                found[key] = Checkpoint(path, place, facts["step"])
    return found


def _facts(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["state"])


def _save(path: Path, runs: Sequence[Run], state: State) -> None:
    """Write a fleet's state whole, without a companion that is thrown away."""
    m = len(runs)
    tensors = {f"weights/{name}": t[:m] for name, t in state.weights.items()}
    tensors |= {f"momentum/{name}": t[:m] for name, t in state.momentum.items()}
    tensors |= {"loss": state.loss[:m], "hits": state.hits[:m]}
    facts = {
        "keys": [run.key for run in runs],
        "step": state.step,
        "seconds": state.seconds,
        "histories": state.histories[:m],
    }
    save_tensors(path, {name: t.cpu() for name, t in tensors.items()}, {"state": json.dumps(facts)})


def _resumed(network: networks.Network, members: Sequence[Run], found: Mapping[str, Checkpoint]) -> State | None:
    """Return the state in which every member's checkpoint left it, or None for a fleet at its start."""
    if not all(run.key in found for run in members):
        return None
    device = next(network.parameters()).device
    slices, histories, seconds = [], [], 0.0
    for run in members:
        at = found[run.key]
        facts = _facts(at.path)
        with safe_open(at.path, "pt") as file:
            slices.append({name: file.get_tensor(name)[at.place] for name in file.keys()})  # noqa: SIM118
        histories.append(facts["histories"][at.place])
        seconds = max(seconds, facts["seconds"])
    whole = {name: t.to(device) for name, t in stack(slices).items()}

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in whole.items() if name.startswith(prefix)}

    step = found[members[0].key].step
    return State(
        part("weights/"),
        part("momentum/"),
        whole["loss"].cpu(),
        whole["hits"].cpu(),
        step,
        seconds,
        histories,
    )


# What is kept -------------------------------------------------------------------------------------------


def _keep(store: Store, runs: Sequence[Run], k: int, name: str, weights: Mapping[str, Tensor]) -> None:
    if k < len(runs):
        path = store.partial(f"snapshots-{runs[k].key}") / f"{name}.safetensors"
        save_tensors(path, {n: t.cpu() for n, t in weights.items()})


def _finish(
    store: Store,
    run: Run,
    initial: Mapping[str, Tensor],
    final: Mapping[str, Tensor],
    history: list[dict],
    samples: Samples,
) -> Entry:
    """Put a trained network into the store: initial, final and snapshot weights, history, facts."""
    snapshots = store.partial(f"snapshots-{run.key}")

    def write(folder: Path) -> None:
        save_tensors(folder / "initial.safetensors", initial)
        save_tensors(folder / "final.safetensors", {name: t.cpu() for name, t in final.items()})
        for path in sorted(snapshots.glob("at_*.safetensors")):
            shutil.copyfile(path, folder / path.name)
        (folder / "history.json").write_text(json.dumps(history, indent=1))

    facts = {**run.describe(), **_sizes(run, samples), "diverged": diverged(history)}
    entry = store.make("runs", run.key, write, facts)
    if facts["diverged"]:
        log.warning(
            "%s has diverged in epoch %d: its loss or weights are no longer finite. It was left there, and no other "
            "network knows of it; a smaller training.rate than %g may help.",
            run.key,
            len(history),
            run.training.rate,
        )
    shutil.rmtree(snapshots, ignore_errors=True)
    return entry


def _sizes(run: Run, samples: Samples) -> dict:
    architecture = (run.network.kind, samples.shape, samples.classes, run.scale)
    return {
        "parameters": networks.parameter_count(*architecture, **run.network.options),
        "features": networks.feature_count(*architecture, **run.network.options),
        "shape": list(samples.shape),
        "classes": samples.classes,
        "steps": steps_of(run.training, len(samples.training_rows))[1],
    }
