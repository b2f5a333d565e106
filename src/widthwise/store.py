"""Bytes under keys: whole or not at all, checked when read, never overwritten; knows no networks.

What lies where:

    ROOT/KIND/KEY/          one result: its files and `entry.json`, written last
    ROOT/partial/NAME/      unfinished work, such as a training's checkpoints
    ROOT/damaged/           what was found broken, set aside
    ROOT/locks/             one lock a job: two processes on one store do each job once
"""

import contextlib
import errno
import glob
import hashlib
import json
import logging
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
from safetensors.torch import load_file, save_file

from widthwise.errors import StorageError, UsageError

log = logging.getLogger("widthwise")
ENTRY = "entry.json"


@dataclass(frozen=True)
class Entry:
    """One stored result: its folder, the facts told of it, and its files' SHA-256."""

    path: Path
    facts: Mapping[str, Any]
    files: Mapping[str, str]
    provenance: Mapping[str, Any]

    def tensors(self, name: str) -> dict[str, Any]:
        """Return the tensors of one safetensors file, mapped from disk."""
        return load_file(self.path / f"{name}.safetensors")

    def json(self, name: str) -> Any:
        """Return the contents of one JSON file."""
        return json.loads((self.path / f"{name}.json").read_text())


class Store:
    """A folder of results under keys.

    Args:
        root: the folder; made when something is first written to it.
    """

    def __init__(self, root: str | Path = ".widthwise"):
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"the store {self.root} is a file; name a folder, or one that does not exist yet.")
        self._checked: set[Path] = set()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def get(self, kind: str, key: str) -> Entry | None:
        """Return a result, or None if it was never made or is damaged (then it is set aside and said)."""
        path = self.root / kind / key
        if not path.is_dir():
            return None
        try:
            entry = self._read(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._set_aside(path, str(error))
            return None
        return entry

    def keys(self, kind: str) -> list[str]:
        """Return the keys of all results of a kind."""
        folder = self.root / kind
        return sorted(p.name for p in folder.iterdir() if (p / ENTRY).exists()) if folder.is_dir() else []

    def make(
        self, kind: str, key: str, write: Callable[[Path], None], facts: Callable[[], Mapping[str, Any]] | Mapping
    ) -> Entry:
        """Return the result under a key, made by `write(folder)` if it is not there yet.

        `facts` (asked for after writing, if callable) are stored beside it with versions, machine and
        seconds. Whoever comes second waits for the first and gets its result.
        """
        with self.lock(f"{kind}-{key}"):
            entry = self.get(kind, key)
            return entry if entry is not None else self._write(kind, key, write, facts)

    def save(self, kind: str, key: str, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> Entry:
        """Store tensors under a key as one safetensors file named after its kind."""
        return self.make(kind, key, lambda folder: save_tensors(folder / f"{kind}.safetensors", tensors), facts)

    def clear(self, kind: str) -> tuple[int, int]:
        """Delete all results of a kind, each whole or not at all; return how many they were, and their bytes."""
        count = size = 0
        for key in self.keys(kind):
            path = self.root / kind / key
            aside = self.root / "partial" / f"{kind}-{key}-{secrets.token_hex(4)}"
            with self.lock(f"{kind}-{key}"), writing(self.root), contextlib.suppress(FileNotFoundError):
                aside.parent.mkdir(exist_ok=True)
                path.rename(aside)  # What is half deleted in its own place would be taken for damaged.
                count, size = count + 1, size + sum(file.stat().st_size for file in aside.iterdir())
                shutil.rmtree(aside)
        return count, size

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock of one job."""
        folder = self.root / "locks"
        with writing(self.root):
            folder.mkdir(parents=True, exist_ok=True)
            held = filelock.FileLock(folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.lock")
            held.acquire()
        try:
            yield
        finally:
            held.release()

    def partial(self, name: str) -> Path:
        """Return the folder of one piece of unfinished work; it outlives a killed process."""
        path = self.root / "partial" / name
        with writing(self.root):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def load(self, key: str) -> Any:
        """Return one trained network as an ordinary `nn.Module` in evaluation mode.

        Raises:
            UsageError: if the store holds no such run.
        """
        import importlib

        return importlib.import_module("widthwise.features").load_network(self, key)

    def _read(self, path: Path) -> Entry:
        record = json.loads((path / ENTRY).read_text())
        entry = Entry(path, record["facts"], record["files"], record["provenance"])
        if path not in self._checked:
            for name, checksum in entry.files.items():
                if file_checksum(path / name) != checksum:
                    raise ValueError(f"{name} is not what was written")
            self._checked.add(path)
        return entry

    def _set_aside(self, path: Path, why: str) -> None:
        aside = self.root / "damaged" / f"{path.parent.name}-{path.name}-{secrets.token_hex(4)}"
        log.warning("%s is damaged (%s); set aside as %s, it is made again.", path, why, aside)
        with writing(self.root), contextlib.suppress(FileNotFoundError):  # another process was quicker
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)

    def _write(self, kind: str, key: str, write: Callable, facts: Callable | Mapping) -> Entry:
        start = time.perf_counter()
        target = self.root / kind / key
        folder = self.root / "partial" / f"{kind}-{key}-{secrets.token_hex(4)}"
        for left in folder.parent.glob(f"{glob.escape(f'{kind}-{key}')}-{'[0-9a-f]' * 8}"):
            shutil.rmtree(left, ignore_errors=True)  # by a process that was killed: the lock is ours
        with writing(self.root):
            try:
                folder.mkdir(parents=True)
                write(folder)
                record = {
                    "facts": dict(facts() if callable(facts) else facts),
                    "files": {p.name: file_checksum(p) for p in sorted(folder.iterdir())},
                    "provenance": {**environment(), "seconds": round(time.perf_counter() - start, 3)},
                }
                write_whole(folder / ENTRY, json.dumps(record, indent=1, default=str).encode())
                for path in (*folder.iterdir(), folder):
                    _fsync(path)
                target.parent.mkdir(exist_ok=True)
                folder.rename(target)
                _fsync(target.parent)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return self._read(target)


@contextlib.contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into one clear error."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError) or error.errno not in _DISK:
            raise
        raise StorageError(
            f"cannot write to {root}: {error.strerror}. Free some space or name another folder with --store; "
            "what was finished is kept."
        ) from error


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENOTDIR}


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, whole or not at all, with text beside them in the header."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors makes files that nobody else may read
        save_file({k: t.contiguous() for k, t in tensors.items()}, temporary, dict(metadata or {}))
        temporary.chmod(mode)
        _fsync(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        number = re.search(r"\(os error (\d+)\)", str(error))  # safetensors has an error class of its own
        if number and not isinstance(error, OSError):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def environment() -> dict[str, Any]:
    """Return what a result was made with: versions, machine, processor."""
    packages = ("widthwise", "torch", "numpy", "scipy", "scikit-learn")
    return {
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in packages}},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_processor()}",
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
