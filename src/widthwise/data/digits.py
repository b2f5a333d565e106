"""The 1,797 handwritten digits that come with scikit-learn, 8x8 and grey: real images, nothing to download.

Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998).
"""

from pathlib import Path

import torch
from torch import Tensor

from widthwise.data.base import Dataset
from widthwise.seeds import stream

VERSION = 1
SHAPE = (1, 8, 8)
CLASSES = 10
MEAN, STD = (0.305,), (0.376,)
AUGMENT = False
ROWS = (1437, 360)
TEST_PER_CLASS = 36


def read(root: Path | None = None) -> Dataset:
    """Return 1,437 training and 360 test images, the test images a fixed draw of 36 a class."""
    from sklearn.datasets import load_digits

    grey, digits = load_digits(return_X_y=True)  # (1797, 64) of 0..16, (1797,)
    images = torch.from_numpy(grey).mul(255 / 16).round().to(torch.uint8).view(-1, *SHAPE)
    labels = torch.from_numpy(digits).to(torch.int64)
    test = _test_rows(labels)
    return Dataset(
        train=images[~test],
        train_labels=labels[~test],
        test=images[test],
        test_labels=labels[test],
        classes=tuple(str(digit) for digit in range(CLASSES)),
    )


def _test_rows(labels: Tensor) -> Tensor:
    generator = stream(0, "digits", "test")
    test = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(CLASSES):
        rows = torch.nonzero(labels == digit).flatten()
        test[rows[torch.randperm(len(rows), generator=generator)[:TEST_PER_CLASS]]] = True
    return test
