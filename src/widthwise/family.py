"""A folder as a family: `base.py` says what a member is, every other file is one, its name is the user's.

There is no registry: the folder is the list. A dotted path (`my_package.my_net`) names a member of the
user's own.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from widthwise.errors import UsageError, nearest

FAMILIES = ("data", "networks", "measures", "studies", "executors")
NEEDED = {"data": ("VERSION", "read"), "networks": ("VERSION", "widths", "build"), "studies": ("comparisons",)}


def names(family: str) -> list[str]:
    """Return the names of a family's members, without importing any."""
    folder = Path(__file__).parent / family
    return sorted(path.stem for path in folder.glob("*.py") if path.stem not in ("__init__", "base"))


def member(family: str, name: str) -> ModuleType:
    """Return the module of one member: a file of the folder, or the user's own dotted path.

    Raises:
        UsageError: if there is no such member, with the names there are.
    """
    return _own(family, name) if "." in name else _built_in(family, name)


@cache  # a study asks for its members thousands of times
def _built_in(family: str, name: str) -> ModuleType:
    if name not in names(family):
        singular = family.rstrip("s") if family != "studies" else "study"
        raise UsageError(f'no {singular} "{name}"; there are {", ".join(names(family))}.{nearest(name, names(family))}')
    return importlib.import_module(f"widthwise.{family}.{name}")


def options(function: Callable) -> dict[str, Any]:
    """Return a member's options, declared once: the keyword-only parameters of `function` and defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def shape(data: ModuleType, given: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of what a network takes of one sample of a data set with the options `given`."""
    return tuple(data.shape(**given) if hasattr(data, "shape") else data.SHAPE)


def check_options(owner: str, function: Callable, given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the options `given` to `owner`, in sentences; nothing if all are known."""
    known = options(function)
    listed = ", ".join(f"{name}={default!r}" for name, default in known.items()) or "none"
    return [
        f'{owner} has no option "{name}"; its options: {listed}.{nearest(name, known)}'
        for name in given
        if name not in known
    ]


def _own(family: str, path: str) -> ModuleType:
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise UsageError(
            f'cannot import "{path}" as one of {family}: {error}. A dotted path must be importable from the '
            f"current folder or the environment; built in are {', '.join(names(family))}."
        ) from error
    lacking = [name for name in NEEDED.get(family, ()) if not hasattr(module, name)]
    if lacking:
        raise UsageError(f"{path} has no {' and no '.join(lacking)}, which one of {family} has; see docs/adding.md.")
    return module
