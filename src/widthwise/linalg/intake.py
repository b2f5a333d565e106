"""Rows on their way into second moments: as plain numbers, and the extremes of their columns.

What PyTorch does in several passes takes one here (`intake.cpp`), and rows need not lie in order. Without a compiler,
and on a GPU, PyTorch does it.
"""

import ctypes
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from widthwise import native
from widthwise.native import NUMBER, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
NARROW = 128  # columns
SMALL = 1e-70  # fourth powers of smaller numbers are none
ARGUMENTS = (POINTER, NUMBER, POINTER, NUMBER, NUMBER, POINTER, NUMBER)
SHORT = {torch.float16, torch.bfloat16, torch.uint8, torch.int8, torch.int16, torch.bool}  # float32 holds them exactly


def plain(rows: Shaped[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Return rows as float32 or float64, whichever holds them, with a row's values side by side."""
    if rows.dtype not in native.DTYPES:
        rows = rows.to(torch.float32 if rows.dtype in SHORT else torch.float64)
    return rows if rows.stride(1) == 1 else rows.contiguous()


def joined(pieces: Sequence[Float[Tensor, "rows _"]]) -> list[Float[Tensor, "rows _"]]:
    """Return matrices that lie side by side, those narrow ones that follow each other as one: many cost a call each."""
    found: list[Tensor] = []
    for (narrow, *_), some in groupby(pieces, lambda piece: (piece.shape[1] <= NARROW, piece.dtype, piece.device)):
        run = list(some)
        found += [torch.cat(run, 1)] if narrow and len(run) > 1 else run
    return found


def extremes(
    rows: Float[Tensor, "rows columns"], chosen: Int[Tensor, " chosen"] | None = None
) -> tuple[Float[Tensor, " columns"], Float[Tensor, " columns"]]:
    """Return the least and the largest of every column over rows, or the chosen ones; NaN where one is not finite."""
    if rows.device.type != "cpu" or compiled() is None:
        rows = rows if chosen is None else rows[chosen]
        low, high = rows.amin(0), rows.amax(0)
        flaw = low - low + high - high
        return (low + flaw).to(torch.float64), (high + flaw).to(torch.float64)
    found = torch.empty(2, rows.shape[1], dtype=torch.float64)
    own, count = (None, len(rows)) if chosen is None else (chosen.data_ptr(), len(chosen))
    given = *native.matrix(rows), own, count, rows.shape[1]
    extreme = native.function(SOURCE, "extremes", rows.dtype, ARGUMENTS)
    extreme(*given, found.data_ptr(), torch.get_num_threads())
    return found[0], found[1]


def scale_told(
    squares: Float[Tensor, " columns"], low: Float[Tensor, " columns"], high: Float[Tensor, " columns"]
) -> str | None:
    """Return what must be done to columns with these sums of squares and extremes; None if nothing."""
    if not bool(squares.square().isfinite().all()):
        return "too large to square; divide them by a constant, such as their largest."
    if len(low) and 0 < float((high - low).max()) < SMALL:
        return "too small to square; multiply them by a constant, such as 1 over their largest."
    return None


def compiled() -> ctypes.CDLL | None:
    """Return the compiled library; None without a compiler."""
    return native.load(SOURCE)
