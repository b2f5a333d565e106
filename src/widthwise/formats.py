"""Formats of feature files, opened without reading them: .npy, .npz, .safetensors and .parquet; never pickle.

A reader takes a file and the name of an array in it, and returns its rows, which are read as they are sliced, and
its row ids, if it has any.
"""

import logging
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from widthwise.errors import DataError, UsageError, nearest

log = logging.getLogger("widthwise")
IDS = "ids"
FEATURES = "features"
BATCH = 2048  # rows of a parquet file that are decoded at once
BUFFER = 1 << 16  # bytes of a parquet column that are read at once
REAL = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")  # as safetensors names them


class Rows(Protocol):
    """A matrix that gives some of its rows when it is sliced."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        ...

    def __getitem__(self, rows: slice, /) -> Any: ...


Opened = tuple[Rows, np.ndarray | None]


# numpy --------------------------------------------------------------------------------------------------


def npy(path: Path, key: str | None) -> Opened:
    """Map a file of one array."""
    if key is not None:
        raise UsageError(f'{path} holds one array and no names; leave out the key "{key}".')
    return _numbers(path, np.load(path, mmap_mode="r", allow_pickle=False)), None


def npz(path: Path, key: str | None) -> Opened:
    """Map one array of an archive; read it whole if it is compressed."""
    with np.load(path, allow_pickle=False) as archive:
        name = chosen(path, archive.files, key)
        member = archive.zip.getinfo(f"{name}.npy")
        ids = archive[IDS] if IDS in archive.files and name != IDS else None
        stored = member.compress_type == zipfile.ZIP_STORED
        array = _mapped(path, member.header_offset) if stored else None
        return _numbers(path, archive[name] if array is None else array), ids


def _mapped(path: Path, header: int) -> np.ndarray | None:
    """Map the array of an uncompressed member of an archive; None if it is none that can be mapped."""
    with path.open("rb") as file:
        file.seek(header + 26)
        name, extra = struct.unpack("<HH", file.read(4))
        file.seek(name + extra, 1)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            return None
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, columns_first, kind = read(file)
        if kind.hasobject or 0 in shape:
            return None
        return np.memmap(path, kind, "r", file.tell(), shape, "F" if columns_first else "C")


def _numbers(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise DataError(f"{path} holds values of type {array.dtype}; features must be real numbers of at most 64 bits.")
    return array


# safetensors --------------------------------------------------------------------------------------------


def safetensors(path: Path, key: str | None) -> Opened:
    """Open one tensor of a file, to be read in slices."""
    from safetensors import safe_open

    file: Any = safe_open(path, "pt")  # stays open as long as its slices are read
    names = list(file.keys())
    name = chosen(path, names, key, lambda name: len(file.get_slice(name).get_shape()) == 2)
    rows = _Tensor(file.get_slice(name))
    if rows.kind not in REAL:
        raise DataError(f"{path} holds values of type {rows.kind}; features must be of one of {', '.join(REAL)}.")
    return rows, file.get_tensor(IDS).numpy() if IDS in names and name != IDS else None


class _Tensor:
    """A tensor of a safetensors file, read in slices."""

    def __init__(self, tensor: Any):
        self.tensor, self.kind = tensor, tensor.get_dtype()
        self.shape = tuple(tensor.get_shape())

    def __getitem__(self, rows: slice) -> Any:
        return self.tensor[rows]


# parquet ------------------------------------------------------------------------------------------------


def parquet(path: Path, key: str | None) -> Opened:
    """Open the columns of numbers, or one column of lists, to be decoded in batches."""
    try:
        from pyarrow import parquet, types
    except ImportError as error:
        raise UsageError(f"{path} needs pyarrow ({error}): pip install 'widthwise[data]'.") from error
    file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER)  # else a row group is read at once
    kinds = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    ids = np.asarray(file.read(columns=[IDS]).column(IDS)) if IDS in kinds else None
    lists = [n for n, k in kinds.items() if types.is_list(k) or types.is_large_list(k) or types.is_fixed_size_list(k)]
    if key is not None or FEATURES in lists:
        return _Table(path, file, [chosen(path, lists, key)], lists=True), ids
    numeric = [n for n, k in kinds.items() if n != IDS and (types.is_integer(k) or types.is_floating(k))]
    left_out = [name for name in kinds if name not in numeric and name != IDS]
    if not numeric:
        raise DataError(f"{path} has no columns of numbers, only {', '.join(left_out) or 'ids'}.")
    if left_out:
        log.warning("%s: columns that are not numbers are left out: %s.", path, ", ".join(left_out))
    return _Table(path, file, numeric, lists=False), ids


class _Table:
    """Columns of a parquet file, decoded in batches as they are read on; a step back starts at its row group."""

    def __init__(self, path: Path, file: Any, names: list[str], *, lists: bool):
        self.path, self.file, self.names, self.lists = path, file, names, lists
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        self.firsts = np.cumsum([0, *sizes])
        self.at, self.held = -1, np.empty((0, 0))  # the first row of those that are decoded, and those rows
        self.batches: Iterator[Any] = iter(())
        rows = int(self.firsts[-1])
        if lists:
            self.shape = (rows, self._width() if rows else 0)
        else:
            self.shape = (rows, len(names))

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        if self.at < 0 or not self.at <= start <= self.at + len(self.held):
            self._seek(start)
        while self.at + len(self.held) < stop:
            held = self.held[max(0, start - self.at) :]
            self.at += len(self.held) - len(held)
            batch = self._matrix(next(self.batches), self.at + len(held))
            self.held = batch if not len(held) else np.concatenate([held, batch])
        return self.held[start - self.at : stop - self.at]

    def _seek(self, row: int) -> None:
        group = int(np.searchsorted(self.firsts, row, side="right")) - 1
        self.at, self.held = int(self.firsts[group]), np.empty((0, self.shape[1]))
        groups = range(group, self.file.num_row_groups)
        self.batches = self.file.iter_batches(BATCH, row_groups=list(groups), columns=self.names)

    def _matrix(self, batch: Any, at: int) -> np.ndarray:
        """Return a batch as a matrix; `at` is the number of its first row."""
        from pyarrow import compute

        if not self.lists:
            return np.stack([self._full(batch.column(name), name, at) for name in self.names], axis=1)
        (name,), width = self.names, self.shape[1]
        lengths = self._full(compute.call_function("list_value_length", [batch.column(0)]), name, at)
        if (lengths != width).any():
            row = int(np.flatnonzero(lengths != width)[0])
            raise DataError(f'{self.path}: row {at + row} of column "{name}" has {lengths[row]} features, not {width}.')
        return self._full(batch.column(0).flatten(), name, at, width).reshape(-1, width)

    def _full(self, column: Any, name: str, at: int, width: int = 1) -> np.ndarray:
        """Return a column, of which every value is there; `width` of them to a row."""
        if column.null_count:
            row = at + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0]) // width
            raise DataError(f'{self.path}: row {row} of column "{name}" is empty; features must be finite numbers.')
        return column.to_numpy(zero_copy_only=False)

    def _width(self) -> int:
        """Return the number of features in the first row of a column of lists."""
        first = next(self.file.iter_batches(1, columns=self.names)).column(0)[0].as_py()
        return len(first or ())


READERS: dict[str, Callable[[Path, str | None], Opened]] = {
    ".npy": npy,
    ".npz": npz,
    ".safetensors": safetensors,
    ".parquet": parquet,
}


def chosen(path: Path, names: Iterable[str], key: str | None, matrix: Callable[[str], bool] = lambda name: True) -> str:
    """Return the array to read: as told, the one called `features`, or the only one there is."""
    names = list(names)
    if key is not None:
        if key not in names:
            raise UsageError(f'{path} has no array "{key}"; it has {", ".join(names) or "none"}.{nearest(key, names)}')
        return key
    if FEATURES in names:
        return FEATURES
    found = [name for name in names if name != IDS and matrix(name)]
    if len(found) != 1:
        told = f"{len(found)} matrices ({', '.join(found)})" if found else "no matrix"
        raise UsageError(f"{path} has {told}; name one with --key, or call it {FEATURES}.")
    return found[0]
