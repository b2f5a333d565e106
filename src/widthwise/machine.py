"""How fast this machine is, and what a network asks of it: FLOPs and activations, steps, matrix products.

FLOPs and activations are counted on PyTorch's meta device, without computing anything. Times are those of a
few real steps of a fleet, and of one matrix product and one eigendecomposition, on one thread.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from widthwise import devices, family, fleet
from widthwise.config import Run
from widthwise.data.base import Endless
from widthwise.dropout import give_streams
from widthwise.networks import base as networks
from widthwise.ragged import Ragged, joined
from widthwise.recorded import WARM
from widthwise.samples import Samples
from widthwise.seeds import stream
from widthwise.training import Events, begin, train

PROBED, STEPS = 32, 4  # samples a member and steps that are timed, where a whole batch would take long
QUICK = 0.1  # seconds: below it steps of a whole batch are timed


def processes(device: str) -> int:
    """Return how many processes work at the same time unless told otherwise: one a core, one on a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if devices.is_card(device) else cores


@dataclass(frozen=True)
class Forward:
    """One sample through one network: FLOPs, bytes kept for the way back; and its parameters."""

    flops: float
    activations: float
    parameters: int

    def training_bytes(self, batch: int) -> float:
        """Return the memory of training on so many samples at a time: weights five times over, activations."""
        return 5 * 4 * self.parameters + self.activations * batch


def forward(run: Run) -> Forward:
    """Return what one sample asks of a run's network."""
    member = family.member("data", run.data.kind)
    options = tuple(sorted(run.network.options.items()))
    return _counted(run.network.kind, family.shape(member, run.data.options), member.CLASSES, run.scale, options)


@cache
def _counted(kind: str, shape: tuple[int, ...], classes: int, scale: Fraction, options: tuple) -> Forward:
    with torch.device("meta"):
        network = networks.build(kind, shape, classes, scale, **dict(options))
        x = torch.empty(1, 2, *shape)  # two samples: batch norm wants more than one
    give_streams(network, [stream(0, "dropout")])
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(x)
    parameters = {p.untyped_storage()._cdata: p.untyped_storage().nbytes() for p in network.parameters()}
    activations = sum(n for storage, n in kept.items() if storage not in parameters)
    assert logits.shape == (1, 2, classes)
    return Forward(counter.get_total_flops() / 2, activations / 2, sum(p.numel() for p in network.parameters()))


def step_seconds(runs: Sequence[Run], shape: tuple[int, ...], batch: int, device: str) -> float:
    """Return the seconds of one training step of a fleet, timed on random samples."""
    probed = min(batch, PROBED)
    seconds = _timed_step(runs, shape, probed, device)
    if probed < batch and seconds < QUICK:
        probed, seconds = batch, _timed_step(runs, shape, batch, device)
    return seconds * batch / probed


def _timed_step(runs: Sequence[Run], shape: tuple[int, ...], batch: int, device: str) -> float:
    steps = STEPS + (WARM if devices.is_card(device) else 0)
    samples = random_samples(runs[0], shape, batch * steps)
    network = fleet.build(runs, samples, device)
    once = {"epochs": 1, "batch_size": batch} | ({"fresh": steps} if runs[0].training.fresh else {})
    training = runs[0].training.model_copy(update=once)
    ends = [time.perf_counter()]

    def ended(step: int, steps: int) -> None:
        if devices.is_card(device):
            torch.cuda.synchronize(device)
        ends.append(time.perf_counter())

    events = Events(progress=ended)
    with _one_thread():
        train(
            network,
            range(network.members),
            samples,
            training,
            begin(network, training.optimiser),
            events,
            autocast=fleet.form(runs[0], device).autocast,
            loop=fleet.loop_of(runs[0]),
        )
    return min(after - before for before, after in pairwise(ends[1:]))  # the first warms up


def random_samples(run: Run, shape: tuple[int, ...], rows: int) -> Samples:
    """Return random images of a run's data set, or random tokens of texts as long as its are."""
    member = family.member("data", run.data.kind)
    images: torch.Tensor | Ragged = torch.randint(
        0, 256, (rows, *shape), dtype=torch.uint8, generator=stream(0, "probe")
    )
    if hasattr(member, "draw"):
        images = member.read(None, **run.data.options).train[:rows]
    if hasattr(member, "encode"):
        quantiles = torch.tensor([min(tokens, shape[0]) for tokens in getattr(member, "TOKENS", shape[:1])])
        lengths = quantiles[torch.arange(rows) % len(quantiles)]
        states = torch.randn(int(lengths.sum()), shape[1] - 1, generator=stream(0, "probe")).half()
        images = joined([(states, lengths)])
    labels, ids = torch.arange(rows) % member.CLASSES, torch.arange(rows)
    return Samples(
        checksum="none",
        train=images,
        labels=labels,
        ids=ids,
        trained=torch.ones(rows, dtype=torch.bool),
        test=images[:1],
        test_labels=labels[:1],
        test_ids=ids[:1],
        classes=member.CLASSES,
        shape=shape,
        mean=tuple(member.MEAN),
        std=tuple(member.STD),
        augment=member.AUGMENT,
        endless=Endless(member, run.data.options) if hasattr(member, "draw") else None,
    )


@cache
def rates() -> tuple[float, float]:
    """Return FLOPs a second of float64 matrix products, and p^3 a second of eigendecompositions."""
    A = torch.randn(512, 512, dtype=torch.float64, generator=stream(0, "rates"))
    S = A[:256] @ A[:256].T
    with _one_thread():
        product = min(_seconds(lambda: A @ A) for _ in range(3))
        eigen = min(_seconds(lambda: torch.linalg.eigh(S)) for _ in range(2))
    return 2 * 512**3 / product, 256**3 / eigen


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, as every process of a run does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
