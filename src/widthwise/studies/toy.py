"""Finding 4.1: one wide network learns added and multiplied signals; many narrow ones, together, only the added ones.

Networks of the data `signals` that differ in their number of neurons. Beside the paper's Figures 5, 6 and 9 and its
table, its claim in its own terms: which signs, and which product of signs, can be read out linearly from the
concatenation of the narrow networks, from a wide one, and from either before training.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import exp, isfinite, log
from typing import Any

from torch import Tensor

from widthwise import accuracies, seeds
from widthwise.design import Comparison, Design, Scores, described
from widthwise.gap_rows import interval_fields
from widthwise.linalg import intervals
from widthwise.linalg.intervals import Interval, wilson
from widthwise.measures.base import Score
from widthwise.results import FeatureErrors, Finding, Row
from widthwise.toy_design import STUDY, Toy
from widthwise.verdicts import BELOW_RESOLUTION, CONFIRMED, NOT_CONFIRMED, OPPOSITE

NEURONS = True  # it compares networks by their number of neurons
LEARNS = "One wide network learns what is multiplied, networks of few neurons do not (finding 4.1)"
READS = "Many networks of {} neurons, put together, do not give the products that one wide network gives"
SMALL = 0.01  # of a loss: below it a network has learned its task
FEWEST = 3  # networks of an interval over networks that decides something
HALF = 0.5  # of a product's variance: who misses less gives it


def comparisons(
    design: Design,
    scores: Scores,
    *,
    cosine: float = 0.9,
    together: int = 128,
    untrained: bool = True,
    wide: int | None = None,
) -> Iterator[Comparison]:
    """Yield what every width has learned, and what is read out of the networks of each put together; options: `Toy`."""
    toy = Toy(design, cosine, together, untrained, wide)
    for neurons in toy.widths:
        yield toy.learned(neurons)
    for trained in toy.stages:
        for neurons in toy.narrow:
            yield toy.from_many(neurons, trained)
            yield from toy.of_each_narrow(neurons, trained)
        yield from toy.from_each_wide(trained)


def rows(
    design: Design,
    scores: Scores,
    *,
    cosine: float = 0.9,
    together: int = 128,
    untrained: bool = True,
    wide: int | None = None,
) -> list[Row]:
    """Return what each width learned, its neurons and accuracies, and errors of every sign from its features."""
    toy = Toy(design, cosine, together, untrained, wide)
    table: list[Row] = []
    for neurons in toy.widths:
        arrays = scores[toy.learned(neurons)].arrays
        table += _learned_rows(toy, neurons, arrays["learned"])
        table += _activated_rows(toy, neurons, arrays)
        table += _candidate_rows(toy, neurons, arrays)
        table += _accuracy_rows(neurons, arrays)
    table += _half_rows(toy, scores)
    for trained in toy.stages:
        for neurons in toy.narrow:
            table += _many_rows(toy, scores, neurons, trained)
        table += _wide_rows(toy, scores, trained)
    return table


def findings(
    design: Design,
    scores: Scores,
    *,
    cosine: float = 0.9,
    together: int = 128,
    untrained: bool = True,
    wide: int | None = None,
) -> list[Finding]:
    """Return finding 4.1 as the paper counts it, and as a linear readout decides it; nothing without a product."""
    toy = Toy(design, cosine, together, untrained, wide)
    if not (toy.narrow and toy.multiplied):
        return []
    return [_learns(toy, scores), *(_reads(toy, scores, neurons) for neurons in reversed(toy.narrow))]


def errors(
    design: Design,
    scores: Scores,
    *,
    cosine: float = 0.9,
    together: int = 128,
    untrained: bool = True,
    wide: int | None = None,
) -> list[FeatureErrors]:
    """Return nothing: what is told of single signals is in the table."""
    return []


# What networks have learned -----------------------------------------------------------------------------


def _row(measure: str, statistic: str, neurons: int, over: Interval | float, **more: Any) -> Row:
    numbers: dict[str, Any] = interval_fields(over) if isinstance(over, Interval) else {"value": float(over)}
    return Row(STUDY, measure, statistic, width=str(neurons), **numbers | more)


def _share(hits: Tensor | float, n: int) -> Interval:
    """Return a share of networks with Wilson's interval."""
    return replace(wilson(int(hits), n), over="networks")


def _share_row(measure: str, statistic: str, neurons: int, hits: Tensor | float, n: int, **more: Any) -> Iterator[Row]:
    """Yield a share of n networks as a row; nothing of none."""
    if n:
        yield _row(measure, statistic, neurons, _share(hits, n), n=n, **more)


def _mean_row(
    measure: str, statistic: str, neurons: int, values: Sequence[float], *, least: float = 0.0, **more: Any
) -> Iterator[Row]:
    """Yield a mean over networks of what is never below `least`; nothing of none."""
    if values:
        over = accuracies.over_networks(values)
        over = replace(over, low=max(over.low, least)) if isfinite(over.low) else over
        yield _row(measure, statistic, neurons, over, n=len(values), **more)


def _learned_rows(toy: Toy, neurons: int, learned: Tensor) -> Iterator[Row]:
    n = len(learned)
    for k in range(toy.signals):
        yield from _share_row("signal_learned", f"v{k + 1}", neurons, learned[:, k].sum(), n)
    if toy.multiplied:
        yield from _share_row("signal_learned", "multiplied", neurons, learned[:, toy.multiplied].all(1).sum(), n)
    yield from _share_row("signal_learned", "all", neurons, learned.all(1).sum(), n)


def _activated_rows(toy: Toy, neurons: int, arrays: Any) -> Iterator[Row]:
    """Yield the neurons that signals and noise activate: at the start beside theory, at the end, and what became."""
    for k in range(toy.signals):
        name, (start, end) = f"v{k + 1}", arrays["activated"][..., k]
        for trained, counts in ((False, start), (True, end)):
            yield from _mean_row("activated_neurons", name, neurons, counts.tolist(), trained=trained)
        had = start > 0
        kept = (arrays["kept"][had, k] / start[had]).tolist()
        yield from _mean_row("activated_neurons", f"{name}_kept", neurons, kept)
        yield from _mean_row("activated_neurons", f"{name}_new", neurons, arrays["new"][:, k].tolist())
    for trained, counts in zip((False, True), arrays["noise"], strict=True):
        yield from _mean_row("activated_neurons", "noise", neurons, counts.tolist(), trained=trained)
    told = "expected: 2 m Q(threshold / deviation)"
    yield _row("activated_neurons", "expected", neurons, 2 * neurons * toy.tail, trained=False, method=told)


def _candidate_rows(toy: Toy, neurons: int, arrays: Any) -> Iterator[Row]:
    """Yield how many networks begin with, and keep, a neuron for every multiplied signal, and how many learn them."""
    if not toy.multiplied:
        return
    start, end = (counts[:, toy.multiplied].gt(0).all(1) for counts in arrays["activated"])
    learned = arrays["learned"][:, toy.multiplied].all(1)
    n, begun = len(start), int(start.sum())
    yield from _share_row("candidates", "start", neurons, begun, n, trained=False)
    told = "expected: (1 - exp(-2 m Q(threshold / deviation)))^signals"
    expected = (1 - exp(-2 * neurons * toy.tail)) ** len(toy.multiplied)
    yield _row("candidates", "expected", neurons, expected, trained=False, method=told)
    yield from _share_row("candidates", "end", neurons, end.sum(), n)
    yield from _share_row("candidates", "start_learned", neurons, (start & learned).sum(), begun)
    yield from _share_row("candidates", "others_learned", neurons, (~start & learned).sum(), n - begun)


def _accuracy_rows(neurons: int, arrays: Any) -> Iterator[Row]:
    for name in ("train", "test"):
        values = arrays[f"{name}_accuracy"].tolist()
        yield from _mean_row("accuracy", name, neurons, values)
        yield _row("accuracy", f"{name}_lowest", neurons, min(values), n=len(values))
        yield _row("accuracy", f"{name}_highest", neurons, max(values), n=len(values))
    losses = arrays["train_loss"]
    yield from _mean_row("training", "epochs", neurons, arrays["length"].tolist())
    yield from _share_row("training", f"loss_below_{SMALL:g}", neurons, (losses < SMALL).sum(), len(losses))


def _half_rows(toy: Toy, scores: Scores) -> Iterator[Row]:
    """Yield the neurons at which half of the networks learn all multiplied signals, and those at which, by theory,
    half begin with a neuron for each of them.
    """
    if not toy.multiplied:
        return
    shares = {}
    for neurons in reversed(toy.widths):
        learned = scores[toy.learned(neurons)].arrays["learned"]
        shares[neurons] = float(learned[:, toy.multiplied].all(1).double().mean())
    for (few, below), (many, above) in pairwise(shares.items()):
        if below < HALF <= above:
            half = exp(log(few) + (HALF - below) / (above - below) * (log(many) - log(few)))
            told = f"between {few} and {many}, on a logarithmic scale"
            yield Row(STUDY, "half_width", "multiplied", value=half, method=told)
            break
    half = -log(1 - HALF ** (1 / len(toy.multiplied))) / (2 * toy.tail)
    told = "(1 - exp(-2 m Q(threshold / deviation)))^signals = 1/2: half begin with all neurons"
    yield Row(STUDY, "half_width", "expected", trained=False, value=half, method=told)


# What can be read out -----------------------------------------------------------------------------------


def _many_rows(toy: Toy, scores: Scores, neurons: int, trained: bool) -> Iterator[Row]:
    """Yield what many networks span, all of them and the first 1, 2, 4, ..., and what a wide one spans of them."""
    c = toy.from_many(neurons, trained)
    score, features = scores[c], toy.features(c)
    for k, name in enumerate(toy.truths):
        yield _span_row(c, name, "signs", neurons, _over_rows(score, [features + k]))
    supported = score.arrays["supported"][:features]
    if bool(supported.any()):
        yield _span_row(c, "mean", described(c.target), neurons, _over_rows(score, range(features)))
    for m in _sizes(len(c.source)):
        at = score.arrays["per_feature"][m - 1]
        for k, name in enumerate(toy.truths):
            yield _span_row(c, f"{name}_growth", "signs", neurons, float(at[features + k]), m)
        if bool(supported.any()):
            value = float(at[:features][supported].mean())
            yield _span_row(c, "mean_growth", described(c.target), neurons, value, m)
    back = list(toy.of_each_narrow(neurons, trained))
    if values := [value for value in (scores[c].value for c in back) if isfinite(value)]:
        yield _span_row(back[0], "mean", str(neurons), neurons, accuracies.over_networks(values))


def _wide_rows(toy: Toy, scores: Scores, trained: bool) -> Iterator[Row]:
    """Yield what a wide network spans, the mean over all of them, with intervals over networks."""
    every = toy.from_each_wide(trained)
    if not every:
        return
    neurons = int(every[0].source[0].width)
    for name in toy.truths:
        over = accuracies.over_networks([_missed(toy, scores, c, [name]) for c in every])
        yield _span_row(every[0], name, "signs", neurons, over)
    others = [c for c in every if c.target]
    means = [_mean(scores[c], range(toy.features(c))) for c in others]
    if means and all(map(isfinite, means)):
        yield _span_row(others[0], "mean", described(others[0].target), neurons, accuracies.over_networks(means))


def _span_row(
    c: Comparison, statistic: str, target: str, neurons: int, over: Interval | float, m: int | None = None
) -> Row:
    where = {"split": "readout", "trained": c.trained, "source": described(c.source[:m]), "target": target}
    return _row("span_error", statistic, neurons, over, **where)


def _missed(toy: Toy, scores: Scores, c: Comparison, names: Iterable[str]) -> float:
    """Return the mean error of some truths."""
    return _mean(scores[c], [toy.features(c) + toy.truths.index(name) for name in names])


def _mean(score: Score, columns: Iterable[int]) -> float:
    """Return the mean error of some targets, of all networks where there are curves; NaN where none is supported."""
    columns, errors = list(columns), score.arrays["per_feature"]
    supported = score.arrays["supported"][columns]
    return float((errors[-1] if errors.ndim == 2 else errors)[columns][supported].mean())


def _over_rows(score: Score, columns: Iterable[int]) -> Interval:
    """Return the mean error of some targets with its interval over rows."""
    columns = list(columns)
    sums, totals = (score.arrays[name][:, columns] for name in ("block_errors", "block_totals"))
    supported = score.arrays["supported"][columns]
    over = intervals.row_interval(sums, totals, supported, generator=seeds.stream(0, "row bootstrap"))
    return intervals.shifted(over, _mean(score, columns) - over.value)


def _sizes(most: int) -> list[int]:
    return [m for m in (2**k for k in range(20)) if m < most] + [most]


# Findings -----------------------------------------------------------------------------------------------


def _learns(toy: Toy, scores: Scores) -> Finding:
    """Return finding 4.1 as shares of networks: of the most neurons, and of the fewest."""

    def share(neurons: int, signals: list[int]) -> Interval:
        learned = scores[toy.learned(neurons)].arrays["learned"]
        return _share(learned[:, signals].all(1).sum(), len(learned))

    few, many = toy.widths[-1], toy.widths[0]
    narrow, wide = share(few, toy.multiplied), share(many, toy.multiplied)
    word = BELOW_RESOLUTION
    if narrow.high < wide.low:
        word = CONFIRMED
    elif wide.high < narrow.low:
        word = OPPOSITE
    elif narrow.low > HALF or wide.high < HALF:  # few learn it too, or many do not
        word = NOT_CONFIRMED
    sentence = (
        f"Of networks of {many:,} neurons {_percent(wide)} learned all multiplied signals, of those of {few:,} "
        f"{_percent(narrow)}."
    )
    decided = []
    for neurons in toy.widths:
        single = [f"v{k + 1} {_percent(share(neurons, [k]))}" for k in range(toy.signals)]
        decided.append(f"{neurons:,} neurons: {', '.join(single)}; Wilson intervals over networks.")
    return Finding(STUDY, LEARNS, word, sentence, tuple(decided))


def _reads(toy: Toy, scores: Scores, neurons: int) -> Finding:
    """Return whether a linear readout of the narrow networks together, and of a wide one, gives the products."""
    many, each = toy.from_many(neurons, True), toy.from_each_wide(True)
    features = toy.features(many)
    narrow = _over_rows(scores[many], [features + toy.truths.index(name) for name in toy.products])
    wide = accuracies.over_networks([_missed(toy, scores, c, toy.products) for c in each])
    word = BELOW_RESOLUTION
    if len(each) >= FEWEST and isfinite(wide.low):
        if narrow.low > HALF > wide.high:
            word = CONFIRMED
        elif wide.low > HALF > narrow.high:
            word = OPPOSITE
        elif max(narrow.high, wide.high) < HALF:
            word = NOT_CONFIRMED
    what = " and ".join(toy.products)
    sentence = (
        f"A linear readout of {described(many.source)} neurons, together, misses {_percent(narrow)} of {what}; of one "
        f"network of {int(each[0].source[0].width):,} neurons it misses {_percent(wide)}."
    )
    told = [
        f"Who misses less than half gives it. Intervals over rows, and over {len(each)} wide networks"
        + ("." if len(each) >= FEWEST else f", which are too few: a verdict takes {FEWEST}.")
    ]
    if toy.added:
        added = [features + toy.truths.index(name) for name in toy.added]
        other = accuracies.over_networks([_missed(toy, scores, c, toy.added) for c in each])
        told.append(
            f"Of what is added ({', '.join(toy.added)}) it misses {_percent(_over_rows(scores[many], added))} and "
            f"{_percent(other)}."
        )
    return Finding(STUDY, READS.format(neurons), word, sentence, tuple(told))


def _percent(over: Interval) -> str:
    interval = f" [{100 * over.low:.1f}, {100 * over.high:.1f}]" if isfinite(over.low) else ""
    return f"{100 * over.value:.1f} %{interval}"
