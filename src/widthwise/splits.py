"""Which rows fit and which are scored: folds over rows, and fits on all of some rows scored on others."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from widthwise import seeds
from widthwise.columns import distinct
from widthwise.errors import DataError, UsageError

BLOCKS = 50  # row blocks of the bootstrap


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
    def filled(self) -> int:
        """How many row blocks have rows: too few for an interval where rows or groups are few."""
        return len(self.block[self.block >= 0].unique())

    def by_fit(self, size: str = "fit") -> dict[tuple[int, ...], list[int]]:
        """Return the numbers of the parts that fit on the same rows, by the cells of those; `size` as in `Part`."""
        found: dict[tuple[int, ...], list[int]] = {}
        for k, part in enumerate(self.parts):
            found.setdefault(getattr(part, size), []).append(k)
        return found

    @property
    def fit_cells(self) -> tuple[int, ...]:
        """All cells that fit in some part."""
        return tuple(sorted({cell for part in self.parts for cell in part.fit}))

    @property
    def score_cells(self) -> tuple[int, ...]:
        """All cells that are scored in some part."""
        return tuple(sorted({cell for part in self.parts for cell in part.score}))


def k_fold(name: str, ids: Int[Tensor, " rows"], folds: int = 5, groups: Any = None, *, nested: bool = True) -> Split:
    """Return K folds over rows: a seeded, balanced permutation of their ids, groups never split.

    Args:
        nested: cut every fold into its first quarter, second quarter and second half, for fits on fewer rows.
    """
    place = _permuted(ids, groups)  # (rows,) place of each row's group in the permutation
    units = int(place.max()) + 1 if len(place) else 0
    what = "rows" if groups is None else "groups"
    if units < 2:
        raise UsageError(f"folds take 2 {what} or more, since those that are scored do not fit; not {units}.")
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or not 2 <= folds <= units:
        raise UsageError(f"folds must be a whole number from 2 to the number of {what}, {units}; not {folds!r}.")
    cell, block = torch.empty_like(ids), torch.empty_like(ids)
    fold_of = _fold_of(place, folds)
    per_fold, cuts = -(-BLOCKS // folds), 3 if nested else 1
    for fold in range(folds):
        rows = (fold_of == fold).nonzero()[:, 0]
        before, size = _before(place[rows]), len(rows)
        cell[rows] = fold * 3 + _third(before, size) if nested else fold
        block[rows] = fold * per_fold + before * per_fold // size
    return Split(name, cell, block, tuple(_fold_part(fold, folds, cuts) for fold in range(folds)))


def _fold_part(fold: int, folds: int, cuts: int) -> Part:
    others = [f for f in range(folds) if f != fold]
    fit = tuple(cuts * f + cut for f in others for cut in range(cuts))
    score = tuple(cuts * fold + cut for cut in range(cuts))
    if cuts == 1:
        return Part(fit, score)
    half = tuple(cuts * f + cut for f in others for cut in range(2))
    return Part(fit, score, quarter=tuple(cuts * f for f in others), half=half)


def held_out(
    name: str,
    fit_ids: Int[Tensor, " fit"],
    score_ids: Int[Tensor, " scored"],
    groups: Any = None,
    *,
    nested: bool = True,
) -> Split:
    """Return one fit on all of the first rows, scored on two halves of the others, each choosing for the other.

    The rows are the first ones followed by the others; `groups` are those of the scored rows; `nested` is as in
    `k_fold`, of the rows that fit.
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
    if nested:
        cell = torch.cat([_third(_before(_permuted(fit_ids, None)), len(fit_ids)), 3 + half])
        parts = tuple(Part(fit=(0, 1, 2), score=(3 + k,), quarter=(0,), half=(0, 1)) for k in range(2))
    else:
        cell = torch.cat([torch.zeros_like(fit_ids), 1 + half])
        parts = tuple(Part(fit=(0,), score=(1 + k,)) for k in range(2))
    return Split(name, cell, torch.cat([torch.full_like(fit_ids, -1), block]), parts)


def _permuted(ids: Int[Tensor, " rows"], groups: Any) -> Int[Tensor, " rows"]:
    """Return each row's place: that of its group (itself, without groups) in a seeded permutation."""
    units, inverse = distinct(*(("row ids", ids) if groups is None else ("groups", groups)), len(ids))
    if groups is None and len(units) != len(ids):
        raise DataError("row ids must be unique.")
    order = torch.randperm(len(units), generator=seeds.stream(0, "rows"))
    return order[torch.from_numpy(inverse)]


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
