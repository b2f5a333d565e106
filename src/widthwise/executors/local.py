"""Processes on this machine, one thread each: as many as there are cores."""

import contextlib
import ctypes
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

import torch

from widthwise.errors import WidthwiseError
from widthwise.executors.base import Job, Listener, Progress, Worker, never
from widthwise.training import Interrupted

PATIENCE = 0.2  # seconds between looks at the workers


def perform(jobs: Sequence[Job], worker: Worker, *, count: int, listener: Listener) -> None:
    """Do jobs in `count` processes, or here if one is enough.

    Raises:
        KeyboardInterrupt: after every worker has saved what it had.
    """
    board = _Board(jobs, listener)
    if count == 1 or len(jobs) == 1:
        _here(jobs, worker, board)
    else:
        _Pool(worker, min(count, len(jobs))).run(jobs, board)


class _Board:
    """How far every job is, told to the listener as one stage."""

    def __init__(self, jobs: Sequence[Job], listener: Listener):
        self.jobs, self.listener = jobs, listener
        self.shares = [0.0] * len(jobs)
        self.units = [job.units for job in jobs]  # once: a stage has thousands of comparisons, and tells often
        self.total = sum(self.units)
        self.tell()

    def update(self, k: int, share: float) -> None:
        self.shares[k] = share
        self.tell(str(self.jobs[k]))

    def tell(self, message: str = "") -> None:
        done = sum(share * units for share, units in zip(self.shares, self.units, strict=True))
        self.listener(Progress(self.jobs[0].stage, done, self.total, message))


def _here(jobs: Sequence[Job], worker: Worker, board: _Board) -> None:
    """Do jobs in this process, on one thread; the first Ctrl-C lets the job save what it has."""
    stopped: list[int] = []
    in_main = _is_main_thread()
    before = signal.signal(signal.SIGINT, lambda *_: stopped.append(1)) if in_main else None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    worker.stopping = lambda: bool(stopped)
    try:
        for k, job in enumerate(jobs):
            job.perform(worker, lambda share, k=k: board.update(k, share))
            board.update(k, 1.0)
            if stopped:
                raise KeyboardInterrupt
    except Interrupted:
        raise KeyboardInterrupt from None
    finally:
        torch.set_num_threads(threads)
        if in_main:
            signal.signal(signal.SIGINT, before)


class _Pool:
    """Worker processes that are told to stop, not killed."""

    def __init__(self, worker: Worker, count: int):
        context = multiprocessing.get_context("spawn")
        self.stop, self.shares = context.Event(), context.Queue()
        given = (replace(worker, stopping=never), self.stop, self.shares, os.getpid())
        self.pool = ProcessPoolExecutor(count, context, _start, given)

    def run(self, jobs: Sequence[Job], board: _Board) -> None:
        try:
            with _holding_interrupts():  # a process that is still starting would show where it was
                futures = [self.pool.submit(_do, k, job) for k, job in enumerate(jobs)]
            self._watch(futures, board)
        finally:  # on Ctrl-C too: workers save what they have
            self.stop.set()
            self.pool.shutdown(wait=True, cancel_futures=True)

    def _watch(self, futures: list[Future], board: _Board) -> None:
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=PATIENCE, return_when=FIRST_EXCEPTION)
            self._read(board)
            for future in done:
                try:
                    board.update(future.result(), 1.0)
                except Interrupted:
                    raise KeyboardInterrupt from None
                except BrokenProcessPool as error:
                    raise WidthwiseError(
                        "a worker process was killed, perhaps for want of memory; run the same command again to go "
                        "on from the last checkpoints, with a smaller --jobs if memory is short."
                    ) from error

    def _read(self, board: _Board) -> None:
        try:
            while True:
                board.update(*self.shares.get_nowait())
        except queue.Empty:
            pass


_own: dict[str, Any] = {}  # what a worker process keeps between its jobs


def _start(worker: Worker, stop: Any, shares: Any, parent: int) -> None:
    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, signal.SIG_IGN)  # The parent hears it, and tells us.
    torch.set_num_threads(1)
    _keep_memory()
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    worker.stopping = stop.is_set
    _own.update(worker=worker, shares=shares)


def _keep_memory() -> None:
    """Let this process keep what it frees, up to half a gigabyte.

    A step frees what the next one takes again. glibc would hand it back and ask for new pages, a twentieth of a thin
    network's time.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 1 << 29)
        libc.mallopt(mmap_threshold, 1 << 25)


def _leave_with(parent: int) -> None:
    """End this process when its parent was killed; what the store holds is whole, and a checkpoint is near."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _do(k: int, job: Job) -> int:
    told = [-1.0]

    def tell(share: float) -> None:
        if share - told[0] >= 0.01:
            told[0] = share
            _own["shares"].put((k, share))

    job.perform(_own["worker"], tell)
    return k


@contextlib.contextmanager
def _holding_interrupts() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until afterwards, from here and from processes that are started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
