"""What a few features that no source fits do to a mean: with and without errors above 5. The paper's D.3.

The paper found errors far above 1 on test rows of untrained networks and left out the features above 5, 12 of
5,120. Features that vary on too few rows are what gives them: `mean` leaves those out by their support, before
any error is known.
"""

from collections.abc import Iterator, Sequence

import torch

from widthwise.design import Comparison, Design, Scores
from widthwise.gap_rows import names
from widthwise.gaps import Gap, Side, Term, headline, width_gaps
from widthwise.measures.span_error import OUTLYING
from widthwise.results import FeatureErrors, Finding, Row

STUDY = "outliers"
SPLITS = ("validation", "test")
SIDES: tuple[Side, ...] = ("second", "first")


def comparisons(design: Design, scores: Scores) -> Iterator[Comparison]:
    """Yield the span errors of untrained and trained networks on validation and test rows."""
    for gap in _gaps(design):
        for split in SPLITS:
            yield from (term.comparison(headline(split), gap.trained) for term in gap.first + gap.second)


def rows(design: Design, scores: Scores) -> list[Row]:
    """Return the mean over features that vary, with and without those above 5; their number; the supported mean."""
    table = []
    for gap in _gaps(design):
        for side in SIDES[gap.width != design.widths[0] :]:  # the baseline once
            table += [row for split in SPLITS for row in _rows(gap, scores, split, side)]
    return table


def findings(design: Design, scores: Scores) -> list[Finding]:
    """Return nothing: it is about how numbers are made, not about networks."""
    return []


def errors(design: Design, scores: Scores) -> list[FeatureErrors]:
    """Return nothing: `width_gap` shows these errors feature by feature."""
    return []


def _gaps(design: Design) -> Iterator[Gap]:
    for trained in (False, True):
        yield from width_gaps(design, trained)


def _rows(gap: Gap, scores: Scores, split: str, side: Side) -> Iterator[Row]:
    terms: Sequence[Term] = getattr(gap, side)
    arrays = [scores[term.comparison(headline(split), gap.trained)].arrays for term in terms]
    error = torch.cat([a["per_feature"] for a in arrays])
    supported = torch.cat([a["supported"] for a in arrays])
    varies = ~error.isnan()
    outlying = varies & (error > OUTLYING)
    width, matching = ("1", None) if side == "second" else (str(gap.width), gap.matching)
    found = {
        "mean_all": float(error[varies].mean()),
        "mean_without_outlying": float(error[varies & ~outlying].mean()),
        "mean": gap.mean(scores, headline(split), side),
        "outlying": float(outlying.sum()),
        "outlying_and_supported": float((outlying & supported).sum()),
        "features": float(varies.sum()),
    }
    for statistic, value in found.items():
        where = (split, gap.trained, width, matching)
        yield Row(STUDY, "span_error", statistic, *where, **names(gap, side), value=value)
