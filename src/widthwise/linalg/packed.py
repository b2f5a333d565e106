"""Rows packed for products: taken in less a shift, with the sums of their powers, and multiplied column by column.

A matrix product of second moments is low and long, half of it is not needed, and its rows must be moved first. Made for
that, `packed.cpp` does it at the rate that a library's product of large square matrices has. Without a compiler, and on
a GPU, PyTorch does it.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise import native
from widthwise.native import NUMBER, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
ROWS = 512  # that are packed: as few as keep products fast
EVEN = 8  # columns: where a product's on the left may begin
PAD = 8  # numbers, so that a column or pack does not start a page after the one before it: they would share cache lines
TAKE = (POINTER, NUMBER, POINTER, NUMBER, NUMBER, POINTER, POINTER, NUMBER, NUMBER, *[POINTER] * 4, NUMBER, NUMBER)
ADD = (POINTER, NUMBER, NUMBER, NUMBER)


class Packed:
    """Up to ROWS rows of some columns."""

    def __init__(self, columns: int, device: torch.device):
        library = compiled() if device.type == "cpu" else None
        self.size = columns
        self.wide = 1 if library is None else native.constant(library, "wide")
        kept = {"dtype": torch.float64, "device": device}
        self.packs = torch.zeros(-(-columns // self.wide), ROWS * self.wide + PAD, **kept)

    def take(
        self,
        rows: Float[Tensor, "rows columns"],
        chosen: Int[Tensor, " chosen"] | None,
        shift: Float[Tensor, " columns"],
        total: Float[Tensor, " columns"],
        powers: Float[Tensor, "3 powered"],
        *,
        column: int = 0,
        row: int = 0,
    ) -> None:
        """Put c = rows - shift where told; add c to `total`, c², c³ and c⁴ of the last columns to `powers`.

        Args:
            chosen: numbers of the rows; all if None.
            column, row: where the first of them is put.
        """
        before = len(total) - powers.shape[1]
        if self.wide > 1:
            assert total.stride(0) == shift.stride(0) == 1
            own, count = (None, len(rows)) if chosen is None else (chosen.data_ptr(), len(chosen))
            out = self.packs.data_ptr() + row * self.wide * self.packs.element_size()
            sums = [x.data_ptr() for x in (total, *powers)]
            given = *native.matrix(rows), own, count, rows.shape[1], shift.data_ptr()
            take = native.function(SOURCE, "take", rows.dtype, TAKE)
            take(*given, out, self.packs.stride(0), column, *sums, before, torch.get_num_threads())
            return
        rows = rows if chosen is None else rows[chosen]
        turned = rows.T if rows.dtype == torch.float64 else rows.T.contiguous()  # before they are widened: it is faster
        out = self.packs[column : column + len(shift), row : row + len(rows)]
        out.copy_(turned).sub_(shift[:, None])
        total += out.sum(1)
        squares = out[before:].square()
        powers[0] += squares.sum(1)
        powers[1] += (squares * out[before:]).sum(1)
        powers[2] += squares.square_().sum(1)

    def columns(self, chosen: slice, rows: int) -> Float[Tensor, "chosen rows"]:
        """Return some columns of the first rows."""
        if self.wide == 1:
            return self.packs[chosen, :rows]
        packs = self.packs[:, : ROWS * self.wide].view(-1, ROWS, self.wide)[:, :rows]
        return packs.transpose(1, 2).reshape(-1, rows)[chosen]


@dataclass(frozen=True)
class Product:
    """left' right of some columns, to be added to `out`.

    Attributes:
        upper: of columns with themselves and those behind them only what is on or right of the diagonal is needed.
    """

    left: Packed
    rows: slice
    right: Packed
    columns: slice
    out: Float[Tensor, "rows columns"]
    upper: bool = False


class Products:
    """Products of what is packed, to be added again and again: of the rows that are there each time."""

    def __init__(self, each: Sequence[Product]):
        self.each = each
        compiled = bool(each) and each[0].left.wide > 1
        self._numbers = torch.tensor([number for of in each for number in _told(of)]) if compiled else None

    def __reduce__(self) -> tuple[type["Products"], tuple[Sequence[Product]]]:
        """Let a copy, or what was stored, look where its own numbers lie."""
        return Products, (self.each,)

    def add(self, rows: int) -> None:
        """Add the products of the first rows to where they belong."""
        if self._numbers is None:
            for of in self.each:
                of.out.addmm_(of.left.columns(of.rows, rows), of.right.columns(of.columns, rows).T)
            return
        function = native.function(SOURCE, "add", torch.float64, ADD)
        function(self._numbers.data_ptr(), len(self.each), rows, torch.get_num_threads())


def _told(of: Product) -> tuple[int, ...]:
    assert of.rows.start % EVEN == 0, "tiles would begin in one pack and end in the next"
    sides = (
        (own.packs.data_ptr(), own.packs.stride(0), run.start, run.stop - run.start)
        for own, run in ((of.left, of.rows), (of.right, of.columns))
    )
    return (*(number for side in sides for number in side), *native.matrix(of.out), of.upper)


def compiled() -> ctypes.CDLL | None:
    """Return the compiled library; None without a compiler."""
    return native.load(SOURCE)
