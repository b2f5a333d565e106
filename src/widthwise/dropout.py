"""Dropout of a fleet: every member's masks from its own stream, drawn on the processor whatever computes."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from widthwise import devices


class Dropout(nn.Module):
    """Dropout with a stream for every member, so that no mask depends on companions; identity in evaluation.

    `generators` is set by `give_streams` before training. A mask is drawn in float32 on the CPU whatever the
    dtype and device of `x`.

    Attributes:
        held: a mask that stays where it is and is drawn anew by `draw`, for steps that are recorded; or None.
    """

    generators: list[Generator] | None
    held: Float[Tensor, "m batch ..."] | None

    def __init__(self, p: float):
        super().__init__()
        self.p, self.shape = p, torch.Size()
        self.generators = self.held = None

    def forward(self, x: Float[Tensor, "m batch ..."]) -> Float[Tensor, "m batch ..."]:
        """Return x with a share p set to zero and the rest divided by 1 - p."""
        if not self.training or self.p == 0:
            return x
        assert self.generators is not None, "dropout trains only after give_streams(network, generators)"
        assert len(self.generators) == len(x), f"{len(self.generators)} streams, {len(x)} members"
        self.shape = x.shape[1:]
        masks = devices.moved(self.masks(), x.device) if self.held is None else self.held
        return x * masks.to(x.dtype) / (1 - self.p)

    def masks(self) -> Float[Tensor, "m batch ..."]:
        """Return the next mask of every member."""
        assert self.generators is not None
        drawn = [torch.empty(self.shape).bernoulli_(1 - self.p, generator=g) for g in self.generators]
        return torch.stack(drawn)


def give_streams(network: nn.Module, generators: Sequence[Generator]) -> None:
    """Let member k's dropout masks be drawn from `generators[k]`, in the order of the layers."""
    for layer in _layers(network):
        layer.generators = list(generators)


def draws(network: nn.Module) -> bool:
    """Return whether a network draws masks in training, so that it needs `give_streams`."""
    return any(layer.p > 0 for layer in _layers(network))


def hold(network: nn.Module, device: torch.device) -> None:
    """Let masks of the shapes of the last step lie at fixed places, and only `draw` change them."""
    for layer in _layers(network):
        layer.held = layer.masks().to(device) if layer.p > 0 else None


def draw(network: nn.Module) -> None:
    """Draw the masks of a step anew, in the order of the layers, where they are held."""
    for layer in _layers(network):
        if layer.held is not None:
            layer.held.copy_(devices.moved(layer.masks(), layer.held.device))


def let_go(network: nn.Module) -> None:
    """Let masks be drawn where they are needed."""
    for layer in _layers(network):
        layer.held = None


def _layers(network: nn.Module) -> Iterator[Dropout]:
    return (layer for layer in network.modules() if isinstance(layer, Dropout))
