"""A stem and residual blocks, layer by layer; and a lone thin network of them whose steps are one call."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from widthwise import backbone, lanes
from widthwise.layers import BatchNorm2d, Conv2d, Linear

Normed = tuple[Conv2d, BatchNorm2d]  # a convolution without a bias, and the batch norm behind it


def residual_network(
    stem: Normed, blocks: Sequence[Sequence[Normed]], x: Float[Tensor, "batch m*channels h w"]
) -> Float[Tensor, "batch m*channels2"]:
    """Return the means of h's channels: h = relu(norm(convolution(x))), then of every block h = relu(second(...) + h).

    Args:
        stem: a convolution and its batch norm.
        blocks: of each the first, the second and, if h is to go through one before it is added, a third of such pairs.
    """
    x = _behind(stem, x, relu=True)
    for first, second, *shortcut in blocks:
        added = _behind(shortcut[0], x) if shortcut else x
        x = _behind(second, _behind(first, x, relu=True), added, relu=True)
    return lanes.means(x)


def _behind(layer: Normed, x: Tensor, added: Tensor | None = None, relu: bool = False) -> Tensor:
    convolution, norm = layer
    return norm(convolution(x), added, relu)


def residual_learner(
    stem: Normed,
    blocks: Sequence[Sequence[Normed]],
    head: Linear,
    gradients: Mapping[nn.Parameter, Tensor],
    shape: tuple[int, ...],
) -> backbone.Learner | None:
    """Return what takes batches through `residual_network` and a head, in training, and back: of a lone thin network.

    None of others, and where there is no compiler.

    Args:
        gradients: where each parameter's is written.
        shape: of a batch.
    """

    def normed(convolution: Conv2d, norm: BatchNorm2d) -> backbone.Normed:
        own = (convolution.weight, norm.weight, norm.bias)
        running = (norm.running_mean, norm.running_var, norm.num_batches_tracked)
        first, second, third = (gradients[p] for p in own)
        return backbone.Normed(own, (first, second, third), running, convolution.stride, convolution.padding)

    layers = [stem, *(layer for block in blocks for layer in block)]
    alike = {(norm.momentum, norm.eps) for _, norm in layers}
    plain = all(norm.members == 1 and convolution.bias is None for convolution, norm in layers)
    if not plain or len(alike) > 1:
        return None
    made = normed(*stem), [[normed(*layer) for layer in block] for block in blocks]
    last = backbone.Head((head.weight, head.bias), (gradients[head.weight], gradients[head.bias]))
    return backbone.Learner(shape, *made, last, *alike.pop()) if backbone.fits(shape, *made, last) else None
