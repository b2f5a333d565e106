"""Stem, residual blocks and means of one thin network as one operator: what `lanes` does layer by layer, in one call.

What is between layers is in memory that stays from step to step; `backbone.cpp` says what else is gained.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from widthwise import lanes, native
from widthwise.native import NUMBER, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
DOUBLE = ctypes.c_double
NETWORK = (POINTER, POINTER, NUMBER)  # the sizes of all layers, which blocks have a shortcut, how many blocks
ARGUMENTS = {
    "needed": (*NETWORK, POINTER),
    "forward": (*NETWORK, *[POINTER] * 4, DOUBLE, DOUBLE),
    "backward": (*NETWORK, *[POINTER] * 5, DOUBLE),
}


@dataclass(frozen=True)
class Normed:
    """A convolution without a bias and the batch norm behind it, of one network in training.

    Attributes:
        tensors: the weight, the norm's weight and bias; with a member dimension of one in front.
        running: the norm's mean and variance that move.
    """

    tensors: tuple[Tensor, Tensor, Tensor]
    running: tuple[Tensor, Tensor]
    stride: int
    padding: int


def fits(x: Float[Tensor, "batch channels h w"], stem: Normed, blocks: Sequence[Sequence[Normed]]) -> bool:
    """Return whether a network is better computed here: thin, its blocks of kernels of 3 and shortcuts of 1."""
    layers = (stem, *(layer for block in blocks for layer in block))
    return (
        lanes.fits(x, stem.tensors[0])
        and all(t.dtype == x.dtype for layer in layers for t in (*layer.tensors, *layer.running))
        and _usual(x.shape[1], _shape(stem), tuple(tuple(map(_shape, block)) for block in blocks))
        and native.load(SOURCE) is not None
    )


Shape = tuple[
    int, int, int, int, int, int
]  # of a layer: outputs, inputs, height and width of a kernel, stride, padding


def _shape(layer: Normed) -> Shape:
    outputs, inputs, height, width = layer.tensors[0].shape[-4:]
    return outputs, inputs, height, width, layer.stride, layer.padding


@lru_cache(maxsize=64)
def _usual(channels: int, stem: Shape, blocks: tuple[tuple[Shape, ...], ...]) -> bool:
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


def backbone(
    x: Float[Tensor, "batch channels h w"],
    stem: Normed,
    blocks: Sequence[Sequence[Normed]],
    momentum: float,
    eps: float,
) -> Float[Tensor, "batch channels2"]:
    """Return the means of h's channels: h = relu(norm(convolution(x))), then of every block relu(norm(...) + shortcut).

    Args:
        stem: the first layer.
        blocks: of each the first and the second layer, and, if h is to go through one before it is added, a third.
        momentum, eps: of every batch norm; running moments move.
    """
    layers = (stem, *(layer for block in blocks for layer in block))
    plan = _plan(x.shape, tuple(map(_shape, layers)), tuple(map(len, blocks)), x.dtype)
    running = [layer.running for layer in layers]
    y = _Backbone.apply(x, plan, (momentum, eps, running), *(t for layer in layers for t in layer.tensors))
    assert isinstance(y, Tensor)
    return y


@dataclass(frozen=True)
class _Plan:
    """A network's sizes, as the compiled library takes them, and room for what is between its layers.

    Attributes:
        network: the sizes of all layers, which blocks have a shortcut, how many blocks.
        needed: numbers of room.
        shape: of the result.
    """

    network: tuple[Any, Any, int]
    needed: int
    shape: tuple[int, ...]


_spare: list[Tensor] = []  # a room that no step uses, at most one; asked for anew, its pages would be, too


@lru_cache(maxsize=64)
def _plan(shape: tuple[int, ...], layers: tuple[Shape, ...], blocks: tuple[int, ...], dtype: torch.dtype) -> _Plan:
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
    outputs = layers[-2 if blocks[-1] > 2 else -1][0]
    return _Plan(network, needed.value, (batch, outputs))


class _Backbone(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: _Plan, how: tuple[float, float, list], *given: Tensor) -> Tensor:
        """Return the means; the running moments move by the momentum."""
        x, given, (momentum, eps, running) = lanes.laid(x), tuple(t.contiguous() for t in given), how
        room = _spare.pop() if _spare else x.new_empty(0)
        if room.numel() < plan.needed or room.dtype != x.dtype:
            room = x.new_empty(plan.needed)
        y = x.new_empty(plan.shape)
        own = [t for k, moments in enumerate(running) for t in (*given[3 * k : 3 * k + 3], *moments)]
        _function("forward", x.dtype)(*plan.network, *_pointers(room, own, x, y), momentum, eps)
        ctx.save_for_backward(x, *given)
        ctx.plan, ctx.room, ctx.eps = plan, room, eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of x, and of every layer's weight and its norm's weight and bias."""
        (x, *given), dy = ctx.saved_tensors, dy.contiguous()  # by a name: only where they lie is given away
        plan, room, ctx.room = ctx.plan, ctx.room, None
        if room is None:
            raise RuntimeError("a second way back through thin layers, which keep nothing for one: go forward again.")
        gradients = [torch.empty_like(t) for t in given]
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        both = [t for k in range(0, len(given), 3) for t in (*given[k : k + 3], *gradients[k : k + 3])]
        _function("backward", x.dtype)(*plan.network, *_pointers(room, both, x, dy, dx), ctx.eps)
        _spare[:] = [room]
        return dx, None, None, *gradients


def _pointers(room: Tensor, given: Sequence[Tensor], *others: Tensor | None) -> tuple[Any, ...]:
    """Return where room, a list of tensors, and others lie."""
    listed = (POINTER * len(given))(*[t.data_ptr() for t in given])
    return room.data_ptr(), listed, *(None if t is None else t.data_ptr() for t in others)


@cache
def _function(name: str, dtype: torch.dtype) -> Any:
    return native.function(SOURCE, name, dtype, ARGUMENTS[name])
