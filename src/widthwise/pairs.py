"""Groups of features on the same rows: folds, joint moments, labels and logits, each computed once.

A `Split` says which rows fit and which are scored; a `Joint` holds the moments of all columns side by side
in every cell of it, and a `Pair` is two groups of its columns, which is what a measure is asked of.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from widthwise import seeds
from widthwise.columns import Concatenation, concatenate, lockstep
from widthwise.errors import DataError, UsageError
from widthwise.linalg.moments import Moments, merged

BLOCKS = 50  # row blocks of the bootstrap
SUPPORT_ROWS = 20.0
SUPPORT_DEVIATION = 1e-6


@dataclass(frozen=True)
class Part:
    """The cells whose rows fit, and those whose rows are scored; a quarter and a half of the fit's rows."""

    fit: tuple[int, ...]
    score: tuple[int, ...]
    quarter: tuple[int, ...] = ()
    half: tuple[int, ...] = ()


@dataclass(frozen=True)
class Split:
    """Which rows fit and which are scored (DEFINITIONS 2).

    Attributes:
        cell: the cell of every row: fold, and within it first quarter, second quarter, second half.
        block: the row block of every scored row; -1 for rows that only fit.
        parts: one fit each; every scored row is scored once.
    """

    name: str
    cell: Int[Tensor, " rows"]
    block: Int[Tensor, " rows"]
    parts: tuple[Part, ...]

    @property
    def cells(self) -> int:
        """The number of cells; the last ones may have no rows."""
        return 1 + max(cell for part in self.parts for cell in (*part.fit, *part.score))

    @property
    def blocks(self) -> int:
        """The number of row blocks, at least 50; where rows are few, some have none."""
        return max(BLOCKS, int(self.block.max()) + 1)

    @property
    def fit_cells(self) -> tuple[int, ...]:
        """All cells that fit in some part."""
        return tuple(sorted({cell for part in self.parts for cell in part.fit}))

    @property
    def score_cells(self) -> tuple[int, ...]:
        """All cells that are scored in some part."""
        return tuple(sorted({cell for part in self.parts for cell in part.score}))


def k_fold(name: str, ids: Int[Tensor, " rows"], folds: int = 5, groups: Any = None) -> Split:
    """Return K folds over rows: a seeded, balanced permutation of their ids, groups never split."""
    place = _permuted(ids, groups)  # (rows,) place of each row's group in the permutation
    units = int(place.max()) + 1 if len(place) else 0
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or not 2 <= folds <= units:
        what = "rows" if groups is None else "groups"
        raise UsageError(f"folds must be a whole number from 2 to the number of {what}, {units}; not {folds!r}.")
    cell, block = torch.empty_like(ids), torch.empty_like(ids)
    fold_of = _fold_of(place, folds)
    per_fold = -(-BLOCKS // folds)
    for fold in range(folds):
        rows = (fold_of == fold).nonzero()[:, 0]
        before, size = _before(place[rows]), len(rows)
        cell[rows] = fold * 3 + _third(before, size)
        block[rows] = fold * per_fold + before * per_fold // size
    return Split(name, cell, block, tuple(_fold_part(fold, folds) for fold in range(folds)))


def _fold_part(fold: int, folds: int) -> Part:
    others = [f for f in range(folds) if f != fold]
    return Part(
        fit=tuple(3 * f + third for f in others for third in range(3)),
        score=tuple(3 * fold + third for third in range(3)),
        quarter=tuple(3 * f for f in others),
        half=tuple(3 * f + third for f in others for third in range(2)),
    )


def held_out(name: str, fit_ids: Int[Tensor, " fit"], score_ids: Int[Tensor, " scored"], groups: Any = None) -> Split:
    """Return one fit on all of the first rows, scored on two halves of the others, each choosing for the other.

    The rows are the first ones followed by the others; `groups` are those of the scored rows.
    """
    place = _permuted(score_ids, groups)
    if len(place.unique()) < 2:
        what = "rows" if groups is None else "groups"
        raise UsageError(f"the test split scores at least 2 {what}: one half chooses the penalty for the other.")
    half = _fold_of(place, 2)
    block = torch.empty_like(score_ids)
    for k in range(2):
        rows = (half == k).nonzero()[:, 0]
        block[rows] = k * (BLOCKS // 2) + _before(place[rows]) * (BLOCKS // 2) // len(rows)
    cell = torch.cat([_third(_before(_permuted(fit_ids, None)), len(fit_ids)), 3 + half])
    parts = tuple(Part(fit=(0, 1, 2), score=(3 + k,), quarter=(0,), half=(0, 1)) for k in range(2))
    return Split(name, cell, torch.cat([torch.full_like(fit_ids, -1), block]), parts)


def _permuted(ids: Int[Tensor, " rows"], groups: Any) -> Int[Tensor, " rows"]:
    """Return each row's place: that of its group (itself, without groups) in a seeded permutation."""
    if groups is not None and np.shape(groups) != (len(ids),):
        raise DataError(f"groups have shape {np.shape(groups)}; there must be one for each of the {len(ids)} rows.")
    units, inverse = np.unique(np.asarray(ids if groups is None else groups), return_inverse=True)
    if groups is None and len(units) != len(ids):
        raise DataError("row ids must be unique.")
    order = torch.randperm(len(units), generator=seeds.stream(0, "rows"))
    return order[torch.from_numpy(inverse.reshape(-1))]


def _fold_of(place: Int[Tensor, " rows"], folds: int) -> Int[Tensor, " rows"]:
    """Return a fold for every row: each unit in turn goes to the fold that has the fewest rows."""
    units, sizes = place.unique(return_counts=True)
    if int(sizes.max()) == 1:
        return torch.searchsorted(units, place) % folds
    filled, fold = [0] * folds, torch.empty_like(units)
    for k, size in enumerate(sizes.tolist()):
        fold[k] = min(range(folds), key=filled.__getitem__)
        filled[int(fold[k])] += size
    return fold[torch.searchsorted(units, place)]


def _before(place: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Return how many rows come before each row's unit."""
    units, sizes = place.unique(return_counts=True)
    return (sizes.cumsum(0) - sizes)[torch.searchsorted(units, place)]


def _third(before: Int[Tensor, " rows"], size: int) -> Int[Tensor, " rows"]:
    """Return 0 for the first quarter of the rows, 1 for the second, 2 for the second half."""
    return (4 * before >= size).long() + (2 * before >= size).long()


@dataclass
class Joint:
    """Several groups of columns on the rows of one split, and their moments in every cell.

    Args:
        groups: features by name.
        labels: (rows,) class of every row, or None.

    `kept` is for what is computed once and shared by all pairs of the joint.
    """

    groups: dict[str, Concatenation]
    split: Split
    labels: Int[Tensor, " rows"] | None = None
    kept: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if self.labels is not None and self.labels.shape != self.split.cell.shape:
            raise DataError(f"there are {len(self.labels)} labels for {len(self.split.cell)} rows; give one a row.")

    @cached_property
    def columns(self) -> dict[str, Int[Tensor, " columns"]]:
        """The columns of each group among all."""
        edges = np.cumsum([0, *(group.columns for group in self.groups.values())])
        return {name: torch.arange(edges[k], edges[k + 1]) for k, name in enumerate(self.groups)}

    @cached_property
    def classes(self) -> int:
        """The number of classes; 0 without labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    @cached_property
    def label_columns(self) -> Int[Tensor, " classes"] | None:
        """The columns of the one-hot labels: behind all groups."""
        if self.labels is None:
            return None
        width = sum(len(columns) for columns in self.columns.values())
        return torch.arange(width, width + self.classes)

    @cached_property
    def cells(self) -> list[Moments]:
        """The joint moments of every cell, in one pass over the rows."""
        sums: list[Moments] = []
        for rows, start in self.batches():
            if not sums:
                shift = rows.mean(0)
                if self.label_columns is not None:
                    shift[self.label_columns] = 0.0  # Classes' sums are read off as they are.
                sums = [Moments(rows.shape[1], shift) for _ in range(self.split.cells)]
            cell = self.split.cell[start : start + len(rows)]
            for k in cell.unique().tolist():
                sums[k].update(rows[cell == k])
        if not all(bool(moments.fourths.isfinite().all()) for moments in sums):
            raise DataError("features are too large to square; divide them by a constant, such as their largest.")
        return sums

    def batches(self, names: Sequence[str] | None = None) -> Iterator[tuple[Float[Tensor, "batch columns"], int]]:
        """Yield (rows of some groups, number of the first row); of all groups, then the one-hot labels.

        Raises:
            DataError: at a value that is not finite, or if there are not as many rows as in the split.
        """
        groups = {name: self.groups[name] for name in names or self.groups}
        start, expected = 0, len(self.split.cell)
        for pieces in lockstep(groups):
            for name, piece in zip(groups, pieces, strict=True):
                _check(name, groups[name], piece, start)
            rows = torch.cat([piece.to(torch.float64) for piece in pieces], dim=1)
            stop = start + len(rows)
            if names is None and self.labels is not None and stop <= expected:
                hot = torch.nn.functional.one_hot(self.labels[start:stop], self.classes)
                rows = torch.cat([rows, hot.to(torch.float64)], dim=1)
            if stop <= expected:
                yield rows, start
            start = stop
        if start != expected:
            raise DataError(f"{start} rows of features for {expected} rows of the split.")

    def moments(
        self, cells: Sequence[int], columns: Int[Tensor, " chosen"] | None = None, rows: int | None = None
    ) -> Moments:
        """Return the moments of several cells together: of all columns, or as `Moments.select` does."""
        if columns is None:
            return merged(self.cells[k] for k in cells)
        return merged(self.cells[k].select(columns, rows) for k in cells)

    def support(self, target: Int[Tensor, " targets"]) -> tuple[Bool[Tensor, " targets"], Bool[Tensor, " targets"]]:
        """Return which target features are constant and which are supported (DEFINITIONS 3).

        Constant: one value on all rows that fit. Supported: at least 20 effective rows among those that fit
        and among those that are scored, and a deviation above 1e-6 of the median over features that vary.
        """
        fit, score = (self.moments(c, target, rows=0) for c in (self.split.fit_cells, self.split.score_cells))
        constant, deviation = fit.constant, (fit.centred_squares / fit.n).sqrt()
        varying = deviation[~constant]
        enough = torch.minimum(fit.effective_rows, score.effective_rows) >= SUPPORT_ROWS
        typical = float(varying.quantile(0.5)) if len(varying) else 0.0
        return constant, ~constant & enough & (deviation > SUPPORT_DEVIATION * typical)


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

    def rows_of(self, names: Sequence[str]) -> Float[Tensor, "rows columns"]:
        """Return some groups' values on all rows of the split, in memory."""
        return torch.cat(list(concatenate(*(self.joint.groups[n] for n in names)).batches()))


def _check(name: str, group: Concatenation, rows: Tensor, start: int) -> None:
    if rows.shape[1] != group.columns:
        raise DataError(
            f"{name}: from {group.place(start)} on there are {rows.shape[1]} features, not {group.columns}."
        )
    if not torch.isfinite(rows.sum(dtype=torch.float64)):
        bad = (~torch.isfinite(rows)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise DataError(
                f"{name}: {group.place(start + row)}, column {column} is {rows[row, column].item()}; features must be "
                "finite numbers. Leave such rows out of source and target alike, or look for what diverged."
            )
