"""Rows of unequal length: tokens that lie end to end in a few tensors, such as files mapped from disk.

A selection of rows is a view: which tensor each row is in, where it begins, how long it is. Only what a network is
about to see is copied, as one tensor padded to its longest row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

MULTIPLE = 8  # rows are padded to a multiple of so many tokens: then every matrix begins where a vector does
LANES = 16  # float32 numbers of a vector: what every token's numbers take a multiple of


@dataclass(frozen=True)
class Ragged:
    """Rows of tokens, each a vector of the same length.

    Attributes:
        parts: (tokens, hidden) of float16 each: rows end to end.
        place: (3, rows): the part of every row, its first token there, its number of tokens.
    """

    parts: tuple[Float[Tensor, "tokens hidden"], ...]
    place: Int[Tensor, "3 rows"]
    device: str = "cpu"

    def __len__(self) -> int:
        return self.place.shape[1]

    def __getitem__(self, rows: slice | Tensor) -> "Ragged":
        """Return some rows, as a slice, a mask or numbers."""
        return replace(self, place=self.place[:, rows.cpu() if isinstance(rows, Tensor) else rows])

    def index_select(self, dim: int, rows: Int[Tensor, " chosen"]) -> "Ragged":
        """Return the rows of some numbers; `dim` is 0, as of any tensor's rows."""
        assert dim == 0, "rows are the first dimension"
        return self[rows]

    def to(self, device: torch.device | str) -> "Ragged":
        """Return rows that are padded for a device; they stay where they are until then."""
        return replace(self, device=str(device))

    @property
    def lengths(self) -> Int[Tensor, " rows"]:
        """The number of every row's tokens."""
        return self.place[2]

    def padded(self, longest: int = 0) -> Float[Tensor, "rows tokens hidden+1"]:
        """Return float32 rows as long as the longest, at least `longest`; behind each token 1, or 0 where none is.

        The view of a tensor with a little more room, so that every token begins where a vector does.
        """
        longest = max(longest, int(self.lengths.max()), 1)
        tokens, hidden = -(-longest // MULTIPLE) * MULTIPLE, self.parts[0].shape[1]
        room = torch.zeros(len(self), tokens, -(-(hidden + 1) // LANES) * LANES)
        for row, (part, start, length) in zip(room, self.place.T.tolist(), strict=True):
            row[:length, :hidden] = self.parts[part][start : start + length]
            row[:length, hidden] = 1.0
        return room.to(self.device)[..., : hidden + 1]


def joined(parts: Sequence[tuple[Float[Tensor, "tokens hidden"], Int[Tensor, " rows"]]]) -> Ragged:
    """Return all rows of several tensors of tokens, each with its rows' lengths, one after another."""
    places = [
        torch.stack([torch.full_like(lengths, k), lengths.cumsum(0) - lengths, lengths])
        for k, (_, lengths) in enumerate(parts)
    ]
    return Ragged(tuple(tokens for tokens, _ in parts), torch.cat(places, 1))
