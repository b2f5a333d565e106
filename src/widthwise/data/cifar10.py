"""CIFAR-10: 60,000 colour images of 32x32 in ten classes, read from parquet files with the hub's columns.

The columns are those of `uoft-cs/cifar10`: `img` {bytes, path}, an encoded image, and `label`, 0..9. They
come from a folder (`train.parquet`, or the hub's shards `train-00000-of-00001.parquet`), or from the hub
itself when no folder is given. Krizhevsky, Learning multiple layers of features from tiny images (2009).
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from widthwise import hub
from widthwise.data.base import Dataset
from widthwise.errors import DataError, UsageError

VERSION = 1
SHAPE = (3, 32, 32)
CLASSES = 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
AUGMENT = True
ROWS = (50_000, 10_000)
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPLITS = ("train", "test")
AGAIN = "Fetch the file again or drop the row."
BATCH = 1024  # rows decoded at a time


def _wrong(columns: dict[str, Any]) -> bool:
    """Return whether columns are not encoded images and integers."""
    from pyarrow import types

    img, label = columns.get("img"), columns.get("label")
    whole = img is not None and types.is_struct(img) and img.get_field_index("bytes") >= 0
    return not (whole and label is not None and types.is_integer(label))


SOURCE = hub.Source(
    name="cifar10",
    hub="uoft-cs/cifar10",
    inside="plain_text",
    columns=("img", "label"),
    wrong=_wrong,
    needs="img {bytes, path} and label, integers",
    files="cifar10/train.parquet and cifar10/test.parquet",
)


def read(root: Path | None = None) -> Dataset:
    """Return CIFAR-10 from the folder `root` or `root/cifar10`, or from the hub if `root` is None.

    Raises:
        DataError: if a file is missing, damaged or has other columns, an image is not 32x32 in colour or a
            label is not in 0..9; with the file and the row.
        UsageError: if pyarrow, pillow or datasets are not installed.
    """
    _require_packages()
    parts = []
    for split, batches in zip(SPLITS, hub.tables(SOURCE, root, SPLITS, BATCH), strict=True):
        decoded = [_decode(batch, where, row) for batch, where, row in batches]
        if not decoded:
            raise DataError(f"{root or SOURCE.hub}: the {split} split of cifar10 has no rows. {SOURCE.remedy}")
        parts += [torch.cat(column) for column in zip(*decoded, strict=True)]
    return Dataset(*parts, classes=NAMES)


def _require_packages() -> None:
    try:
        import PIL.Image  # noqa: F401
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"cifar10 needs pyarrow and pillow ({error}): pip install 'widthwise[data]', or use the data set "
            "digits, which needs nothing."
        ) from error


def _decode(batch: Any, source: str, first: int) -> tuple[Tensor, Tensor]:
    """Return images (rows, 3, 32, 32) uint8 and labels (rows,) int64."""
    images = [_image(cell, f"{source}, row {row}") for row, cell in enumerate(batch.column("img").to_pylist(), first)]
    labels = batch.column("label").to_pylist()
    for row, label in enumerate(labels, first):
        if label not in range(CLASSES):
            raise DataError(f"{source}, row {row}: label {label} is not in 0..9. {AGAIN}")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def _image(cell: dict[str, Any] | None, where: str) -> np.ndarray:
    """Return one image (32, 32, 3) uint8."""
    from PIL import Image

    encoded = (cell or {}).get("bytes")
    if encoded is None:
        raise DataError(f"{where}: img has no bytes. {AGAIN}")
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            pixels = np.asarray(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: img is not an image that can be decoded ({error}). {AGAIN}") from error
    if pixels.shape != (32, 32, 3) or pixels.dtype != np.uint8:
        size = "x".join(str(n) for n in pixels.shape)
        raise DataError(f"{where}: an image of {size}, not the 32x32x3 of cifar10. Convert it or drop the row.")
    return pixels
