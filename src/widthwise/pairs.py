"""Groups of features on the same rows: joint moments, labels and logits, each computed once.

A `Joint` holds the moments of all columns side by side in every cell of a split, and a `Pair` is two groups of its
columns, which is what a measure is asked of.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from widthwise import devices
from widthwise.columns import CHUNK, Concatenation, concatenate, lockstep
from widthwise.errors import DataError
from widthwise.linalg import intake, memory
from widthwise.linalg.moments import Moments, merged
from widthwise.splits import Split

SUPPORT_ROWS = 20.0
SUPPORT_DEVIATION = 1e-6
Tell = Callable[[str, float, float], None]  # (stage, done, total)


def silent(stage: str, done: float, total: float) -> None:
    """Hear how far it is, and say nothing."""


@dataclass
class Joint:
    """Several groups of columns on the rows of one split, and their moments in every cell.

    Args:
        groups: features by name.
        labels: (rows,) class of every row, or None.
        sources: names of the groups that will be sources; products are taken of their columns and the labels' with
            all, and n_eff is known of the other groups only. Left out, all groups are sources and targets.
        precision: of the moments, see `Moments`.
        device: where sums and fits are made, such as "cuda"; that of the first group's rows if left out. What is said
            of targets (support, errors, penalties) is on the CPU, and so are numbers of rows and columns.
        tell: is told of every pass over the rows: "features" (moments) or "scores", the rows done, all rows.
        collect: returns the moments of every cell, such as stored ones; left out, one pass over the rows does.

    `kept` is for what is computed once and shared by all pairs of the joint.
    """

    groups: dict[str, Concatenation]
    split: Split
    labels: Int[Tensor, " rows"] | None = None
    sources: tuple[str, ...] | None = None
    precision: str = "float64"
    device: str | torch.device | None = None
    tell: Tell = field(default=silent, repr=False)
    collect: "Callable[[Joint], list[Moments]] | None" = field(default=None, repr=False)
    kept: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if self.labels is not None and self.labels.shape != self.split.cell.shape:
            raise DataError(f"there are {len(self.labels)} labels for {len(self.split.cell)} rows; give one a row.")

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The groups in the order of their columns: sources, then (behind the labels) what is only a target."""
        first = self.groups if self.sources is None else [n for n in self.groups if n in self.sources]
        return (*first, *(name for name in self.groups if name not in first))

    @cached_property
    def columns(self) -> dict[str, Int[Tensor, " columns"]]:
        """The columns of each group among all."""
        found, start = {}, 0
        for name in self.order:
            start += self.classes * (name == self._first_target)
            found[name] = torch.arange(start, start + self.groups[name].columns)
            start = int(found[name][-1]) + 1
        return found

    @cached_property
    def classes(self) -> int:
        """The number of classes; 0 without labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    @cached_property
    def label_columns(self) -> Int[Tensor, " classes"] | None:
        """The columns of the one-hot labels: behind the sources."""
        return None if self.labels is None else self._source_width + torch.arange(self.classes)

    @cached_property
    def cells(self) -> list[Moments]:
        """The joint moments of every cell.

        Raises:
            DataError: at a value that is not finite, naming its group, row and column.
            UsageError: if this machine has not the memory for them.
        """
        sums = self._in_one_pass() if self.collect is None else self.collect(self)
        squares = torch.stack([moments.squares for moments in sums]).amax(0)  # whole before threads read them
        low = torch.stack([moments.low for moments in sums]).amin(0)
        high = torch.stack([moments.high for moments in sums]).amax(0)
        for name, own in self.columns.items():
            if told := intake.scale_told(squares[own], low[own], high[own]):
                raise DataError(f"{name}: features are {told}")
        return sums

    def _in_one_pass(self) -> list[Moments]:
        sums: list[Moments] = []
        for given, start in self.batches():
            pieces = intake.joined([intake.plain(piece) for piece in given])
            if not sums:
                device = pieces[0].device if self.device is None else devices.named(self.device)
                sums = self._empty(torch.cat([piece.mean(0, dtype=torch.float64).to(device) for piece in pieces]))
            cell = self.split.cell[start : start + len(pieces[0])]
            try:
                if bool((cell != cell[0]).any()):
                    own = cell.argsort(stable=True).split(cell.bincount(minlength=len(sums)).tolist())
                    for moments, rows in zip(sums, own, strict=True):
                        moments.update(*pieces, rows=rows)
                else:
                    sums[int(cell[0])].update(*pieces)
            except DataError:
                self.check(given, start)
                raise
            self.tell("features", start + len(cell), len(self.split.cell))
        return sums

    def batches(
        self, names: Sequence[str] | None = None, wanted: Bool[Tensor, " rows"] | None = None
    ) -> Iterator[tuple[list[Shaped[Tensor, "batch _"]], int]]:
        """Yield (rows of every group, number of the first row), in the types they have.

        Without names: of all groups, with the one-hot labels, in the order of the joint's columns. With `wanted`,
        batches of which no row is wanted are left out.

        Raises:
            DataError: if there are not as many rows as in the split, or as many columns as in a group.
        """
        groups = {name: self.groups[name] for name in names or self.order}
        start, expected = 0, len(self.split.cell)
        for pieces in lockstep(groups, wanted):
            if pieces is None:
                start = min(start + CHUNK, expected)
                continue
            for name, piece in zip(groups, pieces, strict=True):
                if piece.shape[1] != groups[name].columns:
                    place, expected_columns = groups[name].place(start), groups[name].columns
                    raise DataError(
                        f"{name}: from {place} on there are {piece.shape[1]} features, not {expected_columns}."
                    )
            stop = start + len(pieces[0])
            if stop <= expected:
                if names is None and self.labels is not None:
                    hot = torch.nn.functional.one_hot(self.labels[start:stop], self.classes)
                    pieces.insert(self._sources, hot.to(torch.float32))
                yield pieces, start
            start = stop
        if start != expected:
            raise DataError(f"{start} rows of features for {expected} rows of the split.")

    def moments(
        self, cells: Sequence[int], columns: Int[Tensor, " chosen"] | None = None, crossed: int | None = None
    ) -> Moments:
        """Return the moments of several cells together: of all columns, or as `Moments.select` does."""
        if columns is None:
            return merged(self.cells[k] for k in cells)
        return merged(self.cells[k].select(columns, crossed) for k in cells)

    def support(self, target: Int[Tensor, " targets"]) -> tuple[Bool[Tensor, " targets"], Bool[Tensor, " targets"]]:
        """Return which target features are constant and which are supported (DEFINITIONS 3).

        Constant: one value on all rows that fit. Supported: at least 20 effective rows among those that fit
        and among those that are scored, and a deviation above 1e-6 of the median over features that vary.
        """
        fit, score = (self.moments(c, target, crossed=0) for c in (self.split.fit_cells, self.split.score_cells))
        constant, deviation = fit.constant, (fit.centred_squares / fit.n).sqrt()
        varying = deviation[~constant]
        enough = torch.minimum(fit.effective_rows, score.effective_rows) >= SUPPORT_ROWS
        typical = float(varying.quantile(0.5)) if len(varying) else 0.0
        return constant.cpu(), (~constant & enough & (deviation > SUPPORT_DEVIATION * typical)).cpu()

    @property
    def _sources(self) -> int:
        return len(self.groups if self.sources is None else self.sources)

    @property
    def _source_width(self) -> int:
        return sum(self.groups[name].columns for name in self.order[: self._sources])

    @property
    def _first_target(self) -> str | None:
        """The first group that is only a target: the labels' columns lie before it."""
        return self.order[self._sources] if self._sources < len(self.order) else None

    def check(self, pieces: Sequence[Shaped[Tensor, "batch _"]], start: int) -> None:
        """Raise a DataError that names the first value of a batch that is not finite."""
        pieces = [piece for k, piece in enumerate(pieces) if self.labels is None or k != self._sources]
        for name, rows in zip(self.order, pieces, strict=True):
            bad = (~torch.isfinite(rows)).nonzero()
            if len(bad):
                row, column = bad[0].tolist()
                place, value = self.groups[name].place(start + row), rows[row, column].item()
                raise DataError(
                    f"{name}: {place}, column {column} is {value}; features must be finite numbers. Leave such rows "
                    "out of all features alike, or look for what diverged."
                )

    def _empty(self, shift: Float[Tensor, " columns"]) -> list[Moments]:
        """Return moments without rows, for every cell."""
        if self.label_columns is not None:
            shift[self.label_columns] = 0.0  # Classes' sums are read off as they are.
        crossed = self._source_width + self.classes
        powered = 0 if self.sources is None else crossed
        memory.check(crossed, len(shift), self.split.cells, shift.device)
        kind = {"crossed": crossed, "powered": powered, "precision": self.precision, "device": shift.device}
        return [Moments(len(shift), shift, **kind) for _ in range(self.split.cells)]


@dataclass(frozen=True)
class Pair:
    """Two groups of columns of a joint: what a measure is asked of.

    Attributes:
        logits: names of the groups that hold the outputs of the source's networks, where there are any.
        among: names of all groups that will be targets of the same source: what is costly is done once.
    """

    joint: Joint
    source: tuple[str, ...]
    target: tuple[str, ...] = ()
    logits: tuple[str, ...] = ()
    among: tuple[str, ...] = ()

    @property
    def source_columns(self) -> Int[Tensor, " source"]:
        """The source's columns among the joint's."""
        return torch.cat([self.joint.columns[name] for name in self.source])

    @property
    def target_columns(self) -> Int[Tensor, " target"]:
        """The target's columns among the joint's."""
        return torch.cat([self.joint.columns[name] for name in self.target])

    @property
    def support(self) -> tuple[Bool[Tensor, " targets"], Bool[Tensor, " targets"]]:
        """Which of its target features are constant and which supported, found out once a joint."""
        kept = self.joint.kept.setdefault("support", {})
        if self.target not in kept:
            kept[self.target] = self.joint.support(self.target_columns)
        return kept[self.target]

    def rows_of(self, names: Sequence[str]) -> Float[Tensor, "rows columns"]:
        """Return some groups' values on all rows of the split, in memory."""
        return torch.cat(list(concatenate(*(self.joint.groups[n] for n in names)).batches())).cpu()
