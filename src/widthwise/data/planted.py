"""Made-up samples whose answers are known: independent directions, some of which narrow networks will not see.

Every sample has 16 independent values of one variance; the label is the sign of a sum in which the last 4 have a
known share. With the network of the same name, span errors, probe accuracies and what residuals gain can be told
beforehand: a study of them checks the whole of Widthwise.
"""

from math import sqrt
from pathlib import Path

import torch
from torch import Tensor

from widthwise.data.base import Dataset
from widthwise.errors import UsageError
from widthwise.seeds import stream

VERSION = 1
SHAPE = (16, 1, 1)
CLASSES = 2
MEAN, STD = (128 / 255,) * 16, (32 / 255,) * 16
AUGMENT = False
ROWS = (8000, 4000)
UNSEEN = 4  # of the directions, the last so many


def read(root: Path | None = None, *, share: float = 0.25) -> Dataset:
    """Return 8,000 training and 4,000 test samples.

    Args:
        share: of the variance of the score whose sign is the label, that of the unseen directions.

    Raises:
        UsageError: if `share` is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"share is part of a variance, from 0 to 1, not {share}.")
    values = torch.randn(sum(ROWS), SHAPE[0], generator=stream(0, "planted"))
    samples = (128 + 32 * values).round().clamp(0, 255).to(torch.uint8)
    labels = (_score(samples, share) > 0).to(torch.int64)
    (train, test), (train_labels, test_labels) = samples.view(-1, *SHAPE).split(ROWS), labels.split(ROWS)
    return Dataset(train, train_labels, test, test_labels, ("below", "above"))


def _score(samples: Tensor, share: float) -> Tensor:
    z = (samples.double() - 128) / 32
    seen = SHAPE[0] - UNSEEN
    return sqrt((1 - share) / seen) * z[:, :seen].sum(1) + sqrt(share / UNSEEN) * z[:, seen:].sum(1)
