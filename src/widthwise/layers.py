"""Layers that carry a fleet of m networks at once; m = 1 is the ordinary layer.

Every parameter and buffer has the member dimension first: a convolution's weight is (m, out, in, k, k), where
the ordinary one is (out, in, k, k). So a fleet's state dict is the stack of its members' plain state dicts,
and `unstack(state, k)` loads into an ordinary module of that architecture.

Images travel side by side, as (batch, m * channels, height, width) in channels-last order: a convolution of a
fleet is one grouped convolution and its batch norm one batch norm. Vectors travel as (m, batch, units), and tokens
as vectors: (m, batch * tokens, units).

In a fleet of two or more, on one thread of a processor, no bit of a member depends on its companions, its
place or their number. Kernels round by where a number lies, so some layers fill up what they compute on (see
`_fill`); with more threads they divide a batch by the number of members. A fleet of one uses the ordinary
kernels: the same numbers but for rounding.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from widthwise import lanes

LANES = 16  # float32 numbers of the widest vector
UNSEEN = -1e9  # added to what is not attended to; infinity would make no number of a row of nothing else


def initialise(network: nn.Module, generators: Sequence[Generator]) -> None:
    """Draw member k's parameters from `generators[k]` alone, in the order of named_parameters.

    He normal weights (standard deviation sqrt(2 / fan_in), the head too), zero biases; batch norm 1 and 0,
    running statistics 0 and 1. Drawn in float32 on the CPU, so every dtype and device starts the same.
    """
    for layer in network.modules():
        if isinstance(layer, Layer):
            assert len(generators) == layer.members, f"{len(generators)} streams, {layer.members} members"
            layer.initialise(generators)


def keep(network: nn.Module, places: Sequence[int]) -> None:
    """Let a fleet go on with some of its members only."""
    for module in network.modules():
        if hasattr(module, "members"):
            module.members = len(places)  # pyright: ignore[reportArgumentType]
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data[list(places)]
        tensor.grad = None


def stack(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the fleet's state dict made of its members' plain ones."""
    assert all(state.keys() == states[0].keys() for state in states), "members of different architectures"
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def unstack(state: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """Return member k's plain state dict as contiguous copies."""
    return {name: t[k].detach().clone(memory_format=torch.contiguous_format) for name, t in state.items()}


def side_by_side(images: Float[Tensor, "m batch channels h w"]) -> Float[Tensor, "batch m*channels h w"]:
    """Return every member's images as channels of one batch; of several members, in channels-last order."""
    m, batch, channels, h, w = images.shape
    if m == 1:
        return images[0]  # convolutions lay it as they want it
    joined = images.transpose(0, 1).reshape(batch, m * channels, h, w)
    return joined.contiguous(memory_format=torch.channels_last)


def by_member(vectors: Float[Tensor, "batch m*units"], members: int) -> Float[Tensor, "m batch units"]:
    """Return what belongs to each member of vectors that lie side by side."""
    return vectors.unflatten(1, (members, -1)).transpose(0, 1).contiguous()


def affine(
    x: Float[Tensor, "m batch inputs"], weight: Float[Tensor, "m outputs inputs"], bias: Float[Tensor, "m outputs"]
) -> Float[Tensor, "m batch outputs"]:
    """Return x weight^T + bias of every member."""
    outputs, inputs = (0, 0) if _begin_alike(x, weight, bias) else (-n % 32 for n in weight.shape[1:])
    x, weight, bias = _fill(x, inputs), _fill(weight, inputs, outputs), _fill(bias, outputs)
    return _fill(torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2)), -outputs)


class Layer(nn.Module, ABC):
    """A layer of `members` networks whose parameters and buffers have the member dimension first."""

    def __init__(self, members: int):
        super().__init__()
        self.members = members

    @abstractmethod
    def initialise(self, generators: Sequence[Generator]) -> None:
        """Draw every member's parameters, each from its own generator."""


class Linear(Layer):
    """Affine maps: weight (m, out, in), bias (m, out)."""

    def __init__(self, members: int, inputs: int, outputs: int):
        super().__init__(members)
        self.weight = nn.Parameter(torch.zeros(members, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(members, outputs))

    def initialise(self, generators: Sequence[Generator]) -> None:
        """Draw the weight, He normal; the bias is zero."""
        _he_normal(self.weight, generators)
        nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "m batch inputs"]) -> Float[Tensor, "m batch outputs"]:
        """Return x weight^T + bias of every member."""
        return affine(x, self.weight, self.bias)


class Conv2d(Layer):
    """Convolutions as one of m groups: weight (m, out, in, k, k), bias (m, out)."""

    def __init__(self, members: int, inputs: int, outputs: int, kernel: int, *, stride=1, padding=0, bias=True):
        super().__init__(members)
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.zeros(members, outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(members, outputs)) if bias else None

    def initialise(self, generators: Sequence[Generator]) -> None:
        """Draw the weight, He normal; the bias is zero."""
        _he_normal(self.weight, generators)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "batch m*inputs h w"]) -> Float[Tensor, "batch m*outputs h2 w2"]:
        """Return every member's convolution of its own channels."""
        weight, bias, stride = self.weight, self.bias, self.stride
        if self.members == 1 and lanes.fits(x, weight):
            return lanes.convolve(x, weight, bias, stride, self.padding)
        if stride > 1 and weight.shape[-1] == 1 and self.padding == 0:
            # The same numbers, and not oneDNN's strided 1x1 kernel, which writes outside its buffer in the
            # backward pass of fewer than 8 channels-last channels (oneDNN 6035): crashes or wrong gradients.
            x, stride = x[:, :, ::stride, ::stride], 1
        # Of one pixel there is one step only; strided, oneDNN leaves no number in bfloat16 weights' gradients.
        stride = 1 if x.shape[-2:] == (1, 1) else stride
        if self.members == 1:
            x = x.contiguous(memory_format=torch.channels_last)
            return F.conv2d(x, weight[0], None if bias is None else bias[0], stride, self.padding)
        # oneDNN takes three members of one channel for one coloured picture, in another kernel: make it four.
        extra = 1 if x.shape[1] == 3 else 0
        x, weight = _fill(x, 0, 0, extra), _fill(weight, 0, 0, 0, 0, extra)
        bias = None if bias is None else _fill(bias, 0, extra).flatten()
        y = F.conv2d(x, weight.flatten(0, 1), bias, stride, self.padding, groups=self.members + extra)
        return _fill(y, 0, 0, -extra * weight.shape[1])


class BatchNorm2d(Layer):
    """One batch norm over all members' channels: weight, bias, running_mean, running_var (m, channels)."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, members: int, channels: int, *, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__(members)
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(members, channels))
        self.bias = nn.Parameter(torch.zeros(members, channels))
        self.register_buffer("running_mean", torch.zeros(members, channels))
        self.register_buffer("running_var", torch.ones(members, channels))
        self.register_buffer("num_batches_tracked", torch.zeros(members, dtype=torch.int64))

    def initialise(self, generators: Sequence[Generator]) -> None:
        """Draw nothing: weight 1, bias 0, statistics 0 and 1."""
        for ones in (self.weight, self.running_var):
            nn.init.ones_(ones)
        for zeros in (self.bias, self.running_mean, self.num_batches_tracked):
            nn.init.zeros_(zeros)

    def forward(
        self,
        x: Float[Tensor, "batch m*channels h w"],
        added: Float[Tensor, "batch m*channels h w"] | None = None,
        relu: bool = False,
    ) -> Float[Tensor, "batch m*channels h w"]:
        """Return (x - mean) / sqrt(var + eps) * weight + bias; mean and var the batch's when training.

        Then `added`, and a ReLU if asked for: a network's thin layers do all of it in one pass.
        """
        if self.training:
            self.num_batches_tracked.add_(1)
        if self.members == 1:
            mine = (self.running_mean, self.running_var, self.weight, self.bias)
            thin = lanes.lies(x) and x.dtype == self.weight.dtype
            if thin and self.training:
                return lanes.batch_norm(x, *mine, self.momentum, self.eps, added, relu)
            if thin and not torch.is_grad_enabled():
                return lanes.evaluated_batch_norm(x, *mine, self.eps, added, relu)
            mean, var, weight, bias = (t[0] for t in mine)
            y = F.batch_norm(x, mean, var, weight, bias, self.training, self.momentum, self.eps)
        else:
            y = self._together(x)
        y = y if added is None else y + added
        return F.relu(y, inplace=True) if relu else y

    def _together(self, x: Float[Tensor, "batch m*channels h w"]) -> Float[Tensor, "batch m*channels h w"]:
        extra = -x.shape[1] % (64 // x.element_size()) if self.training else 0  # to fill the widest vector
        mean, var = _fill(self.running_mean.view(-1), extra), _fill(self.running_var.view(-1), extra)
        weight, bias = _fill(self.weight.flatten(), extra), _fill(self.bias.flatten(), extra)
        x = _fill(x, 0, 0, extra)
        y = F.batch_norm(x, mean, var, weight, bias, self.training, self.momentum, self.eps)
        if extra:  # otherwise mean and var are views of the buffers, which have been updated
            self.running_mean.copy_(mean[:-extra].view_as(self.running_mean))
            self.running_var.copy_(var[:-extra].view_as(self.running_var))
        return _fill(y, 0, 0, -extra)


class MaxPool2d(nn.Module):
    """The largest of every square of `size` pixels."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, x: Float[Tensor, "batch m*channels h w"]) -> Float[Tensor, "batch m*channels h2 w2"]:
        """Return every channel, `size` times smaller."""
        return lanes.max_pool(x, self.size) if lanes.lies(x) else F.max_pool2d(x, self.size)


class LayerNorm(Layer):
    """Normalisation of every vector by itself: weight and bias (m, units)."""

    def __init__(self, members: int, units: int, *, eps: float = 1e-5):
        super().__init__(members)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(members, units))
        self.bias = nn.Parameter(torch.zeros(members, units))

    def initialise(self, generators: Sequence[Generator]) -> None:
        """Draw nothing: weight 1, bias 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "m batch units"]) -> Float[Tensor, "m batch units"]:
        """Return (x - mean) / sqrt(var + eps) * weight + bias of every vector."""
        if self.members == 1:
            return F.layer_norm(x, self.weight.shape[1:], self.weight[0], self.bias[0], self.eps)
        x = F.layer_norm(x, self.weight.shape[1:], None, None, self.eps)
        extra = 0 if _begin_alike(x, self.weight, self.bias) else -x.shape[2] % LANES
        weight, bias = _fill(self.weight, extra), _fill(self.bias, extra)
        return _fill(torch.addcmul(bias.unsqueeze(1), _fill(x, extra), weight.unsqueeze(1)), -extra)


@dataclass(frozen=True)
class Texts:
    """Where the real tokens of a batch of texts are: among padding, or, of a thin network, end to end without it.

    Attributes:
        real: 1 for a real token, 0 for padding.
        rows: the numbers of real tokens among all of them, where they are taken end to end; and of each the text.
        starts: the first of every text's tokens, and their number.
    """

    real: Float[Tensor, "m batch tokens"]
    rows: Int[Tensor, " tokens"] | None = None
    text: Int[Tensor, " tokens"] | None = None
    starts: Int[Tensor, " batch+1"] | None = None

    @classmethod
    def of(cls, marks: Float[Tensor, "m batch tokens"]) -> "Texts":
        """Return where tokens are real: where their mark is above 0."""
        marked = marks > 0
        real = marked.to(marks.dtype)
        if len(real) > 1 or not lanes.computes(marks):
            return cls(real)
        text, token = marked[0].nonzero(as_tuple=True)
        ends = marked[0].sum(1).cumsum(0)
        return cls(real, text * marks.shape[2] + token, text, torch.cat([ends.new_zeros(1), ends]))

    def take(self, x: Float[Tensor, "m batch tokens units"]) -> Float[Tensor, "m rows units"]:
        """Return the tokens, one after the other."""
        return x.flatten(1, 2) if self.rows is None else x.flatten(1, 2).index_select(1, self.rows)

    def mean(self, h: Float[Tensor, "m rows units"]) -> Float[Tensor, "m batch units"]:
        """Return the mean over each text's real tokens; zero where there is none."""
        m, batch, tokens = self.real.shape
        share = self.real / self.real.sum(2, keepdim=True).clamp_min(1)
        if self.rows is not None:
            assert self.text is not None
            weighted = h[0] * share.flatten()[self.rows, None].to(h.dtype)
            return h.new_zeros(1, batch, h.shape[2]).index_add(1, self.text, weighted[None])
        pooled = share.reshape(m * batch, 1, tokens) @ h.view(m * batch, tokens, -1).to(share.dtype)
        return pooled.view(m, batch, -1)


class Attention(Layer):
    """Self-attention of several heads, with the parameters of `nn.MultiheadAttention`: in_proj (m, 3 units, units).

    Attributes:
        parts: into how many equal parts each dimension of a member's weight falls: queries, keys, values by head.
    """

    def __init__(self, members: int, units: int, heads: int):
        super().__init__(members)
        self.heads = heads
        self.parts = {"in_proj_weight": (3 * heads, 1), "in_proj_bias": (3 * heads,), "out_proj.weight": (1, heads)}
        self.in_proj_weight = nn.Parameter(torch.zeros(members, 3 * units, units))
        self.in_proj_bias = nn.Parameter(torch.zeros(members, 3 * units))
        self.out_proj = Linear(members, units, units)

    def initialise(self, generators: Sequence[Generator]) -> None:
        """Draw the weight of queries, keys and values, He normal; the bias is zero. `out_proj` draws its own."""
        _he_normal(self.in_proj_weight, generators)
        nn.init.zeros_(self.in_proj_bias)

    def forward(self, x: Float[Tensor, "m rows units"], texts: Texts) -> Float[Tensor, "m rows units"]:
        """Return softmax(q k^T / sqrt(size of a head)) v of every head, side by side, through `out_proj`.

        Tokens that are not real are not attended to; where none is, all are, so that every number stays finite.
        """
        mixed = affine(x, self.in_proj_weight, self.in_proj_bias)  # (m, rows, 3 * units)
        if texts.starts is not None:
            return self.out_proj(lanes.attention(mixed[0], texts.starts, self.heads)[None])
        real = texts.real
        m, batch, tokens = real.shape
        q, k, v = mixed.view(m * batch, tokens, 3, self.heads, -1).permute(
            2, 0, 3, 1, 4
        )  # (m * batch, heads, tokens, size)
        bias = torch.where(real > 0, 0.0, UNSEEN).to(q.dtype).view(m * batch, 1, 1, tokens)
        y = F.scaled_dot_product_attention(q, k, v, bias)
        return self.out_proj(y.transpose(1, 2).reshape(m, batch * tokens, -1))


class ReLU(nn.Module):
    """max(x, 0), in place where that is free: of a view, such as a folded layer gives, the way back would copy."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the positive part; `x` may be overwritten."""
        return F.relu(x, inplace=not x._is_view())


def _begin_alike(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Return whether every member's matrices begin where a vector does; a fleet of one has nothing to share."""
    lanes = 64 // x.element_size()
    begin = (x.stride(0), weight.stride(0), bias.stride(0), x.shape[1] * weight.shape[1])
    return len(weight) == 1 or all(number % lanes == 0 for number in begin)


def _fill(x: Tensor, *extra: int) -> Tensor:
    """Return `x` with `extra` zeros behind its last dimension, the one before, ...; shortened if below 0.

    Numbers that begin on a vector's boundary and fill it round alike wherever they lie: otherwise matrix
    products round by a matrix's address, and batch norm's backward pass by a channel's number. (A slice would
    shorten too, but its gradient is not in channels-last order, which rounds in yet another way.)
    """
    return F.pad(x, [n for each in extra for n in (0, each)]) if any(extra) else x


def _he_normal(weight: Tensor, generators: Sequence[Generator]) -> None:
    std = sqrt(2 / weight[0, 0].numel())  # of one output: its inputs times the kernel's area
    with torch.no_grad():
        for member, generator in zip(weight, generators, strict=True):
            member.copy_(torch.randn(member.shape, generator=generator, dtype=torch.float32) * std)
