"""A gap as rows of the score table, as a verdict (DEFINITIONS 6), and as sentences."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from widthwise import verdicts
from widthwise.design import Design, Scores, described
from widthwise.gaps import SPLITS, Gap, Side, Term, Variant, headline, mean, variants
from widthwise.linalg.intervals import Interval
from widthwise.results import FeatureErrors, Finding, Row

PLAIN = ("mean_all", "median", "variance_weighted", "worst", "constant", "unsupported", "outlying")


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
        size = {"n": found[0]["rows"], "p": found[0]["p_live"], "df": mean([f["df"] for f in found])}
        if variant.statistic != "mean":
            told = {"value": gap.mean(scores, variant, which), "method": _where(gap, variant, scores)}
            yield row(variant, variant.statistic, **told, **size)
            continue
        over = gap.over_rows(scores, variant, which)
        yield row(variant, "mean", **interval_fields(over) | size)
        for name in PLAIN:
            yield row(variant, name, value=mean([f[name] for f in found]), **size)


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
            told = {"value": gap.value(scores, variant), "method": _where(gap, variant, scores)}
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


def _where(gap: Gap, variant: Variant, scores: Scores) -> str | None:
    """Return which snapshots are compared, and how accurate the networks are there on the rows that trained them."""
    if variant.at is None:
        return None
    told = [f"width {width} {mean([scores[c].value for c in found]):.3f}" for width, found in gap.accuracies().items()]
    accuracy = variant.at.removeprefix("at_")
    return f"first epoch at a training accuracy of {accuracy}; then on all rows that train: {', '.join(told)}"


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
    interval = gap.over_networks(scores, headline("validation"), design.level)
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
    word = verdicts.gap_overall(words, estimates)
    told = [sentence(smallest, over), *_elsewhere(gaps, words, word)]
    return Finding(gaps[0].study, claim, word, " ".join(told), tuple(decided))


def _elsewhere(gaps: Sequence[Gap], words: Sequence[str], word: str) -> Iterator[str]:
    """Yield a sentence for each clear word that widths have and the claim as a whole has not."""
    for clear in (verdicts.CONFIRMED, verdicts.OPPOSITE):
        at = [str(gap.width) for gap, own in zip(gaps, words, strict=True) if own == clear]
        if at and clear != word:
            yield f"At width {' and '.join(at)} alone: {clear}."


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
