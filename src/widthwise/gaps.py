"""A gap between two groups of span errors: its variants, its intervals over networks and rows, its rows.

gap = mean of the first terms - mean of the second. A term falls away with any of its units; that is how the
jackknife leaves a network out (DEFINITIONS 4).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import torch

from widthwise import seeds, verdicts
from widthwise.design import Comparison, Design, Matching, Net, Scores, described, left_out, snapshot
from widthwise.linalg import intervals, limits
from widthwise.linalg.intervals import Interval
from widthwise.results import FeatureErrors, Finding, Row

SPLITS = ("validation", "test", "unseen")
PLAIN = ("mean_all", "median", "variance_weighted", "worst", "constant", "unsupported", "outlying")
Of = Literal["features", "logits"]
Side = Literal["first", "second"]


@dataclass(frozen=True)
class Variant:
    """One way of asking for a span error; `statistic` is its name in a table.

    `at` is the snapshot of all networks, where that is not the end or the start of training.
    """

    statistic: str
    split: str
    of: Of = "features"
    options: tuple[tuple[str, bool], ...] = ()
    at: str | None = None


def headline(split: str) -> Variant:
    """Return the variant that a split's mean is read from; on validation it is extrapolated in n too."""
    return Variant("mean", split, options=(("extrapolate", True),) if split == "validation" else ())


def variants() -> Iterator[Variant]:
    """Yield every variant in the order of a table."""
    lean = ("row_blocks", False)
    for split in SPLITS:
        yield headline(split)
        yield Variant("mean_within_class", split, options=(lean, ("within_class", True)))
        if split == "validation":
            yield Variant("mean_standardized", split, options=(lean, ("standardize", True)))
            yield Variant("mean_logits", split, of="logits", options=(lean,))


EQUAL_ACCURACY = "mean_equal_accuracy"


LEFT_OUT = Variant("mean", "validation", options=(("row_blocks", False),))


@dataclass(frozen=True)
class Term:
    """One span error of a mean, and the units (networks or groups of them) without which it is not there."""

    source: tuple[Net, ...]
    target: Net
    units: frozenset[str]
    together: str

    def comparison(self, variant: Variant, trained: bool) -> Comparison:
        """Return the comparison that a variant of this term is the score of."""
        return Comparison(
            "span_error",
            self.source,
            (self.target,),
            variant.split,
            variant.at or snapshot(trained),
            variant.of,
            variant.options,
            f"{self.together} {variant.split}",
        )


@dataclass(frozen=True)
class Gap:
    """The first terms' mean less the second's, at one width.

    Attributes:
        factors: for each independent factor, its units, left out in turn.
        refitted: for a factor that needs refits, by set and left-out group, the terms of the first mean that
            stand for the set without the group.
        at: the snapshot of the highest training accuracy that all its networks reached, where they did.
    """

    study: str
    width: Fraction
    matching: Matching | None
    trained: bool
    first: tuple[Term, ...]
    second: tuple[Term, ...]
    factors: tuple[tuple[str, ...], ...]
    refitted: tuple[tuple[tuple[Term, ...], ...], ...] = ()
    at: str | None = None

    def variants(self) -> Iterator[Variant]:
        """Yield every variant in the order of a table; the last compares networks of equal training accuracy."""
        yield from variants()
        if self.trained and self.at:
            yield Variant(EQUAL_ACCURACY, "validation", options=(("row_blocks", False),), at=self.at)

    def comparisons(self, among: Iterable[Variant] | None = None) -> Iterator[Comparison]:
        """Yield every comparison that the gap's rows need: of all variants, or of some."""
        for variant in self.variants() if among is None else among:
            for term in self.first + self.second:
                yield term.comparison(variant, self.trained)
        for concatenation in self.refitted:
            for terms in concatenation:
                yield from (term.comparison(LEFT_OUT, self.trained) for term in terms)

    def mean(self, scores: Scores, variant: Variant, which: Side) -> float:
        """Return the mean of one side."""
        return _mean([self._value(scores, variant, term) for term in getattr(self, which)])

    def value(self, scores: Scores, variant: Variant, without: str | None = None) -> float:
        """Return the gap, or the gap without one unit; NaN if that leaves nothing of a side."""
        sides = []
        for terms in (self.first, self.second):
            sides.append(_mean([self._value(scores, variant, t) for t in terms if without not in t.units]))
        return sides[0] - sides[1]

    def extrapolated(self, scores: Scores, statistic: str) -> float | None:
        """Return the gap of both sides' limits in n: "richardson", or "aitken" where that exists."""
        sides = []
        for terms in (self.first, self.second):
            quarter, half, full = (
                _mean([_limits(scores, term, self.trained)[size] for term in terms])
                for size in ("quarter", "half", "fit")
            )
            richardson = limits.richardson(half, full)
            sides.append(richardson if statistic == "richardson" else limits.aitken(quarter, half, full))
        return None if None in sides else sides[0] - sides[1]

    def over_networks(self, scores: Scores, variant: Variant, level: float = 0.95) -> Interval | None:
        """Return the jackknife interval, or None where a factor's refits were not asked for."""
        if self.refitted and variant != headline("validation"):
            return None
        factors: list[Sequence] = [[self.value(scores, variant, unit) for unit in units] for units in self.factors]
        if self.refitted:
            factors.append(
                [
                    [_mean([self._value(scores, LEFT_OUT, term) for term in terms]) for terms in concatenation]
                    for concatenation in self.refitted
                ]
            )
        factors = [factor if len(factor) > 1 or _is_table(factor) else [float("nan")] * 2 for factor in factors]
        return intervals.jackknife_gap(self.value(scores, variant), factors, level=level)

    def over_rows(self, scores: Scores, variant: Variant, which: Side | Literal["gap"]) -> Interval:
        """Return the row bootstrap's interval of one side or of the gap, its draws paired across terms."""
        terms = []
        for side, sign in (("first", 1.0), ("second", -1.0)):
            if which in (side, "gap"):
                members = getattr(self, side)
                weight = (sign if which == "gap" else 1.0) / len(members)
                for term in members:
                    arrays = scores[term.comparison(variant, self.trained)].arrays
                    terms.append(
                        intervals.Term(weight, arrays["block_errors"], arrays["block_totals"], arrays["supported"])
                    )
        over = intervals.row_interval_of(terms, generator=seeds.stream(0, "row bootstrap"))
        value = self.value(scores, variant) if which == "gap" else self.mean(scores, variant, which)
        # The sums are at the grid's penalties, the scores at the spline's: the scores say where the centre is.
        return intervals.shifted(over, value - over.value)

    def _value(self, scores: Scores, variant: Variant, term: Term) -> float:
        return scores[term.comparison(variant, self.trained)].value


def span_gap(
    study: str,
    wide: Sequence[Net],
    concatenations: Sequence[Sequence[Net]],
    width: Fraction,
    matching: Matching | None = None,
    trained: bool = True,
    at: str | None = None,
) -> Gap:
    """Return FSG = mean FSE(C_c -> M_i) - mean FSE(M_k -> M_i), k != i, over wide networks M and concatenations C.

    A concatenation of several networks is fitted again without each group of them; one of a single network is
    itself what is left out.
    """

    def terms(source: Sequence[Net], c: int) -> tuple[Term, ...]:
        together = f"{study} {width} {c}"
        return tuple(Term(tuple(source), M, frozenset({_unit(M), f"concatenation {c}"}), together) for M in wide)

    single = all(len(source) == 1 for source in concatenations)
    factors = [tuple(_unit(net) for net in wide)]
    if single:
        factors.append(tuple(f"concatenation {c}" for c in range(len(concatenations))))
    return Gap(
        study,
        width,
        matching,
        trained,
        first=tuple(term for c, source in enumerate(concatenations) for term in terms(source, c)),
        second=tuple(
            Term((source,), target, frozenset({_unit(source), _unit(target)}), f"{study} 1")
            for source in wide
            for target in wide
            if source != target
        ),
        factors=tuple(factors),
        refitted=()
        if single
        else tuple(tuple(terms(kept, c) for kept in left_out(source)) for c, source in enumerate(concatenations)),
        at=at,
    )


def _unit(wide: Net) -> str:
    return f"wide {wide.seed}"


def names(gap: Gap, which: Side) -> dict[str, Any]:
    """Return the source and the target of one side, as the fields of a row that hold them."""
    term: Term = getattr(gap, which)[0]
    return {"source": described(term.source), "target": described([term.target])}


def error_rows(gap: Gap, scores: Scores, which: Side, width: str) -> Iterator[Row]:
    """Yield the span errors of one side: every statistic on every split."""
    terms: tuple[Term, ...] = getattr(gap, which)
    matching = gap.matching if width != "1" else None

    def row(variant: Variant, statistic: str, **numbers) -> Row:
        return Row(
            gap.study,
            "span_error",
            statistic,
            variant.split,
            gap.trained,
            width,
            matching,
            **names(gap, which),
            **numbers,
        )

    for variant in gap.variants():
        found = [scores[term.comparison(variant, gap.trained)].values for term in terms]
        size = {"n": found[0]["rows"], "p": found[0]["p_live"], "df": _mean([f["df"] for f in found])}
        if variant.statistic != "mean":
            told = {"value": gap.mean(scores, variant, which), "method": _where(variant)}
            yield row(variant, variant.statistic, **told, **size)
            continue
        over = gap.over_rows(scores, variant, which)
        yield row(variant, "mean", **interval_fields(over) | size)
        for name in PLAIN:
            yield row(variant, name, value=_mean([f[name] for f in found]), **size)


def mean_row(gap: Gap, scores: Scores, statistic: str) -> Row:
    """Return the mean span error of the first terms on the validation split, as one row."""
    variant = headline("validation")
    over = gap.over_rows(scores, variant, "first")
    where = (variant.split, gap.trained, str(gap.width), gap.matching)
    return Row(gap.study, "span_error", statistic, *where, **names(gap, "first"), **interval_fields(over))


def gap_rows(gap: Gap, scores: Scores, design: Design) -> Iterator[Row]:
    """Yield the gap on every split, with both intervals, and what it is read beside; the verdict if primary."""

    def row(variant: Variant, statistic: str, **numbers) -> Row:
        width = str(gap.width)
        return Row(
            gap.study,
            "span_gap",
            statistic,
            variant.split,
            gap.trained,
            width,
            gap.matching,
            **names(gap, "first"),
            **numbers,
        )

    for variant in gap.variants():
        if variant.statistic != "mean":
            told = {"value": gap.value(scores, variant), "method": _where(variant)}
            yield row(variant, variant.statistic.removeprefix("mean_"), **told)
            continue
        over = gap.over_networks(scores, variant)
        if over is not None:
            word = verdict(gap, scores, design) if variant.split == "validation" else None
            yield row(variant, "mean", **interval_fields(over), verdict=word)
        yield row(variant, "mean", **interval_fields(gap.over_rows(scores, variant, "gap")))
        if variant.split == "validation":
            for limit in ("richardson", "aitken"):
                yield row(variant, f"extrapolated_{limit}", value=gap.extrapolated(scores, limit))


def _where(variant: Variant) -> str | None:
    accuracy = variant.at and variant.at.removeprefix("at_")
    return f"all networks at a training accuracy of {accuracy}" if accuracy else None


def verdict(gap: Gap, scores: Scores, design: Design) -> str:
    """Return the word for a gap of a study at its width (DEFINITIONS 6)."""
    return judged(gap, scores, decisive(gap, scores, design), margin(gap, scores, design), len(design.wide))


def judged(
    gap: Gap, scores: Scores, interval: Interval, margin: float, wide: int, splits: Sequence[str] = SPLITS
) -> str:
    """Return the word for a gap by its interval over networks on validation rows, on the splits that there are."""
    return verdicts.gap(
        low=interval.low,
        high=interval.high,
        margin=margin,
        elsewhere=[gap.value(scores, headline(split)) if split in splits else None for split in SPLITS[1:]],
        extrapolated=[gap.extrapolated(scores, limit) for limit in ("richardson", "aitken")],
        standardized=gap.value(scores, next(v for v in variants() if v.statistic == "mean_standardized")),
        wide=wide,
    )


def decisive(gap: Gap, scores: Scores, design: Design) -> Interval:
    """Return the interval over networks at the level of verdicts."""
    level = intervals.verdict_level(max(1, len(design.widths)))
    interval = gap.over_networks(scores, headline("validation"), level)
    assert interval is not None
    return interval


def margin(gap: Gap, scores: Scores, design: Design) -> float:
    """Return d, what counts as a gap: the declared margin or a tenth of the baseline's span error."""
    return max(design.study.margins.span_gap, 0.1 * gap.mean(scores, headline("validation"), "second"))


def finding(
    gaps: Sequence[Gap], scores: Scores, design: Design, claim: str, sentence: Callable[[Gap, Interval], str]
) -> Finding:
    """Return the claim over all widths: its word, the smallest width's sentence, every width's numbers."""
    words = [verdict(gap, scores, design) for gap in gaps]
    estimates = [gap.value(scores, headline("validation")) for gap in gaps]
    smallest = gaps[-1]
    decided = []
    for gap, word in zip(gaps, words, strict=True):
        interval = decisive(gap, scores, design)
        elsewhere = ", ".join(f"{s} {gap.value(scores, headline(s)):+.4f}" for s in ("test", "unseen"))
        ends = [gap.extrapolated(scores, limit) for limit in ("richardson", "aitken")]
        told = " and ".join(f"{limit:+.4f}" for limit in ends if limit is not None)
        decided.append(
            f"width {gap.width}, {described(gap.first[0].source)} -> {described([gap.first[0].target])}: "
            f"{signed(interval)}, margin {margin(gap, scores, design):.4f}, {elsewhere}, "
            f"extrapolated in rows {told}: {word}"
        )
    over = smallest.over_networks(scores, headline("validation"))
    assert over is not None
    return Finding(
        gaps[0].study, claim, verdicts.gap_overall(words, estimates), sentence(smallest, over), tuple(decided)
    )


def percent(over: Interval) -> str:
    """Return the size of an estimate in percent with its interval, in the direction of its sign."""
    low, high = (over.low, over.high) if over.value >= 0 else (-over.high, -over.low)
    if low != low:
        return f"{100 * abs(over.value):.1f} % (no interval over networks)"
    return f"{100 * abs(over.value):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def feature_errors(gap: Gap, scores: Scores, which: Side) -> FeatureErrors:
    """Return the error of every target feature of a side's first term on the validation split."""
    term = getattr(gap, which)[0]
    score = scores[term.comparison(headline("validation"), gap.trained)]
    errors = [
        None if not ok else float(e)
        for e, ok in zip(score.arrays["per_feature"], score.arrays["supported"], strict=True)
    ]
    return FeatureErrors(
        gap.study,
        "span_error",
        "validation",
        gap.trained,
        str(gap.width) if which == "first" else str(term.source[0].width),
        gap.matching if which == "first" else None,
        described(term.source),
        described([term.target]),
        tuple(errors),
    )


def signed(interval: Interval) -> str:
    """Return an estimate with its sign, its interval and what that is over."""
    if interval.low != interval.low:
        return f"{interval.value:+.4f} ({interval.method})"
    low_high = f"[{interval.low:+.4f}, {interval.high:+.4f}]"
    return f"{interval.value:+.4f} {low_high} ({100 * interval.level:.1f} % over {interval.over})"


def _limits(scores: Scores, term: Term, trained: bool) -> dict[str, float]:
    return scores[term.comparison(headline("validation"), trained)].values["extrapolated"]


def interval_fields(interval: Interval) -> dict[str, Any]:
    """Return an interval as the fields of a row that hold one."""
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "interval_over": interval.over,
        "method": interval.method,
        "df": interval.df,
    }


def _is_table(factor: Sequence) -> bool:
    return bool(factor) and isinstance(factor[0], list)


def _mean(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).mean()) if len(values) else float("nan")
