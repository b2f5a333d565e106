"""VGG-16 in its CIFAR form: thirteen 3x3 convolutions with biases, five max-pools, one linear head.

No batch norm by default; dropout lies between the features and the head, so features in evaluation do not
know of it. Simonyan, Zisserman (2014), arXiv 1409.1556, configuration D.
"""

from fractions import Fraction

from jaxtyping import Float
from torch import Tensor, nn

from widthwise import lanes
from widthwise.dropout import Dropout
from widthwise.errors import UsageError
from widthwise.layers import BatchNorm2d, Conv2d, Linear, MaxPool2d, ReLU, by_member, side_by_side
from widthwise.networks.base import Network, image_shape, scaled

VERSION = 1
STAGES = (64, 128, 256, 512, 512)
CONVOLUTIONS = (2, 2, 3, 3, 3)  # in each stage, a max-pool after each


def widths(scale: Fraction, *, batch_norm: bool = False, dropout: float = 0.1) -> tuple[int, ...]:
    """Return the channels of the five stages.

    Raises:
        UsageError: if a stage gets a fraction of a channel, or dropout is no share below 1.
    """
    if not 0 <= dropout < 1:
        raise UsageError(f"vgg16 needs a dropout of at least 0 and below 1, not {dropout}.")
    return tuple(scaled(channels, scale) for channels in STAGES)


def build(
    shape: tuple[int, ...],
    classes: int,
    scale: Fraction,
    members: int,
    *,
    batch_norm: bool = False,
    dropout: float = 0.1,
) -> Network:
    """Return `members` networks with every stage's channels multiplied by `scale`.

    Raises:
        UsageError: if five halvings do not leave one pixel of a sample.
    """
    channels, height, width = image_shape("vgg16", shape)
    if (height // 32, width // 32) != (1, 1):
        raise UsageError(
            f"vgg16 halves images five times to one pixel: it takes 32x32 to 63x63, not {height}x{width}. "
            "resnet18 and mlp take any size."
        )
    stages = widths(scale, batch_norm=batch_norm, dropout=dropout)
    return VGG16(channels, classes, stages, members, batch_norm, dropout)


class VGG16(Network):
    """`members` networks of five stages; `layers` has the numbering of torchvision's `features`."""

    def __init__(
        self,
        channels: int,
        classes: int,
        stages: tuple[int, ...],
        members: int,
        batch_norm: bool,
        dropout: float,
    ):
        super().__init__(members, classes, n_features=stages[-1])
        self.images_last = members == 1 and max(channels, stages[0]) <= lanes.THIN
        self.layers = nn.Sequential()
        for width, count in zip(stages, CONVOLUTIONS, strict=True):
            for _ in range(count):
                self.layers.append(Conv2d(members, channels, width, 3, padding=1))
                if batch_norm:
                    self.layers.append(BatchNorm2d(members, width))
                self.layers.append(ReLU())
                channels = width
            self.layers.append(MaxPool2d(2))
        self.dropout = Dropout(dropout)
        self.head = Linear(members, stages[-1], classes)

    def features(self, x: Float[Tensor, "m batch c h w"]) -> Float[Tensor, "m batch d"]:
        """Return the one pixel that is left, dropped out in training."""
        pixels = self.layers(side_by_side(x)).flatten(1)  # (batch, m * d)
        return self.dropout(by_member(pixels, self.members))
