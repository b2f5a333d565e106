"""Rows on their way into second moments: their extremes; then less a shift and turned, with the sums of their powers.

What PyTorch does in a dozen passes takes one here (`intake.cpp`), and rows need not lie in order. Without a compiler,
and on a GPU, PyTorch does it.
"""

import ctypes
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from widthwise import native
from widthwise.native import NUMBER, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
NARROW = 128  # columns
ROWS = (POINTER, NUMBER, POINTER, NUMBER, NUMBER)  # a matrix: its first value, its stride, chosen rows, its shape
ARGUMENTS = {
    "extremes": (*ROWS, POINTER, POINTER, POINTER),
    "take": (*ROWS, POINTER, POINTER, NUMBER, *[POINTER] * 4, NUMBER, NUMBER),
}
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
    function = _function("extremes", rows)
    if function is None:
        rows = rows if chosen is None else rows[chosen]
        low, high = rows.amin(0), rows.amax(0)
        flaw = low - low + high - high
        return (low + flaw).to(torch.float64), (high + flaw).to(torch.float64)
    low, high, flaw = rows.new_tensor([torch.inf, -torch.inf, 0.0])[:, None].repeat(1, rows.shape[1])
    function(*_given(rows, chosen), low.data_ptr(), high.data_ptr(), flaw.data_ptr())
    return (low + flaw).to(torch.float64), (high + flaw).to(torch.float64)


def take(
    rows: Float[Tensor, "rows columns"],
    chosen: Int[Tensor, " chosen"] | None,
    shift: Float[Tensor, " columns"],
    out: Float[Tensor, "columns chosen"],
    total: Float[Tensor, " columns"],
    powers: Float[Tensor, "3 powered"],
) -> None:
    """Put c = rows - shift, turned, into `out`; add c to `total`, the last columns' c², c³, c⁴ to `powers`."""
    function, before = _function("take", rows), len(total) - powers.shape[1]
    if function is not None:
        assert out.stride(1) == total.stride(0) == powers.stride(1) == 1
        at = [x.data_ptr() for x in (total, *powers)]
        function(
            *_given(rows, chosen), shift.data_ptr(), out.data_ptr(), out.stride(0), *at, before, torch.get_num_threads()
        )
        return
    rows = rows if chosen is None else rows[chosen]
    turned = rows.T if rows.dtype == torch.float64 else rows.T.contiguous()  # before they are widened: it is faster
    out.copy_(turned).sub_(shift[:, None])
    total += out.sum(1)
    squares = out[before:].square()
    powers[0] += squares.sum(1)
    powers[1] += (squares * out[before:]).sum(1)
    powers[2] += squares.square_().sum(1)


def compiled() -> ctypes.CDLL | None:
    """Return the compiled library; None without a compiler."""
    return native.load(SOURCE)


def _function(name: str, rows: Tensor) -> Any:
    there = rows.device.type == "cpu" and compiled() is not None
    return native.function(SOURCE, name, rows.dtype, ARGUMENTS[name]) if there else None


def _given(rows: Tensor, chosen: Tensor | None) -> tuple[Any, ...]:
    own = None if chosen is None else chosen.data_ptr()
    return rows.data_ptr(), rows.stride(0), own, len(rows) if chosen is None else len(chosen), rows.shape[1]
