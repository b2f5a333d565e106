"""Independent pieces of work, a thread for each, with PyTorch on one thread in it.

Many small products, and all that is no product, gain little by two threads; two of them at a time gain nearly twice.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from queue import SimpleQueue
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")
Room = TypeVar("Room")

LARGE = 4096  # columns

_own = threading.local()  # has `working` in threads of ours


def count(device: torch.device, size: int = 0) -> int:
    """Return how many pieces are worked on at a time: PyTorch's threads; one on a card, and within a piece.

    And where a piece is of so many columns that several would take much memory.
    """
    alone = device.type != "cpu" or size > LARGE or hasattr(_own, "working")
    return 1 if alone else torch.get_num_threads()


def each(work: Callable[[Item], Found], items: Sequence[Item], threads: int) -> list[Found]:
    """Return what work makes of every item, in their order, so many at a time; the rest one by one on all threads."""
    whole = len(items) // threads * threads if threads > 1 else 0
    told = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def alone(item: Item) -> Found:
        with torch.inference_mode(told[0]), torch.set_grad_enabled(told[1]):
            return work(item)

    found = list(_pool(threads, os.getpid()).map(alone, items[:whole])) if whole else []
    return [*found, *map(work, items[whole:])]


def each_in(
    room: Callable[[], Room], work: Callable[[Item, Room], Found], items: Sequence[Item], threads: int
) -> list[Found]:
    """Return what work makes of every item in a room, such as memory used again and again; each thread has its own."""
    rooms: SimpleQueue[Room] = SimpleQueue()
    for _ in range(min(threads, len(items))):
        rooms.put(room())

    def inside(item: Item) -> Found:
        own = rooms.get()
        try:
            return work(item, own)
        finally:
            rooms.put(own)

    return each(inside, items, threads)


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return threads of a process that wait for work; a fork has none of its parent's."""

    def begin() -> None:
        _own.working = torch.get_num_threads()  # asked first: what a thread has set before, asking undoes
        torch.set_num_threads(1)  # of this thread; and of new ones, until it is set again
        ready.wait()

    before, ready = torch.get_num_threads(), threading.Barrier(threads + 1)
    pool = ThreadPoolExecutor(threads, "widthwise", begin)
    for _ in range(threads):
        pool.submit(int)
    ready.wait()
    torch.set_num_threads(before)
    return pool
