"""A study file as plain values: read, with a preset and overrides laid over it; and what is wrong, in words."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from widthwise.errors import UsageError, nearest

T = TypeVar("T", bound=BaseModel)


def parse(text: str, where: str) -> Any:
    """Return the value that YAML text stands for, as in a study file.

    Raises:
        UsageError: if it is not YAML, naming `where` it is from.
    """
    try:
        return yaml.load(text, _Yaml)
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


class _Yaml(yaml.SafeLoader):
    """YAML in which 5e-4 is a number, as everywhere but in YAML 1.1, and a key given twice is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in given:
            if given.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f'"{key}" is given twice', node.start_mark)
        return super().construct_mapping(node, deep)


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the plain values of a study file, or of its contents, and its name in a message.

    Raises:
        UsageError: if there is no such file, or it is no YAML mapping.
    """
    if isinstance(source, Mapping):
        return dict(source), "the study"
    path = Path(source)
    try:
        raw = parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        near = nearest(path.name, [p.name for p in path.parent.glob("*.yaml")])
        raise UsageError(f"there is no study file {path}.{near}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the study file {path}: {error}") from error
    if not isinstance(raw, dict):
        given = "nothing" if raw is None else f"one {type(raw).__name__}"
        raise UsageError(f"{path} must hold keys such as data: and network:, not {given}.")
    return {str(k): v for k, v in raw.items()}, str(path)


def laid_over(file: Mapping[str, Any], where: str, preset: str | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's values with one of its presets, and dotted overrides over that.

    Raises:
        UsageError: if there is no such preset.
    """
    raw = dict(file)
    if preset is not None:
        presets = file.get("presets")
        presets = presets if isinstance(presets, Mapping) else {}
        if preset not in presets:
            there = ", ".join(map(str, presets)) or "none"
            hint = nearest(preset, map(str, presets))
            raise UsageError(f'{where} has no preset "{preset}"; there are: {there}.{hint}')
        raw = with_preset(raw, presets[preset] if isinstance(presets[preset], Mapping) else {})
    for path, value in overrides.items():
        raw = merge(raw, _nested(path.split("."), value))
    kept = raw.get("concatenations")
    if "widths" in overrides and isinstance(overrides["widths"], Sequence) and isinstance(kept, Mapping):
        # What the file says of widths that are not wanted is not meant.
        wanted = {*map(str, overrides["widths"]), *(path.partition(".")[2] for path in overrides)}
        raw["concatenations"] = {width: count for width, count in kept.items() if str(width) in wanted}
    return raw


def overrides(arguments: Sequence[str], keys: Iterable[str], options: Iterable[str] = ()) -> dict[str, Any]:
    """Return arguments such as `--training.epochs 5 --widths=[1,1/2]` as values by dotted path.

    `keys` are those of a study; `options` those that a command has beside them, named where one is mistyped.

    Raises:
        UsageError: for what is neither.
    """
    keys, found, left = list(keys), {}, list(arguments)
    while left:
        name, equals, value = left.pop(0).partition("=")
        if not name.startswith("--"):
            raise UsageError(f'"{name}" is one argument too many; values go as --training.epochs 5.')
        path = name[2:].replace("-", "_")
        if "." not in path and path not in keys:
            hint = nearest(name, [f"--{known}" for known in (*keys, *options)])
            raise UsageError(f"there is no option {name}.{hint}")
        if not equals and not left:
            raise UsageError(f"{name} needs a value, as in --training.epochs 5.")
        found[path] = parse(value if equals else left.pop(0), name)
    return found


def with_preset(file: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset laid over a file: how many networks there are of which size it says as a whole."""
    merged = merge(file, preset)
    return merged | {name: preset[name] for name in ("neurons",) if name in preset}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `over` laid over `base`, mappings within them too."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return value


def validated(model: type[T], raw: Mapping[str, Any], problems: list[str]) -> T | None:
    """Return what the raw values are a `model` of, or None and every one of their problems in a sentence."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        by_path: dict[str, list[Mapping[str, Any]]] = {}
        for e in error.errors():  # a union gives one error for each of its kinds
            by_path.setdefault(_path(e), []).append(e)
        problems += [_sentence(path, errors, model) for path, errors in by_path.items()]
        return None


def option(declared: Callable, name: str, value: Any) -> Any:
    """Return a member's option in its declared type, or, where none is, in that of its default.

    Raises:
        UsageError: if it is of another.
    """
    parameter = inspect.signature(declared).parameters[name]
    plain = (bool, int, float, str)
    kind: Any = type(parameter.default) if type(parameter.default) in plain else Any
    if parameter.annotation is not parameter.empty and not isinstance(parameter.annotation, str):
        kind = parameter.annotation
    try:
        return TypeAdapter(kind).validate_python(value)
    except PydanticUserError:  # a type that only the member knows how to check
        return value
    except ValidationError as error:
        raise UsageError(_sentence(name, [*error.errors()])) from None


def _path(error: Mapping[str, Any]) -> str:
    kinds = ("int", "constrained-int", "literal['all']", "[key]")
    return ".".join(str(part) for part in error["loc"] if part not in kinds)


def _sentence(path: str, errors: Sequence[Mapping[str, Any]], model: Any = None) -> str:
    """Return pydantic's errors of one key as path, what was given, what is allowed, the nearest name."""
    error = errors[0]
    if error["type"] == "extra_forbidden":
        owner, name = error["loc"][:-1], str(error["loc"][-1])
        allowed = _fields(model, owner)
        return f"{path}: unknown key; allowed are {', '.join(allowed)}.{nearest(name, allowed)}"
    message = " or ".join(e["msg"].removeprefix("Value error, ").removeprefix("Input ") for e in errors)
    if error["type"] == "too_short":
        return f"{path}: needs at least {error['ctx']['min_length']}, not {error['ctx']['actual_length']}."
    given = error["input"]
    expected = str(error.get("ctx", {}).get("expected", ""))
    hint = nearest(given, expected.split("'")[1::2]) if isinstance(given, str) and expected else ""
    told = "" if error["type"] == "value_error" else f", not {given!r}"  # our own errors have said it
    return f"{path}: {message}{told}.{hint}"


def _fields(model: Any, owner: Iterable[Any]) -> list[str]:
    for part in owner:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
