"""Features of several networks side by side, read in batches: views of arrays, memory maps and iterables."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise.errors import DataError, UsageError

CHUNK = 4096  # rows of a batch


class Concatenation:
    """Features of several networks side by side: a view, never a copy.

    Args:
        parts: arrays of shape (rows, columns) on the same rows: torch, numpy, a memory map, another
            concatenation, or an iterable of batches that can be started again.
        rows: which rows of the arrays, in which order; all of them if left out.
    """

    def __init__(self, parts: Sequence[Any], rows: Int[Tensor, " rows"] | None = None):
        if not parts:
            raise UsageError("nothing to concatenate; pass at least one array of features.")
        self.parts = [_part(part) for part in parts]
        self.rows = rows
        lengths = [len(part) for part in self.parts if hasattr(part, "__getitem__")]
        if len(set(lengths)) > 1:
            raise DataError(
                f"the arrays have {', '.join(map(str, lengths))} rows; features of one concatenation must be of "
                "the same samples in the same order."
            )

    def __len__(self) -> int:
        if self.rows is not None:
            return len(self.rows)
        part = self.parts[0]
        return len(part) if hasattr(part, "__getitem__") else sum(len(batch) for batch in part)

    @cached_property
    def columns(self) -> int:
        """The number of features."""
        return next(self.batches(1)).shape[1]

    def batches(self, size: int = CHUNK) -> Iterator[Float[Tensor, "batch columns"]]:
        """Yield the rows in order; an iterable's own batches are kept as they come."""
        if all(hasattr(part, "__getitem__") for part in self.parts):
            for start in range(0, len(self), size):
                yield torch.cat([_read(part, self.rows, start, start + size) for part in self.parts], dim=1)
        elif len(self.parts) == 1 and self.rows is None:
            yield from (_matrix(batch) for batch in self.parts[0])
        else:
            raise UsageError("an iterable of batches cannot be concatenated with other features; pass arrays.")


def concatenate(*features: Any) -> Concatenation:
    """Return the features of several networks side by side, without copying them.

    Args:
        features: arrays of shape (rows, columns) on the same rows, in the same order.

    Raises:
        DataError: if their numbers of rows differ.
    """
    return Concatenation(features)


def reader(features: Any) -> Concatenation:
    """Return any accepted form of features as something that yields batches."""
    return features if isinstance(features, Concatenation) else Concatenation([features])


class _Stacked:
    """The rows of one group of features followed by those of another."""

    def __init__(self, first: Concatenation, second: Concatenation):
        self.first, self.second = first, second

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.first.batches()
        yield from self.second.batches()


def stacked(first: Concatenation, second: Concatenation) -> Concatenation:
    """Return the rows of one followed by the rows of the other, without copying them."""
    return Concatenation([_Stacked(first, second)])


def _part(part: Any) -> Any:
    if isinstance(part, Tensor | np.ndarray | Concatenation):
        if not isinstance(part, Concatenation) and part.ndim != 2:
            raise DataError(f"features must be a matrix (rows, columns), not of shape {tuple(part.shape)}.")
        return _Rows(part) if isinstance(part, Concatenation) else part
    if isinstance(part, Sequence) and part and np.ndim(part[0]) != 2:
        return _part(np.asarray(part))
    if isinstance(part, _Stacked | _Batches):
        return part
    if isinstance(part, Iterator):
        raise UsageError("a generator can be read only once; pass a list of batches or an object that starts again.")
    if isinstance(part, Iterable) and not hasattr(part, "__array__"):
        return _Batches(part)
    return _part(np.asarray(part))


class _Batches:
    """An iterable of batches, without the indexing that would make it an array."""

    def __init__(self, batches: Iterable[Any]):
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class _Rows:
    """A concatenation as one part of another."""

    def __init__(self, inner: Concatenation):
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, rows: Any) -> Tensor:
        picked = torch.arange(len(self.inner))[rows]
        picked = picked if self.inner.rows is None else self.inner.rows[picked]
        return torch.cat([_matrix(part[_index(part, picked)]) for part in self.inner.parts], dim=1)


def _read(part: Any, rows: Tensor | None, start: int, stop: int) -> Tensor:
    return _matrix(part[start:stop] if rows is None else part[_index(part, rows[start:stop])])


def _index(part: Any, rows: Tensor) -> Any:
    return rows.numpy() if isinstance(part, np.ndarray) else rows


def _matrix(batch: Any) -> Tensor:
    tensor = batch.detach().cpu() if isinstance(batch, Tensor) else torch.from_numpy(np.array(batch))
    if tensor.ndim != 2:
        raise DataError(f"a batch of features must be a matrix (rows, columns), not {tuple(tensor.shape)}.")
    return tensor
