"""Convolution and batch norm of one thin network: neighbouring pixels become channels, so that vectors are full.

PyTorch's kernels on a processor keep channels in a vector: 4 channels leave half of it empty, and their batch norm
takes ten times as long as that of 64. In channels-last order s neighbours in a row with c channels each already lie
as s * c channels, so a convolution of 3x3 is also one of s * c channels, with a weight that is 1 / s full:

    y[r, s b + q, o] = sum over i, j, c of w[o, c, i, j] x[r + i - 1, s b + q + j - 1, c]
                     = sum over i, d, p, c of v[(q, o), (p, c), i, d] x[r + i - 1, s (b + d - 1) + p, c],
    v[(q, o), (p, c), i, d] = w[o, c, i, s (d - 1) + p - q + 1], or 0 outside of the kernel.

The same numbers but for the order of sums. What it is worth: docs/fleets.md.
"""

from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LANES = 8  # layers of fewer channels are folded: convolutions to at most as many,
COLUMNS = 64  # batch norms to at most so many


def convolve(
    x: Float[Tensor, "batch inputs h w"],
    weight: Float[Tensor, "outputs inputs k k"],
    bias: Float[Tensor, " outputs"] | None,
    stride: int,
    padding: int,
) -> Float[Tensor, "batch outputs h2 w2"]:
    """Return F.conv2d(x, weight, bias, stride, padding), in channels-last order, by the quickest arrangement."""
    outputs, inputs, kernel, _ = weight.shape
    if kernel == 1 and padding == 0 and stride > 1:
        # The same numbers, and not oneDNN's strided 1x1 kernel, which writes outside its buffer in the
        # backward pass of fewer than 8 channels-last channels (oneDNN 6035): crashes or wrong gradients.
        return F.conv2d(x[:, :, ::stride, ::stride], weight, bias)
    fold = _fold(x.shape[3], max(inputs, outputs), LANES)
    plain = x.device.type == "cpu" and x.dtype == weight.dtype
    if (kernel, padding, stride) == (3, 1, 1) and plain and fold > 1:
        return _by_neighbours(x, weight, bias, fold)
    return F.conv2d(x, weight, bias, stride, padding)


def batch_norm(
    x: Float[Tensor, "batch channels h w"],
    running_mean: Float[Tensor, " channels"],
    running_var: Float[Tensor, " channels"],
    weight: Float[Tensor, " channels"],
    bias: Float[Tensor, " channels"],
    training: bool,
    momentum: float,
    eps: float,
) -> Float[Tensor, "batch channels h w"]:
    """Return F.batch_norm of the same arguments; `running_mean` and `running_var` are updated when training."""
    fold = _fold(x.shape[2] * x.shape[3], x.shape[1], COLUMNS)
    if x.shape[1] >= LANES or fold == 1 or x.device.type != "cpu" or x.dtype != weight.dtype:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    columns = _channels_last(x).reshape(len(x), -1, fold * x.shape[1]).transpose(1, 2).unsqueeze(2)
    if training:
        y, mean, var = _BatchNorm.apply(columns, weight, bias, eps)
        n = x.numel() // x.shape[1]
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * (n / (n - 1)), momentum)
    else:
        scale = weight / (running_var + eps).sqrt()
        y = _affine(columns, scale, bias - running_mean * scale)
    return _channels_first(y.squeeze(2).transpose(1, 2).reshape(len(x), *x.shape[2:], -1))


# Convolutions -------------------------------------------------------------------------------------------


def _by_neighbours(x: Tensor, weight: Tensor, bias: Tensor | None, fold: int) -> Tensor:
    """Return a 3x3 convolution as one of `fold` times the channels, over as many neighbours in a row."""
    (batch, inputs, h, w), outputs = x.shape, len(weight)
    chosen = _neighbours(fold).to(weight.dtype)
    folded = torch.einsum("qpdj,ocij->qopcid", chosen, weight).reshape(fold * outputs, fold * inputs, 3, 3)
    together = _channels_first(_channels_last(x).reshape(batch, h, w // fold, fold * inputs))
    y = F.conv2d(together, folded, None if bias is None else bias.repeat(fold), padding=1)
    return _channels_first(_channels_last(y).reshape(batch, h, w, outputs))


@cache
def _neighbours(fold: int) -> Float[Tensor, "fold fold 3 3"]:
    """Return 1 where neighbour p of the d-th group is j pixels from neighbour q of the middle one: [q, p, d, j]."""
    q, p, d, j = torch.meshgrid(*map(torch.arange, (fold, fold, 3, 3)), indexing="ij")
    return (fold * (d - 1) + p - q + 1 == j).double()


# Batch norm ---------------------------------------------------------------------------------------------


class _BatchNorm(torch.autograd.Function):
    """Batch norm of pixels that lie as columns: each column's statistics are taken, those of a channel pooled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return (y, mean, biased variance) of every channel."""
        means, variances = (t.view(-1, len(weight)) for t in torch.batch_norm_update_stats(x, None, None, 0.0))
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)
        deviation = (var + eps).rsqrt()
        scale = weight * deviation
        ctx.save_for_backward(x, mean, var, deviation, scale)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return _affine(x, scale, bias - mean * scale), mean, var

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dy: Tensor, *_: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return dx = scale (dy - mean dy - z mean(z dy)), z = (x - mean) / deviation; dweight = sum z dy."""
        x, mean, var, deviation, scale = ctx.saved_tensors
        channels = len(mean)
        fold, n = x.shape[1] // channels, x.numel() // channels
        wide = (None, mean.repeat(fold), var.repeat(fold))
        _, dweights, dbiases = torch.ops.aten.native_batch_norm_backward(
            dy, x, *wide, None, None, False, ctx.eps, [False, True, True]
        )
        dweight, dbias = (t.view(fold, channels).sum(0) for t in (dweights, dbiases))
        slope = -scale * deviation * dweight / n
        dx = _affine(x, slope, -scale * dbias / n - slope * mean)
        return dx.addcmul_(dy, _wide(scale, dy)), dweight, dbias, None


def _affine(x: Tensor, scale: Float[Tensor, " channels"], shift: Float[Tensor, " channels"]) -> Tensor:
    return torch.addcmul(_wide(shift, x), x, _wide(scale, x))


def _wide(values: Float[Tensor, " channels"], x: Float[Tensor, "batch columns 1 pixels"]) -> Tensor:
    return values.repeat(x.shape[1] // len(values))[:, None, None]


# Order --------------------------------------------------------------------------------------------------


def _fold(pixels: int, channels: int, wanted: int) -> int:
    """Return the largest power of 2 that divides `pixels` and leaves the folded channels at most `wanted`."""
    fold = 1
    while 2 * fold * channels <= wanted and pixels % (2 * fold) == 0:
        fold *= 2
    return fold


def _channels_last(x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch h w channels"]:
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Float[Tensor, "batch h w channels"]) -> Float[Tensor, "batch channels h w"]:
    return x.permute(0, 3, 1, 2)
