"""Feature files, or folders of them, opened without reading them: rows come as they are asked for, never pickle.

A matrix is (rows, features). Row ids may lie beside it under the name `ids`, and are then checked.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor, cat

from widthwise.columns import matrix
from widthwise.errors import DataError, UsageError, WidthwiseError, nearest
from widthwise.formats import IDS, READERS, Opened, Rows

PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt", ".bin")


@dataclass
class Features:
    """The matrix (rows, features) of a file, or of the shards in a folder, one after the other; read by slices.

    Attributes:
        shards: the files; of one folder there may be many, and only the one that is read is open.
        starts: the number of each shard's first row, and that of all rows.
        ids: one a row, if the file has them.
    """

    path: Path
    shards: tuple[Path, ...]
    starts: tuple[int, ...]
    columns: int
    ids: np.ndarray | None = None
    key: str | None = None
    _open: tuple[int, Rows] | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, features)."""
        return self.starts[-1], self.columns

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, rows: slice) -> Tensor:
        """Return consecutive rows.

        Raises:
            DataError: if the file is damaged where they lie.
        """
        start, stop, step = rows.indices(len(self))
        assert step == 1, "rows are read one after the other"
        first, last = self._shard(start), self._shard(max(start, stop - 1))
        pieces = []
        for k in range(first, last + 1):
            own = slice(max(start - self.starts[k], 0), min(stop, self.starts[k + 1]) - self.starts[k])
            with _reading(self.shards[k]):
                pieces.append(matrix(self._rows(k)[own]))
        return pieces[0] if len(pieces) == 1 else cat(pieces)

    def place(self, row: int) -> str:
        """Return where a row is found: its number in its own file."""
        k = self._shard(row)
        return f"row {row - self.starts[k]} of {self.shards[k]}"

    def _shard(self, row: int) -> int:
        """Return the number of the shard that a row is in."""
        return min(int(np.searchsorted(self.starts, row, side="right")), len(self.shards)) - 1

    def _rows(self, k: int) -> Rows:
        if self._open is None or self._open[0] != k:
            self._open = k, _opened(self.shards[k], self.key)[0]
        return self._open[1]


def features(path: str | Path, key: str | None = None) -> Features:
    """Return the features in a file, or in the files of a folder in the natural order of their names.

    `key` is the name of the array, tensor or list column, where a file holds several.

    Raises:
        UsageError: if there is no such file or key, or it is of a kind that is not read.
        DataError: if it is damaged, is no matrix of numbers, or shards do not fit each other.
    """
    path = _existing(path)
    shards = _shards(path) if path.is_dir() else [path]
    starts, ids, columns = [0], [], 0
    for shard in shards:
        rows, own = _opened(shard, key)
        n, d = rows.shape
        if ids and d != columns:
            raise DataError(f"{shard} has {d} features and {shards[0]} has {columns}; shards must have the same.")
        if ids and (own is None) != (ids[0] is None):
            raise DataError(f"{shard} and {shards[0]} must both have {IDS}, or neither.")
        starts.append(starts[-1] + n)
        ids.append(own)
        columns = d
    whole = None if ids[0] is None else np.concatenate(ids)
    return Features(path, tuple(shards), tuple(starts), columns, whole, key)


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
        for name in ("source", "target"):
            if found[name].path.resolve() == found[f"{name}_test"].path.resolve():
                raise UsageError(f"{found[name].path} is given for test rows, too, which are to be others.")
        same_rows(found["source_test"], found["target_test"])
    return found


def fleets(given: Mapping[str, Sequence[Path]], key: str | None = None) -> dict[str, list[Features]]:
    """Return the features of several networks by the names of `span_gap`'s arguments, their rows checked.

    Each side is a file a network, or one folder with a file for each.

    Raises:
        UsageError: as `features` does, or if a network is given twice.
        DataError: as `features` does, or if networks are not of the same rows.
    """
    found = {side: [features(path, key) for path in _each(paths)] for side, paths in given.items()}
    for rows in ("", "_test"):
        together = [network for side in ("wide", "narrow") for network in found.get(side + rows, [])]
        for other in together[1:]:
            same_rows(together[0], other)
    paths: set[Path] = set()
    for network in (network for networks in found.values() for network in networks):
        if network.path.resolve() in paths:
            raise UsageError(f"{network.path} is given twice; every network, and its test rows, are to be others.")
        paths.add(network.path.resolve())
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
    if path.is_dir():
        raise UsageError(f"{path} is a folder; {what} are read from one file.")
    if path.suffix.lower() == ".npy":
        with _reading(path):
            values = np.load(path, allow_pickle=False)
    elif path.suffix.lower() in (".txt", ".csv"):
        lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
        lines = [line.strip() for line in lines[: -1 if lines[-1] == "" else None]]
        if path.suffix.lower() == ".csv" and lines and all("," in line for line in lines):
            raise DataError(f"{path} has several columns; write the {what} into a file of their own.")
        headed = len(lines) == rows + 1 and not _number(lines[0])
        values = _numbers_if_they_are(np.array(lines[1:] if headed else lines))
    else:
        raise UsageError(f"{path}: {what} are read from .npy, .txt or .csv files with one column.")
    if values.ndim == 2 and 1 in values.shape:
        values = values.reshape(-1)
    if values.shape != (rows,):
        more = " A first line that is a number is no header." if values.shape == (rows + 1,) else ""
        raise DataError(
            f"{path} holds {what} of shape {values.shape}; there must be one for each of {rows} rows.{more}"
        )
    return values


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers_if_they_are(values: np.ndarray) -> np.ndarray:
    """Return text as integers where all of it is: the same groups as from .npy are in the same order."""
    try:
        return values.astype(np.int64)
    except ValueError:
        return values


# Files and folders --------------------------------------------------------------------------------------


def _each(paths: Sequence[Path]) -> Sequence[Path]:
    """Return a path for each network: as given, or what is in the one folder that is given."""
    if len(paths) != 1 or not paths[0].is_dir():
        return paths
    found = [p for p in _inside(paths[0]) if p.is_dir() or p.suffix.lower() in READERS]
    if not found:
        raise UsageError(f"{paths[0]} has no {', '.join(READERS)} files in it, nor folders of them.")
    return found


def _shards(folder: Path) -> list[Path]:
    """Return the files of a folder that are read one after the other, all of one kind."""
    inside = _inside(folder)
    found = [path for path in inside if path.suffix.lower() in READERS]
    kinds = sorted({path.suffix.lower() for path in found})
    if len(kinds) > 1:
        raise UsageError(f"{folder} has {' and '.join(kinds)} files; shards must be of one kind. Name one file of it.")
    if not found:
        pickles = [path for path in inside if path.suffix.lower() in PICKLED]
        raise UsageError(_refusal(pickles[0]) if pickles else f"{folder} has no {', '.join(READERS)} files in it.")
    return found


def _inside(folder: Path) -> list[Path]:
    """Return what is in a folder and not hidden: "part2" before "part10"."""

    def natural(path: Path) -> list[tuple[str, int]]:
        return [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d*)", path.name)]

    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        siblings = [name for name in beside if Path(name).suffix.lower() in {path.suffix.lower(), *READERS}]
        alike = [name for name in siblings if nearest(path.stem, [Path(name).stem])]  # by more than their endings
        raise UsageError(f"there is no file {path}.{nearest(path.name, alike)}")
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


def _opened(path: Path, key: str | None) -> Opened:
    """Return a file's rows, unread, and its row ids: a matrix with neither side 0, and one id a row."""
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise UsageError(_refusal(path))
    with _reading(path):
        rows, ids = read(path, key)
    shape = tuple(rows.shape)
    if len(shape) != 2 or 0 in shape:
        raise DataError(
            f"{path} holds an array of shape {shape}; it must be a matrix (rows, features) with some of each."
        )
    if ids is not None and ids.shape != shape[:1]:
        raise DataError(f"{path} has {IDS} of shape {ids.shape} for {shape[0]} rows; give one a row.")
    return rows, ids


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in whatever a reader makes of a damaged one."""
    try:
        yield
    except WidthwiseError:
        raise
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        if "pickle" in told or "Python objects" in told:  # what numpy advises then is unsafe
            told = "damaged, or of Python objects, which are not read"
        raise DataError(f"{path} cannot be read as a {path.suffix} file ({told}). Write it again, whole.") from error
