"""What a plan holds, and how it reads: the networks of every width, seconds by stage, memory and disk."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from widthwise import words
from widthwise.linalg import memory

NOTHING = "The studies of this file compare nothing: they need a width below 1, and two wide networks for a gap."


@dataclass(frozen=True)
class WidthPlan:
    """The networks of one width.

    Attributes:
        widths: channels or neurons of its layers. concatenations: R; None for the wide network.
        trained, begun: networks in the store, and those that have a checkpoint.
        flops: of one network's training. seconds: of what is left of all, on one process.
    """

    width: str
    widths: tuple[int, ...]
    parameters: int
    features: int
    match_parameters: int
    match_features: int
    concatenations: int | None
    networks: int
    trained: int
    begun: int
    flops: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a study will take. Prints as a table.

    Attributes:
        rows: that each network trains on. steps: of each network.
        seconds: of what is left, by stage, over all `processes`, which train, and `comparing`, which compare.
        memory: bytes at the peak, all processes together. disk: bytes in all, at most.
        blocks: bytes of the disk that moment blocks take, which can be deleted.
        fresh: whether networks train on fresh samples, and on none of the rows.
        fleets: how many networks train as one, at most, of every width of which more than one does.
        guessed: whether the number of rows is a guess, the data not being read yet.
        gpu_seconds: of what is left with training on one GPU, at `GPU` FLOPs a second: a rough figure.
    """

    title: str
    widths: tuple[WidthPlan, ...]
    rows: int
    steps: int
    comparisons: int
    processes: int
    comparing: int
    device: str
    seconds: Mapping[str, float]
    memory: float
    disk: float
    blocks: float
    gpu_seconds: float
    guessed: bool
    fresh: bool = False
    fleets: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        header = ("width", "layers", "parameters", "features", "m by parameters", "by features")
        header += ("networks", "trained", "FLOPs each")
        table = words.table([header, *(_cells(w) for w in self.widths)])
        return f"{self.title}\n\n{table}\n\n{self._sentences()}"

    def _sentences(self) -> str:
        total, trained = (sum(getattr(w, what) for w in self.widths) for what in ("networks", "trained"))
        left = sum(self.seconds.values())
        stages = ", ".join(f"{name} {words.duration(seconds)}" for name, seconds in self.seconds.items())
        on = f"{self.processes} process{'es' if self.processes > 1 else ''} of this machine ({self.device})"
        on += f", comparing on {self.comparing}" if self.comparing != self.processes else ""
        takes = f"About {words.duration(left)} on {on}: {stages}. An estimate, good to +-50 %."
        done = "Nothing is left to do but the report." if self.comparisons else NOTHING
        blocks = f", {words.size(self.blocks)} of it moment blocks, which `clean` deletes" if self.blocks else ""
        there = f"{trained} of {total} networks are trained" if trained else "Nothing is trained yet"
        trains = "Fresh samples train" if self.fresh else f"{self.rows:,} rows train"
        fleets = ", ".join(f"{most} of width {width}" for width, most in self.fleets.items())
        more = self.memory > memory.physical()
        return "\n".join(
            [
                f"{there}. {trains} a network in {self.steps:,} steps. {self.comparisons:,} comparisons.",
                *([f"The data are not read yet: {self.rows:,} rows are a guess."] if self.guessed else []),
                *([f"They train as fleets: {fleets} at a time."] if fleets else []),
                takes if left else done,
                f"About {words.size(self.memory)} of memory at the peak, "
                f"at most {words.size(self.disk)} of disk{blocks}.",
                *([f"This machine has {words.size(memory.physical())}: use fewer rows, or --jobs 1."] if more else []),
            ]
        )


def _cells(w: WidthPlan) -> tuple[str, ...]:
    each = max(w.match_parameters, w.match_features)
    share = "" if w.concatenations is None else f" ({w.concatenations} x {each})"
    if w.concatenations and (more := w.networks - w.concatenations * each) > 0:
        share = f" ({w.concatenations} x {each} + {more})"
    return (
        w.width,
        "-".join(map(str, w.widths)),
        f"{w.parameters:,}",
        str(w.features),
        str(w.match_parameters or ""),
        str(w.match_features or ""),
        f"{w.networks}{share}",
        f"{w.trained}" + (f", {w.begun} begun" if w.begun else ""),
        f"{w.flops:.1e}",
    )
