"""Layers of one thin network on a processor, by vectors that are full of images, or of tokens.

PyTorch's kernels on a processor keep channels in a vector; 4 channels leave most of it empty. Here images' tensors lie
in memory as [channels][height][width][images], whatever their shape says, and any number of channels fills vectors of a
batch's images. Attention is of texts end to end, without padding, and its vectors hold the tokens that ask, however
small a head. `lanes.cpp` has convolution, batch norm and attention so, compiled by the machine's own C++ compiler
(`CXX`, c++) when they are first asked for, for that processor, and kept in the user's cache folder. Without a compiler
nothing fits, and layers use PyTorch's own kernels. What it is worth: docs/fleets.md.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from widthwise import native

SOURCE = Path(__file__).with_suffix(".cpp")
THIN = 15  # channels of a network's first layer, at most: its tensors lie so from there on,
MOST = 128  # up to layers of so many
FEWEST = 16  # images
POINTER, DOUBLE = ctypes.c_void_p, ctypes.c_double
ARGUMENTS = {  # behind the sizes
    "lay": [POINTER] * 2,
    "gather": (*[POINTER] * 4, ctypes.c_int64),
    "weights": [POINTER] * 3,
    "normalise": (*[POINTER] * 4, DOUBLE, *[POINTER] * 3, DOUBLE, *[POINTER] * 2),
    "normalise_back": (*[POINTER] * 7, DOUBLE, *[POINTER] * 4),
    "attend": [POINTER] * 6,
}


def fits(x: Float[Tensor, "batch inputs h w"], weight: Float[Tensor, "*one outputs inputs k k"]) -> bool:
    """Return whether a convolution is better computed here: thin, or a layer behind one that was."""
    thin = max(weight.shape[-4:-2]) <= (MOST if lies(x) else THIN) and x.shape[1] == weight.shape[-3]
    return thin and len(x) >= FEWEST and weight.shape[-1] in (1, 3) and x.dtype == weight.dtype and computes(x)


def computes(x: Tensor) -> bool:
    """Return whether a tensor of the processor's, as autocast leaves it, can be computed on here."""
    plain = x.device.type == "cpu" and x.dtype in native.DTYPES and not torch.is_autocast_enabled("cpu")
    return plain and compiled() is not None


def lies(x: Float[Tensor, "batch channels h w"]) -> bool:
    """Return whether a tensor of the processor's has images last in memory, and can be computed on here."""
    return x.ndim == 4 and len(x) > 1 and _is_laid(x) and computes(x)


def convolve(
    x: Float[Tensor, "batch inputs h w"],
    weight: Float[Tensor, "*one outputs inputs k k"],
    bias: Float[Tensor, "*one outputs"] | None,
    stride: int,
    padding: int,
) -> Float[Tensor, "batch outputs h2 w2"]:
    """Return F.conv2d(x, weight, bias, stride, padding) of a kernel of 1 or 3, images last in memory.

    Here and below parameters may have a member dimension of one in front, as layers have them.
    """
    y = _Convolution.apply(x, weight, bias, stride, padding)
    assert isinstance(y, Tensor)
    return y


def batch_norm(
    x: Float[Tensor, "batch channels h w"],
    running_mean: Float[Tensor, "*one channels"],
    running_var: Float[Tensor, "*one channels"],
    weight: Float[Tensor, "*one channels"],
    bias: Float[Tensor, "*one channels"],
    momentum: float,
    eps: float,
    added: Float[Tensor, "batch channels h w"] | None = None,
    relu: bool = False,
) -> Float[Tensor, "batch channels h w"]:
    """Return F.batch_norm of the same arguments in training, plus `added`, behind a ReLU if asked for."""
    return _BatchNorm.apply(x, weight, bias, running_mean, running_var, added, relu, momentum, eps)


def evaluated_batch_norm(
    x: Float[Tensor, "batch channels h w"],
    mean: Float[Tensor, "*one channels"],
    var: Float[Tensor, "*one channels"],
    weight: Float[Tensor, "*one channels"],
    bias: Float[Tensor, "*one channels"],
    eps: float,
    added: Float[Tensor, "batch channels h w"] | None = None,
    relu: bool = False,
) -> Float[Tensor, "batch channels h w"]:
    """Return what `batch_norm` does, but by a given mean and variance, and without gradients."""
    sizes, y = (x.shape[1], x.numel() // x.shape[1], int(relu), 1), empty(x, *x.shape)
    added = None if added is None else laid(added)
    weight, bias, mean, var = (t.contiguous() for t in (weight, bias, mean, var))
    _call("normalise", x.dtype, sizes, laid(x), weight, bias, added, eps, mean, var, y, 0.0, None, None)
    return y


def max_pool(x: Float[Tensor, "batch channels h w"], size: int) -> Float[Tensor, "batch channels h w"]:
    """Return F.max_pool2d(x, size) of a tensor whose images are last in memory: to PyTorch, channels in that place."""
    return torch.nn.functional.max_pool2d(x.transpose(0, 1), size).transpose(0, 1)


def means(x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels"]:
    """Return every channel's mean: not by x.mean, whose rounding depends on where a channel lies."""
    laid, size = lies(x), (x.shape[2], x.shape[3])  # laid: to PyTorch, images are in the place of channels
    found = torch.nn.functional.avg_pool2d(x.transpose(0, 1) if laid else x, size)
    return (found.transpose(0, 1) if laid else found).flatten(1)


def attention(
    mixed: Float[Tensor, "tokens 3*units"], starts: Int[Tensor, " texts+1"], heads: int
) -> Float[Tensor, "tokens units"]:
    """Return softmax(q k^T / sqrt(size of a head)) v of every head, of texts that lie end to end.

    Args:
        mixed: queries, keys and values of a token, of each the heads one after the other.
        starts: every text's first token, int64, and the number of all tokens behind.
    """
    y, _ = _Attention.apply(mixed, starts, heads)
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        """Return the convolution."""
        x, weight = laid(x), weight.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.sizes, ctx.bias = _sizes(x, weight, stride, padding), None if bias is None else bias.shape
        y = _convolved(x, weight, stride, padding)
        _call("gather", x.dtype, ctx.sizes, x, weight, bias, y, 0)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of x, weight and bias."""
        (x, weight), dy = ctx.saved_tensors, laid(dy)
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = empty(x, *x.shape)
            _call("gather", x.dtype, ctx.sizes, dy, weight, None, dx, 1)
        if ctx.needs_input_grad[1]:
            dweight = torch.empty_like(weight)
            _call("weights", x.dtype, ctx.sizes, dy, x, dweight)
        dbias = dy.sum((0, 2, 3)).view(ctx.bias) if ctx.needs_input_grad[2] else None
        return dx, dweight, dbias, None, None


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        added: Tensor | None,
        relu: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        """Return y; the running statistics move by the momentum."""
        x, added = laid(x), None if added is None else laid(added)
        weight, bias, y = weight.contiguous(), bias.contiguous(), empty(x, *x.shape)
        mean, var = torch.empty_like(weight), torch.empty_like(weight)
        ctx.sizes, ctx.eps = (x.shape[1], x.numel() // x.shape[1], int(relu), 0), eps
        running = (momentum, running_mean, running_var)
        _call("normalise", x.dtype, ctx.sizes, x, weight, bias, added, eps, mean, var, y, *running)
        ctx.save_for_backward(x, None if added is None else y, weight, bias, mean, var)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of x, weight, bias and what was added."""
        (x, y, weight, bias, mean, var), dy = ctx.saved_tensors, laid(dy)
        dx, passed = empty(x, *x.shape), empty(x, *x.shape) if ctx.needs_input_grad[5] else None
        dweight, dbias = torch.empty_like(weight), torch.empty_like(weight)
        given = (dy, x, y, weight, bias, mean, var, ctx.eps, passed, dweight, dbias, dx)
        _call("normalise_back", x.dtype, ctx.sizes, *given)
        return dx, dweight, dbias, None, None, passed, None, None, None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mixed: Tensor, starts: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """Return (y, the logarithm of every token's sum of exponentials)."""
        mixed, (n, three) = mixed.contiguous(), mixed.shape
        y, ends = mixed.new_empty(n, three // 3), mixed.new_empty(heads, n)
        ctx.sizes = (len(starts) - 1, heads, three // 3 // heads)
        _call("attend", mixed.dtype, ctx.sizes, starts, mixed, y, ends, None, None)
        ctx.save_for_backward(mixed, starts, y, ends)
        ctx.mark_non_differentiable(ends)
        return y, ends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradient of queries, keys and values."""
        mixed, starts, y, ends = ctx.saved_tensors
        dmixed = torch.empty_like(mixed)
        _call("attend", mixed.dtype, ctx.sizes, starts, mixed, y, ends, dy.contiguous(), dmixed)
        return dmixed, None, None


# Memory and the compiled library ------------------------------------------------------------------------


def laid(x: Tensor) -> Tensor:
    """Return a tensor with its images last in memory; gradients do not find the way back."""
    if _is_laid(x):
        return x
    if not (x.is_contiguous() and computes(x)):
        return x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    y = empty(x, *x.shape)
    _call("lay", x.dtype, (len(x), x[0].numel()), x, y)
    return y


def _is_laid(x: Tensor) -> bool:
    return x.stride() == _strides(*x.shape) or x.permute(1, 2, 3, 0).is_contiguous()  # where a size is 1


def empty(like: Tensor, batch: int, channels: int, rows: int, columns: int) -> Tensor:
    """Return an unfilled tensor with its images last in memory: not a view, so that a ReLU may overwrite it."""
    shape = (batch, channels, rows, columns)
    return torch.empty_strided(shape, _strides(*shape), dtype=like.dtype)


def _convolved(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return an unfilled tensor of a convolution's shape."""
    rows, columns = ((n + 2 * padding - weight.shape[-1]) // stride + 1 for n in x.shape[2:])
    return empty(x, len(x), weight.shape[-4], rows, columns)


def _strides(batch: int, channels: int, rows: int, columns: int) -> tuple[int, ...]:
    return (1, rows * columns * batch, columns * batch, batch)


def _sizes(x: Tensor, weight: Tensor, stride: int, padding: int) -> tuple[int, ...]:
    batch, inputs, height, width = x.shape
    return inputs, weight.shape[-4], height, width, batch, weight.shape[-1], stride, padding


def _call(name: str, dtype: torch.dtype, sizes: tuple[int, ...], *given: Any) -> None:
    """Compute; a thin network calls thousands of times a second, so nothing is looked up twice."""
    _function(name, dtype)(_numbers(sizes), *[t.data_ptr() if isinstance(t, Tensor) else t for t in given])


@cache
def _function(name: str, dtype: torch.dtype) -> Any:
    return native.function(SOURCE, name, dtype, (POINTER, *ARGUMENTS[name]))


@cache
def _numbers(sizes: tuple[int, ...]) -> Any:
    return (ctypes.c_int64 * len(sizes))(*sizes)


def compiled() -> ctypes.CDLL | None:
    """Return the compiled library; None without a compiler."""
    return native.load(SOURCE)
