"""The reverse of finding 3.1: can a wide network span narrow ones as well as other narrow ones together do?

gap = mean FSE(M_1 -> M_a) - mean FSE(C_m(M_a)' -> M_a), m matched by features; above 0, it cannot. Every narrow
network is a target. The paper's Figures 2, 8, 13, 14.
"""

from collections.abc import Iterator
from fractions import Fraction

from widthwise.design import Comparison, Design, Net, Scores
from widthwise.gap_rows import error_rows, feature_errors, finding, gap_rows, mean_row, percent
from widthwise.gaps import Gap, Term, headline
from widthwise.linalg.intervals import Interval
from widthwise.results import FeatureErrors, Finding, Row

STUDY = "reverse_gap"
CLAIM = "A wide network cannot fully capture the features of sufficiently narrow ones"
MORE_WIDE = (2, 4)  # wide networks put together, printed beside the gap


def comparisons(design: Design, scores: Scores, *, trained: bool = True) -> Iterator[Comparison]:
    """Yield the span errors of every wide network, and of other narrow ones together, to every narrow one.

    Args:
        trained: False for networks at initialisation.
    """
    for gap in _gaps(design, trained):
        yield from gap.comparisons()
        for k in MORE_WIDE:
            yield from (t.comparison(headline("validation"), trained) for t in _more_wide(design, gap.width, k))


def rows(design: Design, scores: Scores, *, trained: bool = True) -> list[Row]:
    """Return the span errors and gaps of every width on three splits, and the verdicts."""
    table: list[Row] = []
    for gap in _gaps(design, trained):
        table += error_rows(gap, scores, "first", str(gap.width))
        table += error_rows(gap, scores, "second", str(gap.width))
        table += gap_rows(gap, scores, design)
        for k in MORE_WIDE:
            table += _more_wide_rows(design, scores, gap.width, k, trained)
    return table


def findings(design: Design, scores: Scores, *, trained: bool = True) -> list[Finding]:
    """Return the reverse finding in words, of trained networks."""
    gaps = list(_gaps(design, trained))
    return [finding(gaps, scores, design, CLAIM, _sentence)] if trained and gaps else []


def errors(design: Design, scores: Scores, *, trained: bool = True) -> list[FeatureErrors]:
    """Return per-feature errors of the wide network to a narrow one, for every width."""
    return [feature_errors(gap, scores, "first") for gap in _gaps(design, trained)]


def groups(nets: tuple[Net, ...], m: int) -> list[tuple[Net, ...]]:
    """Return narrow networks in groups of m in seed order; the leftovers are no group."""
    return [nets[start : start + m] for start in range(0, len(nets) - m + 1, m)]


def _gaps(design: Design, trained: bool) -> Iterator[Gap]:
    for width in design.widths:
        if len(groups(design.narrow(width), design.matching(width, "features"))) >= 2:
            yield _gap(design, width, trained)


def _gap(design: Design, width: Fraction, trained: bool) -> Gap:
    nets, together = design.narrow(width), f"{STUDY} {width}"
    grouped = groups(nets, design.matching(width, "features"))
    group_of = {net: g for g, group in enumerate(grouped) for net in group}
    wide = [
        Term((source,), target, frozenset({f"wide {source.seed}", _unit(group_of.get(target))}), together)
        for source in design.wide
        for target in nets
    ]
    narrow = []
    for target in nets:
        own = group_of.get(target)
        other = 0 if own is None else (own + 1) % len(grouped)  # leftovers are fitted from group 0
        units = frozenset({_unit(own), _unit(other)})
        narrow.append(Term(grouped[other], target, units, together))
    factors = (
        tuple(f"wide {net.seed}" for net in design.wide),
        tuple(_unit(g) for g in range(len(grouped))),
    )
    at = design.equal_accuracy([*design.wide, *nets])
    return Gap(STUDY, width, "features", trained, tuple(wide), tuple(narrow), factors, at=at)


def _unit(group: int | None) -> str:
    return "leftovers" if group is None else f"group {group}"


def _more_wide(design: Design, width: Fraction, k: int) -> list[Term]:
    if len(design.wide) < k:
        return []
    source, together = design.wide[:k], f"{STUDY} {width}"
    return [Term(source, target, frozenset(), together) for target in design.narrow(width)]


def _more_wide_rows(design: Design, scores: Scores, width: Fraction, k: int, trained: bool) -> list[Row]:
    terms = tuple(_more_wide(design, width, k))
    if not terms:
        return []
    gap = Gap(STUDY, width, "features", trained, terms, (), ())
    return [mean_row(gap, scores, "mean_more_wide")]


def _sentence(gap: Gap, over: Interval) -> str:
    m, sign = len(gap.second[0].source), "more" if over.value >= 0 else "less"
    others = f"{m} others of that width, together, do" if m > 1 else "another of that width does"
    narrow = f"the features of a network of width {gap.width}"
    return f"One wide network misses {percent(over)} {sign} of {narrow} than {others}."
