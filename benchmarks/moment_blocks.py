"""What stored moment blocks save: one pass over the rows, against reading its blocks from the disk.

    [MACHINE=name] python benchmarks/moment_blocks.py FOLDER [COLUMNS ROWS ...]

Gaussian features of networks of 32 columns in float32, five folds in three cells each. "one pass" stores nothing;
"made" writes what it makes to FOLDER; "one more" has 512 columns that are new; "read" makes nothing. Before
"read" and "one more" the blocks are flushed from the page cache, so that they are read from the disk and checked.
"""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from widthwise import moment_blocks
from widthwise.columns import Concatenation
from widthwise.moment_blocks import Bundle
from widthwise.pairs import Joint
from widthwise.splits import k_fold
from widthwise.store import Store

WIDTH, SIZES = 32, (2048, 2000, 2048, 5000, 2048, 20000, 2048, 50000)


def main(folder: Path, sizes: tuple[int, ...]) -> None:
    torch.set_num_threads(1)  # as in a study, where every process has one
    print("python benchmarks/moment_blocks.py FOLDER", *sizes)
    machine = os.environ.get("MACHINE") or platform.machine()
    print(f"{os.cpu_count()} cores, {machine}, one thread")
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    print(f"{'columns':>8s} {'rows':>7s} {'a cell':>7s} {'one pass':>9s} {'made':>7s} {'one more':>9s} {'read':>7s} MB")
    for columns, rows in zip(sizes[::2], sizes[1::2], strict=True):
        print(line(folder / "store", columns, rows), flush=True)


def line(root: Path, columns: int, rows: int) -> str:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(rows, columns, generator=generator).split(WIDTH, 1)
    shutil.rmtree(root, ignore_errors=True)
    fewer, all_of_them = (joint(root, features[:count], rows) for count in (-512 // WIDTH, len(features)))
    once = seconds(lambda: joint(None, features, rows)().cells)
    fewer().cells  # noqa: B018
    flush(root)
    more = seconds(lambda: all_of_them().cells)
    size = flush(root)
    read = seconds(lambda: all_of_them().cells)
    shutil.rmtree(root)
    made = seconds(lambda: all_of_them().cells)
    shutil.rmtree(root)
    return f"{columns:8d} {rows:7d} {rows // 15:7d} {once:9.2f} {made:7.2f} {more:9.2f} {read:7.2f} {size / 1e6:.0f}"


def joint(root: Path | None, features: tuple[torch.Tensor, ...], rows: int) -> Callable[[], Joint]:
    groups = {str(k): Concatenation([x]) for k, x in enumerate(features)}
    split = k_fold("validation", torch.arange(rows))
    bundles: dict[object, dict[str, tuple[str, ...]]] = {}
    for k, name in enumerate(groups):
        bundles.setdefault(moment_blocks.place("narrow", k, WIDTH), {})[name] = (name, str(rows))
    made = [Bundle(tuple(members), tuple(members.values())) for members in bundles.values()]

    def anew() -> Joint:
        stored = partial(moment_blocks.collect, bundles=made, rows=str(rows), store=Store(root)) if root else None
        return Joint(groups, split, collect=stored)

    return anew


def flush(root: Path) -> int:
    """Put the store out of the page cache, and return its bytes."""
    size = 0
    for path in root.rglob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        size += path.stat().st_size
    return size


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(map(int, sys.argv[2:])) or SIZES)
