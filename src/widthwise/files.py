"""Feature files: .npy, .npz, .safetensors and .parquet, memory-mapped where the format allows; never pickle.

A matrix is (rows, features). Row ids may lie beside it under the name `ids`, and are then checked.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from widthwise.errors import DataError, UsageError, nearest

log = logging.getLogger("widthwise")
IDS = "ids"
FEATURES = "features"
PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt", ".bin")
CHUNK = 8192


@dataclass(frozen=True)
class Features:
    """One file's matrix (rows, features), of numpy or torch, and its row ids, if it has any."""

    path: Path
    matrix: Any
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.matrix)


def features(path: str | Path, key: str | None = None) -> Features:
    """Return the features in a file.

    `key` is the name of the array, tensor or list column, where the file holds several.

    Raises:
        UsageError: if there is no such file or key, or it is of a kind that is not read.
        DataError: if it is damaged, is no matrix of numbers, or holds NaN or infinity.
    """
    path = _existing(path)
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise UsageError(_refusal(path))
    try:
        found = read(path, key)
    except (UsageError, DataError):
        raise
    except Exception as error:  # whatever a reader makes of a damaged file
        told = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read as a {path.suffix} file ({told}). Write it again, whole.") from error
    _check(found)
    return found


def sides(
    source: Path,
    target: Path,
    source_test: Path | None = None,
    target_test: Path | None = None,
    key: str | None = None,
    target_key: str | None = None,
) -> dict[str, Features]:
    """Return the features of a comparison by the names of `span_error`'s arguments, their rows checked.

    Raises:
        UsageError: as `features` does.
        DataError: as `features` does, or if source and target are not of the same rows.
    """
    given = {"source": source, "target": target, "source_test": source_test, "target_test": target_test}
    keys = {"source": key, "target": target_key or key}
    found = {name: features(path, keys[name.partition("_")[0]]) for name, path in given.items() if path is not None}
    same_rows(found["source"], found["target"])
    if "source_test" in found and "target_test" in found:
        same_rows(found["source_test"], found["target_test"])
    return found


def same_rows(source: Features, target: Features) -> None:
    """Check that two files have the same rows in the same order, as far as they tell.

    Raises:
        DataError: naming the first row that differs.
    """
    if len(source) != len(target):
        raise DataError(
            f"{source.path} has {len(source)} rows and {target.path} has {len(target)}; both must be of the "
            "same samples, in the same order."
        )
    if source.ids is None or target.ids is None:
        return
    differ = np.flatnonzero(source.ids != target.ids)
    if len(differ):
        row = int(differ[0])
        raise DataError(
            f"row {row} is sample {source.ids[row]} in {source.path} and {target.ids[row]} in {target.path}; "
            f"{len(differ)} of {len(source)} row ids differ. Put the rows of both files into one order."
        )


def column(path: str | Path, what: str, rows: int) -> np.ndarray:
    """Return one value a row, such as labels: .npy, or .txt and .csv with one column, its header allowed.

    Raises:
        UsageError: if there is no such file, or it is of a kind that is not read.
        DataError: if it does not have one value a row.
    """
    path = _existing(path)
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except Exception as error:
            raise DataError(f"{path} cannot be read as a .npy file ({error}). Write it again, whole.") from error
    elif path.suffix.lower() in (".txt", ".csv"):
        lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
        lines = [line.strip() for line in lines[: -1 if lines[-1] == "" else None]]
        values = _numbers_if_they_are(np.array(lines[1:] if len(lines) == rows + 1 else lines))
    else:
        raise UsageError(f"{path}: {what} are read from .npy, .txt or .csv files with one column.")
    if values.ndim == 2 and 1 in values.shape:
        values = values.reshape(-1)
    if values.shape != (rows,):
        raise DataError(f"{path} holds {what} of shape {values.shape}; there must be one for each of {rows} rows.")
    return values


def _numbers_if_they_are(values: np.ndarray) -> np.ndarray:
    """Return text as integers where all of it is: the same groups as from .npy are in the same order."""
    try:
        return values.astype(np.int64)
    except ValueError:
        return values


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name one file of it.")
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UsageError(f"there is no file {path}.{nearest(path.name, siblings)}")
    return path


def _refusal(path: Path) -> str:
    if path.suffix.lower() in PICKLED:
        return (
            f"{path} is a pickle, which can run any code as it is read, so it is not. Save the matrix with "
            f'numpy.save("{path.stem}.npy", matrix) or safetensors.torch.save_file({{"features": matrix}}, '
            f'"{path.stem}.safetensors").'
        )
    ending = path.suffix or "files without an ending"
    return f"{path}: features are read from {', '.join(READERS)} files, not {ending}."


def _npy(path: Path, key: str | None) -> Features:
    if key is not None:
        raise UsageError(f'{path} holds one array and no names; leave out the key "{key}".')
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return Features(path, array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")))


def _npz(path: Path, key: str | None) -> Features:
    with np.load(path, allow_pickle=False) as archive:
        name = _name(path, archive.files, key)
        array, ids = archive[name], archive[IDS] if IDS in archive.files and name != IDS else None
        return Features(path, array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")), ids)


def _safetensors(path: Path, key: str | None) -> Features:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = list(file.keys())
        name = _name(path, names, key, lambda name: len(file.get_slice(name).get_shape()) == 2)
        ids = file.get_tensor(IDS).numpy() if IDS in names and name != IDS else None
        return Features(path, file.get_tensor(name), ids)


def _parquet(path: Path, key: str | None) -> Features:
    try:
        from pyarrow import parquet, types
    except ImportError as error:
        raise UsageError(f"{path} needs pyarrow ({error}): pip install 'widthwise[data]'.") from error
    table = parquet.read_table(path)
    kinds = dict(zip(table.schema.names, table.schema.types, strict=True))
    ids = np.asarray(table.column(IDS)) if IDS in kinds else None
    lists = [name for name, kind in kinds.items() if types.is_list(kind) or types.is_fixed_size_list(kind)]
    if key is not None or FEATURES in lists:
        return Features(path, np.array(table.column(_name(path, lists, key)).to_pylist()), ids)
    numeric = [n for n, k in kinds.items() if n != IDS and (types.is_integer(k) or types.is_floating(k))]
    left_out = [name for name in kinds if name not in numeric and name != IDS]
    if not numeric:
        raise DataError(f"{path} has no columns of numbers, only {', '.join(left_out) or 'ids'}.")
    if left_out:
        log.warning("%s: columns that are not numbers are left out: %s.", path, ", ".join(left_out))
    for name in numeric:
        if table.column(name).null_count:
            row = int(np.flatnonzero(table.column(name).is_null().to_numpy())[0])
            raise DataError(f'{path}: row {row} of column "{name}" is empty; features must be finite numbers.')
    return Features(path, np.stack([table.column(name).to_numpy() for name in numeric], axis=1), ids)


READERS: dict[str, Callable[[Path, str | None], Features]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
}


def _name(path: Path, names: Iterable[str], key: str | None, matrix: Callable[[str], bool] = lambda name: True) -> str:
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


def _check(found: Features) -> None:
    """Check that features are a matrix of finite numbers with one id a row."""
    matrix, path = found.matrix, found.path
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DataError(
            f"{path} holds an array of shape {tuple(matrix.shape)}; it must be (rows, features), neither 0."
        )
    if isinstance(matrix, np.ndarray) and (matrix.dtype.kind not in "fiub" or matrix.dtype.itemsize > 8):
        raise DataError(
            f"{path} holds values of type {matrix.dtype}; features must be real numbers of at most 64 bits."
        )
    if not isinstance(matrix, np.ndarray) and matrix.is_complex():
        raise DataError(f"{path} holds complex numbers; features must be real numbers.")
    if found.ids is not None and found.ids.shape != (len(matrix),):
        raise DataError(f"{path} has {IDS} of shape {found.ids.shape} for {len(matrix)} rows; give one a row.")
    for start in range(0, len(matrix), CHUNK):
        rows = matrix[start : start + CHUNK]
        rows = rows if isinstance(rows, np.ndarray) else rows.double().numpy()
        finite = np.isfinite(rows)
        if not finite.all():
            row, place = np.argwhere(~finite)[0]
            raise DataError(
                f"{path}: row {start + row}, column {place} is {rows[row, place]}; features must be finite "
                "numbers. Leave such rows out of source and target alike, or look for what diverged."
            )
