"""Stochastic gradient descent of a fleet: all parameters of a member lie in one row, all members in one matrix.

A thin network has dozens of parameters of a few numbers each; one update of one matrix costs what one of them does.
"""

from collections.abc import Mapping
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

ALIGNED = 64  # bytes: where a parameter begins, so that kernels round it alike in whichever row it lies


class Descent:
    """v <- momentum v + gradient + decay w, w <- w - rate v, each member with its own rate and decay.

    Every operation rounds by itself. A fused one rounds the end of a tensor, which does not fill a vector, unlike the
    rest, and where a member ends depends on its companions.
    """

    def __init__(self, network: nn.Module, velocity: Mapping[str, Tensor]):
        """Move a network's parameters into a matrix of this; `velocity` has their names and shapes."""
        named = dict(network.named_parameters())
        self.shapes = {name: p.shape for name, p in named.items()}
        some = next(iter(named.values()))
        self.starts, width = _starts(self.shapes, ALIGNED // some.element_size())
        self.weights, self.gradients, self.velocities = (some.new_zeros(len(some), width).detach() for _ in range(3))
        for name, weight in named.items():
            self.part(self.weights, name).copy_(weight.detach())
            self.part(self.velocities, name).copy_(velocity[name])
            weight.data = self.part(self.weights, name)
        self.named = named
        self.parts = [self.part(self.gradients, name) for name in named]

    def part(self, matrix: Float[Tensor, "members width"], name: str) -> Float[Tensor, "members ..."]:
        """Return the part of one of the matrices that is one parameter's."""
        shape, start = self.shapes[name], self.starts[name]
        return matrix[:, start : start + prod(shape[1:])].view(shape)

    def velocity(self) -> dict[str, Tensor]:
        """Return a copy of every parameter's velocity."""
        return {name: self.part(self.velocities, name).clone() for name in self.shapes}

    def begin(self) -> None:
        """Forget the gradients."""
        for weight in self.named.values():
            weight.grad = None

    @torch.no_grad()
    def step(self, rate: Float[Tensor, " members"], momentum: float, decay: Float[Tensor, " members"]) -> None:
        """Update every member by the gradients that the way back has left in the parameters."""
        for part, weight in zip(self.parts, self.named.values(), strict=True):
            assert weight.grad is not None
            part.copy_(weight.grad)
        self.velocities.mul_(momentum).add_(self.gradients).add_(self.weights * decay[:, None])
        self.weights.sub_(self.velocities * rate[:, None])


def _starts(shapes: Mapping[str, torch.Size], aligned: int) -> tuple[dict[str, int], int]:
    """Return where in a row every parameter begins, and the row's length, in multiples of `aligned`."""
    starts, end = {}, 0
    for name, shape in shapes.items():
        starts[name] = end
        end += -(-prod(shape[1:]) // aligned) * aligned
    return starts, end
