"""Gradient descent of a fleet: all parameters of a member lie in one row, all members in one matrix.

A thin network has dozens of parameters of a few numbers each; one update of one matrix costs what one of them does.
Every operation rounds by itself. A fused one rounds the end of a tensor, which does not fill a vector, unlike the rest,
and where a member ends depends on its companions.
"""

from collections.abc import Mapping
from math import prod, sqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Optimiser = Literal["sgd", "adamw", "normalised_sgd"]
ALIGNED = 64  # bytes: where a parameter begins, so that kernels round it alike in whichever row it lies
MOMENTA = {"sgd": ("",), "adamw": ("", "/square")}  # what each keeps of a parameter, behind the parameter's name
SQUARE_MOMENTUM, EPSILON = 0.999, 1e-8  # of AdamW


class Descent:
    """Stochastic gradient descent, each member with its own rate and decay.

        sgd    v <- momentum v + gradient + decay w,              w <- w - rate v
        adamw  v <- momentum v + (1 - momentum) gradient,         u <- 0.999 u + 0.001 gradient^2,
               w <- w - rate decay w - rate (v / (1 - momentum^t)) / (sqrt(u / (1 - 0.999^t)) + 1e-8)

    t counts steps from 1. AdamW: Loshchilov, Hutter, Decoupled weight decay regularization (2019), arXiv 1711.05101.
    """

    def __init__(self, network: nn.Module, momentum: Mapping[str, Tensor], optimiser: Optimiser = "sgd"):
        """Move a network's parameters into a matrix of this; `momentum` is as `at_rest` or `momentum()` give it."""
        named = dict(network.named_parameters())
        self.shapes = {name: p.shape for name, p in named.items()}
        some = next(iter(named.values()))
        self.starts, width = _starts(self.shapes, ALIGNED // some.element_size())
        self.weights, self.gradients = (some.new_zeros(len(some), width).detach() for _ in range(2))
        self.momenta = {kept: torch.zeros_like(self.weights) for kept in MOMENTA[optimiser]}
        for name, weight in named.items():
            self.part(self.weights, name).copy_(weight.detach())
            weight.data = self.part(self.weights, name)
            for kept, matrix in self.momenta.items():
                self.part(matrix, name).copy_(momentum[name + kept])
        self.named, self.optimiser = named, optimiser
        self.parts = {name: self.part(self.gradients, name) for name in named}  # where gradients lie

    def part(self, matrix: Float[Tensor, "members width"], name: str) -> Float[Tensor, "members ..."]:
        """Return the part of one of the matrices that is one parameter's."""
        shape, start = self.shapes[name], self.starts[name]
        return matrix[:, start : start + prod(shape[1:])].view(shape)

    def momentum(self) -> dict[str, Tensor]:
        """Return a copy of what is kept of every parameter."""
        return {
            name + kept: self.part(matrix, name).clone()
            for kept, matrix in self.momenta.items()
            for name in self.shapes
        }

    def begin(self) -> None:
        """Forget the gradients."""
        for weight in self.named.values():
            weight.grad = None

    @torch.no_grad()
    def gather(self) -> None:
        """Bring together the gradients that the way back has left in the parameters."""
        for part, weight in zip(self.parts.values(), self.named.values(), strict=True):
            assert weight.grad is not None
            part.copy_(weight.grad)

    @torch.no_grad()
    def step(
        self, rate: Float[Tensor, " members"], momentum: float, decay: Float[Tensor, " members"], step: int = 0
    ) -> None:
        """Update every member by `gradients`, which `gather` or a learner has written; steps count from 0."""
        if self.optimiser == "sgd":
            self._sgd(rate[:, None], momentum, decay[:, None])
        else:
            self._adamw(rate[:, None], momentum, decay[:, None], step + 1)

    def _sgd(self, rate: Float[Tensor, "members 1"], momentum: float, decay: Float[Tensor, "members 1"]) -> None:
        (velocity,) = self.momenta.values()
        velocity.mul_(momentum).add_(self.gradients).add_(self.weights * decay)
        self.weights.sub_(velocity * rate)

    def _adamw(
        self, rate: Float[Tensor, "members 1"], momentum: float, decay: Float[Tensor, "members 1"], t: int
    ) -> None:
        mean, square = self.momenta.values()
        mean.mul_(momentum).add_(self.gradients * (1 - momentum))
        square.mul_(SQUARE_MOMENTUM).add_(self.gradients.square_().mul_(1 - SQUARE_MOMENTUM))
        self.weights.mul_(1 - rate * decay)
        size = square.sqrt().div_(sqrt(1 - SQUARE_MOMENTUM**t)).add_(EPSILON)
        self.weights.sub_((mean / size).mul_(rate / (1 - momentum**t)))


def at_rest(network: nn.Module, optimiser: Optimiser = "sgd") -> dict[str, Tensor]:
    """Return what is kept of every parameter before the first step: zeros; of normalised descent, see `active`."""
    if optimiser == "normalised_sgd":
        return {"scale": torch.ones(len(next(network.parameters())), dtype=torch.float64)}
    return {name + kept: torch.zeros_like(p) for kept in MOMENTA[optimiser] for name, p in network.named_parameters()}


def _starts(shapes: Mapping[str, torch.Size], aligned: int) -> tuple[dict[str, int], int]:
    """Return where in a row every parameter begins, and the row's length, in multiples of `aligned`."""
    starts, end = {}, 0
    for name, shape in shapes.items():
        starts[name] = end
        end += -(-prod(shape[1:]) // aligned) * aligned
    return starts, end
