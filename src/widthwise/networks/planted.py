"""A network without training whose features are known: random mixtures, a wide one's of all directions of `planted`.

At a scale of 1 (base times width) its features mix all directions of the data, at smaller scales all but the last so
many. So narrow networks, put together, span exactly the part of a wide one that is theirs, and nothing of the rest.
"""

from fractions import Fraction
from math import prod

from jaxtyping import Float
from torch import Tensor

from widthwise.errors import UsageError
from widthwise.layers import Linear
from widthwise.networks.base import Network, scaled

VERSION = 1


def widths(scale: Fraction, *, hidden: int = 32, unseen: int = 4) -> tuple[int, ...]:
    """Return the number of features."""
    return (scaled(hidden, scale),)


def build(
    shape: tuple[int, ...], classes: int, scale: Fraction, members: int, *, hidden: int = 32, unseen: int = 4
) -> Network:
    """Return `members` networks of `hidden` mixtures times `scale`.

    Args:
        unseen: directions of a sample, the last so many, that networks narrower than 1 do not see.

    Raises:
        UsageError: if nothing is left to see.
    """
    inputs = prod(shape)
    if not 0 <= unseen < inputs:
        raise UsageError(f"planted: unseen must be from 0 to {inputs - 1} of {inputs} directions, not {unseen}.")
    seen = inputs if scale >= 1 else inputs - unseen
    return Mixtures(seen, classes, widths(scale, hidden=hidden)[0], members)


class Mixtures(Network):
    """Linear features of the first directions of a sample."""

    def __init__(self, seen: int, classes: int, units: int, members: int):
        super().__init__(members, classes, n_features=units)
        self.mixture = Linear(members, seen, units)
        self.head = Linear(members, units, classes)

    def features(self, x: Float[Tensor, "m batch ..."]) -> Float[Tensor, "m batch d"]:
        """Return the mixtures."""
        return self.mixture(x.flatten(2)[..., : self.mixture.weight.shape[2]])
