"""The paper's Transformer: four encoder layers over a frozen encoder's hidden states, no embedding table.

A linear map takes every token to the hidden size; then layers as those of `nn.TransformerEncoderLayer` (norms behind
the sums, ReLU), whose names and state dicts they have; the mean over real tokens enters the head. Width scales the
hidden size, the units between and the size of a head, not the number of heads. Dropout, none by default, is that of
each branch before it is added: Vaswani and others, Attention is all you need (2017), arXiv 1706.03762.
"""

from fractions import Fraction

from jaxtyping import Float
from torch import Tensor, nn

from widthwise.dropout import Dropout
from widthwise.errors import UsageError
from widthwise.layers import Attention, LayerNorm, Linear, ReLU, Texts
from widthwise.networks.base import Network, scaled

VERSION = 1
TEXTS = True  # rows of unequal length, padded
SHAPE, CLASSES = (64, 385), 3  # MNLI through an encoder of hidden size 384


def widths(
    scale: Fraction, *, hidden: int = 128, units: int = 1024, heads: int = 4, depth: int = 4, dropout: float = 0.0
) -> tuple[int, int]:
    """Return the hidden size and the units between.

    Raises:
        UsageError: if one is no whole number, the heads do not divide the hidden size, or an option is out of bounds.
    """
    if min(hidden, units, heads, depth) < 1 or not 0 <= dropout < 1:
        raise UsageError(
            "transformer needs hidden, units, heads and depth of at least 1 and a dropout from 0 to below 1, not "
            f"hidden {hidden}, units {units}, heads {heads}, depth {depth}, dropout {dropout}."
        )
    found = scaled(hidden, scale), scaled(units, scale)
    if found[0] % heads:
        sizes = sorted({max(1, found[0] // heads), found[0] // heads + 1})
        nearest = " and ".join(f"{Fraction(size * heads, hidden)} ({size * heads})" for size in sizes)
        raise UsageError(
            f"a hidden size of {hidden} at scale {scale} would have {found[0]} numbers, which {heads} heads do not "
            f"divide; the nearest scales that they do: {nearest}."
        )
    return found


def build(
    shape: tuple[int, ...],
    classes: int,
    scale: Fraction,
    members: int,
    *,
    hidden: int = 128,
    units: int = 1024,
    heads: int = 4,
    depth: int = 4,
    dropout: float = 0.0,
) -> Network:
    """Return `members` networks of `depth` layers of `heads` heads, `hidden` and `units` multiplied by `scale`.

    Raises:
        UsageError: if samples are not tokens with a mask behind each.
    """
    if len(shape) != 2 or shape[1] < 2:
        raise UsageError(f"transformer takes texts of shape (tokens, numbers and mask), as mnli has, not {shape}.")
    hidden, units = widths(scale, hidden=hidden, units=units, heads=heads, depth=depth, dropout=dropout)
    return Transformer(shape[1] - 1, classes, hidden, units, heads, depth, dropout, members)


class Transformer(Network):
    """`members` networks; `layers` has the names of `nn.TransformerEncoder`'s."""

    def __init__(
        self,
        inputs: int,
        classes: int,
        hidden: int,
        units: int,
        heads: int,
        depth: int,
        dropout: float,
        members: int,
    ):
        super().__init__(members, classes, n_features=hidden)
        self.project = Linear(members, inputs, hidden)
        self.layers = nn.ModuleList(EncoderLayer(members, hidden, units, heads, dropout) for _ in range(depth))
        self.head = Linear(members, hidden, classes)

    def features(self, x: Float[Tensor, "m batch tokens inputs+1"]) -> Float[Tensor, "m batch d"]:
        """Return the mean over real tokens, of which the last number is above 0; zero where there is none."""
        texts = Texts.of(x[..., -1])
        h = self.project(texts.take(x)[..., :-1])  # (m, rows, d)
        for layer in self.layers:
            h = layer(h, texts)
        return texts.mean(h)


class EncoderLayer(nn.Module):
    """Attention, then two linear maps with a ReLU between; each is added to what it takes, then normalised."""

    def __init__(self, members: int, hidden: int, units: int, heads: int, dropout: float):
        super().__init__()
        self.self_attn = Attention(members, hidden, heads)
        self.linear1 = Linear(members, hidden, units)
        self.linear2 = Linear(members, units, hidden)
        self.norm1, self.norm2 = LayerNorm(members, hidden), LayerNorm(members, hidden)
        self.dropout, self.relu = Dropout(dropout), ReLU()

    def forward(self, x: Float[Tensor, "m rows d"], texts: Texts) -> Float[Tensor, "m rows d"]:
        """Return every token's next hidden state."""
        x = self.norm1(x + self.dropout(self.self_attn(x, texts)))
        return self.norm2(x + self.dropout(self.linear2(self.relu(self.linear1(x)))))
