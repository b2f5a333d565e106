"""Does the gap stand when rows that trained the networks and test rows are mixed? The paper's D.4, Tables 4 and 5.

The error on mixed rows is close to the mixture of the two errors; mixing does not remove the dependence of features
on the rows that trained them. Rows that trained no network, `unseen`, are the split without it.
"""

from collections.abc import Iterator
from typing import Literal

from widthwise.design import Comparison, Design, Scores
from widthwise.gap_rows import interval_fields, names
from widthwise.gaps import SPLITS, Gap, Side, Variant, headline, width_gaps
from widthwise.results import FeatureErrors, Finding, Row

STUDY = "shuffled"
SIDES: tuple[Literal["first", "gap"], ...] = ("first", "gap")
VARIANTS = (*(headline(split) for split in SPLITS), Variant("mean", "shuffled"))


def comparisons(design: Design, scores: Scores) -> Iterator[Comparison]:
    """Yield the span errors of every concatenation, and of every other wide network, on four splits."""
    for gap in width_gaps(design):
        for variant in VARIANTS:
            yield from (term.comparison(variant, True) for term in gap.first + gap.second)


def rows(design: Design, scores: Scores) -> list[Row]:
    """Return span errors and gaps on all four splits, with intervals over rows."""
    table, gaps = [], list(width_gaps(design))
    for gap in gaps[:1]:
        table += [_row(gap, scores, variant, "second") for variant in VARIANTS]
    for gap in gaps:
        table += [_row(gap, scores, variant, which) for which in SIDES for variant in VARIANTS]
    return table


def findings(design: Design, scores: Scores) -> list[Finding]:
    """Return nothing: the splits that decide a claim are those of `width_gap`."""
    return []


def errors(design: Design, scores: Scores) -> list[FeatureErrors]:
    """Return nothing: `width_gap` shows these errors feature by feature."""
    return []


def _row(gap: Gap, scores: Scores, variant: Variant, which: Side | Literal["gap"]) -> Row:
    over = gap.over_rows(scores, variant, which)
    side: Side = "second" if which == "second" else "first"
    width, matching = ("1", None) if side == "second" else (str(gap.width), gap.matching)
    measure = "span_gap" if which == "gap" else "span_error"
    where = (variant.split, True, width, matching)
    return Row(STUDY, measure, "mean", *where, **names(gap, side), **interval_fields(over))
