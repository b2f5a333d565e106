"""The span gap of networks that somebody else trained, from their features alone.

FSG = mean FSE(C_c -> M_i) - mean FSE(M_k -> M_i), k != i: wide networks M, narrow ones put together C. Above 0: the
narrow ones, together, cannot do what another wide one does (DEFINITIONS 4, finding 3.1).
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from numbers import Real
from typing import Any

from widthwise import arrays, gap_rows, gaps, scoring
from widthwise.design import Comparison, Net, Scores
from widthwise.errors import DataError, NumericsWarning, UsageError
from widthwise.gaps import Gap, headline
from widthwise.linalg import intervals
from widthwise.linalg.intervals import Interval
from widthwise.measures.base import Score
from widthwise.measures.span_error import CROWDED
from widthwise.pairs import SUPPORT_ROWS, Joint, Tell, silent
from widthwise.words import for_json

TOGETHER = 6144  # columns of one joint: its moments take 60 bytes for each pair of columns
STANDARDIZED, WITHIN_CLASS = (
    next(v for v in gaps.variants() if v.split == "validation" and v.statistic == f"mean_{name}")
    for name in ("standardized", "within_class")
)


@dataclass(frozen=True)
class SpanGap:
    """How much more of a wide network narrow ones together miss than another wide one does.

    Attributes:
        value: mean of `narrow_errors` less mean of `wide_errors`; the headline, on validation rows. low, high: its
            95 % interval over networks, by `method` with `df`; NaN where there are too few to leave one out.
        row_low, row_high: its 95 % interval over rows, the fits held fixed; NaN where there are fewer than 50.
        narrow_errors: (concatenations, wide) span error of each concatenation to each wide network, A.
        wide_errors: (wide, wide) of each wide network to each other one, B; NaN on the diagonal.
        verdict: "confirmed", "opposite", "not confirmed here" or "below resolution" of finding 3.1 at this width, by
            the interval at `level` and the `margin`; `unchecked` are the splits that it could not be read on.
        elsewhere: the gap on each other split, with its interval over rows.
        extrapolated: the gap in infinitely many rows, "richardson" and (where it exists) "aitken".
        standardized: the gap with standardised sources. within_class: with class means partialled out.
        count: narrow networks in a concatenation. left_over: narrow networks in none.
        rows, rows_fit: rows scored, and rows of one fit.
    """

    value: float
    low: float
    high: float
    row_low: float
    row_high: float
    narrow_error: float
    wide_error: float
    narrow_errors: tuple[tuple[float, ...], ...]
    wide_errors: tuple[tuple[float, ...], ...]
    verdict: str
    margin: float
    level: float
    unchecked: tuple[str, ...]
    elsewhere: dict[str, dict[str, float]]
    extrapolated: dict[str, float | None]
    standardized: float
    within_class: float | None
    matching: str
    count: int
    concatenations: int
    left_over: int
    wide: int
    narrow_features: int
    wide_features: int
    rows: int
    rows_fit: int
    method: str
    df: float | None
    interval_over: str = "networks"

    def __str__(self) -> str:
        over = Interval(self.value, self.low, self.high, 0.95, self.interval_over, self.method, self.df)
        who = f"{self.count} narrow networks, together, miss" if self.count > 1 else "a narrow network misses"
        sign = "more" if self.value >= 0 else "less"
        left_over = f", {self.left_over} left over" if self.left_over else ""
        rows = f", [{self.row_low:+.4f}, {self.row_high:+.4f}] over rows" if math.isfinite(self.row_low) else ""
        unread = f" (not checked on {' and '.join(self.unchecked)} rows)" if self.unchecked else ""
        return (
            f"{who} {gap_rows.percent(over)} {sign} of a wide network's features than another wide one does: "
            f"narrow -> wide {self.narrow_error:.4f} ({self.concatenations} x {self.count} narrow{left_over}), "
            f"wide -> wide {self.wide_error:.4f} ({self.wide} wide), "
            f"gap {gap_rows.signed(over)}{rows}; {self.verdict}{unread}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON: NaN and infinity become None."""
        return for_json({f.name: getattr(self, f.name) for f in fields(self)})

    def to_frame(self):
        """Return one row a span error as a pandas DataFrame (needs pandas, which Widthwise does not)."""
        import pandas

        sides = (("narrow", self.narrow_errors), ("wide", self.wide_errors))
        told = [
            {"source": f"{side}[{k}]", "target": f"wide[{i}]", "error": error}
            for side, errors in sides
            for k, of in enumerate(errors)
            for i, error in enumerate(of)
            if side == "narrow" or k != i
        ]
        return pandas.DataFrame(told)

    def _repr_html_(self) -> str:
        shown = ("value", "low", "high", "row_low", "row_high", "narrow_error", "wide_error", "standardized", "margin")
        cells = "".join(f"<tr><th>{name}</th><td>{getattr(self, name):.4g}</td></tr>" for name in shown)
        return f"<table><caption>{str(self).replace('>', '&gt;')}</caption>{cells}</table>"


def span_gap(
    wide: Sequence[Any],
    narrow: Sequence[Any],
    *,
    matching: str = "parameters",
    count: int | None = None,
    wide_test: Sequence[Any] | None = None,
    narrow_test: Sequence[Any] | None = None,
    folds: int = 5,
    groups: Any = None,
    labels: Any = None,
    margin: float = 0.002,
    widths: int = 1,
    precision: str = "float64",
    device: str | None = None,
    tell: Tell | None = None,
) -> SpanGap:
    """Return how much more of a wide network narrow ones together miss than another wide one does.

    Args:
        wide: features (rows, d) of 2 or more wide networks that differ by seed, on the same rows; for an interval over
            networks and a verdict, 3 or more. Each in any form that `span_error` takes.
        narrow: features of narrow networks of one width, on those rows. In the order given they are cut into
            disjoint concatenations, as many as there are enough for.
        matching: how many narrow networks stand against a wide one. "features": the fewest with as many features;
            "parameters": `count`, since arrays do not say how many parameters made them.
        count: with `matching="parameters"`, see `count_matching`.
        wide_test: features of the wide networks, in the same order, on rows that no network was trained on. With
            `narrow_test` the gap is also taken on the "test" split (fitted on the rows, scored on these) and
            on the "unseen" one (folds over these); without, finding 3.1 can be denied, but not confirmed.
        narrow_test: the same of the narrow networks.
        folds: number of folds.
        groups: (rows,) rows of one group are never split.
        labels: (rows,) classes; `within_class` is then the gap with class means partialled out.
        margin: what counts as a gap, at the least; a tenth of the wide networks' own span error, if that is more.
        widths: how many narrow widths are looked at: a verdict's interval has the level 1 - 0.05 / widths.
        precision: "float64" or "float32_chunks", see `span_error`; `device` too.
        tell: is told how far it is: "features" or "scores", what is done, all there is.

    Raises:
        UsageError: for too few networks, a margin below 0, or options that cannot be.
        DataError: for features that are not finite, or whose rows or widths do not match.

    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> known = torch.randn(2000, 12, generator=draw)
        >>> wide = [known @ torch.randn(12, 16, generator=draw) for _ in range(3)]
        >>> narrow = [known[:, :9] @ torch.randn(9, 8, generator=draw) for _ in range(4)]
        >>> span_gap(wide, narrow, matching="features").value > 0.1
        True
    """
    if isinstance(margin, bool) or not isinstance(margin, Real) or not 0 <= margin < math.inf:
        raise UsageError(f"margin must be a number, 0 or more; not {margin!r}.")
    sides = arrays.networks(wide=wide, narrow=narrow)
    S, N = (sum(name.startswith(side) for name in sides) for side in ("wide[", "narrow["))
    if S < 2:
        raise UsageError(
            "a span gap needs 2 or more wide networks, since one is the yardstick of another; 1 is given. For one "
            "wide network, the span error of the narrow ones together (concatenate, `widthwise span`) says what they "
            "span of it."
        )
    d_wide, d_narrow = sides["wide[0]"].columns, sides["narrow[0]"].columns
    m = _count(matching, count, d_wide, d_narrow, N)
    names = dict(zip(_nets(S, N, Fraction(d_narrow, d_wide)), sides, strict=True))
    nets, R = list(names), N // m
    gap = gaps.span_gap("span_gap", nets[:S], [nets[S + c * m : S + (c + 1) * m] for c in range(R)], nets[-1].width)
    kept = {"precision": precision, "device": device, "tell": _of_features(tell)}
    joints = _joints(
        sides, arrays.networks_tests(wide_test, narrow_test, sides), folds=folds, groups=groups, labels=labels, **kept
    )
    columns = S * d_wide + R * m * d_narrow
    scores = _scores(gap, names, joints, _variants(joints, labels), columns, tell or silent)
    _warn(gap, scores)
    return SpanGap(
        **_numbers(gap, scores, list(joints), labels is not None),
        **_verdict(gap, scores, list(joints), margin, widths, S),
        matching=matching,
        count=m,
        concatenations=R,
        left_over=N - R * m,
        wide=S,
        narrow_features=d_narrow,
        wide_features=d_wide,
    )


# What is given ------------------------------------------------------------------------------------------


def _count(matching: str, count: int | None, d_wide: int, d_narrow: int, N: int) -> int:
    """Return how many narrow networks stand against one wide network."""
    if matching not in ("parameters", "features"):
        raise UsageError(f'matching must be "parameters" or "features", not {matching!r}.')
    if matching == "features" and count is not None:
        raise UsageError("count belongs to matching by parameters; by features it follows from the features.")
    if matching == "parameters" and count is None:
        raise UsageError(
            "features do not say how many parameters their networks have: give count (--count), how many narrow "
            'networks have as many as a wide one (see count_matching), or matching="features" (--matching features).'
        )
    m = -(-d_wide // d_narrow) if count is None else count
    if isinstance(m, bool) or not isinstance(m, int) or not 1 <= m <= N:
        raise UsageError(
            f"{m} narrow networks stand against one wide network, matched by {matching}, and {N} are given; "
            f"{'count must be a whole number from 1 on, and ' if count is not None else ''}at least one "
            "concatenation of them is needed."
        )
    return m


def _nets(S: int, N: int, width: Fraction) -> list[Net]:
    """Return a net for every array, numbered through: what is known of its width is its share of features."""
    return [Net(Fraction(1), k) for k in range(S)] + [Net(width, S + k) for k in range(N)]


# Scores -------------------------------------------------------------------------------------------------

Joints = dict[str, Callable[[Iterable[str]], Joint]]


def _joints(sides: Mapping[str, Any], tests: Mapping[str, Any], *, folds, groups, labels, **kept: Any) -> Joints:
    """Return, for each split that there are rows for, what makes the joint of some networks by name."""

    def named(given: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
        return {name: given[name] for name in names}

    options = {"folds": folds, "groups": groups, "labels": labels, "nested": True, **kept}
    joints: Joints = {"validation": lambda names: arrays.folded(named(sides, names), **options)}
    if tests:
        joints["test"] = lambda names: arrays.with_tests(named(sides, names), named(tests, names), **kept)
        joints["unseen"] = lambda names: arrays.folded(named(tests, names), "unseen", folds=folds, **kept)
    return joints


def _variants(splits: Iterable[str], labels: Any) -> list[gaps.Variant]:
    """Return the variants of a span error that can be had: within classes on the rows that have labels."""
    names = {"mean", "mean_standardized"}
    return [
        variant
        for variant in gaps.variants()
        if variant.split in splits and (variant.statistic in names or (variant == WITHIN_CLASS and labels is not None))
    ]


def _scores(
    gap: Gap, names: Mapping[Net, str], joints: Joints, among: list[gaps.Variant], columns: int, tell: Tell
) -> Scores:
    """Return the scores of all comparisons of the gap; `columns` are the features of all networks together."""

    def name(net: Net, of: str) -> str:
        return names[net]

    wanted = list(dict.fromkeys(gap.comparisons(among)))
    scores: dict[Comparison, Score] = {}
    for split, comparisons in _passes(wanted, columns > TOGETHER):
        joint = joints[split](dict.fromkeys(names[net] for c in comparisons for net in c.networks))
        beside = scoring.neighbours(comparisons, name)
        for c in sorted(comparisons, key=scoring.fit):
            scores[c] = scoring.score(c, joint, beside, name)
            if math.isnan(scores[c].value):
                within = dict(c.options).get("within_class", False)
                raise DataError(
                    f"{names[c.target[0]]}: none of its features varies on {SUPPORT_ROWS:.0f} effective rows or more "
                    f"of the {split} ones (a Gaussian feature on a third of them). Use more rows"
                    f"{' for a class; are labels classes?' if within else ', or leave it out if it does not vary.'}"
                )
            tell("scores", len(scores), len(wanted))
    return scores


def _passes(wanted: Sequence[Comparison], short: bool) -> Iterator[tuple[str, list[Comparison]]]:
    """Yield what is computed in one pass over a split's rows: all, or where memory is short, one concatenation's."""
    found: dict[tuple[str, str], list[Comparison]] = {}
    for c in wanted:
        found.setdefault((c.split, c.together if short else ""), []).append(c)
    yield from ((split, comparisons) for (split, _), comparisons in found.items())


def _of_features(tell: Tell | None) -> Tell:
    """Return what a joint tells: of its first pass only, since every score makes another over the rows."""

    def told(stage: str, done: float, total: float) -> None:
        if tell is not None and stage == "features":
            tell(stage, done, total)

    return told


# What they say ------------------------------------------------------------------------------------------


def _numbers(gap: Gap, scores: Scores, splits: list[str], within_class: bool) -> dict[str, Any]:
    """Return the gap with its intervals, the errors it is made of, and what it is read beside."""
    head, S = headline("validation"), len(gap.factors[0])
    over, rows = gap.over_networks(scores, head), _over_rows(gap, scores, "validation")
    assert over is not None
    first = [scores[term.comparison(head, True)] for term in gap.first]
    second = iter([scores[term.comparison(head, True)].value for term in gap.second])
    return {
        "value": over.value,
        "low": over.low,
        "high": over.high,
        "method": over.method,
        "df": over.df,
        "row_low": rows["low"],
        "row_high": rows["high"],
        "narrow_error": gap.mean(scores, head, "first"),
        "wide_error": gap.mean(scores, head, "second"),
        "narrow_errors": tuple(tuple(s.value for s in first[k : k + S]) for k in range(0, len(first), S)),
        "wide_errors": tuple(tuple(math.nan if i == k else next(second) for i in range(S)) for k in range(S)),
        "elsewhere": {split: _over_rows(gap, scores, split) for split in splits[1:]},
        "extrapolated": {limit: gap.extrapolated(scores, limit) for limit in ("richardson", "aitken")},
        "standardized": gap.value(scores, STANDARDIZED),
        "within_class": gap.value(scores, WITHIN_CLASS) if within_class else None,
        "rows": first[0].values["rows"],
        "rows_fit": first[0].values["rows_fit"],
    }


def _over_rows(gap: Gap, scores: Scores, split: str) -> dict[str, float]:
    """Return the gap on a split with its interval over rows, which needs 50 of them."""
    head = headline(split)
    if scores[gap.first[0].comparison(head, True)].values["low"] is None:
        return {"value": gap.value(scores, head), "low": math.nan, "high": math.nan}
    over = gap.over_rows(scores, head, "gap")
    return {"value": over.value, "low": over.low, "high": over.high}


def _verdict(gap: Gap, scores: Scores, splits: list[str], least: float, widths: int, wide: int) -> dict[str, Any]:
    """Return the word for finding 3.1 at this width, and what decides it."""
    level, head = intervals.verdict_level(widths), headline("validation")
    interval, d = gap.over_networks(scores, head, level), max(least, 0.1 * gap.mean(scores, head, "second"))
    assert interval is not None
    return {
        "verdict": gap_rows.judged(gap, scores, interval, d, wide, splits),
        "margin": d,
        "level": level,
        "unchecked": tuple(split for split in gaps.SPLITS if split not in splits),
    }


def _warn(gap: Gap, scores: Scores) -> None:
    head = headline("validation")
    if min(scores[term.comparison(head, True)].values["p_live"] for term in gap.first) == 0:
        warnings.warn("narrow networks have no feature that varies: they span nothing.", NumericsWarning, stacklevel=3)
    crowded = max(s.values["df"] / s.values["rows_fit"] for s in scores.values())
    if crowded > CROWDED:
        warnings.warn(
            f"effective degrees of freedom are up to {100 * crowded:.0f} % of the rows of a fit: errors would be lower "
            "with more rows, most of all those of many features. Read the gap beside its extrapolations, or use more.",
            NumericsWarning,
            stacklevel=3,
        )
