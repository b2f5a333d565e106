"""Is what narrow networks miss of a wide one what makes the wide one good, and the other way round?

G = FP[C, R(M|C)] - FP[C, R(C'|C)]: what a wide network M's residuals add to a concatenation C, less what as many
residuals of other narrow networks C' add; and FP[M, R(C|M)] - FP(M), what the narrow ones' add to the wide one. The
paper's Figures 4 and 10 and Table 3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from widthwise import accuracies, verdicts
from widthwise.accuracies import mean, over_rows
from widthwise.design import FINAL, INITIAL, MOST_GROUPS, Comparison, Design, Net, Scores, described, left_out
from widthwise.gap_rows import interval_fields, percent, signed
from widthwise.linalg import intervals
from widthwise.linalg.intervals import Interval
from widthwise.results import FeatureErrors, Finding, Row

STUDY = "residuals"
CLAIM = "What narrow networks miss of a wide one makes it good; what it misses of them adds nothing to it"
Nets = tuple[Net, ...]


def comparisons(
    design: Design, scores: Scores, *, smallest: bool = True, groups: int = MOST_GROUPS
) -> Iterator[Comparison]:
    """Yield the accuracy of every probe with and without residuals, on unseen rows; then without each group.

    Args:
        smallest: of the widths, only the smallest, as the paper's Table 3.
        groups: of narrow networks that are left out in turn for intervals, at most; fewer take less time.
    """
    for sides in _all_sides(design, smallest, groups):
        yield from (c for asked in sides.asked().values() for c in asked)
        if all(c in scores for c in sides.refitted()):
            yield from (c for table in sides.without(scores) for row in table for c in row)
            yield from (c for table in sides.without_control(scores) for c in table)


def rows(design: Design, scores: Scores, *, smallest: bool = True, groups: int = MOST_GROUPS) -> list[Row]:
    """Return the accuracies of all probes and the gains, with intervals over rows and over networks."""
    table = []
    for sides in _all_sides(design, smallest, groups):
        for statistic, asked in sides.asked().items():
            table += _accuracy_rows(sides, statistic, asked, scores)
        majority = scores[sides.asked()["wide"][0]].values["majority"]
        where = ("unseen", True, str(sides.width), "parameters")
        table.append(Row(STUDY, "residual_accuracy", "majority_class", *where, value=majority))
        for name, (parts, over) in _gains(sides, scores, 0.95).items():
            word = _verdict(sides, scores, design) if name == "wide" else None
            where = ("unseen", True, str(sides.width), "parameters", described(sides.C[0]), "1")
            table.append(Row(STUDY, "residual_gain", name, *where, **interval_fields(over), verdict=word))
            table.append(Row(STUDY, "residual_gain", name, *where, **interval_fields(over_rows(parts, scores))))
    return table


def findings(design: Design, scores: Scores, *, smallest: bool = True, groups: int = MOST_GROUPS) -> list[Finding]:
    """Return the claim in words, at every width."""
    words, decided, last = [], [], None
    for sides in _all_sides(design, smallest, groups):
        gains = _gains(sides, scores, design.level)
        words.append(_verdict(sides, scores, design))
        decided.append(
            f"width {sides.width}, {described(sides.C[0])}: residuals of the wide network add "
            f"{signed(gains['wide'][1])} more than those of other narrow ones; residuals of the narrow ones add "
            f"{signed(gains['narrow'][1])} to the wide one; "
            f"margin {design.study.margins.probe_accuracy:.4f}: {words[-1]}"
        )
        last = sides
    if last is None:
        return []
    over = _gains(last, scores, 0.95)["wide"][1]
    sign = "more" if over.value >= 0 else "fewer"
    sentence = (
        f"With what {described(last.C[0])} miss of a wide network beside their features, a probe is right on "
        f"{percent(over)} {sign} of the unseen samples than with as much of other narrow networks."
    )
    return [Finding(STUDY, CLAIM, verdicts.overall(words), sentence, tuple(decided))]


def errors(design: Design, scores: Scores, *, smallest: bool = True, groups: int = MOST_GROUPS) -> list[FeatureErrors]:
    """Return nothing: an accuracy has no error feature by feature."""
    return []


@dataclass(frozen=True)
class _Sides:
    """The networks of one width: wide ones, concatenations, and other narrow networks for each of these."""

    width: Fraction
    wide: Nets
    C: tuple[Nets, ...]
    others: tuple[Nets, ...]
    features: int  # of a wide network
    groups: int  # of networks, left out in turn, at most

    def asked(self) -> dict[str, list[Comparison]]:
        """Return every mean accuracy's comparisons, by its statistic in the table."""
        C, wide, first = self.C, [(M,) for M in self.wide], (self.wide[0],)
        pairs = [(c, M) for c in C for M in wide]
        return {
            "narrow": [self.probe(c) for c in C],
            "wide": [self.probe(M) for M in wide],
            "narrow_joined": [self.probe(c, M, "joined") for c, M in pairs],
            "narrow_with_wide_residuals": [self.probe(c, M) for c, M in pairs],
            "narrow_with_narrow_residuals": [self.control(c, others) for c, others in zip(C, self.others, strict=True)],
            "narrow_with_noise": [self.probe(C[0], first, "noise")],
            "narrow_with_permuted_residuals": [self.probe(C[0], first, "permuted")],
            "wide_with_narrow_residuals": [self.probe(M, c) for c, M in pairs],
            "wide_with_wide_residuals": [self.probe(M, other) for M, other in self._neighbours()],
            "wide_with_noise": [self.probe(first, C[0], "noise")],
            "wide_residuals_alone": [self.probe(c, M, "alone") for c, M in pairs],
            "narrow_residuals_alone": [self.probe(M, c, "alone") for c, M in pairs],
            "wide_untrained": [self.probe(M, at=INITIAL) for M in wide],
            "narrow_untrained": [self.probe(c, at=INITIAL) for c in C],
        }

    def probe(
        self, source: Nets, target: Nets = (), form: str = "appended", columns: int | None = None, *, at: str = FINAL
    ) -> Comparison:
        """Return the accuracy of a source on unseen rows, with something of a target if there is one."""
        options = (("form", form if target else "source"), *((("columns", columns),) if columns else ()))
        together = f"{STUDY} {self.width} from {source[0].width}"
        return Comparison("residual_accuracy", source, target, "unseen", at, options=options, together=together)

    def control(self, c: Nets, others: Nets) -> Comparison:
        """Return the accuracy of a concatenation with as many residuals of other narrow networks as a wide one has."""
        return self.probe(c, others, columns=self.features)

    def refitted(self) -> list[Comparison]:
        """Return the accuracies that are computed again without each group of narrow networks."""
        asked = self.asked()
        names = ("narrow_with_wide_residuals", "narrow_with_narrow_residuals", "wide_with_narrow_residuals")
        return [c for name in names for c in asked[name]]

    def without(self, scores: Scores) -> list[list[tuple[Comparison, ...]]]:
        """Return, for every concatenation and group left out of it, the accuracies without that group.

        Of every wide network with the residuals, then of the control, then of the wide networks with what is left.
        They keep the scale and the penalty that the whole concatenation chose.
        """
        table = []
        for c, others in zip(self.C, self.others, strict=True):
            line = []
            for kept in left_out(c, self.groups):
                again = [(self.probe(c, (M,)), kept, (M,)) for M in self.wide]
                again += [(self.control(c, others), kept, others)]
                again += [(self.probe((M,), c), (M,), kept) for M in self.wide]
                line.append(tuple(_again(whole, source, target, scores) for whole, source, target in again))
            table.append(line)
        return table

    def without_control(self, scores: Scores) -> list[list[Comparison]]:
        """Return, for every concatenation, the control's accuracy without each group of the control's networks."""
        return [
            [_again(self.control(c, others), c, kept, scores) for kept in left_out(others, self.groups)]
            for c, others in zip(self.C, self.others, strict=True)
        ]

    def _neighbours(self) -> list[tuple[Nets, Nets]]:
        wide = self.wide
        return [((M,), (wide[(i + 1) % len(wide)],)) for i, M in enumerate(wide)] if len(wide) > 1 else []


def _all_sides(design: Design, smallest: bool, groups: int) -> Iterator[_Sides]:
    widths = design.widths[-1:] if smallest else design.widths
    for width in widths:
        C = tuple(design.concatenations(width, "parameters"))
        others = tuple(design.others(width, c) for c in range(len(C)))
        yield _Sides(width, design.wide, C, others, design.features(Fraction(1)), groups)


def _again(whole: Comparison, source: Nets, target: Nets, scores: Scores) -> Comparison:
    """Return a comparison with other networks, at the scale and penalty that the whole has chosen."""
    chosen = scores[whole].values
    options = (*whole.options, ("scale", chosen["scale"]), ("penalty", chosen["penalty"]))
    return replace(whole, source=source, target=target, options=options)


def _gains(sides: _Sides, scores: Scores, level: float) -> dict[str, tuple[list, Interval]]:
    """Return what residuals gain, as signed means of accuracies and with an interval over networks.

    "wide": those of wide networks beside a concatenation, less those of other narrow networks. "narrow": those of
    narrow networks beside a wide one, less nothing.
    """
    asked = sides.asked()
    own, control = asked["narrow_with_wide_residuals"], asked["narrow_with_narrow_residuals"]
    reverse, alone = asked["wide_with_narrow_residuals"], asked["wide"]
    without = [[[scores[c].value for c in line] for line in table] for table in sides.without(scores)]
    S = len(sides.wide)
    found = {}
    for name, plus, minus, refit in (
        ("wide", own, control, lambda v: sum(v[:S]) / S - v[S]),
        ("narrow", reverse, alone, lambda v: sum(v[S + 1 :]) / S - mean(alone, scores)),
    ):
        value = mean(plus, scores) - mean(minus, scores)
        factors: list = [_without_each_wide(sides, plus, minus, scores)]
        factors.append(
            _without_each_group(sides, plus, minus, [[refit(v) for v in table] for table in without], scores)
        )
        if name == "wide":
            factors.append(_without_each_control(sides, own, scores))
        over = intervals.jackknife_gap(value, factors, level=level)
        found[name] = ([(plus, 1.0), (minus, -1.0)], over)
    return found


def _without_each_wide(
    sides: _Sides, plus: Sequence[Comparison], minus: Sequence[Comparison], scores: Scores
) -> list[float]:
    """Return the gain without each wide network, wherever it takes part."""
    if len(sides.wide) < 2:
        return [float("nan")] * 2
    kept = [[[c for c in side if M not in c.networks] for side in (plus, minus)] for M in sides.wide]
    return [mean(first, scores) - mean(second, scores) for first, second in kept]


def _without_each_group(
    sides: _Sides, plus: Sequence[Comparison], minus: Sequence[Comparison], refits: list[list[float]], scores: Scores
) -> list:
    """Return each concatenation's gain without each group of its networks; of single networks, without each of them."""
    if all(refits):
        return refits
    if len(sides.C) < 2:
        return [float("nan")] * 2
    kept = [[[x for x in side if c not in (x.source, x.target)] for side in (plus, minus)] for c in sides.C]
    return [mean(first, scores) - mean(second, scores) for first, second in kept]


def _without_each_control(sides: _Sides, own: Sequence[Comparison], scores: Scores) -> list:
    """Return each concatenation's gain over its control without each group of the control's networks."""
    table = []
    for c, refits in zip(sides.C, sides.without_control(scores), strict=True):
        gain = mean((x for x in own if x.source == c), scores)
        table.append([gain - scores[refit].value for refit in refits])
    return table if all(table) else [float("nan")] * 2


def _accuracy_rows(sides: _Sides, statistic: str, asked: list[Comparison], scores: Scores) -> list[Row]:
    if not asked:
        return []
    over = accuracies.over_rows([(asked, 1.0)], scores)
    found = scores[asked[0]].values
    c = asked[0]
    target = described(c.target) if c.target else None
    residuals = dict(c.options)["form"] in ("appended", "alone", "permuted")
    spanned = f"; {found['spanned']} of {found['columns']} features have no residual" if residuals else ""
    numbers = interval_fields(over) | {"method": over.method + spanned, "n": found["rows"], "p": found["p"]}
    where = ("unseen", c.trained, str(sides.width), "parameters", described(c.source), target)
    return [Row(STUDY, "residual_accuracy", statistic, *where, **numbers)]


def _verdict(sides: _Sides, scores: Scores, design: Design) -> str:
    gains = _gains(sides, scores, design.level)
    wide, narrow = gains["wide"][1], gains["narrow"][1]
    margin = design.study.margins.probe_accuracy
    return verdicts.residuals(
        gain=(wide.low, wide.high), reverse=(narrow.low, narrow.high), margin=margin, wide=len(sides.wide)
    )
