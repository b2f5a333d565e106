"""The toy's network: neurons of a fixed threshold over patches, summed, then three ReLU layers.

A neuron's output is the sum over patches x of relu(<w, x> - threshold): it has no bias to learn, and at the start few
neurons are activated by anything. Its `scale` is the number of neurons. Duzgun, Jelassi and Li (2024), section 4.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import sqrt

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from widthwise.errors import UsageError
from widthwise.layers import Layer, Linear, affine
from widthwise.networks.base import Network, scaled

VERSION = 1
NEURONS = True  # its width is a number of neurons


def widths(scale: Fraction, *, hidden: int = 64, threshold: float = 0.6, ratio: float = 3.2) -> tuple[int, ...]:
    """Return the number of neurons."""
    return (scaled(1, scale),)


def build(
    shape: tuple[int, ...],
    classes: int,
    scale: Fraction,
    members: int,
    *,
    hidden: int = 64,
    threshold: float = 0.6,
    ratio: float = 3.2,
) -> Network:
    """Return `members` networks of `scale` neurons.

    Args:
        hidden: units of each of the three layers behind the neurons: the features are the last one's.
        threshold: what a patch has to exceed to activate a neuron.
        ratio: the threshold over the standard deviation of the neurons' weights at the start.

    Raises:
        UsageError: if samples are not patches, or the threshold or the ratio is not above 0.
    """
    if len(shape) != 2:
        raise UsageError(f"threshold_mlp takes samples of shape (patches, dimension), such as signals, not {shape}.")
    for name, value in (("threshold", threshold), ("ratio", ratio)):
        if not value > 0:
            raise UsageError(f"threshold_mlp: {name} is above 0, not {value}.")
    neurons = Neurons(members, shape[1], widths(scale)[0], threshold, threshold / ratio)
    return ThresholdMlp(neurons, hidden, classes)


class Neurons(Layer):
    """The first layer: weight (m, neurons, dimension), and one threshold for all."""

    def __init__(self, members: int, inputs: int, neurons: int, threshold: float, deviation: float):
        super().__init__(members)
        self.threshold, self.deviation = threshold, deviation
        self.weight = nn.Parameter(torch.zeros(members, neurons, inputs))

    def initialise(self, generators: Sequence[Generator]) -> None:
        """Draw the weights, normal with the deviation."""
        with torch.no_grad():
            for member, generator in zip(self.weight, generators, strict=True):
                member.copy_(torch.randn(member.shape, generator=generator) * self.deviation)

    def forward(self, x: Float[Tensor, "m batch patches inputs"]) -> Float[Tensor, "m batch neurons"]:
        """Return every neuron's sum over patches."""
        m, batch, patches, _ = x.shape
        bias = self.weight.new_full(self.weight.shape[:2], -self.threshold)
        return affine(x.flatten(1, 2), self.weight, bias).relu().view(m, batch, patches, -1).sum(2)


class Readout(Linear):
    """A head whose first class has a logit of 0: of two classes, one logit, the other's."""

    def __init__(self, members: int, inputs: int, classes: int):
        super().__init__(members, inputs, classes - 1)

    def initialise(self, generators: Sequence[Generator]) -> None:
        """Draw the weight with variance 1 / inputs; the bias is zero."""
        super().initialise(generators)
        with torch.no_grad():
            self.weight.mul_(sqrt(0.5))

    def forward(self, x: Float[Tensor, "m batch inputs"]) -> Float[Tensor, "m batch classes"]:
        """Return 0 and the other classes' logits."""
        logits = super().forward(x)
        return torch.cat([logits.new_zeros(*logits.shape[:2], 1), logits], 2)


class ThresholdMlp(Network):
    """Neurons, three ReLU layers, a head."""

    def __init__(self, neurons: Neurons, hidden: int, classes: int):
        members, count = neurons.weight.shape[:2]
        super().__init__(members, classes, n_features=hidden)
        self.neurons = neurons
        self.second = Linear(members, count, hidden)
        self.third = Linear(members, hidden, hidden)
        self.fourth = Linear(members, hidden, hidden)
        self.head = Readout(members, hidden, classes)

    def features(self, x: Float[Tensor, "m batch patches inputs"]) -> Float[Tensor, "m batch hidden"]:
        """Return the last hidden layer."""
        x = self.second(self.neurons(x)).relu()
        return self.fourth(self.third(x).relu()).relu()
