"""Sums of squares of every column of a matrix, or of its difference from another, without making that."""

import ctypes
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from widthwise import native
from widthwise.native import NUMBER, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
ARGUMENTS = (POINTER, *[NUMBER] * 5, POINTER, NUMBER, POINTER)
BLOCK = 64  # rows that PyTorch squares at once


def column_squares(
    x: Float[Tensor, "rows columns"], less: Float[Tensor, "run targets"] | None = None, runs: int = 1
) -> Float[Tensor, "runs columns"]:
    """Return the sums of squares of every column of x, over each of so many runs of its rows.

    Compiled (`squares.cpp`) in one pass; without a compiler, and on a GPU, by PyTorch.

    Args:
        less: is taken from x first, from every run and again and again over the columns.
    """
    sums, rows = x.new_zeros(runs, x.shape[1]), len(x) // runs
    columns = x.shape[1] if less is None else less.shape[1]
    repeats = x.shape[1] // max(columns, 1)
    if x.device.type == "cpu" and compiled() is not None:
        other = (None, 0) if less is None else native.matrix(less)
        add = native.function(SOURCE, "add", x.dtype, ARGUMENTS)
        add(*native.matrix(x), runs, rows, repeats, columns, *other, sums.data_ptr())
        return sums
    for run, own in zip(x.split(rows), sums, strict=True) if rows else ():
        for start in range(0, rows, BLOCK):
            some = run[start : start + BLOCK]
            some = some if less is None else some - less[start : start + BLOCK].repeat(1, repeats)
            own += some.square().sum(0)
    return sums


def compiled() -> ctypes.CDLL | None:
    """Return the compiled library; None without a compiler."""
    return native.load(SOURCE)
