"""ResNet-18 in its CIFAR form: a 3x3 stem of 64 channels without max-pool, four stages of two basic blocks.

Convolutions have no bias, a shortcut that changes shape is a 1x1 convolution with batch norm, the features
are the global average pool of the last stage. He, Zhang, Ren, Sun (2015), arXiv 1512.03385.
"""

from fractions import Fraction

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from widthwise.layers import BatchNorm2d, Conv2d, Linear, by_member, convolved_batch_norm, residual, side_by_side
from widthwise.networks.base import Network, image_shape, scaled

VERSION = 1
STAGES = (64, 128, 256, 512)


def widths(scale: Fraction) -> tuple[int, ...]:
    """Return the channels of the four stages.

    Raises:
        UsageError: if a stage gets a fraction of a channel.
    """
    return tuple(scaled(channels, scale) for channels in STAGES)


def build(shape: tuple[int, ...], classes: int, scale: Fraction, members: int) -> Network:
    """Return `members` networks with every stage's channels multiplied by `scale`."""
    return ResNet18(image_shape("resnet18", shape), classes, widths(scale), members)


class ResNet18(Network):
    """`members` networks of four stages; the modules have torchvision's names, the last one is `head`."""

    def __init__(self, shape: tuple[int, int, int], classes: int, stages: tuple[int, ...], members: int):
        super().__init__(members, classes, n_features=stages[-1])
        stem = stages[0]
        self.conv1 = Conv2d(members, shape[0], stem, 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(members, stem)
        self.layer1 = _stage(members, stem, stages[0], stride=1)
        self.layer2 = _stage(members, stages[0], stages[1], stride=2)
        self.layer3 = _stage(members, stages[1], stages[2], stride=2)
        self.layer4 = _stage(members, stages[2], stages[3], stride=2)
        self.head = Linear(members, stages[-1], classes)

    def features(self, x: Float[Tensor, "m batch c h w"]) -> Float[Tensor, "m batch d"]:
        """Return the global average pool of the last stage."""
        x = convolved_batch_norm(self.conv1, self.bn1, side_by_side(x), relu=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = F.avg_pool2d(x, x.shape[2:])  # not x.mean, whose rounding depends on where a channel lies
        return by_member(x.flatten(1), self.members)


class _Shortcut(nn.Sequential):
    """bn(conv(x))."""

    def forward(self, x: Float[Tensor, "batch m*inputs h w"]) -> Float[Tensor, "batch m*outputs h2 w2"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        convolution, norm = self
        assert isinstance(convolution, Conv2d)
        assert isinstance(norm, BatchNorm2d)
        return convolved_batch_norm(convolution, norm, x)


class _Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))."""

    def __init__(self, members: int, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = Conv2d(members, inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(members, outputs)
        self.conv2 = Conv2d(members, outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(members, outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            shortcut = Conv2d(members, inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = _Shortcut(shortcut, BatchNorm2d(members, outputs))

    def forward(self, x: Float[Tensor, "batch m*inputs h w"]) -> Float[Tensor, "batch m*outputs h2 w2"]:
        added = None if self.downsample is None else self.downsample(x)
        return residual((self.conv1, self.bn1), (self.conv2, self.bn2), x, added)


def _stage(members: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(members, inputs, outputs, stride), _Block(members, outputs, outputs, 1))
