"""One step of a thin ResNet, forward and back, as one call: what `lanes` and autograd do layer by layer.

What is between layers is in memory that stays from step to step, gradients are written where they are read, and
nothing of it is Python; `backbone.cpp` says what else is gained.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise import lanes, native
from widthwise.native import NUMBER, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
DOUBLE = ctypes.c_double
NETWORK = (POINTER, POINTER, NUMBER)  # the sizes of all layers, which blocks have a shortcut, how many blocks
ARGUMENTS = {
    "needed": (*NETWORK, POINTER),
    "learn": (*NETWORK, NUMBER, *[POINTER] * 2, DOUBLE, DOUBLE, *[POINTER] * 4),
}


@dataclass(frozen=True)
class Normed:
    """A convolution without a bias and the batch norm behind it, of one network; a member dimension of one in front.

    Attributes:
        tensors: the weight, the norm's weight and bias.
        gradients: where the gradients of the three are written.
        running: the norm's mean and variance that move, and the number of batches that moved them.
    """

    tensors: tuple[Tensor, Tensor, Tensor]
    gradients: tuple[Tensor, Tensor, Tensor]
    running: tuple[Tensor, Tensor, Tensor]
    stride: int
    padding: int


@dataclass(frozen=True)
class Head:
    """An affine map to classes: weight and bias, and where their gradients are written."""

    tensors: tuple[Tensor, Tensor]
    gradients: tuple[Tensor, Tensor]


def fits(shape: tuple[int, ...], stem: Normed, blocks: Sequence[Sequence[Normed]], head: Head) -> bool:
    """Return whether a network is better computed here: thin, its blocks of kernels of 3 and shortcuts of 1.

    Args:
        shape: of a batch, (batch, channels, height, width).
    """
    layers = (stem, *(layer for block in blocks for layer in block))
    own = [t for layer in layers for t in (*layer.tensors, *layer.gradients, *layer.running[:2])]
    own += [*head.tensors, *head.gradients]
    weight = stem.tensors[0]
    return (
        len(shape) == 4
        and shape[0] >= lanes.FEWEST
        and max(weight.shape[1:3]) <= lanes.THIN
        and lanes.computes(weight)
        and all(t.dtype == weight.dtype and t.is_contiguous() for t in own)
        and _usual(shape[1], _shape(stem), [list(map(_shape, block)) for block in blocks])
        and head.tensors[0].shape[2] == blocks[-1][1].tensors[0].shape[1]
        and native.load(SOURCE) is not None
    )


# Of a layer: outputs, inputs, height and width of a kernel, stride, padding
Shape = tuple[int, int, int, int, int, int]


def _shape(layer: Normed) -> Shape:
    outputs, inputs, height, width = layer.tensors[0].shape[-4:]
    return outputs, inputs, height, width, layer.stride, layer.padding


def _usual(channels: int, stem: Shape, blocks: Sequence[Sequence[Shape]]) -> bool:
    """Return whether every layer is thin and takes what is before it, by the kernels and strides of basic blocks."""

    def takes(layer: Shape, given: int, kernels: tuple[int, ...], stride: int) -> bool:
        outputs, inputs, height, width, own, padding = layer
        fits = inputs == given and width in kernels and height == width and max(outputs, inputs) <= lanes.MOST
        return fits and own == stride and padding == width // 2

    before, *_, own = stem[:5]
    if not (blocks and takes(stem, channels, (1, 3), own)):
        return False
    for first, second, *shortcut in blocks:
        between, stride, behind = first[0], first[4], second[0]
        own = stride <= 2 and takes(first, before, (3,), stride) and takes(second, between, (3,), 1)
        same = stride == 1 and before == behind
        beside = len(shortcut) == 1 and takes(shortcut[0], before, (1,), stride)
        if not own or not (beside and shortcut[0][0] == behind if shortcut else same):
            return False
        before = behind
    return True


class Learner:
    """A network in training, at one shape of its batches, its labels below the head's outputs.

    Its tensors must stay where they are: another is made where they move.

    Args:
        shape: of a batch, (batch, channels, height, width).
        stem: the first layer.
        blocks: of each the first and the second layer, and, if x is to go through one before it is added, a third.
        head: what takes the means of the last block's channels.
        momentum, eps: of every batch norm.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        stem: Normed,
        blocks: Sequence[Sequence[Normed]],
        head: Head,
        momentum: float,
        eps: float,
    ):
        layers = (stem, *(layer for block in blocks for layer in block))
        some = head.tensors[0]
        own = [t for layer in layers for t in (*layer.tensors, *layer.gradients, *layer.running)]
        own = [t.detach() for t in (*own, *head.tensors, *head.gradients)]  # their memory, whoever else lets go of it
        network, needed = _network(shape, list(map(_shape, layers)), list(map(len, blocks)), some.dtype)
        room = some.new_empty(needed)
        self.shape, self.held = shape, (own, room)
        self.loss, self.hits = (torch.zeros(1, dtype=t, device="cpu") for t in (torch.float64, torch.int64))
        given = (POINTER * len(own))(*[t.data_ptr() for t in own])
        self.given = (*network, some.shape[1], room.data_ptr(), given, momentum, eps)
        self.learn = _function("learn", some.dtype)

    @torch.no_grad()
    def __call__(
        self, inputs: Float[Tensor, "1 batch channels h w"], targets: Int[Tensor, "1 batch"]
    ) -> tuple[Float[Tensor, "1"], Int[Tensor, "1"]]:
        """Write the gradients of the mean cross entropy; return that, and how many samples are right.

        Both are overwritten by the next step; running moments move.
        """
        x, targets = lanes.laid(inputs[0]), targets[0].contiguous()
        assert x.shape == self.shape, f"a batch of {tuple(x.shape)}, not {self.shape}"
        assert (x.dtype, targets.dtype) == (self.held[1].dtype, torch.int64)
        assert len(targets) == len(x)
        found = self.loss.data_ptr(), self.hits.data_ptr()
        self.learn(*self.given, x.data_ptr(), targets.data_ptr(), *found)
        return self.loss, self.hits


def _network(
    shape: tuple[int, ...], layers: Sequence[Shape], blocks: Sequence[int], dtype: torch.dtype
) -> tuple[tuple[Any, Any, int], int]:
    """Return a network's sizes as the compiled library takes them, and how many numbers of room it needs."""
    batch, _, *here = shape
    sizes: list[int] = []

    def put(layer: Shape, size: Sequence[int]) -> list[int]:
        outputs, inputs, kernel, _, stride, padding = layer
        sizes.extend((inputs, outputs, *size, batch, kernel, stride, padding))
        return [(n + 2 * padding - kernel) // stride + 1 for n in size]

    here, behind = put(layers[0], here), iter(layers[1:])
    for count in blocks:
        before = here
        here = put(next(behind), here)
        here = put(next(behind), here)
        if count > 2:
            put(next(behind), before)
    numbers, flags = (NUMBER * len(sizes))(*sizes), (NUMBER * len(blocks))(*(count > 2 for count in blocks))
    network, needed = (numbers, flags, len(blocks)), NUMBER()
    _function("needed", dtype)(*network, ctypes.byref(needed))
    return network, needed.value


@cache
def _function(name: str, dtype: torch.dtype) -> Any:
    return native.function(SOURCE, name, dtype, ARGUMENTS[name])
