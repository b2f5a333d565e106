"""A gap between two groups of span errors: its variants, its intervals over networks and rows, its rows.

gap = mean of the first terms - mean of the second. A term falls away with any of its units; that is how the
jackknife leaves a network out (DEFINITIONS 4).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import torch

from widthwise.design import Comparison, Design, Matching, Net, Scores, left_out, snapshot
from widthwise.linalg import intervals, limits
from widthwise.linalg.intervals import Interval

SPLITS = ("validation", "test", "unseen")
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
        for accuracies in self.accuracies().values():
            yield from accuracies
        for concatenation in self.refitted:
            for terms in concatenation:
                yield from (term.comparison(LEFT_OUT, self.trained) for term in terms)

    def accuracies(self) -> dict[Fraction, list[Comparison]]:
        """Return the networks' accuracies at the snapshot of equal accuracy, on the rows that trained them, by width.

        It is the first epoch whose running accuracy was as high: where networks then are, these say.
        """
        found: dict[Fraction, list[Comparison]] = {}
        nets = {net for term in self.first + self.second for net in (*term.source, term.target)}
        for net in sorted(nets, key=lambda net: (-net.width, net.seed)) if self.trained and self.at else ():
            together = f"{self.study} accuracies {self.at}"
            own = Comparison("ensemble_accuracy", (net,), (), "validation", self.at or "", together=together)
            found.setdefault(net.width, []).append(own)
        return found

    def mean(self, scores: Scores, variant: Variant, which: Side) -> float:
        """Return the mean of one side."""
        return mean([self._value(scores, variant, term) for term in getattr(self, which)])

    def value(self, scores: Scores, variant: Variant, without: str | None = None) -> float:
        """Return the gap, or the gap without one unit; NaN if that leaves nothing of a side."""
        sides = []
        for terms in (self.first, self.second):
            sides.append(mean([self._value(scores, variant, t) for t in terms if without not in t.units]))
        return sides[0] - sides[1]

    def extrapolated(self, scores: Scores, statistic: str) -> float | None:
        """Return the gap of both sides' limits in n: "richardson", or "aitken" where that exists."""
        sides = []
        for terms in (self.first, self.second):
            each = [_limits(scores, term, self.trained) for term in terms]
            if any(of["quarter"] is None for of in each):  # groups were too few for a quarter of the rows
                return None
            quarter, half, full = (mean([of[size] for of in each]) for size in ("quarter", "half", "fit"))
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
                    [mean([self._value(scores, LEFT_OUT, term) for term in terms]) for terms in concatenation]
                    for concatenation in self.refitted
                ]
            )
        factors = [factor if len(factor) > 1 or _is_table(factor) else [float("nan")] * 2 for factor in factors]
        return intervals.jackknife_gap(self.value(scores, variant), factors, level=level)

    def over_rows(self, scores: Scores, variant: Variant, which: Side | Literal["gap"]) -> Interval:
        """Return the row bootstrap's interval of one side or of the gap, its draws paired across terms."""
        weighted = []
        for side, sign in (("first", 1.0), ("second", -1.0)):
            if which in (side, "gap"):
                members = getattr(self, side)
                weight = (sign if which == "gap" else 1.0) / len(members)
                weighted += [(scores[term.comparison(variant, self.trained)], weight) for term in members]
        value = self.value(scores, variant) if which == "gap" else self.mean(scores, variant, which)
        if not all(bool(score.arrays["supported"].any()) for score, _ in weighted):
            method = "no interval over rows: no feature of a target varies on enough of them"
            return Interval(value, float("nan"), float("nan"), 0.95, "rows", method)
        over = intervals.interval_of_draws([score.over_rows * weight for score, weight in weighted])
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


def width_gaps(design: Design, trained: bool = True, matchings: Sequence[Matching] = ("parameters",)) -> Iterator[Gap]:
    """Yield the span gap of every width and matching rule; none with a single wide network.

    Studies that read it in different ways share its comparisons.
    """
    if len(design.wide) < 2:
        return
    for width in design.widths:
        for matching in matchings:
            concatenations = design.concatenations(width, matching)
            at = design.equal_accuracy({net for members in (design.wide, *concatenations) for net in members})
            yield span_gap("width_gap", design.wide, concatenations, width, matching, trained, at)


def _unit(wide: Net) -> str:
    return f"wide {wide.seed}"


def _limits(scores: Scores, term: Term, trained: bool) -> dict[str, Any]:
    return scores[term.comparison(headline("validation"), trained)].values["extrapolated"]


def _is_table(factor: Sequence) -> bool:
    return bool(factor) and isinstance(factor[0], list)


def mean(values: Sequence[float]) -> float:
    """Return the mean of some numbers; NaN of none."""
    return float(torch.tensor(values, dtype=torch.float64).mean()) if len(values) else float("nan")
