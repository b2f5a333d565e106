"""Moments of stored features, kept in blocks by content: adding networks to a study costs only their own blocks.

A bundle is a few networks of one width, about 128 columns. A block is what is known of one bundle, or the products of
two, in every cell of a split. Its key is made of the checksums of what it is of, so whoever has the same networks and
rows has the block, whatever stands beside them.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise.config import digest
from widthwise.linalg import intake
from widthwise.linalg.moments import Moments
from widthwise.linalg.packed import ROWS, Packed, Product, Products
from widthwise.pairs import CHUNK, Joint
from widthwise.store import Store

KIND = "moments"
VERSION = 1
COLUMNS = 128  # of a bundle: products of more are no faster, and those of less are many files
CELL = 256  # rows of a cell: of fewer, sums are made as quickly as they are read (docs/log)
LARGEST = 2e9  # bytes of one joint's blocks: of more, none is kept

Numbers = tuple[int, int]  # of the two bundles of a block: the same one twice, or the first before the second
Sums = dict[str, Tensor]


@dataclass(frozen=True)
class Bundle:
    """Groups of a joint, consecutive in its columns, whose sums lie in the same blocks.

    Attributes:
        names: of the groups; none for the labels.
        content: what the values of each depend on: checksums.
    """

    names: tuple[str, ...]
    content: tuple[tuple[str, ...], ...]


def place(fleet: Hashable, number: int, columns: int) -> tuple[Hashable, int]:
    """Return which bundle a network of so many columns is in: by its number in its fleet, whoever else is there."""
    return fleet, number // max(1, COLUMNS // columns)


def size(first: int, second: int, cells: int) -> int:
    """Return the bytes of the products of two bundles of so many columns in all cells."""
    return 8 * cells * first * second


def kept(rows: int, columns: int, cells: int) -> bool:
    """Return whether blocks of a joint are worth their disk, and few enough for it."""
    return rows >= CELL * cells and size(columns, columns, cells) / 2 <= LARGEST


def collect(joint: Joint, bundles: Sequence[Bundle], rows: str, store: Store) -> list[Moments]:
    """Return the moments of every cell of a joint from the store; what it lacks is made in one pass over the rows.

    Args:
        joint: its groups are in memory, as rows are read cell by cell.
        bundles: all groups of the joint, in its order.
        rows: the checksum of what says which rows the joint has. Their cells it says itself.

    Raises:
        DataError: at a value that is not finite, naming its group, row and column.
    """
    assert joint.precision == "float64", "blocks are summed in float64"
    assert joint.sources is None, "blocks hold the products of all columns"
    if joint.labels is not None:
        bundles = [*bundles, Bundle((), (("labels", digest(joint.labels.tolist(), 24)),))]
    keys = _keys(joint, bundles, rows)
    entries = {block: store.get(KIND, key) for block, key in keys.items()}
    read = {block: entry.tensors(KIND) for block, entry in entries.items() if entry is not None}
    for block, sums in _made(joint, bundles, [block for block in keys if block not in read]):
        facts = {"split": joint.split.name, "groups": [list(bundles[k].names) for k in dict.fromkeys(block)]}
        read[block] = store.save(KIND, keys[block], sums, facts).tensors(KIND)
    return [_together(read, len(bundles), cell) for cell in range(joint.split.cells)]


def _keys(joint: Joint, bundles: Sequence[Bundle], rows: str) -> dict[Numbers, str]:
    """Return the key of every block: of the checksums of both bundles, rows, cells and precision."""
    common = {"version": VERSION, "rows": rows, "cells": digest(joint.split.cell.tolist(), 24)}
    common["precision"] = joint.precision
    pairs = combinations_with_replacement(range(len(bundles)), 2)
    return {
        (a, b): f"{joint.split.name}-{digest(common | {'of': [bundles[a].content, bundles[b].content]}, 24)}"
        for a, b in pairs
    }


# The pass over the rows -----------------------------------------------------------------------------------


def _made(joint: Joint, bundles: Sequence[Bundle], blocks: Sequence[Numbers]) -> Iterator[tuple[Numbers, Sums]]:
    """Yield the sums of some blocks, cells first: every row of their bundles is read once, and no others."""
    if not blocks:
        return
    numbers = sorted({k for block in blocks for k in block})
    first = torch.arange(min(CHUNK, len(joint.split.cell)))
    shifts = {k: _shift(joint, bundles[k], first) for k in numbers}
    buffers = {k: Packed(len(shift), shift.device) for k, shift in shifts.items()}
    cells: list[dict[Numbers, Sums]] = []
    for cell in range(joint.split.cells):
        sums = {block: _nothing(*(shifts[k] for k in block)) for block in blocks}
        products = Products([_product(buffers[a], buffers[b], own["products"]) for (a, b), own in sums.items()])
        rows = (joint.split.cell == cell).nonzero()[:, 0]
        for start in range(0, len(rows), ROWS):
            some = rows[start : start + ROWS]
            for k in numbers:
                _take(joint, _values(joint, bundles[k], some), shifts[k], buffers[k], sums.get((k, k)))
            products.add(len(some))
        cells.append({block: _packed(own) for block, own in sums.items()})
        joint.tell("features", int((joint.split.cell <= cell).sum()), len(joint.split.cell))
    for block in blocks:  # In the store they take no memory: of what was summed, one is here twice.
        own = [sums.pop(block) for sums in cells]
        yield block, {name: torch.stack([each[name] for each in own]) for name in own[0]}


def _values(joint: Joint, bundle: Bundle, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows columns"]:
    if not bundle.names:
        assert joint.labels is not None
        return torch.nn.functional.one_hot(joint.labels[rows], joint.classes).to(torch.float32)
    return intake.plain(torch.cat([joint.groups[name][rows] for name in bundle.names], 1))


def _shift(joint: Joint, bundle: Bundle, first: Int[Tensor, " rows"]) -> Float[Tensor, " columns"]:
    """Return the mean of the first rows: it depends on nothing but the bundle and the rows. 0 for the labels."""
    mean = _values(joint, bundle, first).mean(0, dtype=torch.float64)
    return mean if bundle.names else torch.zeros_like(mean)


def _take(
    joint: Joint,
    values: Float[Tensor, "rows columns"],
    shift: Float[Tensor, " columns"],
    buffer: Packed,
    own: Sums | None,
) -> None:
    """Put values less the shift into the buffer; what is summed of every column goes to the bundle's sums."""
    low, high = intake.extremes(values)
    if bool(low.isnan().any()):
        for pieces, start in joint.batches():  # as they are numbered there
            joint.check(pieces, start)
    if own is None:
        buffer.take(values, None, shift, torch.zeros_like(shift), shift.new_empty(3, 0))
        return
    buffer.take(values, None, shift, own["total"], own["powers"])
    own["n"] += len(values)
    own["low"], own["high"] = torch.minimum(own["low"], low), torch.maximum(own["high"], high)


def _nothing(first: Float[Tensor, " first"], second: Float[Tensor, " second"]) -> Sums:
    """Return the sums of no rows: of one bundle, or of the products of two."""
    if first is not second:
        return {"products": first.new_zeros(len(first), len(second))}
    own = {"shift": first, "total": torch.zeros_like(first), "powers": first.new_zeros(3, len(first))}
    own |= {"low": torch.full_like(first, torch.inf), "high": torch.full_like(first, -torch.inf)}
    return own | {"n": torch.tensor(0), "products": first.new_zeros(len(first), len(first))}


def _product(left: Packed, right: Packed, out: Float[Tensor, "left right"]) -> Product:
    """Return the products of two bundles; of a bundle with itself only on and right of the diagonal."""
    return Product(left, slice(0, left.size), right, slice(0, right.size), out, upper=left is right)


# Half a square of products --------------------------------------------------------------------------------


def _packed(own: Sums) -> Sums:
    """Return sums whose square of products, if they are of one bundle, is the half on and right of the diagonal."""
    if "n" not in own:
        return own
    half = torch.triu_indices(*own["products"].shape)
    return own | {"products": own["products"][half[0], half[1]]}


def _together(read: Mapping[Numbers, Sums], count: int, cell: int) -> Moments:
    """Return the moments of all bundles side by side in one cell."""
    own = [{name: of_all[cell] for name, of_all in read[k, k].items()} for k in range(count)]
    names = ("shift", "total", "powers", "low", "high")
    sums = {name: torch.cat([each[name] for each in own], -1) for name in names}
    edges = torch.tensor([0] + [len(each["shift"]) for each in own]).cumsum(0).tolist()
    of = [slice(*edge) for edge in pairwise(edges)]
    second = sums["shift"].new_empty(edges[-1], edges[-1])
    for (a, b), block in read.items():
        products = _square(block["products"][cell], len(own[a]["shift"])) if a == b else block["products"][cell]
        second[of[a], of[b]], second[of[b], of[a]] = products, products.T
    return Moments.of(int(own[0]["n"]), second, **sums)


def _square(half: Float[Tensor, " half"], columns: int) -> Float[Tensor, "columns columns"]:
    square = half.new_zeros(columns, columns)
    above = torch.triu_indices(columns, columns)
    square[above[0], above[1]] = half
    square[above[1], above[0]] = half
    return square
