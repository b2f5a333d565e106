"""ResNet-18 in its CIFAR form: a 3x3 stem of 64 channels without max-pool, four stages of two basic blocks.

Convolutions have no bias, a shortcut that changes shape is a 1x1 convolution with batch norm, the features
are the global average pool of the last stage. He, Zhang, Ren, Sun (2015), arXiv 1512.03385.
"""

from collections.abc import Mapping
from fractions import Fraction

from jaxtyping import Float
from torch import Tensor, nn

from widthwise import lanes
from widthwise.layers import BatchNorm2d, Conv2d, Linear, by_member, side_by_side
from widthwise.networks.base import Learner, Network, image_shape, scaled
from widthwise.residual import Normed, residual_learner, residual_network

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
        self.images_last = members == 1 and max(shape[0], stem) <= lanes.THIN
        self.conv1 = Conv2d(members, shape[0], stem, 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(members, stem)
        self.layer1 = _stage(members, stem, stages[0], stride=1)
        self.layer2 = _stage(members, stages[0], stages[1], stride=2)
        self.layer3 = _stage(members, stages[1], stages[2], stride=2)
        self.layer4 = _stage(members, stages[2], stages[3], stride=2)
        self.head = Linear(members, stages[-1], classes)

    def features(self, x: Float[Tensor, "m batch c h w"]) -> Float[Tensor, "m batch d"]:
        """Return the global average pool of the last stage."""
        return by_member(residual_network((self.conv1, self.bn1), self.blocks(), side_by_side(x)), self.members)

    def learner(self, gradients: Mapping[str, Tensor], shape: tuple[int, ...]) -> Learner | None:
        """Return what goes forward and back in one call, of a lone thin network on a processor; None of others."""
        own = {p: gradients[name] for name, p in self.named_parameters()}
        return residual_learner((self.conv1, self.bn1), self.blocks(), self.head, own, shape)

    def blocks(self) -> list[list[Normed]]:
        """Return every block's convolutions with their batch norms."""
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        return [block.layers() for stage in stages for block in stage.children() if isinstance(block, _Block)]


class _Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); `residual_network` takes all of them."""

    def __init__(self, members: int, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = Conv2d(members, inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(members, outputs)
        self.conv2 = Conv2d(members, outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(members, outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            shortcut = Conv2d(members, inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, BatchNorm2d(members, outputs))

    def layers(self) -> list[Normed]:
        """Return each convolution with its batch norm, that of the shortcut last."""
        own = [(self.conv1, self.bn1), (self.conv2, self.bn2)]
        if self.downsample is not None:
            convolution, norm = self.downsample
            assert isinstance(convolution, Conv2d)
            assert isinstance(norm, BatchNorm2d)
            own.append((convolution, norm))
        return own


def _stage(members: int, inputs: int, outputs: int, stride: int) -> nn.ModuleList:
    return nn.ModuleList([_Block(members, inputs, outputs, stride), _Block(members, outputs, outputs, 1)])
