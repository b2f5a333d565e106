"""The command line: results on stdout, progress and warnings on stderr, one clear error and no traceback.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted. Everything heavy is imported inside the verbs, so
that `widthwise --help` waits for neither torch nor numpy.
"""

import contextlib
import errno
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError

from widthwise import progress, words
from widthwise.command import NOTHING, Common, say
from widthwise.errors import UsageError, WidthwiseError, nearest
from widthwise.file_commands import gap, span

if TYPE_CHECKING:
    from widthwise.config import Study
    from widthwise.cost import Plan
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
app.command(span)
app.command(gap)
Overrides = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]


@app.command
def demo(*, common: Common = NOTHING) -> None:
    """Train, compare and report on 1,797 real handwritten digits: a minute or two, nothing to download."""
    _run(DEMO, None, (), common)


@app.command
def run(
    file: Path,
    /,
    *overrides: Overrides,
    preset: str | None = None,
    budget: str | None = None,
    common: Common = NOTHING,
) -> None:
    """Do what a study file asks for and is not in the store yet, and report. Stopped, it goes on from there.

    Values of the file are changed behind it: `run study.yaml --training.epochs 5 --widths [1,1/4]`.

    Args:
        file: A study file (YAML).
        preset: A name under the file's presets.
        budget: A time such as 30m or 2h: rows and epochs are picked to fit it, and said.
    """
    _run(file, preset, overrides, common, budget)


@app.command
def plan(
    file: Path,
    /,
    *overrides: Overrides,
    preset: str | None = None,
    budget: str | None = None,
    common: Common = NOTHING,
) -> None:
    """Say what a study file will train, how long that takes, and what is in the store already.

    Args:
        file: A study file (YAML).
        preset: A name under the file's presets. Left out, each of them is told too.
        budget: A time such as 30m or 2h: rows and epochs are picked to fit it, and said.
    """
    from widthwise import cost

    study = _study(file, preset, overrides, common, budget)
    found = cost.plan(study, _store(common), **common.means)
    each = {}
    if preset is None and budget is None:
        each = {name: _study(file, name, overrides, common) for name in study.presets}
    plans = {name: cost.plan(s, _store(common), **common.means) for name, s in each.items()}
    if common.json:
        say(found.to_dict() | {"presets": {name: plan.to_dict() for name, plan in plans.items()}})
    else:
        say(f"{found}" + (f"\n\n{_presets(each, plans)}" if plans else ""))


@app.command
def report(
    file: Path,
    /,
    *overrides: Overrides,
    preset: str | None = None,
    budget: str | None = None,
    common: Common = NOTHING,
) -> None:
    """Make a study's report again from what is in the store; trains nothing.

    Args:
        file: A study file (YAML).
        preset: A name under the file's presets.
        budget: The time that `run` was given, if it was.
    """
    from widthwise import cost

    study, store = _study(file, preset, overrides, common, budget), _store(common)
    missing = cost.missing(study, store)
    if missing:
        raise UsageError(
            f"{store.root} lacks {len(missing)} of the networks of {file} ({missing[0]} is the first): "
            f"`widthwise run {_again(file, overrides, preset, budget)}` trains them and reports."
        )
    _finish(_results(study, store, common), preset, store, common, budget)


@app.command
def clean(*, common: Common = NOTHING) -> None:
    """Delete from the store what can be made again from the rest: moment blocks. Networks, features, scores stay."""
    from widthwise import moment_blocks

    count, size = _store(common).clear(moment_blocks.KIND)
    told = f"Deleted {count:,} moment blocks, {words.size(size)}."
    say({"moment_blocks": count, "bytes": size} if common.json else told)


@app.command(name="list")
def list_(*families: str, common: Common = NOTHING) -> None:
    """Say which networks, data sets, measures, studies and executors there are, and their options.

    Args:
        families: Some of: networks, data, measures, studies, executors.
    """
    from widthwise import catalogue

    groups = catalogue.families(families)
    if common.json:
        say({group: [m.to_dict() for m in catalogue.members([group])] for group in groups})
    else:
        say("\n\n".join(catalogue.listing(group) for group in groups))


@app.command
def show(name: str, /, *, base: str = "1", common: Common = NOTHING) -> None:
    """Say what one name is: a member of `list`, a trained network of the store, or `schema` (of study files).

    Args:
        name: Such as resnet18, width_gap, resnet18-w1_4-s3-0f5bc19e, schema.
        base: For a network: the factor on the textbook's widths that width 1 stands for.
    """
    from widthwise import catalogue, config

    if name == "schema":
        say(config.Study.model_json_schema())
        return
    found = catalogue.find(name)
    facts = found[0].to_dict() if found else _stored(name, common)
    sizes = {}
    if found and found[0].family == "networks":
        from widthwise.networks import base as networks

        sizes = networks.sizes(name, base=config.as_width(base))
    if common.json:
        say({**facts, **sizes})
    else:
        facts.pop("sentence", None)  # the docstring's first
        say(words.facts(facts) + ("\n\n" + words.by_width(sizes) if sizes else ""))


def main() -> None:
    """Run the command line and exit with its code."""
    sys.path.append(str(Path.cwd()))  # where members of a user's own may lie
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
        told = traceback.format_exc()
        _fail(told + _blame(told), 1)


# Studies ------------------------------------------------------------------------------------------------


def _run(file: Path, preset: str | None, overrides: Sequence[str], common: Common, budget: str | None = None) -> None:
    study, store = _study(file, preset, overrides, common, budget), _store(common)
    _finish(_results(study, store, common), preset, store, common, budget)


def _again(file: Path, overrides: Sequence[str], preset: str | None, budget: str | None) -> str:
    """Return the arguments of a command that runs the same study."""
    told = {"--preset": preset, "--budget": budget}
    options = [part for name, value in told.items() if value for part in (name, value)]
    return shlex.join([str(file), *overrides, *options])


def _study(
    file: Path, preset: str | None, overrides: Sequence[str], common: Common, budget: str | None = None
) -> "Study":
    from widthwise import study_file
    from widthwise.config import Study, load_study

    common.check()
    told = study_file.overrides(overrides, Study.model_fields, [*vars(common), "preset", "budget"])
    if common.data is not None:
        told["data.root"] = str(common.data)
    study = load_study(file, preset=preset, overrides=told)
    if budget is None:
        return study
    from widthwise import budget as budgets

    within = budgets.seconds(budget)
    study, picked = budgets.fitted(study, _store(common), within, **common.means)
    print(picked, file=sys.stderr)
    return study


def _store(common: Common) -> "Store":
    from widthwise.store import Store

    return Store(common.store)


def _results(study: "Study", store: "Store", common: Common) -> "Results":
    from widthwise.executors import base as executors

    with _terminated_as_interrupted(), progress.shown(quiet=common.quiet) as listener:
        return executors.run(study, store, listener=listener, **common.means)


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Take SIGTERM, which clusters send before they kill, as Ctrl-C: what was done is saved.

    As whoever takes Ctrl-C now would; also where it is ignored, as in the background of a script.
    """

    def interrupt(_: int, frame: FrameType | None) -> None:
        taken = signal.getsignal(signal.SIGINT)
        (taken if callable(taken) else signal.default_int_handler)(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _finish(results: "Results", preset: str | None, store: "Store", common: Common, budget: str | None = None) -> None:
    """Write the report, then print the scores or a summary with the report's path."""
    from widthwise import plans
    from widthwise.report import page, tables

    if not results.rows:
        print(f"warning: {plans.NOTHING}", file=sys.stderr)
    named = results.title if results.title.lower().endswith(preset or "") else f"{results.title} {preset}"
    name = "-".join(re.findall("[a-z0-9]+", f"{named} {budget or ''}".lower())) or "report"
    path = page.write(results, page.place(results, store.root / "reports", name))
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
    if entry is None and Path(name).is_file() and Path(name).suffix in (".yaml", ".yml"):
        raise UsageError(f"{name} is a file: `widthwise plan {name}` says what a study file trains.")
    if entry is None:
        known = [member.name for member in catalogue.members()] + ["schema", *store.keys("runs")]
        raise UsageError(
            f'there is no "{name}": `widthwise list` has the members, and {store.root} has '
            f"{len(store.keys('runs'))} networks.{nearest(name, known)}"
        )
    return {"key": name, **entry.facts, "provenance": entry.provenance, "history": entry.json("history")}


# Plain speech -------------------------------------------------------------------------------------------


def _presets(studies: Mapping[str, "Study"], plans: Mapping[str, "Plan"]) -> str:
    lines = [("preset", "networks", "rows", "epochs", "here", "with one GPU")]
    for name, plan in plans.items():
        count = sum(w.networks for w in plan.widths)
        took = (words.duration(sum(plan.seconds.values())), words.duration(plan.gpu_seconds))
        lines.append((name, f"{count:,}", f"{plan.rows:,}", str(studies[name].training.epochs), *took))
    told = "With one GPU: at 10 TFLOP/s in training. An H200 does 6 with 4 channels and 97 with 64."
    return f"{words.table(lines)}\n{told}"


def _misused(error: CycloptsError) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UnknownOptionError) and re.search(r"--\w+\.\w", text):
        return f"{text} Values of the study go behind the file: run study.yaml --training.epochs 5."
    return text


def _blame(told: str) -> str:
    """Return whose bug a traceback shows: widthwise's, or that of a file of the user's own, met on the way."""
    known = [Path(__file__).parent, Path(os.__file__).parent, Path(sys.prefix), Path(sys.base_prefix)]
    files = re.findall(r'File "([^"<]+)"', told)
    own = [file for file in files if not any(Path(file).is_relative_to(folder) for folder in known)]
    if own:
        return f"the error is in {own[-1]}, or in what it gives widthwise: the lines above say where."
    return "this is a bug in widthwise: please report it, with the lines above and the command."


def _fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)
