"""What is said on stderr: a live bar and the time left, or plain lines where no one watches; warnings."""

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from widthwise.words import duration, percent

if TYPE_CHECKING:
    from widthwise.executors.base import Progress

Listener = Callable[["Progress"], None]
EVERY = 10.0  # seconds between plain lines
NAMES = {
    "data": "reading data",
    "train": "training networks",
    "features": "reading features",
    "scores": "comparing features",
}


@contextlib.contextmanager
def shown(*, quiet: bool = False, to: TextIO | None = None) -> Iterator[Listener | None]:
    """Yield who listens to a run: a live display on a terminal, plain lines elsewhere, nobody if quiet."""
    stream = to or sys.stderr
    if quiet:
        yield None
    elif stream.isatty() and os.environ.get("TERM") != "dumb":
        with _live(stream) as listener:
            yield listener
    else:
        yield Lines(stream)


class Lines:
    """Plain lines: one when a stage begins and ends, and one every so often in between."""

    def __init__(self, to: TextIO, every: float = EVERY, clock: Callable[[], float] = time.monotonic):
        self.to, self.every, self.clock = to, every, clock
        self.stage: Stage | None = None
        self.written = 0.0

    def __call__(self, progress: "Progress") -> None:
        """Write a line if it is time for one."""
        now = self.clock()
        if self.stage is None or self.stage.name != progress.stage:
            self.stage, self.written = Stage(progress.stage, progress.done, now), now
            if progress.done < progress.total:
                self._write(progress, now)
        elif not self.stage.ended and (progress.done >= progress.total or now - self.written >= self.every):
            self._write(progress, now)
        self.stage.ended = progress.done >= progress.total

    def _write(self, progress: "Progress", now: float) -> None:
        assert self.stage is not None
        self.written = now
        told = f"done in {duration(now - self.stage.start)}"
        if progress.done < progress.total:
            left = self.stage.left(progress.done, progress.total, now)
            told = f"{percent(progress.done, progress.total)}, " + (f"about {duration(left)} left" if left else "begun")
        message = f" ({progress.message})" if progress.message else ""
        print(f"{NAMES.get(progress.stage, progress.stage)}: {told}{message}", file=self.to, flush=True)


class Stage:
    """A stage under way: what it had done when it was first heard of, and when that was."""

    def __init__(self, name: str, done: float, now: float):
        self.name, self.begun_with, self.start, self.ended = name, done, now, False

    def left(self, done: float, total: float, now: float) -> float | None:
        """Return the seconds it still takes at its speed so far, None until that shows."""
        here, elapsed = done - self.begun_with, now - self.start
        return elapsed * (total - done) / here if here > 0 and elapsed > 0.5 else None


@contextlib.contextmanager
def _live(stream: TextIO) -> Iterator[Listener]:
    from rich import progress as bars
    from rich.console import Console
    from rich.table import Column

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=20),
        bars.TaskProgressColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("{task.fields[left]}"),
        bars.TextColumn("{task.fields[message]}", style="dim", table_column=Column(no_wrap=True, overflow="ellipsis")),
    )
    tasks: dict[str, tuple[bars.TaskID, Stage]] = {}
    with bars.Progress(*columns, console=Console(file=stream), redirect_stdout=False) as display:

        def listener(progress: "Progress") -> None:
            now = time.monotonic()
            if progress.stage not in tasks:
                name = NAMES.get(progress.stage, progress.stage)
                task = display.add_task(name, total=progress.total, left="", message="")
                tasks[progress.stage] = (task, Stage(progress.stage, progress.done, now))
            task, stage = tasks[progress.stage]
            left = stage.left(progress.done, progress.total, now)
            told = f"about {duration(left)} left" if left else ""
            display.update(task, completed=progress.done, total=progress.total, left=told, message=progress.message)

        yield listener


def speak_plainly() -> None:
    """Let warnings and the log of Widthwise be one line each, on whatever stderr is then."""
    logging.getLogger("widthwise").addHandler(_OneLine())
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)


class _OneLine(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)
