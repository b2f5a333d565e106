"""Part of a symmetric matrix as blocks of rows, each from the diagonal on: half the size of the whole.

Rows are those of the first columns; columns behind them are kept too, but are no rows.
"""

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise import native
from widthwise.native import NUMBER, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
ARGUMENTS = (POINTER, POINTER, POINTER, NUMBER, POINTER, NUMBER, POINTER, NUMBER)

Blocks = Sequence[Float[Tensor, "_ _"]]


def cuts(rows: int) -> list[tuple[int, int]]:
    """Return the first and last row of every block: as narrow as keeps a product fast."""
    height = 128 if rows <= 1024 else 256
    return [(k, min(k + height, rows)) for k in range(0, rows, height)]


def mirror(blocks: Blocks) -> None:
    """Put what is right of the diagonal below it too, within every block."""
    for block in blocks:
        square = block[:, : len(block)]
        square.copy_(square.triu() + square.triu(1).T)


def taken(
    blocks: Blocks, rows: Int[Tensor, " rows"], columns: Int[Tensor, " chosen"], out: Float[Tensor, "rows chosen"]
) -> Float[Tensor, "rows chosen"]:
    """Return some rows and columns of the matrix, in `out`.

    Compiled (`half_square.cpp`) element by element; without a compiler, and on a GPU, by PyTorch, run by run.
    """
    if out.device.type == "cpu" and compiled() is not None:
        begins = list(_begins(blocks))
        assert not len(rows) or 0 <= int(rows.min()) <= int(rows.max()) < len(begins), "rows that are not there"
        assert not len(columns) or int(columns.min()) >= 0, "columns that are not there"
        assert not (blocks and len(columns)) or int(columns.max()) < blocks[0].shape[1], "columns that are not there"
        take = native.function(SOURCE, "taken", out.dtype, ARGUMENTS)
        rows, columns = (x.to(torch.int64).contiguous() for x in (rows, columns))
        told = torch.tensor(begins), rows, rows.argsort(), columns
        at = [x.data_ptr() for x in told]
        take(*at[:3], len(rows), at[3], len(columns), *native.matrix(out))
        return out
    (a, to_a), (b, to_b) = _sorted(rows), _sorted(columns)
    spans = cuts(sum(len(block) for block in blocks))
    edges = torch.tensor([start for start, _ in spans] + [spans[-1][1] if spans else 0])
    first_a, first_b = (torch.searchsorted(x, edges).tolist() for x in (a, b))
    for k, (block, (start, _)) in enumerate(zip(blocks, spans, strict=True)):
        top, below, left, right = first_a[k], first_a[k + 1], first_b[k], first_b[k + 1]
        if top < below and left < len(b):
            _put(out, to_a, to_b, top, left, _taken(block, a[top:below] - start, b[left:] - start))
        if below < len(a) and left < right:  # mirrored: what lies below the diagonal is that right of it
            _put(out, to_a, to_b, below, left, _taken(block, b[left:right] - start, a[below:] - start).T)
    return out


def _begins(blocks: Blocks) -> Iterator[int]:
    """Yield where every row would have its first number, were it there."""
    start = 0
    for block in blocks:
        first, apart = native.matrix(block)
        yield from (first + block.element_size() * (k * apart - start) for k in range(len(block)))
        start += len(block)


def compiled() -> ctypes.CDLL | None:
    """Return the compiled library; None without a compiler."""
    return native.load(SOURCE)


def consecutive(columns: Int[Tensor, " chosen"]) -> slice | None:
    """Return the columns as a slice, where they are consecutive."""
    if not len(columns):
        return slice(0, 0)
    first, last = int(columns[0]), int(columns[-1])
    consecutive = last - first == len(columns) - 1 and bool((columns.diff() == 1).all())
    return slice(first, last + 1) if consecutive else None


def _sorted(columns: Int[Tensor, " chosen"]) -> tuple[Int[Tensor, " chosen"], Int[Tensor, " chosen"] | None]:
    """Return the columns in order, and where each was before; None if they were in order."""
    if not bool((columns.diff() < 0).any()):
        return columns, None
    return columns.sort()


def _put(
    dense: Float[Tensor, "_ _"],
    to_rows: Int[Tensor, " _"] | None,
    to_columns: Int[Tensor, " _"] | None,
    top: int,
    left: int,
    values: Float[Tensor, "rows chosen"],
) -> None:
    """Write values where a matrix's rows from `top` on and columns from `left` on belong, without a second matrix."""
    rows, columns = slice(top, top + values.shape[0]), slice(left, left + values.shape[1])
    if to_rows is None:
        dense[rows, columns if to_columns is None else to_columns[columns].to(dense.device)] = values
    elif to_columns is None:
        dense[to_rows[rows].to(dense.device), columns] = values
    else:
        dense[to_rows[rows, None].to(dense.device), to_columns[columns].to(dense.device)] = values


def _taken(
    block: Float[Tensor, "_ _"], rows: Int[Tensor, " rows"], columns: Int[Tensor, " chosen"]
) -> Float[Tensor, "rows chosen"]:
    """Return some rows and columns of a block: without a copy, where they are consecutive."""
    a, b = consecutive(rows), consecutive(columns)
    block = block.index_select(0, rows.to(block.device)) if a is None else block[a]
    return block.index_select(1, columns.to(block.device)) if b is None else block[:, b]
