"""Sums of squared residuals, c - A w, column by column: of all rows, or of blocks of them.

Compiled (`residuals.cpp`) nothing as large as A w is made, and what is zero in A is left out. Without a compiler, and
on a GPU, PyTorch does it.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise import native
from widthwise.native import NUMBER, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
BAND = 256  # rows that PyTorch multiplies at once
PAD = 8  # numbers, so that a pack does not start a page after the one before it
PACK = (POINTER, *[NUMBER] * 5, POINTER, NUMBER, POINTER)
SQUARES = (POINTER, NUMBER, NUMBER, POINTER, *[NUMBER] * 4, POINTER, *[NUMBER] * 3, POINTER)
BLOCKS = (*(POINTER, NUMBER) * 2, *[POINTER] * 3, *[NUMBER] * 3, *[POINTER] * 3, POINTER, NUMBER, POINTER, POINTER)


@dataclass(frozen=True)
class Weights:
    """The weights of some targets, again and again for every fit of them.

    Attributes:
        plain, packed: as PyTorch's products want them, or compiled ones; of one of the two.
        squares: the sum of every column's squares.
    """

    plain: Float[Tensor, "size columns"] | None
    targets: int
    packed: Float[Tensor, "packs _"] | None
    squares: Float[Tensor, " columns"]


def room(size: int, fits: int, targets: int, device: torch.device) -> Float[Tensor, "packs _"] | None:
    """Return memory for `pack`: so that it is not made anew for every penalty."""
    if device.type != "cpu" or compiled() is None:
        return None
    return torch.empty(fits * -(-targets // wide()), size * wide() + PAD, dtype=torch.float64)


def wide() -> int:
    """Return how many columns a pack has."""
    library = compiled()
    assert library is not None, "without a compiler nothing is packed"
    return native.constant(library, "wide")


def pack(w: Float[Tensor, "size columns"], targets: int, memory: Float[Tensor, "packs _"] | None = None) -> Weights:
    """Return weights as `squares` wants them."""
    (size, columns), fits = w.shape, w.shape[1] // max(targets, 1)
    memory = room(size, fits, targets, w.device) if memory is None else memory
    if memory is None:
        return Weights(w, targets, None, w.square().sum(0))
    norms = w.new_zeros(columns)
    function = native.function(SOURCE, "pack", w.dtype, PACK)
    packs = memory.data_ptr(), memory.stride(0)
    function(w.data_ptr(), *w.stride(), size, fits, targets, *packs, norms.data_ptr())
    return Weights(None, targets, memory, norms)


def squares(
    A: Float[Tensor, "rows size"], c: Float[Tensor, "rows targets"], w: Weights, *, upper: bool = False
) -> Float[Tensor, " columns"]:
    """Return the sums of squares of c - A w, every column of w with the column of c of its target.

    Args:
        upper: whether row r of A is zero before its number r.
    """
    (rows, size), columns = A.shape, len(w.squares)
    found, fits = c.new_zeros(columns), columns // max(w.targets, 1)
    if w.plain is not None:
        for row in range(0, rows, BAND):
            at, own = row if upper else 0, slice(row, row + BAND)
            left = c[own].repeat(1, fits).addmm_(A[own, at:], w.plain[at:], alpha=-1)
            found += left.square_().sum(0)
        return found
    assert w.packed is not None
    given = A.data_ptr(), *A.stride(), *native.matrix(c), rows, size, upper
    weights = w.packed.data_ptr(), w.packed.stride(0), fits, w.targets
    native.function(SOURCE, "squares", A.dtype, SQUARES)(*given, *weights, found.data_ptr())
    return found


@dataclass(frozen=True)
class About:
    """What residuals and squares of rows are about: numbers of x, and for every stratum of y."""

    shift: Float[Tensor, " size"]
    centre: Float[Tensor, "strata targets"]
    mean: Float[Tensor, "strata targets"]


def add_blocks(
    x: Float[Tensor, "rows size"],
    y: Float[Tensor, "rows targets"],
    w: Weights,
    about: About,
    chosen: Int[Tensor, " chosen"],
    block: Int[Tensor, " chosen"],
    stratum: Int[Tensor, " chosen"] | None,
    errors: Float[Tensor, "blocks targets"],
    totals: Float[Tensor, "blocks targets"],
) -> None:
    """Add the squares of y - centre - (x - shift) w, and those of y - mean, of some rows to the rows of their blocks.

    Args:
        x, y: of one type, float32 or float64.
        chosen: numbers of the rows; `block` and `stratum` are of these.
    """
    if w.plain is not None:
        own = slice(None) if stratum is None else stratum
        Y = y[chosen].to(torch.float64).sub_(about.mean[own])
        totals.index_add_(0, block, Y.square())
        Y.add_((about.mean - about.centre)[own]).addmm_(
            x[chosen].to(torch.float64).sub_(about.shift), w.plain, alpha=-1
        )
        errors.index_add_(0, block, Y.square_())
        return
    assert w.packed is not None
    rows = *native.matrix(x), *native.matrix(y), chosen.data_ptr(), None if stratum is None else stratum.data_ptr()
    sizes = len(chosen), x.shape[1], y.shape[1]
    centres = [part.contiguous() for part in (about.shift, about.centre, about.mean)]
    weights = w.packed.data_ptr(), w.packed.stride(0)
    add = native.function(SOURCE, "add_blocks", x.dtype, BLOCKS)
    add(
        *rows,
        block.data_ptr(),
        *sizes,
        *(c.data_ptr() for c in centres),
        *weights,
        *(s.data_ptr() for s in (errors, totals)),
    )


def compiled() -> ctypes.CDLL | None:
    """Return the compiled library; None without a compiler."""
    return native.load(SOURCE)
