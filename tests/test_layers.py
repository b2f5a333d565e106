"""The walls: what imports what, read from the source alone; pyproject.toml lists the layers."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from widthwise import family

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "widthwise"
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.stem[:2] != "__"]
CONTRACT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
LAYERS = [layer.strip("()") for layer in CONTRACT["layers"]]  # the first imports all others, the last none


def imports(text: str, module: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield what the source of `module` imports of Widthwise, at its top or in a function, in parts."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            near = ("widthwise", *module)[: -node.level] if node.level else ()
            start = ".".join([*near, *([node.module] if node.module else [])])
            found = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (tuple(name.split(".")[1:]) for name in found if name.split(".")[0] == "widthwise")


def faults(text: str, module: tuple[str, ...]) -> list[str]:
    """Return what is wrong with the imports of `module`, in sentences."""
    wrong, own = [], ".".join(module)
    for target in imports(text, module):
        if not target or target[0] not in LAYERS:  # a name of the public surface, or the root itself
            wrong.append(f"{own} imports the package root, which imports everything")
        elif target[0] != module[0] and LAYERS.index(target[0]) <= LAYERS.index(module[0]):
            wrong.append(f"{own} imports {target[0]}, which is above it")
        elif target[0] == module[0] in family.FAMILIES and target[1:2] not in [("base",), module[1:2]]:
            wrong.append(f"{own} imports {'.'.join(target)}, another member of its family")
    return wrong


def module_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(module_of(path)))
def test_a_file_imports_only_what_is_below_it_and_is_short(path):
    text = path.read_text()
    assert module_of(path)[0] in LAYERS, f"{path.name} has no place in the list of layers in pyproject.toml"
    assert not faults(text, module_of(path))
    assert len(text.splitlines()) <= 400


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("import widthwise", ("pairs",)),
        ("from widthwise import span_error", ("studies", "width_gap")),
        ("from widthwise import pairs", ("features",)),
        ("from .. import pairs", ("linalg", "ridge")),
        ("from widthwise.pairs import concatenate", ("features",)),
        ("def late():\n    from widthwise.cli import main", ("store",)),
        ("from widthwise.measures.span_error import span_error", ("measures", "residuals")),
        ("from .span_error import span_error", ("measures", "residuals")),
    ],
)
def test_an_import_that_breaks_a_wall_is_found(text, module):
    assert faults(text, module)


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("from widthwise.measures.base import Measure", ("measures", "span_error")),
        ("from .base import Measure", ("measures", "span_error")),
        ("from widthwise.linalg.moments import Moments", ("linalg", "ridge")),
        ("from widthwise.linalg import ridge", ("measures", "span_error")),
        ("from widthwise import family", ("config",)),
        ("import torch", ("seeds",)),
    ],
)
def test_an_import_that_keeps_to_the_walls_is_let_through(text, module):
    assert not faults(text, module)
