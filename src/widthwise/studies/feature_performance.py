"""Finding 3.2: do the features of narrow networks, put together, perform as well as a wide network's?

D = FP(C_m(M_a)) - FP(M_1), each side by the best of its probes and its averaged heads; below 0, they do not. The
paper's Figure 3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from widthwise import accuracies, verdicts
from widthwise.design import Comparison, Design, Net, Scores, described, left_out, snapshot
from widthwise.gap_rows import interval_fields, percent, signed
from widthwise.linalg import intervals
from widthwise.linalg.intervals import Interval
from widthwise.results import FeatureErrors, Finding, Row

STUDY = "feature_performance"
CLAIM = "Narrow networks, put together, do not perform as well as a wide one (finding 3.2)"
Source = tuple[Net, ...]
Rows = tuple[Literal["train", "unseen"], ...]


@dataclass(frozen=True)
class Method:
    """One way to read labels off features: a probe, or the networks' own heads, averaged."""

    statistic: str
    measure: str
    options: tuple[tuple[str, str | float], ...]

    def comparison(self, source: Source, trained: bool) -> Comparison:
        """Return the accuracy of a source by this method, on test rows."""
        together = f"{STUDY} {source[0].width} {source[0].seed}"
        return Comparison(self.measure, source, (), "probe", snapshot(trained), options=self.options, together=together)


HEADS = (
    Method("ensemble_logits", "ensemble_accuracy", (("mean", "logits"),)),
    Method("ensemble_probabilities", "ensemble_accuracy", (("mean", "probabilities"),)),
)
PROBES = {
    "train": Method("probe", "probe_accuracy", (("rows", "train"),)),
    "unseen": Method("probe_unseen", "probe_accuracy", (("rows", "unseen"),)),
}


def comparisons(
    design: Design, scores: Scores, *, trained: bool = True, rows: Rows = ("train", "unseen")
) -> Iterator[Comparison]:
    """Yield every accuracy of every side; then, by each width's best method, without each group of networks.

    Args:
        trained: False for networks at initialisation.
        rows: what probes are fitted on: "train" for the rows that trained the networks, "unseen" for others.
    """
    methods = _methods(rows)
    sides = [_wide(design), *(_concatenations(design, width) for width in design.widths)]
    for side in [*sides, *(_wide_together(design, width) for width in design.widths)]:
        for source in side:
            yield from (method.comparison(source, trained) for method in methods)
    for width in design.widths:
        for net in design.narrow(width):
            yield HEADS[0].comparison((net,), trained)
    if all(m.comparison(s, trained) in scores for side in sides for s in side for m in methods):
        for width in design.widths:
            best = _best(_concatenations(design, width), methods, scores, trained)
            yield from (c for without in _without(design, width, best, scores, trained) for c in without)


def rows(design: Design, scores: Scores, *, trained: bool = True, rows: Rows = ("train", "unseen")) -> list[Row]:
    """Return the accuracies of the wide network and of every width, by every method, and D."""
    methods = _methods(rows)
    table = _side_rows(_wide(design), "1", None, methods, scores, trained)
    for width in design.widths:
        table += _side_rows(_concatenations(design, width), str(width), "parameters", methods, scores, trained)
        table.append(_own_row(design.narrow(width), scores, trained))
        if together := _wide_together(design, width):
            found = _side_rows(together, str(width), None, methods, scores, trained)
            table += [replace(row, statistic=f"{row.statistic}_equal_size") for row in found]
        table += _gap_rows(design, width, methods, scores, trained)
    return table


def findings(
    design: Design, scores: Scores, *, trained: bool = True, rows: Rows = ("train", "unseen")
) -> list[Finding]:
    """Return finding 3.2 in words, of trained networks."""
    if not (trained and design.widths):
        return []
    methods, decided, words = _methods(rows), [], []
    for width in design.widths:
        over = _gap(design, width, methods, scores, trained, design.level)
        words.append(_verdict(over, design))
        sides = (_concatenations(design, width), _wide(design))
        best = [_best(side, methods, scores, trained).statistic for side in sides]
        decided.append(
            f"width {width}, {described(sides[0][0])} by {best[0]} against 1 by {best[1]}: {signed(over)}, "
            f"margin {design.study.margins.probe_accuracy:.4f}: {words[-1]}"
        )
    smallest = design.widths[-1]
    over = _gap(design, smallest, methods, scores, trained, 0.95)
    nets = f"{len(_concatenations(design, smallest)[0])} networks of width {smallest}"
    sign = "more" if over.value >= 0 else "fewer"
    sentence = f"{nets}, put together, are right on {percent(over)} {sign} of the test samples than one wide network."
    return [Finding(STUDY, CLAIM, verdicts.overall(words), sentence, tuple(decided))]


def errors(
    design: Design, scores: Scores, *, trained: bool = True, rows: Rows = ("train", "unseen")
) -> list[FeatureErrors]:
    """Return nothing: an accuracy has no error feature by feature."""
    return []


def _methods(rows: Sequence[str]) -> list[Method]:
    return [PROBES[name] for name in rows] + list(HEADS)


def _wide(design: Design) -> list[Source]:
    return [(net,) for net in design.wide]


def _concatenations(design: Design, width: Fraction) -> list[Source]:
    return design.concatenations(width, "parameters")


def _wide_together(design: Design, width: Fraction) -> list[Source]:
    """Return wide networks put together to about as many features as the narrow ones, or as many as there are."""
    p, d = design.matching(width, "parameters") * design.features(width), design.features(Fraction(1))
    k = min(round(p / d), len(design.wide))
    return [design.wide[:k]] if k > 1 else []


def _value(source: Source, method: Method, scores: Scores, trained: bool) -> float:
    return scores[method.comparison(source, trained)].value


def _mean(side: Sequence[Source], method: Method, scores: Scores, trained: bool) -> float:
    return accuracies.mean((method.comparison(source, trained) for source in side), scores)


def _best(side: Sequence[Source], methods: Sequence[Method], scores: Scores, trained: bool) -> Method:
    """Return the method by which a side does best on unseen (test) rows; the earlier one of equals."""
    return max(methods, key=lambda method: _mean(side, method, scores, trained))


def _without(design: Design, width: Fraction, method: Method, scores: Scores, trained: bool) -> list[list[Comparison]]:
    """Return, for every concatenation, its accuracy without each group of its networks.

    A probe keeps the penalty that the whole concatenation chose.
    """
    table = []
    for source in _concatenations(design, width):
        kept_options = method.options
        if method.measure == "probe_accuracy":
            kept_options += (("penalty", scores[method.comparison(source, trained)].values["penalty"]),)
        refit = replace(method, options=kept_options)
        table.append([refit.comparison(kept, trained) for kept in left_out(source)])
    return table


def _gap(
    design: Design, width: Fraction, methods: Sequence[Method], scores: Scores, trained: bool, level: float
) -> Interval:
    """Return D and its interval over networks."""
    narrow, wide = _concatenations(design, width), _wide(design)
    best = _best(narrow, methods, scores, trained)
    best_wide = _best(wide, methods, scores, trained)
    value = _mean(narrow, best, scores, trained)
    each = [_value(source, best_wide, scores, trained) for source in wide]
    without_wide = _less_each([-own for own in each])
    without_narrow: list = [[scores[c].value for c in row] for row in _without(design, width, best, scores, trained)]
    if not all(without_narrow):  # of single networks, without each of them
        without_narrow = _less_each([_value(source, best, scores, trained) for source in narrow])
    return intervals.jackknife_gap(value - sum(each) / len(each), [without_wide, without_narrow], level=level)


def _less_each(values: Sequence[float]) -> list[float]:
    """Return the mean without each of some values; NaN where there is one."""
    n = len(values)
    return [(sum(values) - value) / (n - 1) for value in values] if n > 1 else [float("nan")] * 2


def _gap_rows(design: Design, width: Fraction, methods: Sequence[Method], scores: Scores, trained: bool) -> list[Row]:
    narrow, wide = _concatenations(design, width), _wide(design)
    best = [_best(side, methods, scores, trained) for side in (narrow, wide)]
    word = _verdict(_gap(design, width, methods, scores, trained, design.level), design)
    over_networks = _gap(design, width, methods, scores, trained, 0.95)
    over_rows = _over_rows([(narrow, best[0], 1.0), (wide, best[1], -1.0)], scores, trained)
    where = ("test", trained, str(width), "parameters", described(narrow[0]), "1")
    return [
        Row(STUDY, "performance_gap", "best", *where, **interval_fields(over), verdict=verdict)
        for over, verdict in ((over_networks, word), (over_rows, None))
    ]


def _side_rows(
    side: Sequence[Source],
    width: str,
    matching: str | None,
    methods: Sequence[Method],
    scores: Scores,
    trained: bool,
) -> list[Row]:
    heads = _mean(side, HEADS[0], scores, trained)
    table = []
    for method in methods:
        over = _over_rows([(side, method, 1.0)], scores, trained)
        invalid = method.measure == "probe_accuracy" and over.value < heads and len(side[0]) > 1
        note = f"{over.method}; invalid: below the mean of its own networks' logits" if invalid else over.method
        found = scores[method.comparison(side[0], trained)].values
        name = "own" if len(side[0]) == 1 and method is HEADS[0] else method.statistic
        if len(side[0]) == 1 and method is HEADS[1]:
            continue  # one network's mean of probabilities is its own accuracy
        where = ("test", trained, width, matching, described(side[0]))
        numbers = interval_fields(over) | {"method": note, "n": found["rows"], "p": found.get("p")}
        table.append(Row(STUDY, "probe_accuracy", name, *where, **numbers))
    return table


def _own_row(nets: Sequence[Net], scores: Scores, trained: bool) -> Row:
    side = [(net,) for net in nets]
    over = _over_rows([(side, HEADS[0], 1.0)], scores, trained)
    where = ("test", trained, str(nets[0].width), None, str(nets[0].width))
    return Row(STUDY, "probe_accuracy", "own", *where, **interval_fields(over))


def _over_rows(parts: Sequence[tuple[Sequence[Source], Method, float]], scores: Scores, trained: bool) -> Interval:
    """Return a signed sum of mean accuracies, with its interval over rows, draws paired."""
    asked = [([method.comparison(source, trained) for source in side], sign) for side, method, sign in parts]
    return accuracies.over_rows(asked, scores)


def _verdict(over: Interval, design: Design) -> str:
    margin = design.study.margins.probe_accuracy
    return verdicts.performance(low=over.low, high=over.high, margin=margin, wide=len(design.wide))
