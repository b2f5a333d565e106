"""What there is to name: every family's members, read from their source without importing any."""

import ast
import importlib.util
import re
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


HERE = Path(family.__file__).parent


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
    return _member(group, name, HERE / group / f"{name}.py")


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
    return re.split(r"(?<=[^.]\.) (?=[A-Z])", paragraph, maxsplit=1)[0]


def _options(tree: ast.Module, names: tuple[str, ...]) -> dict[str, str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            arguments = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            return {a.arg: _told(default, tree) if default else "" for a, default in arguments}
    return {}


def _told(node: ast.expr, tree: ast.Module) -> str:
    """Return an option's value as text, or its expression where that is no plain value."""
    value = ast.unparse(_value(node, tree))
    try:
        ast.literal_eval(value)
    except ValueError:
        return ast.unparse(node)
    return value


def _value(node: ast.expr, tree: ast.Module) -> ast.expr:
    """Return what an expression of a module stands for, as far as its source and that of its imports say."""
    match node:
        case ast.Name(name):
            return _named(name, tree) or node
        case ast.Attribute(ast.Name(module), name):
            found = _imported(module, tree)
            return _named(name, found) or node if found else node
        case ast.Subscript(of, ast.Constant(int(k))):
            whole = _value(of, tree)
            return _value(whole.elts[k], tree) if isinstance(whole, ast.Tuple) else node
    return node


def _named(name: str, tree: ast.Module) -> ast.expr | None:
    """Return what a module gives a name, there or where it imports it from."""
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(given)], value) if given == name:
                return _value(value, tree)
            case ast.Assign([ast.Tuple(names)], ast.Tuple(values)):
                for given, value in zip(names, values, strict=False):
                    if isinstance(given, ast.Name) and given.id == name:
                        return _value(value, tree)
    found = _imported(name, tree)
    return _named(name, found) if found else None


def _imported(name: str, tree: ast.Module) -> ast.Module | None:
    """Return the module of ours that a name is, or is imported from."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "widthwise":
            folder = HERE.joinpath(*str(node.module).split(".")[1:])
            for alias in node.names:
                for path in (folder / f"{alias.name}.py", folder.with_suffix(".py")):
                    if (alias.asname or alias.name) == name and path.is_file():
                        return ast.parse(path.read_text(encoding="utf-8"))
    return None
