"""How many networks train as one on this machine: measured in seconds, and kept for the next time.

What form a run has is a table (`fleet`), so that no bit depends on a measurement. How many members a fleet has changes
no bit, from two on, so that is measured; what was found is kept in the user's cache folder, by machine and versions.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch

from widthwise import devices, fleet, machine
from widthwise.config import Run, digest
from widthwise.errors import StorageError
from widthwise.linalg import memory
from widthwise.native import cache_folder
from widthwise.store import Store, environment

SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
WORTH = 1.05  # times as fast as the table's size another must be
FALLEN = 0.8  # of the best rate: larger fleets are not asked
SHARE = 0.5  # of the memory that fleets may take


def sizes(
    shape: tuple[int, ...], rows: int, device: str, processes: int, fixed: int | None = None
) -> Callable[[Run, int], int]:
    """Return what says of a run and of how many are alike how many should train as one; always `fixed`, if given.

    Args:
        shape, rows: of a sample; that networks train on.
    """

    def found(run: Run, alike: int) -> int:
        return fixed or size(run, shape, min(run.training.batch_size, rows), alike, device, processes)

    return found


def size(run: Run, shape: tuple[int, ...], batch: int, networks: int, device: str, processes: int) -> int:
    """Return how many networks like a run should train as one: the table's number, unless another is clearly faster.

    Args:
        shape, batch: of a sample; samples of a step.
        networks: that are to be trained; larger fleets are not looked at.
        processes: that train at the same time, and share the memory.
    """
    usual = fleet.form(run, device)
    if not usual.together or run.training.optimiser == "normalised_sgd":  # whose steps get slower as neurons wake
        return usual.size
    each = processes * machine.forward(run).training_bytes(batch)
    room = max(2, min(networks, int(min(SHARE * _memory(device) / each, 1e6))))
    sizes = sorted(n for n in {*SIZES, usual.size} if n <= room)
    usually = max(n for n in sizes if n <= usual.size)
    rates = _rates(run, shape, batch, tuple(sizes), device) if len(sizes) > 1 else {usually: 1.0}
    best, largest = max(rates, key=lambda n: rates[n]), max(rates)  # the table's, if larger, is as slow as the largest
    return best if rates[best] > WORTH * rates.get(usually, rates[largest]) else usually


def _rates(run: Run, shape: tuple[int, ...], batch: int, sizes: Sequence[int], device: str) -> dict[int, float]:
    """Return steps of a network a second, by the members of a fleet; measured now, unless they are known."""
    how = (run.training.optimiser, run.training.precision, shape, batch, sizes)
    key = digest([run.canonical()["network"], how, _machine(device)], 16)
    measured = cache(lambda: _measured(run, shape, batch, sizes, device))
    try:
        folder = cache_folder()
    except RuntimeError:  # no home: measured again the next time
        return measured()
    try:
        entry = Store(folder).make("fleets", key, lambda folder: None, lambda: {"rates": measured()})
    except (StorageError, OSError):  # no room
        return measured()
    return {int(n): float(rate) for n, rate in entry.facts["rates"].items()}


def _measured(run: Run, shape: tuple[int, ...], batch: int, sizes: Sequence[int], device: str) -> dict[int, float]:
    rates: dict[int, float] = {}
    for n in sizes:
        rates[n] = n / machine.step_seconds([run] * n, shape, batch, device)
        if rates[n] < FALLEN * max(rates.values()):
            break
    return rates


def _machine(device: str) -> list[str]:
    made = environment()
    card = [torch.cuda.get_device_name(device)] if devices.is_card(device) else []
    return [made["machine"], made["versions"]["torch"], made["versions"]["widthwise"], *card]


def _memory(device: str) -> float:
    return float(torch.cuda.mem_get_info(device)[0]) if devices.is_card(device) else memory.physical()
