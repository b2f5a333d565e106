"""Features of several networks side by side, read in batches: views of arrays, memory maps and iterables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from widthwise.errors import DataError, UsageError

CHUNK = 2048  # rows of a batch


class Concatenation:
    """Features of several networks side by side: a view, never a copy.

    Args:
        parts: arrays of shape (rows, columns) on the same rows: torch, numpy, a memory map, another
            concatenation, what is read as its rows are sliced (it has `shape`, a length, and where it knows
            better `place(row)`), or (alone) an iterable of batches that can be started again.
        rows: which rows of the arrays, in which order; all of them if left out.
    """

    def __init__(self, parts: Sequence[Any], rows: Int[Tensor, " rows"] | None = None):
        if not parts:
            raise UsageError("nothing to concatenate; pass at least one array of features.")
        self.parts = [_part(part) for part in parts]
        self.rows = rows
        self.indexed = all(_indexed(part) for part in self.parts)
        if not self.indexed and (len(self.parts) > 1 or rows is not None):
            raise UsageError("an iterable of batches cannot be concatenated with other features; pass arrays.")
        lengths = [len(part) for part in self.parts if self.indexed]
        if len(set(lengths)) > 1:
            raise DataError(
                f"the arrays have {', '.join(map(str, lengths))} rows; features of one concatenation must be of "
                "the same samples in the same order."
            )

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        return len(self.parts[0]) if self.rows is None else len(self.rows)

    @cached_property
    def columns(self) -> int:
        """The number of features."""
        if self.indexed:
            return sum(part.columns if isinstance(part, Concatenation) else part.shape[1] for part in self.parts)
        return next((batch.shape[1] for batch in self.batches()), 0)

    def __getitem__(self, rows: Any) -> Shaped[Tensor, "picked columns"]:
        """Return some rows in memory: a slice of them, or their numbers."""
        if self.rows is not None:
            rows = self.rows[rows]
        picked = [_picked(part, rows) for part in self.parts]
        return picked[0] if len(picked) == 1 else torch.cat([part.to(picked[0].device) for part in picked], dim=1)

    def batches(self, size: int = CHUNK) -> Iterator[Shaped[Tensor, "batch columns"]]:
        """Yield the rows in order; an iterable's own batches are kept as they come."""
        if self.indexed:
            for start in range(0, len(self), size):
                yield self[start : start + size]
        else:
            yield from (matrix(batch) for batch in self.parts[0] if len(batch))

    def place(self, row: int) -> str:
        """Return where the row that is read as number `row` is found: its number in the user's own array or file."""
        part, row = self.parts[0], row if self.rows is None else int(self.rows[row])
        return part.place(row) if hasattr(part, "place") else f"row {row}"


def concatenate(*features: Any) -> Concatenation:
    """Return the features of several networks side by side, without copying them.

    Args:
        features: arrays of shape (rows, columns) on the same rows, in the same order.

    Raises:
        DataError: if their numbers of rows differ.
    """
    return Concatenation(features)


def reader(features: Any, name: str = "features") -> Concatenation:
    """Return any accepted form of features as something that yields batches; `name` is what the caller calls them.

    Raises:
        DataError, UsageError: saying the name, for what is no matrix of real numbers.
    """
    if isinstance(features, Concatenation):
        return features
    try:
        return Concatenation([features])
    except (DataError, UsageError) as error:
        raise type(error)(f"{name}: {error}") from error


def stacked(first: Concatenation, second: Concatenation) -> Concatenation:
    """Return the rows of one followed by the rows of the other, without copying them."""
    return Concatenation([_Stacked(first, second)])


def lockstep(
    groups: dict[str, Concatenation], wanted: Bool[Tensor, " rows"] | None = None
) -> Iterator[list[Shaped[Tensor, "batch _"]] | None]:
    """Yield the next rows of every group, as many of each: arrays follow the batches of iterables.

    Of arrays alone, CHUNK rows at a time, and None instead of a batch of which no row is `wanted`.

    Raises:
        DataError: if the batches of two iterables have different lengths.
    """
    iterables = {name: group for name, group in groups.items() if not group.indexed}
    if not iterables:
        lengths = {len(group) for group in groups.values()}
        assert len(lengths) == 1, f"groups of {lengths} rows"
        for start in range(0, lengths.pop(), CHUNK):
            stop = start + CHUNK
            skipped = wanted is not None and not bool(wanted[start:stop].any())
            yield None if skipped else [group[start:stop] for group in groups.values()]
        return
    start = 0
    for read in zip(*(group.batches() for group in iterables.values()), strict=False):
        sizes = {name: len(batch) for name, batch in zip(iterables, read, strict=True)}
        stop = start + next(iter(sizes.values()))
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{size} of {name}" for name, size in sizes.items())
            raise DataError(f"from row {start} on the next batch has {told}; both must yield equally many rows.")
        batches = dict(zip(iterables, read, strict=True))
        yield [batches[n] if n in batches else group[start:stop] for n, group in groups.items()]
        start = stop


class _Stacked:
    """The rows of one group of features followed by those of another."""

    def __init__(self, first: Concatenation, second: Concatenation):
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.first.columns

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.first.batches()
        yield from self.second.batches()

    def place(self, row: int) -> str:
        first = len(self.first)
        if row < first:
            return self.first.place(row)
        place = self.second.place(row - first)
        return place if " of " in place else f"{place} of the test rows"  # a file says itself which rows it has

    def __getitem__(self, rows: Any) -> Tensor:
        first = len(self.first)
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            parts = [self.first[start:stop]] if start < first else []
            parts += [self.second[max(start - first, 0) : stop - first]] if stop > first or not parts else []
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        rows = torch.arange(len(self))[rows]
        early, late = self.first[rows[rows < first]], self.second[rows[rows >= first] - first]
        order = torch.cat([(rows < first).nonzero()[:, 0], (rows >= first).nonzero()[:, 0]])
        return torch.cat([early, late])[order.argsort()]


class _Batches:
    """An iterable of batches, without the indexing that would make it an array."""

    def __init__(self, batches: Iterable[Any]):
        self.batches = batches

    def __len__(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def _part(part: Any) -> Any:
    if isinstance(part, Mapping) or hasattr(part, "toarray"):
        kind = "a mapping of arrays; give one of them" if isinstance(part, Mapping) else "sparse; give x.toarray()"
        raise DataError(f"features must be a matrix (rows, columns), and this is {kind}.")
    if np.ma.is_masked(part):
        raise DataError("features have masked values; leave such rows out of all features alike, or fill them.")
    if isinstance(part, Concatenation | _Stacked) or _sliced(part):
        return part
    if isinstance(part, Iterator):
        raise UsageError("a generator can be read only once; pass a list of batches or an object that starts again.")
    if isinstance(part, str | PurePath):
        raise UsageError(f"{part} is a path; give what is in it, such as numpy.load(path, mmap_mode='r').")
    batches = isinstance(part, Iterable) and not hasattr(part, "__array__") and not isinstance(part, bytes)
    if batches and not (isinstance(part, Sequence) and part and np.ndim(part[0]) != 2):
        return _Batches(part)
    try:
        part = part if isinstance(part, Tensor | np.ndarray) else np.asarray(part)
    except ValueError as error:
        raise DataError(f"features must be a matrix (rows, columns) of numbers: {error}") from error
    if part.ndim != 2:
        raise DataError(f"features must be a matrix (rows, columns), not of shape {tuple(part.shape)}.")
    _check_real(part)
    return part


def _indexed(part: Any) -> bool:
    if isinstance(part, _Stacked):
        return part.first.indexed and part.second.indexed
    return part.indexed if isinstance(part, Concatenation) else not isinstance(part, _Batches)


def _sliced(part: Any) -> bool:
    """Whether it is no array, but is read as its rows are sliced."""
    known = isinstance(part, Concatenation | _Stacked) or hasattr(part, "__array__")
    return not known and hasattr(part, "__getitem__") and len(getattr(part, "shape", ())) == 2


def _picked(part: Any, rows: Any) -> Tensor:
    """Return some rows of a part: a slice of them, or their numbers."""
    if isinstance(rows, Tensor) and _sliced(part):
        first, last = (int(rows.min()), int(rows.max())) if len(rows) else (0, -1)
        return matrix(part[first : last + 1])[rows - first]
    return matrix(part[rows.numpy() if isinstance(part, np.ndarray) and isinstance(rows, Tensor) else rows])


def matrix(batch: Any) -> Tensor:
    """Return a batch as a tensor (rows, columns) of real numbers, in a type that torch computes with.

    Raises:
        DataError: if it is no such matrix.
    """
    tensor = batch.detach() if isinstance(batch, Tensor) else _from_numpy(batch)
    if tensor.ndim != 2:
        raise DataError(f"a batch of features must be a matrix (rows, columns), not of shape {tuple(tensor.shape)}.")
    _check_real(tensor)
    return tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor


def distinct(what: str, given: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels or groups that there are, in order, and the number of each row's own among them.

    Raises:
        DataError: if there is not one a row, naming the first row that has none; or they are of several types.
    """
    if isinstance(given, str | PurePath):
        raise DataError(f"{what}: {given} is a path; give what is in it, one for each of the {rows} rows.")
    if np.ma.is_masked(given):
        raise DataError(f"{what} have masked values; give every row one of the {what}.")
    values = np.asarray(given)
    if values.shape != (rows,):
        raise DataError(f"{what} have shape {values.shape}; there must be one for each of the {rows} rows.")
    if len(gaps := _missing(values).nonzero()[0]):
        told = str(values[gaps[0]]).strip() or "empty"
        raise DataError(f"{what}: row {gaps[0]} is {told}; give every row one of the {what}.")
    try:
        units, inverse = np.unique(values, return_inverse=True)
    except TypeError:
        kinds = " and ".join(sorted({type(value).__name__ for value in values}))
        raise DataError(f"{what} are of several types, {kinds}; make them all of one.") from None
    return units, inverse.reshape(-1)


def _missing(values: np.ndarray) -> np.ndarray:
    """Return which values are None, NaN, NaT or blank, in the ways that each type has."""
    if values.dtype.kind == "O":
        return np.array([_nothing(value) for value in values], bool)
    if values.dtype.kind == "U":  # numpy writes a NaN among text as "nan"
        return np.isin(np.char.strip(values), ("", "nan"))
    if values.dtype.kind == "S":
        return np.char.strip(values) == b""
    if values.dtype.kind in "mM":
        return np.isnat(values)
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def _nothing(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return not value.strip()
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas' NA says neither
        return True


def _check_real(matrix: Tensor | np.ndarray) -> None:
    real = not matrix.is_complex() if isinstance(matrix, Tensor) else matrix.dtype.kind in "fiub"
    if not real:
        raise DataError(f"features must be real numbers, not of type {str(matrix.dtype).removeprefix('torch.')}.")


def _from_numpy(batch: Any) -> Tensor:
    array = np.asarray(batch)
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = np.array(array)
    _check_real(array)
    wide = array.dtype.itemsize > 8 or (array.dtype.kind == "u" and array.dtype.itemsize > 1)
    native = np.dtype(np.float64) if wide else array.dtype.newbyteorder("=")
    return torch.from_numpy(array.astype(native, copy=False))
