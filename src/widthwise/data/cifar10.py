"""CIFAR-10: 60,000 colour images of 32x32 in ten classes, read from parquet files with the hub's columns.

The columns are those of `uoft-cs/cifar10`: `img` {bytes, path}, an encoded image, and `label`, 0..9. They
come from a folder (`train.parquet`, or the hub's shards `train-00000-of-00001.parquet`), or from the hub
itself when no folder is given. Krizhevsky, Learning multiple layers of features from tiny images (2009).
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from widthwise.data.base import Dataset
from widthwise.errors import DataError, UsageError

VERSION = 1
SHAPE = (3, 32, 32)
CLASSES = 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
AUGMENT = True
ROWS = (50_000, 10_000)
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
HUB = "uoft-cs/cifar10"
REMEDY = (
    "Set WIDTHWISE_DATA (or data.root in the study file) to a folder that has cifar10/train.parquet and "
    f"cifar10/test.parquet with the columns of {HUB}: img {{bytes, path}} and label."
)
AGAIN = "Fetch the file again or drop the row."
NUMBER = "[0-9]" * 5  # as the hub numbers shards
BATCH = 1024  # rows decoded at a time


def read(root: Path | None = None) -> Dataset:
    """Return CIFAR-10 from the folder `root` or `root/cifar10`, or from the hub if `root` is None.

    Raises:
        DataError: if a file is missing, damaged or has other columns, an image is not 32x32 in colour or a
            label is not in 0..9; with the file and the row.
        UsageError: if pyarrow, pillow or datasets are not installed.
    """
    _require_packages()
    hub = _download() if root is None else None
    parts = []
    for split in ("train", "test"):
        tables = _of_folder(root, split) if root is not None else _of_hub(hub, split)
        decoded = [_decode(batch, source, row) for batch, source, row in tables]
        if not decoded:
            raise DataError(f"{root or HUB}: the {split} split of cifar10 has no rows. {REMEDY}")
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


def _download() -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise UsageError(f"cifar10 from the hub needs datasets ({error}): pip install 'widthwise[data]'.") from error
    try:
        return load_dataset(HUB)
    except Exception as error:  # whatever a hub, a proxy or a cache can raise
        raise DataError(f"{HUB} could not be read from the hub ({error}). {REMEDY}") from error


def _of_hub(hub: Any, split: str) -> Iterator[tuple[Any, str, int]]:
    """Yield (record batch, where it is from, its first row)."""
    row = 0
    for table in hub[split].with_format("arrow").iter(batch_size=BATCH):
        _check_columns(table.schema, f"{HUB}, {split}")
        yield table, f"{HUB}, {split}", row
        row += table.num_rows


def _of_folder(root: Path, split: str) -> Iterator[tuple[Any, str, int]]:
    """Yield (record batch, its file, its first row in the file)."""
    import pyarrow
    from pyarrow import parquet

    for path in _files(root, split):
        row = 0
        try:
            with parquet.ParquetFile(path) as file:
                _check_columns(file.schema_arrow, str(path))
                for batch in file.iter_batches(BATCH, columns=["img", "label"]):
                    yield batch, str(path), row
                    row += batch.num_rows
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path} cannot be read as a parquet file ({error}). Fetch it again, whole.") from error


def _files(root: Path, split: str) -> list[Path]:
    folders = [
        Path(root, "cifar10"),
        Path(root),
        Path(root, "cifar10", "plain_text"),
        Path(root, "plain_text"),
    ]
    for folder in folders:
        if (folder / f"{split}.parquet").is_file():
            return [folder / f"{split}.parquet"]
        shards = sorted(folder.glob(f"{split}-{NUMBER}-of-{NUMBER}.parquet"))
        if shards:
            _check_shards(shards)
            return shards
    raise DataError(f"no {split}.parquet of cifar10 in {root} or {folders[0]}. {REMEDY}")


def _check_shards(shards: list[Path]) -> None:
    declared = shards[0].stem.rpartition("-of-")[2]
    if declared != f"{len(shards):05}":
        raise DataError(
            f"{shards[0].parent} has {len(shards)} of {int(declared)} files like {shards[0].name}. "
            "Fetch the missing ones."
        )


def _check_columns(schema: Any, source: str) -> None:
    from pyarrow import types

    columns = dict(zip(schema.names, schema.types, strict=True))
    img, label = columns.get("img"), columns.get("label")
    whole = img is not None and types.is_struct(img) and img.get_field_index("bytes") >= 0
    if not (whole and label is not None and types.is_integer(label)):
        found = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        raise DataError(
            f"{source} has the columns {found}; cifar10 needs img {{bytes, path}} and label, integers. {REMEDY}"
        )


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
