"""A folder of files, replaced as one: the reader finds the old report or the new one, never a half."""

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from widthwise.errors import StorageError, UsageError

MARK = '<meta name="generator" content="Widthwise'
OURS = re.compile(
    r"(summary_[\w-]+|paper_\w+|scores|networks|findings|history|feature_errors)\.(csv|json|tex)|study\.yaml|[\w-]+\.html|cite\.(bib|ris)|figures"
)


def replace(target: Path, files: Mapping[str, str]) -> Path:
    """Write the files as the folder `target`, whole or not at all; what a reader added to it stays.

    Raises:
        UsageError: if `target` is a file, or a folder that holds something other than a report.
        StorageError: if it cannot be written.
    """
    target = target.resolve()
    _check(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as beside:
            new = Path(beside) / "new"
            _write(new, files)
            _swap(target, new, Path(beside) / "old")
    except OSError as error:
        raise StorageError(
            f"cannot write the report to {target}: {error.strerror or error}; nothing was changed"
        ) from error
    return target


def _check(target: Path) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    page = target / "index.html"
    if not (page.is_file() and MARK in page.read_text("utf-8", errors="replace")[:2000]):
        raise UsageError(f"{target} holds something that is not a report; give a new or an empty folder")


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8", newline="\n")


def _swap(target: Path, new: Path, old: Path) -> None:
    """Put `new` in the place of `target`; on failure put back what was there."""
    if not target.exists():
        new.rename(target)
        return
    for path in target.iterdir():
        if not OURS.fullmatch(path.name):
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, new / path.name)
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
