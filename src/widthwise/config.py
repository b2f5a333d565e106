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
from math import erfc, sqrt
from pathlib import Path
from typing import Any

from widthwise import family, study_file
from widthwise.errors import UsageError, nearest
from widthwise.study import (
    Choice,
    Data,
    Margins,
    Network,
    Primary,
    Study,
    Training,
    Tuning,
    WithOptions,
    as_choice,
    as_width,
)

__all__ = ["Choice", "Data", "Margins", "Network", "Primary", "Run", "Study", "Training", "Tuning"]
__all__ += ["as_width", "digest", "load_study"]

TRAINING_VERSION = 2
DATA_VERSION = 1
UNJUDGED = ("training", "shuffled", "outliers")  # studies that make no claim
DATA_IN_KEY = {"rows", "test_rows", "reserve", "label_noise"}


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
        if self.training.init == "shared_neurons":
            return self.training.model_dump(exclude_defaults=True)
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
    by_neurons = list(_neuron_problems(study)) if study is not None and not problems else []
    problems += by_neurons or _width_problems(raw) or _shape_problems(raw)
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
    found = {name: _checked(study_file.with_preset(plain, over))[1] for name, over in presets.items()}
    return [f"presets.{name}.{p}" for name, problems in found.items() for p in problems if p not in known]


# What is wrong between a file and the members it names --------------------------------------------------

_DECLARED = {"data": "read", "networks": "build", "studies": "comparisons"}  # where a family declares options


def _parts(raw: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, type[WithOptions]]]:
    """Yield (path, family, raw part, its model) of every part of a file that names a member."""
    yield "data", "data", raw.get("data"), Data
    yield "network", "networks", raw.get("network"), Network
    choices = raw.get("studies") or []
    for k, choice in enumerate(choices if isinstance(choices, list | tuple) else []):
        yield f"studies.{k}", "studies", as_choice(choice), Choice


def _member_problems(folder: str, raw: Any, model: type[WithOptions]) -> Iterator[str]:
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
    elif name in UNJUDGED:
        yield f"primary.study: {name} makes no claim that gets a verdict; declare another, such as width_gap."


def _width_problems(raw: Mapping[str, Any]) -> list[str]:
    if raw.get("neurons"):
        return []
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


def _neuron_problems(study: Study) -> Iterator[str]:
    """Yield what is wrong with networks that differ in their number of neurons, and with how they are trained."""
    kind, training = study.network.kind, study.training
    counted = hasattr(family.member("networks", kind), "NEURONS")
    if study.neurons and not counted:
        yield f"neurons: the width of {kind} is a fraction; give widths, or take the network threshold_mlp."
        return
    if counted and not study.neurons:
        yield f"neurons: {kind} has a number of them; say how many networks of each, as {{100: 300, 10000: 5}}."
        return
    for choice in study.studies:
        if hasattr(family.member("studies", choice.kind), "NEURONS") != bool(study.neurons):
            needs = "fractions of a width" if study.neurons else "networks by their number of neurons"
            yield f"studies: {choice.kind} compares {needs}; with neurons: there is toy, without it the others."
    if training.init == "shared_neurons" and not counted:
        yield f"training.init: {kind} has no neurons to share; threshold_mlp has."
    if study.neurons and counted:
        yield from _counted_problems(study)
    yield from _normalised_problems(study, counted)


def _counted_problems(study: Study) -> Iterator[str]:
    """Yield what is wrong beside `neurons`, and with the study of them."""
    for name in ("widths", "wide", "concatenations", "tuning"):
        if name in study.model_fields_set and getattr(study, name):
            yield f"{name}: networks differ in their number of neurons here; leave it out."
    if study.network.base != 1:
        yield "network.base: the width is a number of neurons; leave it out, and say the numbers in neurons:."
    if study.training.optimiser != "normalised_sgd":
        yield "training.optimiser: neurons are followed by normalised_sgd; set it."
    if study.training.init == "slice_of_wide":
        yield "training.init: slice_of_wide is of fractions of a width; shared_neurons is what neurons have."
    if not study.training.epochs:
        yield "training.epochs: the toy's networks are looked at as they train; 1 or more."
    yield from _silent_problems(study)
    member = family.member("networks", study.network.kind)
    given = family.options(member.build) | study.network.options
    for choice in study.studies:
        options = family.options(family.member("studies", choice.kind).comparisons) | choice.options
        together, rows = options.get("together"), study.data.rows
        if options.get("wide") is not None and options["wide"] not in study.neurons:
            there = ", ".join(map(str, study.neurons))
            yield f"studies: wide: there are no networks of {options['wide']} neurons; there are {there}."
        most = max(study.neurons.values())
        if isinstance(together, int) and isinstance(rows, int) and isinstance(given["hidden"], int):
            features = min(together, most) * given["hidden"]
            if features > rows:
                yield (
                    f"studies: {min(together, most)} networks together have {features:,} features for {rows:,} rows "
                    f"of a fit; set together: {rows // given['hidden']} or less, or more data.rows."
                )


def _normalised_problems(study: Study, counted: bool) -> Iterator[str]:
    """Yield what is wrong with normalised descent, or with its options where another descends."""
    training, data = study.training, study.data
    drawn = hasattr(family.member("data", data.kind), "draw")
    if training.optimiser != "normalised_sgd":
        for name in ("fresh", "stop_below", "stop_flat"):
            if getattr(training, name):
                yield f"training.{name}: only normalised_sgd knows it; leave it out."
        return
    if "momentum" in training.model_fields_set:
        yield "training.momentum: normalised_sgd has none; leave it out."
    if training.precision == "bfloat16":
        yield "training.precision: normalised_sgd computes in float32; leave it out."
    if training.fresh and not drawn:
        yield f"training.fresh: {data.kind} has the samples it has; leave it out, or take the data signals."
    elif not (counted and drawn):
        yield "training.optimiser: normalised_sgd trains threshold_mlp on signals; take sgd or adamw."
    if data.label_noise:
        yield "data.label_noise: normalised_sgd takes labels from the signs; leave it out."
    if training.augment:
        yield "training.augment: signs and noise are not cropped and flipped; leave it out, or set it to false."


def _silent_problems(study: Study) -> Iterator[str]:
    """Yield that no neuron of any network is to be expected active at the start, if so."""
    member = family.member("networks", study.network.kind)
    given = family.options(member.build) | study.network.options
    try:
        ratio = float(given["ratio"])
    except (TypeError, ValueError):
        return  # said already
    count = sum(neurons * networks for neurons, networks in study.neurons.items())
    expected = count * erfc(ratio / sqrt(2))
    if study.neurons and ratio > 0 and expected < 1:
        yield (
            f"network.ratio: at a threshold of {ratio:g} deviations {expected:.2g} of the {count:,} neurons of all "
            "networks are expected to be activated by a signal at the start, and none ever learns it; make ratio "
            f"smaller, such as 3.2, which gives {count * erfc(3.2 / sqrt(2)):.0f}."
        )


def _shape_problems(raw: Mapping[str, Any]) -> list[str]:
    """Return why the network cannot take the data's samples, if it cannot."""
    import torch

    try:
        data = Data.model_validate(raw.get("data") or {})
        network = Network.model_validate(raw.get("network") or {})
        source, member = family.member("data", data.kind), family.member("networks", network.kind)
        options, given = _typed("networks", network), _typed("data", data)
    except (ValueError, TypeError, KeyError):
        return []  # said already
    try:
        shape = family.shape(source, given)
    except UsageError as error:
        return [f"data: {data.kind}: {error}"]
    except (ValueError, TypeError):
        return []  # said already
    if hasattr(source, "encode") and not hasattr(member, "TEXTS"):
        return [f"network: {network.kind} takes samples of one shape, not the texts of {data.kind}: transformer does."]
    if hasattr(source, "encode") and (raw.get("training") or {}).get("augment"):
        return ["training.augment: texts are not cropped and flipped; leave it out, or set it to false."]
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
