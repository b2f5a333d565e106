"""Rows of unequal length: tokens that lie end to end in a few tensors, such as files mapped from disk.

A selection of rows is a view: which tensor each row is in, where it begins, how long it is. Only what a network is
about to see is copied, as one tensor padded to its longest row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise.devices import moved

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
        """Return the rows on a device: on a card as one tensor; to the processor none is copied, they are there."""
        device = torch.device(device)
        if self.parts[0].device.type == device.type:
            return self
        tokens = self.parts[0].new_empty(int(self.lengths.sum()), self.parts[0].shape[1])
        for own, (part, start, length) in zip(tokens.split(self.lengths.tolist()), self.place.T.tolist(), strict=True):
            own.copy_(self.parts[part][start : start + length])
        return joined([(moved(tokens, device), self.lengths)])

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
        room = torch.zeros(len(self), tokens, -(-(hidden + 1) // LANES) * LANES, device=self.parts[0].device)
        if room.is_cuda:
            _spread(self.parts[0], moved(self.place[1:], room.device), room)
        else:
            for row, (part, start, length) in zip(room, self.place.T.tolist(), strict=True):
                row[:length, :hidden] = self.parts[part][start : start + length]
                row[:length, hidden] = 1.0
        return room[..., : hidden + 1]


def _spread(
    tokens: Float[Tensor, "all hidden"], place: Int[Tensor, "2 rows"], room: Float[Tensor, "rows tokens _"]
) -> None:
    """Write rows that begin at a token and have a number of them into room that is zero, all at once."""
    (start, length), hidden = place[:, :, None], tokens.shape[1]
    at = torch.arange(room.shape[1], device=room.device)
    real = at < length  # (rows, tokens)
    room[..., :hidden] = torch.where(real[..., None], tokens[torch.where(real, start + at, 0)], 0)
    room[..., hidden] = real


def joined(parts: Sequence[tuple[Float[Tensor, "tokens hidden"], Int[Tensor, " rows"]]]) -> Ragged:
    """Return all rows of several tensors of tokens, each with its rows' lengths, one after another."""
    places = [
        torch.stack([torch.full_like(lengths, k), lengths.cumsum(0) - lengths, lengths])
        for k, (_, lengths) in enumerate(parts)
    ]
    return Ragged(tuple(tokens for tokens, _ in parts), torch.cat(places, 1))
