"""What a study and a run are: data, network, width, training, seed, and the one key they make.

A study file is validated as a whole: every error at once, each with its path, what is allowed and the
nearest name. Options of members (a data set's, a network's, a study's) are declared once, in their
signatures, and checked against them here.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic.json_schema import WithJsonSchema

from widthwise import family
from widthwise.errors import UsageError, nearest

TRAINING_VERSION = 1
DATA_VERSION = 1


def _width(value: Any) -> Fraction:
    try:
        width = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"a width is a fraction such as 1/4, not {value!r}") from None
    if width <= 0:
        raise ValueError(f"a width is above 0, not {value!r}")
    return width


Width = Annotated[
    Fraction,
    BeforeValidator(_width),
    PlainSerializer(str),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^\d+(/\d+)?$"}, {"type": "number"}]}),
]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    """A part of a study file: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _WithOptions(BaseModel):
    """A member of a family by its `kind`, with the member's own options beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The member's options as given, without those left to their defaults."""
        return dict(self.__pydantic_extra__ or {})


class Data(_WithOptions):
    """Which rows: a data set, how many of its training rows, and what share no network trains on."""

    kind: str = "digits"
    rows: Count | Literal["all"] = "all"
    reserve: Share = 0.1
    label_noise: Share = 0.0
    root: Path | None = None


class Network(_WithOptions):
    """Which architecture; `base` multiplies the textbook network's widths."""

    kind: str = "mlp"
    base: Width = Fraction(1)


class Training(_Strict):
    """How every network is trained: SGD with momentum; the paper's schedule is `steps`.

    `steps` divides the rate by 10 at 1/2 and 3/4 of the epochs; `one_cycle` rises linearly over the first
    30 % and falls to zero along a cosine. `augment` left out means the data set's own default.
    """

    epochs: Annotated[int, Field(ge=0)] = 30
    batch_size: Count = 128
    rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["one_cycle", "steps", "constant"] = "one_cycle"
    augment: bool | None = None


class Choice(_WithOptions):
    """One study of the file: a name in `studies/`, with options."""

    kind: str


class Primary(_Strict):
    """The one endpoint that is declared before the run."""

    study: str = "width_gap"
    matching: Literal["parameters", "features"] = "parameters"


class Margins(_Strict):
    """What counts as a difference."""

    span_gap: Annotated[float, Field(ge=0)] = 0.002
    probe_accuracy: Annotated[float, Field(ge=0)] = 0.005


def _choice(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class Study(_Strict):
    """A study file: one store's worth of networks, and any number of studies over them."""

    title: str = "A study of width"
    data: Data = Data()
    network: Network = Network()
    training: Training = Training()
    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = tuple(Fraction(1, k) for k in (1, 2, 4, 8))
    wide: Count = 4
    concatenations: dict[Width, Count] = {}
    studies: Annotated[tuple[Annotated[Choice, BeforeValidator(_choice)], ...], Field(min_length=1)] = (
        Choice(kind="width_gap"),
        Choice(kind="reverse_gap"),
    )
    primary: Primary = Primary()
    margins: Margins = Margins()
    presets: dict[str, dict[str, Any]] = {}

    @property
    def narrow_widths(self) -> tuple[Fraction, ...]:
        """The widths below 1, widest first."""
        return tuple(sorted((w for w in set(self.widths) if w < 1), reverse=True))

    def plain(self) -> dict[str, Any]:
        """Return the study as the plain values of a study file, without presets."""
        return self.model_dump(mode="json", exclude={"presets"})


@dataclass(frozen=True)
class Run:
    """One network to train: everything its numbers depend on, and nothing else."""

    data: Data
    data_checksum: str
    network: Network
    training: Training
    width: Fraction
    seed: int

    @property
    def scale(self) -> Fraction:
        """The factor on the textbook network's widths: base times width."""
        return self.network.base * self.width

    def canonical(self) -> dict[str, Any]:
        """Return what the key hashes: resolved widths, the data's checksum, what differs from defaults."""
        member = family.member("networks", self.network.kind)
        defaults = family.options(member.build)
        options = {k: v for k, v in self.network.options.items() if v != defaults.get(k)}
        widths = [int(w) for w in member.widths(self.scale, **self.network.options)]
        data = self.data.model_dump(mode="json", exclude_defaults=True, include={"rows", "reserve", "label_noise"})
        return {
            "data": {"checksum": self.data_checksum, "version": DATA_VERSION, **data},
            "network": {"kind": self.network.kind, "widths": widths, "version": member.VERSION, **options},
            "training": {"version": TRAINING_VERSION, **self.training.model_dump(exclude_defaults=True)},
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        """A readable name and a hash, such as `resnet18-w1_4-s3-0f5bc19e`; w is the textbook's share."""
        name = self.network.kind.rpartition(".")[2]
        return f"{name}-w{str(self.scale).replace('/', '_')}-s{self.seed}-{digest(self.canonical())}"

    def describe(self) -> dict[str, Any]:
        """Return the full resolved run, for the record beside a result."""
        data = {**self.data.model_dump(mode="json", exclude={"root"}), "checksum": self.data_checksum}
        network = {**self.network.model_dump(mode="json"), "width": str(self.width)}
        return {"data": data, "network": network, "training": self.training.model_dump(), "seed": self.seed}


def digest(value: Any, length: int = 8) -> str:
    """Return the first hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def load_study(
    source: str | Path | Mapping[str, Any],
    *,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Study:
    """Return the study in a file (YAML) or mapping, with a preset and dotted overrides laid over it.

    Args:
        source: path of a study file, or its contents.
        preset: a name under the file's `presets`.
        overrides: such as `{"training.epochs": 5}`; they win over the preset, which wins over the file.

    Raises:
        UsageError: with every problem of the file at once.
    """
    raw, where = _read(source)
    if preset is not None:
        presets = raw.get("presets") or {}
        if preset not in presets:
            there = ", ".join(presets) or "none"
            raise UsageError(f'{where} has no preset "{preset}"; there are: {there}.{nearest(preset, presets)}')
        raw = _merge(raw, presets[preset])
    for path, value in (overrides or {}).items():
        raw = _merge(raw, _nested(path.split("."), value))
    problems: list[str] = []
    study = _validated(raw, problems)
    problems += _member_problems(raw)
    if problems or study is None:
        listed = "\n".join(f"  {problem}" for problem in problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UsageError(f"{where} has {count}:\n{listed}")
    return study


def _read(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    if isinstance(source, Mapping):
        return dict(source), "the study"
    path = Path(source)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = nearest(path.name, [p.name for p in path.parent.glob("*.yaml")])
        raise UsageError(f"there is no study file {path}.{near}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the study file {path}: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path} must hold keys such as data: and network:, not {type(raw).__name__}")
    return {str(k): v for k, v in raw.items()}, str(path)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return value


def _validated(raw: Mapping[str, Any], problems: list[str]) -> Study | None:
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        by_path: dict[str, list[Mapping[str, Any]]] = {}
        for e in error.errors():  # a union gives one error for each of its kinds
            by_path.setdefault(_path(e), []).append(e)
        problems += [_sentence(path, errors) for path, errors in by_path.items()]
        return None


def _path(error: Mapping[str, Any]) -> str:
    kinds = ("int", "constrained-int", "literal['all']")
    return ".".join(str(part) for part in error["loc"] if part not in kinds)


def _sentence(path: str, errors: list[Mapping[str, Any]]) -> str:
    """Return pydantic's errors of one key as path, what was given, what is allowed, the nearest name."""
    error = errors[0]
    if error["type"] == "extra_forbidden":
        owner, name = error["loc"][:-1], str(error["loc"][-1])
        allowed = _fields(owner)
        return f"{path}: unknown key; allowed are {', '.join(allowed)}.{nearest(name, allowed)}"
    message = " or ".join(e["msg"].removeprefix("Value error, ").removeprefix("Input ") for e in errors)
    given = error["input"]
    expected = str(error.get("ctx", {}).get("expected", ""))
    hint = nearest(given, expected.split("'")[1::2]) if isinstance(given, str) and expected else ""
    return f"{path}: {message}" + ("" if str(given) in message else f", not {given!r}") + f".{hint}"


def _fields(owner: Iterable[Any]) -> list[str]:
    model: Any = Study
    for part in owner:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def _member_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong between the file and the members it names, whatever else is wrong."""
    yield from _options_problems("data", "data", raw.get("data"), Data, lambda m: m.read)
    yield from _options_problems("network", "networks", raw.get("network"), Network, lambda m: m.build)
    choices = raw.get("studies") or []
    for k, choice in enumerate(choices if isinstance(choices, list | tuple) else []):
        where = f"studies.{k}"
        yield from _options_problems(where, "studies", _choice(choice), Choice, lambda m: m.comparisons)
    yield from _width_problems(raw)


def _options_problems(
    where: str, folder: str, raw: Any, model: type[_WithOptions], declared: Callable[[Any], Callable]
) -> Iterator[str]:
    try:
        part: Any = model.model_validate(raw or {})
        member = family.member(folder, part.kind)
    except ValidationError:
        return
    except UsageError as error:
        yield f"{where}.kind: {error}"
        return
    yield from (f"{where}: {p}" for p in family.check_options(part.kind, declared(member), part.options))


def _width_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    try:
        network = Network.model_validate(raw.get("network") or {})
        member = family.member("networks", network.kind)
        widths = [_width(w) for w in raw.get("widths", (1,))]
    except (ValueError, TypeError):
        return
    if Fraction(1) not in widths:
        yield "widths: 1 must be among them: it is the wide network that the others stand against."
    for key in raw.get("concatenations") or {}:
        if _known_width(key) not in widths:
            yield f"concatenations.{key}: not one of the widths {', '.join(str(w) for w in widths)}."
    for width in widths:
        if width > 1:
            yield f"widths: a width is in (0, 1], not {width}; make the base network wider with network.base."
            continue
        try:
            member.widths(network.base * width, **network.options)
        except UsageError as error:
            yield f"widths: {width} of base {network.base}: {error}"
        except TypeError:
            return


def _known_width(value: Any) -> Fraction | None:
    try:
        return _width(value)
    except ValueError:
        return None
