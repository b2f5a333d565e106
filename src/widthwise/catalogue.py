"""What there is to name: every family's members, read from their source without importing any."""

import ast
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from widthwise import family
from widthwise.errors import UsageError, nearest

# The function of a member whose keyword-only parameters are its options, first found.
DECLARES = {
    "data": ("read",),
    "networks": ("build",),
    "measures": ("measure",),
    "studies": ("comparisons",),
    "executors": ("run",),
}


@dataclass(frozen=True)
class Member:
    """One member: its family, name, first sentence, whole docstring, and options as source text."""

    family: str
    name: str
    sentence: str
    docstring: str
    options: dict[str, str]

    def to_dict(self) -> dict:
        """Return the fields as plain values."""
        return dict(vars(self))


def members(of: Iterable[str] = family.FAMILIES) -> list[Member]:
    """Return every member of some families, in their order."""
    return [describe(group, name) for group in of for name in family.names(group)]


def listing(group: str) -> str:
    """Return a family as text: a line for every member, and one for its options."""
    lines = [group]
    for member in members([group]):
        lines.append(f"  {member.name:22}{member.sentence}")
        if member.options:
            lines.append(" " * 24 + ", ".join(f"{name}={default}" for name, default in member.options.items()))
    return "\n".join(lines)


def find(name: str) -> list[Member]:
    """Return the members of that name, built in or a dotted path: usually one, none if there is none."""
    if "." in name:
        return [_own(name)] if _source(name) else []
    return [describe(group, name) for group in family.FAMILIES if name in family.names(group)]


def describe(group: str, name: str) -> Member:
    """Return what a built-in member says of itself."""
    return _member(group, name, Path(family.__file__).parent / group / f"{name}.py")


def families(given: Iterable[str]) -> tuple[str, ...]:
    """Return the families of some names, all of them for none.

    Raises:
        UsageError: if there is no such family.
    """
    given = tuple(given)
    for name in given:
        if name not in family.FAMILIES:
            there = ", ".join(family.FAMILIES)
            raise UsageError(f'no family "{name}"; there are {there}.{nearest(name, family.FAMILIES)}')
    return given or family.FAMILIES


def _own(path: str) -> Member:
    source = _source(path)
    assert source is not None
    functions = {node.name for node in ast.parse(source.read_text()).body if isinstance(node, ast.FunctionDef)}
    group = next((g for g in family.FAMILIES if functions & set(DECLARES[g])), "networks")
    return _member(group, path, source)


def _source(path: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(path)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _member(group: str, name: str, path: Path) -> Member:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree) or ""
    return Member(group, name, _first_sentence(docstring), docstring, _options(tree, DECLARES[group]))


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.partition("\n\n")[0].split())
    head, stop, _ = paragraph.partition(". ")
    return head + "." if stop else paragraph


def _options(tree: ast.Module, names: tuple[str, ...]) -> dict[str, str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            arguments = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            return {a.arg: ast.unparse(default) if default else "" for a, default in arguments}
    return {}
