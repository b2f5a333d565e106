"""Means of accuracies, and of differences of them, over the comparisons of a study: their intervals over rows."""

from collections.abc import Iterable, Sequence

from widthwise import seeds
from widthwise.design import Comparison, Scores
from widthwise.linalg import intervals
from widthwise.linalg.intervals import Interval

Signed = tuple[Sequence[Comparison], float]


def mean(comparisons: Iterable[Comparison], scores: Scores) -> float:
    """Return the mean of some accuracies; NaN of none."""
    values = [scores[c].value for c in comparisons]
    return sum(values) / len(values) if values else float("nan")


def over_rows(parts: Sequence[Signed], scores: Scores) -> Interval:
    """Return a signed sum of mean accuracies with its interval over rows, the draws paired across all of them."""
    terms, constant = [], 0.0
    for comparisons, sign in parts:
        constant += sign
        for c in comparisons:
            arrays = scores[c].arrays
            terms.append(intervals.Term(-sign / len(comparisons), arrays["block_wrong"], arrays["block_rows"]))
    found = intervals.row_interval_of(terms, generator=seeds.stream(0, "row bootstrap"))
    return intervals.shifted(found, constant)


def over_networks(values: Sequence[float]) -> Interval:
    """Return the mean of independent networks' values with its t interval: their jackknife."""
    total, n = sum(values), len(values)
    without = [(total - value) / (n - 1) for value in values] if n > 1 else [float("nan")] * 2
    return intervals.jackknife_gap(total / n, [without])
