"""What a study and a run are: data, network, width, training, seed, and the one key they make.

A study file is validated as a whole: every error at once, each with its path, what is allowed and the
nearest name. Options of members (a data set's, a network's, a study's) are declared once, in their
signatures, and checked against them here.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.json_schema import WithJsonSchema

from widthwise import family, study_file
from widthwise.errors import UsageError, nearest

TRAINING_VERSION = 2
DATA_VERSION = 1
DATA_IN_KEY = {"rows", "test_rows", "reserve", "label_noise"}


def as_width(value: Any) -> Fraction:
    """Return a width or base, given as text or number, as an exact fraction.

    Raises:
        UsageError: if it is none, or not above 0.
    """
    try:
        width = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"a width is a fraction such as 1/4, not {value!r}") from None
    if width <= 0:
        raise UsageError(f"a width is above 0, not {value!r}")
    return width


Width = Annotated[
    Fraction,
    BeforeValidator(as_width),
    PlainSerializer(str),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^\d+(/\d+)?$"}, {"type": "number"}]}),
]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    """A part of a study file: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _WithOptions(BaseModel):
    """A member of a family by its `kind`, with the member's own options beside it."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    @property
    def options(self) -> dict[str, Any]:
        """The member's options as given, without those left to their defaults."""
        return dict(self.__pydantic_extra__ or {})


class Data(_WithOptions):
    """Which rows: a data set, how many of its training and test rows, and what share no network trains on."""

    kind: str = "digits"
    rows: Count | Literal["all"] = "all"
    test_rows: Count | Literal["all"] = "all"
    reserve: Share = 0.1
    label_noise: Share = 0.0
    root: Path | None = None


class Network(_WithOptions):
    """Which architecture; `base` multiplies the textbook network's widths."""

    kind: str = "mlp"
    base: Width = Fraction(1)


class Training(_Strict):
    """How every network is trained: SGD with momentum; the paper's schedule is `steps`, for texts AdamW and `cosine`.

    `steps` divides the rate by 10 at 1/2 and 3/4 of the epochs; `cosine` falls to zero; `one_cycle` rises linearly over
    the first 30 % before it does. Of AdamW, `momentum` is that of the gradient; that of its square is 0.999. `augment`
    left out means the data set's own default. With `shared_batches` all networks see one order and augmentation of the
    samples, whatever their seeds. With `init: slice_of_wide` narrow networks start as disjoint slices of wide ones, in
    the scale they have there or adapted to their own, smaller fan-in (`init_scale`).
    """

    epochs: Annotated[int, Field(ge=0)] = 30
    batch_size: Count = 128
    rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Share = 0.9
    optimiser: Literal["sgd", "adamw"] = "sgd"
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["one_cycle", "steps", "cosine", "constant"] = "one_cycle"
    augment: bool | None = None
    shared_batches: bool = False
    init: Literal["independent", "slice_of_wide"] = "independent"
    init_scale: Literal["kept", "adapted"] = "adapted"


class Tuning(_Strict):
    """Rates and weight decays to choose from for every width, on the reserve; weight decays left out: the one."""

    rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    weight_decays: tuple[Annotated[float, Field(ge=0)], ...] = ()


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
    tuning: Tuning | None = None
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
        """Return the study as the plain values of a study file, without presets and this machine's folders."""
        unset = {"tuning": True} if self.tuning is None else {}
        return self.model_dump(mode="json", exclude={"presets": True, "data": {"root"}, **unset})


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

    @property
    def slices(self) -> int:
        """How many slices of a wide network's initial weights it is one of; 0 if it draws its own."""
        return int(1 / self.width) if self.training.init == "slice_of_wide" and self.width < 1 else 0

    def canonical(self) -> dict[str, Any]:
        """Return what the key hashes: resolved widths, the data's checksum, what differs from defaults."""
        member = family.member("networks", self.network.kind)
        defaults = family.options(member.build)
        options = {k: v for k, v in self.network.options.items() if v != defaults.get(k)}
        widths = [int(w) for w in member.widths(self.scale, **self.network.options)]
        data = self.data.model_dump(mode="json", exclude_defaults=True, include=DATA_IN_KEY)
        return {
            "data": {"checksum": self.data_checksum, "version": DATA_VERSION, **data},
            "network": {"kind": self.network.kind, "widths": widths, "version": member.VERSION, **options},
            "training": {"version": TRAINING_VERSION, **self._training(member)},
            "seed": self.seed,
        }

    def _training(self, member: Any) -> dict[str, Any]:
        """Return how it is trained, without what changes nothing; of a slice, of which widths it is one too."""
        if self.slices:
            wide = [int(w) for w in member.widths(self.network.base, **self.network.options)]
            return {**self.training.model_dump(exclude_defaults=True), "wide": wide}
        return self.training.model_dump(exclude_defaults=True, exclude={"init", "init_scale"})

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

    The folder of data sets is `data.root`, or else the environment's WIDTHWISE_DATA.

    Args:
        source: path of a study file, or its contents.
        preset: a name under the file's `presets`.
        overrides: such as `{"training.epochs": 5}`; they win over the preset, which wins over the file.

    Raises:
        UsageError: with every problem of the file at once.
    """
    file, where = study_file.read(source)
    raw = study_file.laid_over(file, where, preset, overrides or {})
    study, problems = _checked(raw)
    problems += _preset_problems(file)
    if problems or study is None:
        listed = "\n".join(f"  {problem}" for problem in problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UsageError(f"{where} has {count}:\n{listed}")
    root = study.data.root or os.environ.get("WIDTHWISE_DATA")
    return _with(study, data=_with(study.data, root=Path(root) if root else None))


def _with(part: Any, **changed: Any) -> Any:
    return part.model_copy(update=changed)


# What is wrong with a file ------------------------------------------------------------------------------


def _checked(raw: Mapping[str, Any]) -> tuple[Study | None, list[str]]:
    """Return the study, options in the types that members declare, and all that is wrong with it."""
    problems: list[str] = []
    study = study_file.validated(Study, raw, problems)
    for where, folder, part, model in _parts(raw):
        problems += (f"{where}{problem}" for problem in _member_problems(folder, part, model))
    problems += _primary_problems(raw)
    if study is not None and study.tuning is not None and study.data.reserve == 0:
        problems.append(
            "tuning: rates are chosen on rows that no network trains on; give data.reserve a share, such as 0.1."
        )
    problems += _width_problems(raw) or _shape_problems(raw)
    if problems or study is None:
        return None, problems
    return _with(
        study,
        data=_with(study.data, **_typed("data", study.data)),
        network=_with(study.network, **_typed("networks", study.network)),
        studies=tuple(_with(choice, **_typed("studies", choice)) for choice in study.studies),
    ), []


def _preset_problems(file: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with presets, whether they are used or not, and not with the file without them."""
    presets = file.get("presets")
    if not isinstance(presets, Mapping) or not all(isinstance(over, Mapping) for over in presets.values()):
        return []  # said already
    plain = {name: value for name, value in file.items() if name != "presets"}
    known = _checked(plain)[1]
    found = {name: _checked(study_file.merge(plain, over))[1] for name, over in presets.items()}
    return [f"presets.{name}.{p}" for name, problems in found.items() for p in problems if p not in known]


# What is wrong between a file and the members it names --------------------------------------------------

_DECLARED = {"data": "read", "networks": "build", "studies": "comparisons"}  # where a family declares options


def _parts(raw: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, type[_WithOptions]]]:
    """Yield (path, family, raw part, its model) of every part of a file that names a member."""
    yield "data", "data", raw.get("data"), Data
    yield "network", "networks", raw.get("network"), Network
    choices = raw.get("studies") or []
    for k, choice in enumerate(choices if isinstance(choices, list | tuple) else []):
        yield f"studies.{k}", "studies", _choice(choice), Choice


def _member_problems(folder: str, raw: Any, model: type[_WithOptions]) -> Iterator[str]:
    """Yield what is wrong with a member's name and its options, whatever else is wrong, behind their path."""
    raw = {} if raw is None else raw
    kind = raw.get("kind", model.model_fields["kind"].default) if isinstance(raw, Mapping) else None
    if not isinstance(kind, str):
        return  # said already
    try:
        declared = getattr(family.member(folder, kind), _DECLARED[folder])
    except UsageError as error:
        yield f".kind: {error}"
        return
    options = {str(name): value for name, value in raw.items() if name not in model.model_fields}
    yield from (f": {problem}" for problem in family.check_options(kind, declared, options))
    for name in (n for n in options if n in family.options(declared)):
        try:
            study_file.option(declared, name, options[name])
        except UsageError as error:
            yield f".{error}"


def _typed(folder: str, part: Any) -> dict[str, Any]:
    """Return a member's options in the types it declares: of 0 and 0.0, the one that its key is made of."""
    declared = getattr(family.member(folder, part.kind), _DECLARED[folder])
    return {name: study_file.option(declared, name, value) for name, value in part.options.items()}


def _primary_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield that the endpoint which is declared before the run is of a study that the file does not have."""
    primary = raw.get("primary")
    name = primary.get("study") if isinstance(primary, Mapping) else None
    kinds = [
        part.get("kind") for _, folder, part, _ in _parts(raw) if folder == "studies" and isinstance(part, Mapping)
    ]
    kinds = kinds or [choice.kind for choice in Study().studies]
    if name is not None and name not in kinds:
        there, hint = ", ".join(map(str, kinds)), nearest(str(name), map(str, kinds))
        yield f"primary.study: {name} is not among the file's studies: {there}.{hint}"


def _width_problems(raw: Mapping[str, Any]) -> list[str]:
    try:
        network = Network.model_validate(raw.get("network") or {})
        member = family.member("networks", network.kind)
        options = _typed("networks", network)
        widths = [as_width(w) for w in raw.get("widths", Study.model_fields["widths"].default)]
    except (ValueError, TypeError, KeyError):
        return []  # said already
    found = []
    if repeated := sorted({str(width) for width in widths if widths.count(width) > 1}):
        found.append(f"widths: {', '.join(repeated)} is given more than once; give each width once.")
    if widths and 1 not in widths:
        found.append("widths: 1 must be among them: it is the wide network that the others stand against.")
    concatenations = raw.get("concatenations")
    for key in concatenations if isinstance(concatenations, Mapping) else ():
        if _known_width(key) not in [width for width in widths if width != 1]:
            narrow = ", ".join(str(w) for w in widths if w != 1) or "none"
            found.append(f"concatenations.{key}: not one of the narrow widths: {narrow}.")
    sliced = "slice_of_wide" in str(raw.get("training"))
    for width in widths:
        if sliced and width.numerator != 1:
            found.append(f"widths: {width} is no slice of a wide network: slice_of_wide takes 1/2, 1/3, ...")
        if width > 1:
            found.append(f"widths: a width is in (0, 1], not {width}; make the base network wider with network.base.")
            continue
        try:
            member.widths(network.base * width, **options)
        except UsageError as error:
            found.append(f"widths: {width} of base {network.base}: {error}")
    return found


def _shape_problems(raw: Mapping[str, Any]) -> list[str]:
    """Return why the network cannot take the data's samples, if it cannot."""
    import torch

    try:
        data = Data.model_validate(raw.get("data") or {})
        network = Network.model_validate(raw.get("network") or {})
        source, member = family.member("data", data.kind), family.member("networks", network.kind)
        options, shape = _typed("networks", network), family.shape(source, _typed("data", data))
    except (ValueError, TypeError, KeyError):
        return []  # said already
    if hasattr(source, "encode") and not hasattr(member, "TEXTS"):
        return [f"network: {network.kind} takes samples of one shape, not the texts of {data.kind}: transformer does."]
    try:
        with torch.device("meta"):
            member.build(shape, source.CLASSES, network.base, 1, **options)
    except UsageError as error:
        return [f"network: {error}"]
    return []


def _known_width(value: Any) -> Fraction | None:
    try:
        return as_width(value)
    except ValueError:
        return None
