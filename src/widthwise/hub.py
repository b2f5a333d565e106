"""Tables with the columns of a data set of the Hugging Face hub: from parquet files in a folder, or from the hub.

A folder has one file a split (`train.parquet`), or the hub's shards (`train-00000-of-00001.parquet`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from widthwise.errors import DataError, UsageError

NUMBER = "[0-9]" * 5  # as the hub numbers shards


@dataclass(frozen=True)
class Source:
    """Where a data set's tables are, and what they must look like.

    Attributes:
        name: of the data set, and of its folder.
        hub: its name there.
        inside: the folder of its shards in the hub's repository.
        columns: those that are read.
        wrong: says whether the columns that there are, by name, are not what they must be.
        needs: the columns it must have, in words.
        files: of a folder, in words.
    """

    name: str
    hub: str
    inside: str
    columns: Sequence[str]
    wrong: Callable[[dict[str, Any]], bool]
    needs: str
    files: str

    @property
    def remedy(self) -> str:
        """What to do where the tables are not there."""
        return (
            f"Set WIDTHWISE_DATA (or data.root in the study file) to a folder that has {self.files} with the columns "
            f"of {self.hub}: {self.needs}."
        )


def tables(source: Source, root: Path | None, splits: Sequence[str], rows: int) -> list[Iterator[tuple[Any, str, int]]]:
    """Return every split's iterator of (record batch of at most so many rows, where it is from, its first row there).

    Raises:
        DataError: if a file is missing, damaged or has other columns.
        UsageError: if `datasets` is not installed and there is no folder.
    """
    if root is not None:
        return [_of_folder(source, root, split, rows) for split in splits]
    hub = _download(source)
    return [_of_hub(source, hub, split, rows) for split in splits]


def _download(source: Source) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise UsageError(
            f"{source.name} from the hub needs datasets ({error}): pip install 'widthwise[data]'."
        ) from error
    try:
        return load_dataset(source.hub)
    except Exception as error:  # whatever a hub, a proxy or a cache can raise
        raise DataError(f"{source.hub} could not be read from the hub ({error}). {source.remedy}") from error


def _of_hub(source: Source, hub: Any, split: str, rows: int) -> Iterator[tuple[Any, str, int]]:
    row, where = 0, f"{source.hub}, {split}"
    for table in hub[split].with_format("arrow").iter(batch_size=rows):
        _check_columns(source, table.schema, where)
        yield table, where, row
        row += table.num_rows


def _of_folder(source: Source, root: Path, split: str, rows: int) -> Iterator[tuple[Any, str, int]]:
    import pyarrow
    from pyarrow import parquet

    for path in _files(source, root, split):
        row = 0
        try:
            with parquet.ParquetFile(path) as file:
                _check_columns(source, file.schema_arrow, str(path))
                for batch in file.iter_batches(rows, columns=list(source.columns)):
                    yield batch, str(path), row
                    row += batch.num_rows
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path} cannot be read as a parquet file ({error}). Fetch it again, whole.") from error


def _files(source: Source, root: Path, split: str) -> list[Path]:
    places = (source.name, "", f"{source.name}/{source.inside}", source.inside)
    folders = [Path(root, place) for place in places]
    for folder in folders:
        if (folder / f"{split}.parquet").is_file():
            return [folder / f"{split}.parquet"]
        shards = sorted(folder.glob(f"{split}-{NUMBER}-of-{NUMBER}.parquet"))
        if shards:
            _check_shards(shards)
            return shards
    raise DataError(f"no {split}.parquet of {source.name} in {root} or {folders[0]}. {source.remedy}")


def _check_shards(shards: list[Path]) -> None:
    declared = shards[0].stem.rpartition("-of-")[2]
    if declared != f"{len(shards):05}":
        raise DataError(
            f"{shards[0].parent} has {len(shards)} of {int(declared)} files like {shards[0].name}. "
            "Fetch the missing ones."
        )


def _check_columns(source: Source, schema: Any, where: str) -> None:
    columns = dict(zip(schema.names, schema.types, strict=True))
    if source.wrong(columns):
        found = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        raise DataError(f"{where} has the columns {found}; {source.name} needs {source.needs}. {source.remedy}")
