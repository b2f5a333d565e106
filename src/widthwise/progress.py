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
AFTER = 1.5  # seconds after which what has no name in a study is worth a word
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


@contextlib.contextmanager
def patient(*, quiet: bool = False) -> Iterator[Callable[[str, float, float], None]]:
    """Yield what is told (stage, done, total): as `shown`, but silent about what is over in a moment."""
    begun, shows = time.monotonic(), []
    with contextlib.ExitStack() as stack:

        def tell(stage: str, done: float, total: float) -> None:
            from widthwise.executors.base import Progress

            if not shows and time.monotonic() - begun >= AFTER:
                shows.append(stack.enter_context(shown(quiet=quiet)))
            for listener in filter(None, shows):
                listener(Progress(stage, done, total))

        yield tell


class Lines:
    """Plain lines: one when a stage begins and ends, and one every so often in between."""

    def __init__(self, to: TextIO, every: float = EVERY, clock: Callable[[], float] = time.monotonic):
        self.to, self.every, self.clock = to, every, clock
        self.stage: Stage | None = None
        self.written = 0.0

    def __call__(self, progress: "Progress") -> None:
        """Write a line if it is time for one."""
        now, done = self.clock(), progress.done >= progress.total
        stage = self.stage
        if stage is None or stage.name != progress.stage or (stage.ended and not done):
            stage = self.stage = Stage(progress.stage, progress.done, now)
            self._write(stage, progress, now)
        elif not stage.ended and (done or now - self.written >= self.every):
            self._write(stage, progress, now)
        stage.ended = done

    def _write(self, stage: "Stage", progress: "Progress", now: float) -> None:
        self.written = now
        told = [f"done in {duration(now - stage.start)}"]
        if progress.done < progress.total:
            left = stage.left(progress.done, progress.total, now)
            told = [
                percent(progress.done, progress.total),
                f"about {duration(left)} left" if left else "",
                progress.message,
            ]
        print(f"{NAMES.get(stage.name, stage.name)}: {', '.join(filter(None, told))}", file=self.to, flush=True)


class Stage:
    """A stage under way: what it had done when it was first heard of, and when that was."""

    def __init__(self, name: str, done: float, now: float):
        self.name, self.begun_with, self.start, self.ended = name, done, now, False

    def left(self, done: float, total: float, now: float) -> float | None:
        """Return the seconds it still takes at its speed so far, None until a 50th of it has shown that."""
        here, elapsed = done - self.begun_with, now - self.start
        return elapsed * (total - done) / here if here > 0 and here >= 0.02 * total else None


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
    tasks: dict[str, bars.TaskID] = {}
    stages: dict[str, Stage] = {}
    with bars.Progress(*columns, console=Console(file=stream), redirect_stdout=False) as display:

        def listener(progress: "Progress") -> None:
            now, name, done = time.monotonic(), progress.stage, progress.done >= progress.total
            if name not in tasks:
                tasks[name] = display.add_task(NAMES.get(name, name), left="", message="")
            if name not in stages or (stages[name].ended and not done):
                display.reset(tasks[name])
                stages[name] = Stage(name, progress.done, now)
            stages[name].ended = done
            left = None if done else stages[name].left(progress.done, progress.total, now)
            told = f"about {duration(left)} left" if left else ""
            message = "" if done else progress.message
            display.update(tasks[name], completed=progress.done, total=progress.total, left=told, message=message)

        yield listener


def speak_plainly() -> None:
    """Let warnings and the log of Widthwise be one line each, on whatever stderr is then."""
    log = logging.getLogger("widthwise")
    if not any(isinstance(handler, _OneLine) for handler in log.handlers):
        log.addHandler(_OneLine())
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)


class _OneLine(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)
