"""The command line: results on stdout, progress and warnings on stderr, one clear error and no traceback.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted. Everything heavy is imported inside the verbs, so
that `widthwise --help` waits for neither torch nor numpy.
"""

import errno
import json
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter, UnknownOptionError

from widthwise import progress, words
from widthwise.errors import UsageError, WidthwiseError, nearest

if TYPE_CHECKING:
    from widthwise.config import Study
    from widthwise.results import Results
    from widthwise.store import Store

INTERRUPTED = 130
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)  # not a bug, whoever met it
DEMO = Path(__file__).parent / "demo.yaml"

app = App(
    name="widthwise",
    help="What one wide network knows that many narrow ones, put together, do not, and the other way round.",
    help_format="plaintext",
    version=lambda: metadata.version("widthwise"),
    suppress_keyboard_interrupt=False,
)
_everywhere = Group("Everywhere")


@Parameter(name="*", group=_everywhere)
@dataclass(frozen=True)
class Common:
    """What every command takes."""

    store: Annotated[Path, Parameter(env_var="WIDTHWISE_STORE")] = Path(".widthwise")
    """Folder in which networks, features and scores live."""
    data: Path | None = None
    """Folder of data sets; otherwise the study file's data.root, or WIDTHWISE_DATA."""
    device: str = "cpu"
    """Where networks train: cpu, cuda, cuda:1."""
    jobs: int | None = None
    """Processes that train at the same time; one for each core if left out."""
    quiet: Annotated[bool, Parameter(negative="")] = False
    """No progress on stderr."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Stdout is exactly one JSON document."""


Overrides = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]
_NOTHING = Common()


@app.command
def demo(*, common: Common = _NOTHING) -> None:
    """Train, compare and report on 1,797 real handwritten digits: a minute or two, nothing to download."""
    _run(DEMO, None, (), common)


@app.command
def run(file: Path, /, *overrides: Overrides, preset: str | None = None, common: Common = _NOTHING) -> None:
    """Do what a study file asks for and is not in the store yet, and report. Stopped, it goes on from there.

    Values of the file are changed behind it: `run study.yaml --training.epochs 5 --widths [1,1/4]`.

    Args:
        file: A study file (YAML).
        preset: A name under the file's presets.
    """
    _run(file, preset, overrides, common)


@app.command
def plan(file: Path, /, *overrides: Overrides, preset: str | None = None, common: Common = _NOTHING) -> None:
    """Say what a study file will train, how long that takes, and what is in the store already.

    Args:
        file: A study file (YAML).
        preset: A name under the file's presets.
    """
    from widthwise import cost

    study = _study(file, preset, overrides, common)
    found = cost.plan(study, _store(common), device=common.device, jobs=common.jobs)
    _print(found.to_dict() if common.json else str(found))


@app.command
def report(file: Path, /, *overrides: Overrides, preset: str | None = None, common: Common = _NOTHING) -> None:
    """Make a study's report again from what is in the store; trains nothing.

    Args:
        file: A study file (YAML).
        preset: A name under the file's presets.
    """
    from widthwise import cost

    study, store = _study(file, preset, overrides, common), _store(common)
    missing = cost.missing(study, store)
    if missing:
        raise UsageError(
            f"{store.root} lacks {len(missing)} of the networks of {file} ({missing[0]} is the first): "
            f"`widthwise run {file}` trains them and reports."
        )
    _finish(_results(study, store, common), preset, store, common)


@app.command
def span(
    source: Path,
    target: Path,
    /,
    *,
    split: str = "validation",
    source_test: Path | None = None,
    target_test: Path | None = None,
    folds: int = 5,
    groups: Path | None = None,
    labels: Path | None = None,
    penalties: str | None = None,
    interpolate: bool = True,
    standardize: Annotated[bool, Parameter(negative="")] = False,
    extrapolate: Annotated[bool, Parameter(negative="")] = False,
    shared_penalty: Annotated[bool, Parameter(negative="")] = False,
    key: str | None = None,
    target_key: str | None = None,
    common: Common = _NOTHING,
) -> None:
    """Say how badly one file of features spans another: held-out 1 - R^2 of every target feature.

    Files are .npy, .npz, .safetensors or .parquet, of (rows, features). Row ids that they hold under the name
    `ids` are checked.

    Args:
        source: Features that explain.
        target: Features that are explained, on the same rows.
        split: "validation": folds over the rows; "test": fitted on all rows, scored on the two test files.
        source_test: The source's features of test rows.
        target_test: The target's features of test rows.
        folds: How many folds.
        groups: A file of one value a scored row (.npy, .txt, .csv); rows of one group are never split.
        labels: A file of one class a row, the test rows behind; gives the within-class error too.
        penalties: Relative ridge penalties, such as 1e-6,1e-3, used as given.
        interpolate: Read the best penalty off a spline through the grid.
        standardize: Divide source columns by their standard deviations.
        extrapolate: Also fit on a quarter and a half of the rows, and extrapolate to infinitely many.
        shared_penalty: One penalty for all target features, as in the paper.
        key: Name of the array in files that hold several.
        target_key: Name of the target's array, where it is another.
    """
    from widthwise import files
    from widthwise.measures.span_error import span_error

    sides = files.sides(source, target, source_test, target_test, key, target_key)
    rows, scored = len(sides["source"]), len(sides.get("source_test", sides["source"]))
    result = span_error(
        **{name: side.matrix for name, side in sides.items()},
        split=split,
        folds=folds,
        groups=files.column(groups, "groups", scored) if groups else None,
        labels=files.column(labels, "labels", rows + scored * ("source_test" in sides)) if labels else None,
        penalties=_numbers(penalties, "--penalties") if penalties is not None else None,
        interpolate=interpolate,
        per_target=not shared_penalty,
        standardize=standardize,
        extrapolate=extrapolate,
    )
    facts: dict[str, Any] = result.to_dict()
    if common.json:
        _print({name: facts[name] for name in SPAN_KEYS if name != "path" or penalties is not None})
    else:
        _print(f"{result}\n\n{words.facts({name: facts[name] for name in SPAN_SUMMARY})}")


SPAN_SUMMARY = ("mean_all", "median", "variance_weighted", "worst", "within_class", "constant", "unsupported")
SPAN_SUMMARY += ("outlying", "rows", "rows_fit", "p", "p_live", "df", "extrapolated")
SPAN_KEYS = (
    "mean",
    "low",
    "high",
    "mean_all",
    "median",
    "variance_weighted",
    "worst",
    "per_feature",
    "penalty",
)
SPAN_KEYS += (
    "constant",
    "unsupported",
    "outlying",
    "constant_features",
    "unsupported_features",
    "rows",
    "rows_fit",
)
SPAN_KEYS += ("p", "p_live", "df", "within_class", "extrapolated", "path")


@app.command(name="list")
def list_(*families: str, common: Common = _NOTHING) -> None:
    """Say which networks, data sets, measures, studies and executors there are, and their options.

    Args:
        families: Some of: networks, data, measures, studies, executors.
    """
    from widthwise import catalogue

    groups = catalogue.families(families)
    if common.json:
        _print({group: [m.to_dict() for m in catalogue.members([group])] for group in groups})
    else:
        _print("\n\n".join(catalogue.listing(group) for group in groups))


@app.command
def show(name: str, /, *, base: str = "1", common: Common = _NOTHING) -> None:
    """Say what one name is: a member of `list`, a trained network of the store, or `schema` (of study files).

    Args:
        name: Such as resnet18, width_gap, resnet18-w1_4-s3-0f5bc19e, schema.
        base: For a network: the factor on the textbook's widths that width 1 stands for.
    """
    from widthwise import catalogue, config

    if name == "schema":
        _print(config.Study.model_json_schema())
        return
    found = catalogue.find(name)
    facts = found[0].to_dict() if found else _stored(name, common)
    sizes = {}
    if found and found[0].family == "networks":
        from widthwise import cost

        sizes = cost.sizes(name, base=config.as_width(base))
    if common.json:
        _print({**facts, **sizes})
    else:
        facts.pop("sentence", None)  # the docstring's first
        _print(words.facts(facts) + ("\n\n" + words.by_width(sizes) if sizes else ""))


def main() -> None:
    """Run the command line and exit with its code."""
    progress.speak_plainly()
    try:
        app(sys.argv[1:], print_error=False, exit_on_error=False, result_action="return_none")
        sys.stdout.flush()
    except CycloptsError as error:
        _fail(f"error: {_misused(error)}", UsageError.exit_code)
    except WidthwiseError as error:
        _fail(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        resume = "; run the same command again to resume" if set(sys.argv[1:2]) & {"run", "demo"} else ""
        _fail(f"interrupted{resume}", INTERRUPTED)
    except BrokenPipeError:  # whoever read stdout has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            _fail(f"error: {error}", 1)
        traceback.print_exc()
        _fail("this is a bug in widthwise: please report it, with the lines above and the command.", 1)


# Studies ------------------------------------------------------------------------------------------------


def _run(file: Path, preset: str | None, overrides: Sequence[str], common: Common) -> None:
    study, store = _study(file, preset, overrides, common), _store(common)
    _finish(_results(study, store, common), preset, store, common)


def _study(file: Path, preset: str | None, overrides: Sequence[str], common: Common) -> "Study":
    from widthwise import study_file
    from widthwise.config import Study, load_study

    _check(common)
    told = study_file.overrides(overrides, Study.model_fields, [*vars(common), "preset"])
    if common.data is not None:
        told["data.root"] = str(common.data)
    return load_study(file, preset=preset, overrides=told)


def _check(common: Common) -> None:
    if common.jobs is not None and common.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {common.jobs}.")
    if common.device == "cpu":
        return
    import torch

    if not re.fullmatch(r"cuda(:\d+)?", common.device):
        raise UsageError(f'--device must be cpu, cuda or a card such as cuda:1, not "{common.device}".')
    card = int(common.device.partition(":")[2] or 0)
    if card >= torch.cuda.device_count():
        there = f"{torch.cuda.device_count()} cards" if torch.cuda.is_available() else "no card"
        raise UsageError(f"--device {common.device}: torch {torch.__version__} sees {there}; cpu is the default.")


def _store(common: Common) -> "Store":
    from widthwise.store import Store

    return Store(common.store)


def _results(study: "Study", store: "Store", common: Common) -> "Results":
    from widthwise.executors import base as executors

    with progress.shown(quiet=common.quiet) as listener:
        return executors.run(study, store, device=common.device, jobs=common.jobs, listener=listener)


def _finish(results: "Results", preset: str | None, store: "Store", common: Common) -> None:
    """Write the report, then print the scores or a summary with the report's path."""
    from widthwise import cost
    from widthwise.report import page, tables

    if not results.rows:
        print(f"warning: {cost.NOTHING}", file=sys.stderr)
    name = "-".join(re.findall("[a-z0-9]+", f"{results.title} {preset or ''}".lower())) or "report"
    path = page.write(results, store.root / "reports" / name)
    if common.json:
        print(results.to_json())
    else:
        print(tables.summary(results))
        print()
        print(path)


# What is shown ------------------------------------------------------------------------------------------


def _stored(name: str, common: Common) -> dict[str, Any]:
    """Return what the store knows of one run."""
    from widthwise import catalogue

    store = _store(common)
    entry = store.get("runs", name)
    if entry is None:
        known = [member.name for member in catalogue.members()] + ["schema", *store.keys("runs")]
        raise UsageError(
            f'there is no "{name}": `widthwise list` has the members, and {store.root} has '
            f"{len(store.keys('runs'))} networks.{nearest(name, known)}"
        )
    return {"key": name, **entry.facts, "provenance": entry.provenance, "history": entry.json("history")}


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise UsageError(f'{option} takes numbers with commas between, such as 1e-6,1e-3, not "{text}".') from None


def _print(value: Any) -> None:
    """Print text as it is, anything else as one JSON document."""
    print(value if isinstance(value, str) else json.dumps(value, indent=1, default=str, allow_nan=False))


# Plain speech -------------------------------------------------------------------------------------------


def _misused(error: CycloptsError) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UnknownOptionError) and "." in text.rstrip("."):
        return f"{text} Values of the study go behind the file: run study.yaml --training.epochs 5."
    return text


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)
