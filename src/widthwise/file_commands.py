"""The commands that measure files of features, whoever trained the networks: span and gap."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from widthwise import progress, words
from widthwise.command import NOTHING, Common, Whole, say
from widthwise.errors import UsageError


def span(
    source: Path,
    target: Path,
    /,
    *,
    split: str = "validation",
    source_test: Path | None = None,
    target_test: Path | None = None,
    folds: Whole = 5,
    groups: Path | None = None,
    labels: Path | None = None,
    penalties: str | None = None,
    interpolate: bool = True,
    standardize: Annotated[bool, Parameter(negative="")] = False,
    extrapolate: Annotated[bool, Parameter(negative="")] = False,
    shared_penalty: Annotated[bool, Parameter(negative="")] = False,
    both: Annotated[bool, Parameter(negative="")] = False,
    precision: str = "float64",
    key: str | None = None,
    target_key: str | None = None,
    common: Common = NOTHING,
) -> None:
    """Say how badly one file of features spans another: held-out 1 - R^2 of every target feature.

    Files are .npy, .npz, .safetensors or .parquet, of (rows, features), or folders of one of these kinds, whose files
    follow each other in the natural order of their names. They are read a few rows at a time (a compressed .npz,
    whole). Row ids that they hold under the name `ids` are checked.

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
        both: Also how badly the target spans the source, from the same pass over the rows.
        precision: "float64", or "float32_chunks", which is faster, for 3e-7 in an error; not for steep spectra.
        key: Name of the array in files that hold several.
        target_key: Name of the target's array, where it is another.
    """
    from widthwise import arrays, files
    from widthwise.measures.span_error import SpanError, between

    common.check()
    given = [side is not None for side in (source_test, target_test)]
    if split == "test" and not all(given):
        raise UsageError("--split test needs --source-test and --target-test: the features of the rows to score.")
    if split == "validation" and any(given):
        raise UsageError("--source-test and --target-test belong to --split test.")
    sides = files.sides(source, target, source_test, target_test, key, target_key)
    tests = {name: sides.pop(f"{name}_test", None) for name in ("source", "target")}
    rows, scored = len(sides["source"]), len(tests["source"] or sides["source"])
    with progress.patient(quiet=common.quiet) as tell:
        joint = arrays.joint(
            sides,
            tests,
            split,
            folds=folds,
            groups=files.column(groups, "groups", scored) if groups else None,
            labels=files.column(labels, "labels", rows + scored * (tests["source"] is not None)) if labels else None,
            nested=extrapolate,
            sources=None if both else ("source",),
            precision=precision,
            device=common.device,
            tell=tell,
        )
        results = [
            between(
                joint,
                *names,
                penalties=_numbers(penalties, "--penalties") if penalties is not None else None,
                interpolate=interpolate,
                per_target=not shared_penalty,
                standardize=standardize,
                extrapolate=extrapolate,
            )
            for names in (("source", "target"), ("target", "source"))[: 1 + both]
        ]
    names = {"source": str(source), "target": str(target)}
    results = [replace(r, source=names[r.source], target=names[r.target]) for r in results]
    if common.json:
        shown = [name for name in SPAN_KEYS if name != "path" or penalties is not None]
        told = [{name: facts[name] for name in shown} for facts in map(SpanError.to_dict, results)]
        say(dict(zip(("source_to_target", "target_to_source"), told, strict=True)) if both else told[0])
    else:
        told = [words.for_json({name: getattr(result, name) for name in SPAN_SUMMARY}) for result in results]
        say("\n\n".join(f"{r}\n\n{words.facts(facts)}" for r, facts in zip(results, told, strict=True)))


SPAN_SUMMARY = ("mean_all", "median", "variance_weighted", "worst", "within_class", "constant", "unsupported")
SPAN_SUMMARY += ("outlying", "rows", "rows_fit", "p", "p_live", "df", "extrapolated")
SPAN_KEYS = ("mean", "low", "high", "mean_all", "median")
SPAN_KEYS += ("variance_weighted", "worst", "per_feature", "penalty", "constant", "unsupported", "outlying")
SPAN_KEYS += ("constant_features", "unsupported_features", "rows", "rows_fit", "p", "p_live", "df", "within_class")
SPAN_KEYS += ("extrapolated", "path")


Several = Annotated[list[Path], Parameter(consume_multiple=True, negative="")]


def gap(
    *,
    wide: Several,
    narrow: Several,
    matching: str = "parameters",
    count: Whole | None = None,
    wide_test: Several | None = None,
    narrow_test: Several | None = None,
    folds: Whole = 5,
    groups: Path | None = None,
    labels: Path | None = None,
    margin: float = 0.002,
    widths: Whole = 1,
    precision: str = "float64",
    key: str | None = None,
    common: Common = NOTHING,
) -> None:
    """Say how much more of a wide network narrow ones together miss than another wide one does.

    Networks are given as files of features, such as `--wide A.npy B.npy C.npy`, or as one folder with a file for
    each: .npy, .npz, .safetensors or .parquet, of (rows, features), all on the same rows. A network may be a folder of
    such files, too. Row ids that they hold under the name `ids` are checked.

    Args:
        wide: Features of 2 or more wide networks; of 3 or more for an interval over networks and a verdict.
        narrow: Features of narrow networks of one width; in this order they make disjoint concatenations.
        matching: "features": as many narrow networks as have a wide one's features; "parameters": --count.
        count: How many narrow networks have as many parameters as a wide one.
        wide_test: The wide networks' features of rows that no network was trained on, in the same order.
        narrow_test: The same of the narrow networks; without both, a verdict can deny the finding, not confirm it.
        folds: How many folds.
        groups: A file of one value a row (.npy, .txt, .csv); rows of one group are never split.
        labels: A file of one class a row; gives the within-class gap too.
        margin: What counts as a gap, at the least.
        widths: How many narrow widths are looked at: the level of a verdict's interval is 1 - 0.05 / widths.
        precision: "float64", or "float32_chunks", which is faster, for 3e-7 in an error; not for steep spectra.
        key: Name of the array in files that hold several.
    """
    from widthwise import files
    from widthwise.array_gap import span_gap

    common.check()
    if bool(wide_test) != bool(narrow_test):
        raise UsageError("--wide-test and --narrow-test are given together, or neither.")
    sides = {"wide": wide, "narrow": narrow, "wide_test": wide_test, "narrow_test": narrow_test}
    read = files.fleets({name: given for name, given in sides.items() if given}, key)
    rows = len(read["wide"][0])
    with progress.patient(quiet=common.quiet) as tell:
        result = span_gap(
            **read,
            matching=matching,
            count=count,
            folds=folds,
            groups=files.column(groups, "groups", rows) if groups else None,
            labels=files.column(labels, "labels", rows) if labels else None,
            margin=margin,
            widths=widths,
            precision=precision,
            device=common.device,
            tell=tell,
        )
    facts = result.to_dict()
    say(facts if common.json else f"{result}\n\n{words.facts({name: facts[name] for name in GAP_SUMMARY})}")


GAP_SUMMARY = ("standardized", "within_class", "extrapolated", "elsewhere", "margin", "level", "matching", "count")
GAP_SUMMARY += ("concatenations", "left_over", "wide", "narrow_features", "wide_features", "rows", "rows_fit", "df")


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise UsageError(f'{option} takes numbers with commas between, such as 1e-6,1e-3, not "{text}".') from None
