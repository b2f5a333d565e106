"""A perceptron with equal hidden layers and ReLU; depth 1 is the network with one hidden layer."""

from fractions import Fraction
from math import prod

from jaxtyping import Float
from torch import Tensor, nn

from widthwise.errors import UsageError
from widthwise.layers import Linear
from widthwise.networks.base import Network, scaled

VERSION = 1


def widths(scale: Fraction, *, hidden: int = 256, depth: int = 2) -> tuple[int, ...]:
    """Return the units of every hidden layer.

    Raises:
        UsageError: if there is no hidden layer, or a layer gets a fraction of a unit.
    """
    if depth < 1 or hidden < 1:
        raise UsageError(f"mlp needs depth and hidden of at least 1, not depth {depth} and hidden {hidden}.")
    return (scaled(hidden, scale),) * depth


def build(
    shape: tuple[int, ...],
    classes: int,
    scale: Fraction,
    members: int,
    *,
    hidden: int = 256,
    depth: int = 2,
) -> Network:
    """Return `members` perceptrons of `depth` hidden layers of `hidden` units times `scale`."""
    return Perceptron(prod(shape), classes, widths(scale, hidden=hidden, depth=depth), members)


class Perceptron(Network):
    """Samples of any shape, flattened; the features are the last hidden layer after its ReLU."""

    def __init__(self, inputs: int, classes: int, units: tuple[int, ...], members: int):
        super().__init__(members, classes, n_features=units[-1])
        self.hidden = nn.Sequential()
        for before, after in zip((inputs, *units), units, strict=False):
            self.hidden.extend([Linear(members, before, after), nn.ReLU(inplace=True)])
        self.head = Linear(members, units[-1], classes)

    def features(self, x: Float[Tensor, "m batch ..."]) -> Float[Tensor, "m batch d"]:
        """Return the last hidden layer."""
        return self.hidden(x.flatten(2))
