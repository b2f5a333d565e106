"""Finding 3.1: can narrow networks, put together, span of a wide network what another wide one spans?

FSG = mean FSE(C_m(M_a) -> M_1) - mean FSE(M_1' -> M_1); above 0, they cannot. The paper's Figures 1, 7, 11.
"""

from collections.abc import Iterator
from fractions import Fraction

from widthwise.design import MATCHINGS, Comparison, Design, Scores
from widthwise.gap_rows import error_rows, feature_errors, finding, gap_rows, mean_row, percent
from widthwise.gaps import Gap, Term, headline, width_gaps
from widthwise.linalg.intervals import Interval
from widthwise.results import FeatureErrors, Finding, Row

STUDY = "width_gap"
CLAIM = "Narrow networks, put together, cannot fully capture the features of a wide one (finding 3.1)"


def comparisons(design: Design, scores: Scores, *, trained: bool = True) -> Iterator[Comparison]:
    """Yield the span errors of every concatenation, and of every other wide network, to every wide network.

    Args:
        trained: False for networks at initialisation.
    """
    for gap in width_gaps(design, trained, MATCHINGS):
        yield from gap.comparisons()
    for width in design.widths:
        yield from (term.comparison(headline("validation"), trained) for term in _equal_size(design, width))


def rows(design: Design, scores: Scores, *, trained: bool = True) -> list[Row]:
    """Return the span errors and gaps of every width, both matchings, three splits, and the verdicts."""
    gaps = list(width_gaps(design, trained, MATCHINGS))
    table = list(error_rows(gaps[0], scores, "second", "1")) if gaps else []
    for gap in gaps:
        table += error_rows(gap, scores, "first", str(gap.width))
        table += gap_rows(gap, scores, design)
    for width in design.widths:
        table += _equal_size_rows(design, scores, width, trained)
    return table


def findings(design: Design, scores: Scores, *, trained: bool = True) -> list[Finding]:
    """Return finding 3.1 in words: of trained networks, matched as the study file declares."""
    primary = [gap for gap in width_gaps(design, trained, MATCHINGS) if gap.matching == design.study.primary.matching]
    if not (trained and primary):
        return []
    return [finding(primary, scores, design, CLAIM, _sentence)]


def errors(design: Design, scores: Scores, *, trained: bool = True) -> list[FeatureErrors]:
    """Return per-feature errors of the baseline and of every width."""
    gaps = list(width_gaps(design, trained, MATCHINGS))
    baseline = [feature_errors(gaps[0], scores, "second")] if gaps else []
    return baseline + [feature_errors(gap, scores, "first") for gap in gaps]


def _equal_size(design: Design, width: Fraction) -> list[Term]:
    """Return wide networks put together to as many features as the narrow ones, to each other wide one.

    It separates "narrow" from "more regressors"; empty where there are too few wide networks, or no whole
    number of them has as many features.
    """
    wide, k = design.wide, design.wide_together(width)
    if k is None or k >= len(wide):
        return []
    terms = []
    for i, target in enumerate(wide):
        source = tuple(sorted(wide[(i + 1 + j) % len(wide)] for j in range(k)))
        units = frozenset(f"wide {net.seed}" for net in (*source, target))
        terms.append(Term(source, target, units, f"{STUDY} 1"))
    return terms


def _equal_size_rows(design: Design, scores: Scores, width: Fraction, trained: bool) -> list[Row]:
    terms = _equal_size(design, width)
    if not terms:
        return []
    gap = Gap(STUDY, width, None, trained, tuple(terms), (), ())
    return [mean_row(gap, scores, "mean_equal_size")]


def _sentence(gap: Gap, over: Interval) -> str:
    m, sign = len(gap.first[0].source), "more" if over.value >= 0 else "less"
    nets = f"{m} networks of width {gap.width}, together, miss" if m > 1 else f"A network of width {gap.width} misses"
    return f"{nets} {percent(over)} {sign} of the wide network's features than another wide one does."
