"""C++ of this package, compiled by the machine's own compiler for its processor, and kept in the user's cache folder.

Compiled when it is first asked for (`CXX`, c++). Whoever asks has something of PyTorch's to do instead: without a
compiler some things are slower, nothing is missing.
"""

import ctypes
import hashlib
import logging
import os
import shlex
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-shared", "-fPIC")
THREADS = "-fopenmp"  # the threads that PyTorch has; a compiler that knows them not makes one of them
POINTER, NUMBER = ctypes.c_void_p, ctypes.c_int64
DTYPES = {torch.float32: "float32", torch.float64: "float64"}
log = logging.getLogger("widthwise")


@cache
def load(source: Path) -> ctypes.CDLL | None:
    """Return a source file as a library, compiled now if it is not in the cache folder; None without a compiler."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    try:
        target = cache_folder() / f"{source.stem}-{_key(compiler, source)}.so"
        if not target.exists():
            _compile(compiler, source, target)
        return ctypes.CDLL(str(target))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # no compiler, no home, no room
        log.debug("no C++ compiler (%s): PyTorch does what %s would", error, source.name)
        return None


@cache
def function(source: Path, name: str, dtype: torch.dtype | None, arguments: tuple[Any, ...]) -> Any:
    """Return a library's function for numbers of some type, or its only one, which returns nothing."""
    found = load(source)
    assert found is not None, "who asks has something else to do without a compiler"
    function = getattr(found, name if dtype is None else f"{name}_{DTYPES[dtype]}")
    function.argtypes, function.restype = arguments, None
    return function


def constant(library: ctypes.CDLL, name: str) -> int:
    """Return a whole number that a library tells, such as how many columns lie side by side."""
    return ctypes.c_int64.in_dll(library, name).value


def matrix(x: Tensor) -> tuple[int, int]:
    """Return where a matrix has its first number, and how many numbers its rows, each side by side, are apart."""
    assert x.ndim == 2
    assert x.shape[1] <= 1 or x.stride(1) == 1, "the numbers of a row are apart"
    return x.data_ptr(), x.stride(0)


def cache_folder() -> Path:
    """Return the folder in which what was made for this machine is kept: `widthwise` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "widthwise"


def _key(compiler: list[str], source: Path) -> str:
    """Return a name for the source, the headers, and the processor and version that the compiler says it has."""
    headers = sorted(Path(__file__).parent.rglob("*.hpp"))
    read = b"".join(path.read_bytes() for path in (source, *headers))
    told = subprocess.run([*compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, check=True)
    return hashlib.sha256(read + " ".join([*FLAGS, THREADS]).encode() + told.stdout).hexdigest()[:16]


def _compile(compiler: list[str], source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # whole or not at all, whoever else compiles
        made = Path(folder) / target.name
        command = [*compiler, *FLAGS, "-o", str(made), str(source)]
        if subprocess.run([*command, THREADS], capture_output=True, check=False).returncode:
            subprocess.run(command, capture_output=True, check=True)
        os.replace(made, target)
