"""Finding 4.1: one wide network learns added and multiplied signals; many narrow ones, together, only the added ones.

Networks of the data `signals` that differ in their number of neurons. Beside the paper's Figures 5, 6 and 9 and its
table, its claim in its own terms: which signs, and which product of signs, can be read out linearly from the
concatenation of the narrow networks, from a wide one, and from either before training.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import exp, log
from typing import Any

from torch import Tensor

from widthwise import accuracies, seeds, toy_design
from widthwise.design import Comparison, Design, Net, Scores, described, snapshot
from widthwise.gap_rows import interval_fields
from widthwise.linalg import intervals
from widthwise.linalg.intervals import Interval, wilson
from widthwise.results import FeatureErrors, Finding, Row
from widthwise.verdicts import BELOW_RESOLUTION, CONFIRMED, NOT_CONFIRMED, OPPOSITE

STUDY = "toy"
NEURONS = True  # it compares networks by their number of neurons
DECADES = tuple(10.0 ** (k - 9) for k in range(11))
LEARNS = "One wide network learns what is multiplied, networks of few neurons do not (finding 4.1)"
READS = "Many networks of {} neurons, put together, do not give the product that one wide network gives"


def comparisons(
    design: Design, scores: Scores, *, cosine: float = 0.9, together: int = 128, untrained: bool = True
) -> Iterator[Comparison]:
    """Yield what every width has learned, and what is read out of the networks of each put together.

    Args:
        cosine: above it an activated neuron has learned its signal.
        together: networks of a width that are put together, at most.
        untrained: whether features are compared at the start too.
    """
    for neurons in toy_design.widths(design):
        yield _learned(design, neurons, cosine)
    for neurons in toy_design.narrow(design):
        for trained in _stages(untrained):
            yield _read_from_many(design, neurons, together, trained)
            yield from _reverse(design, neurons, together, trained)
            yield _read_from_one(design, neurons, trained)


def rows(
    design: Design, scores: Scores, *, cosine: float = 0.9, together: int = 128, untrained: bool = True
) -> list[Row]:
    """Return what each width learned, its neurons and accuracies, and errors of every sign from its features."""
    table: list[Row] = []
    for neurons in toy_design.widths(design):
        table += _learned_rows(design, scores, neurons, cosine)
        table += _activated_rows(design, scores, neurons, cosine)
        table += _candidate_rows(design, scores, neurons, cosine)
        table += _accuracy_rows(design, scores, neurons, cosine)
    table += _half_rows(design, scores, cosine)
    for trained in _stages(untrained):
        for neurons in toy_design.narrow(design):
            table += _many_rows(design, scores, neurons, together, trained)
        for neurons in toy_design.narrow(design)[:1]:
            table += _error_rows(design, scores, _read_from_one(design, neurons, trained), toy_design.wide(design))
    return table


def findings(
    design: Design, scores: Scores, *, cosine: float = 0.9, together: int = 128, untrained: bool = True
) -> list[Finding]:
    """Return finding 4.1 as the paper counts it, and as a linear readout decides it."""
    widths = toy_design.widths(design)
    if len(widths) < 2:
        return []
    found = [_learns(design, scores, widths[-1], widths[0], cosine)]
    return [*found, *(_reads(design, scores, neurons, together) for neurons in reversed(toy_design.narrow(design)))]


def errors(
    design: Design, scores: Scores, *, cosine: float = 0.9, together: int = 128, untrained: bool = True
) -> list[FeatureErrors]:
    """Return nothing: what is told of single signals is in the table."""
    return []


# Which networks -----------------------------------------------------------------------------------------


def _stages(untrained: bool) -> Sequence[bool]:
    return (True, False) if untrained else (True,)


def _many(design: Design, neurons: int, together: int) -> tuple[Net, ...]:
    return design.by_neurons(neurons)[:together]


def _target(design: Design) -> tuple[Net, ...]:
    return design.by_neurons(toy_design.wide(design))[:1]


def _pass(neurons: int, trained: bool) -> str:
    return f"{STUDY} {neurons} {snapshot(trained)}"


def _learned(design: Design, neurons: int, cosine: float) -> Comparison:
    options = () if cosine == 0.9 else (("cosine", cosine),)
    together = f"{STUDY} {neurons} networks"
    return Comparison("signals_learned", design.by_neurons(neurons), options=options, together=together)


def _read_from_many(design: Design, neurons: int, together: int, trained: bool) -> Comparison:
    options = (("leave_out", False), ("penalties", DECADES), ("row_blocks", True))
    return _readout(design, "growth_curve", _many(design, neurons, together), neurons, trained, options)


def _read_from_one(design: Design, neurons: int, trained: bool) -> Comparison:
    """Return what is read from another wide network: of the target's features and of the truths."""
    another = design.by_neurons(toy_design.wide(design))[1:2] or _target(design)
    return _readout(design, "span_error", another, neurons, trained)


def _readout(
    design: Design, measure: str, source: tuple[Net, ...], neurons: int, trained: bool, options: tuple = ()
) -> Comparison:
    target = tuple(net for net in _target(design) if net not in source)
    where = ("readout", snapshot(trained), "features")
    return Comparison(measure, source, target, *where, options, truths=True, together=_pass(neurons, trained))


def _reverse(design: Design, neurons: int, together: int, trained: bool) -> Iterator[Comparison]:
    """Yield the span errors of one wide network to every narrow one."""
    where = ("readout", snapshot(trained), "features")
    for net in _many(design, neurons, together):
        yield Comparison("span_error", _target(design), (net,), *where, together=_pass(neurons, trained))


# What networks have learned -----------------------------------------------------------------------------


def _row(measure: str, statistic: str, neurons: int, over: Interval | float, **more: Any) -> Row:
    numbers: dict[str, Any] = interval_fields(over) if isinstance(over, Interval) else {"value": float(over)}
    return Row(STUDY, measure, statistic, width=str(neurons), **numbers | more)


def _share(hits: Tensor | float, n: int) -> Interval:
    """Return a share of networks, or of neurons, with Wilson's interval."""
    return replace(wilson(int(hits), n), over="networks")


def _share_row(measure: str, statistic: str, neurons: int, hits: Tensor | float, n: int, **more: Any) -> Iterator[Row]:
    """Yield a share of n as a row; nothing of none."""
    if n:
        yield _row(measure, statistic, neurons, _share(hits, n), n=n, **more)


def _learned_rows(design: Design, scores: Scores, neurons: int, cosine: float) -> Iterator[Row]:
    learned = scores[_learned(design, neurons, cosine)].arrays["learned"]
    n, signals = learned.shape
    for k in range(signals):
        yield from _share_row("signal_learned", f"v{k + 1}", neurons, learned[:, k].sum(), n)
    if product := toy_design.multiplied(design):
        yield from _share_row("signal_learned", "multiplied", neurons, learned[:, product].all(1).sum(), n)
    yield from _share_row("signal_learned", "all", neurons, learned.all(1).sum(), n)


def _activated_rows(design: Design, scores: Scores, neurons: int, cosine: float) -> Iterator[Row]:
    """Yield the neurons that signals and noise activate: at the start beside theory, at the end, and what became."""
    arrays = scores[_learned(design, neurons, cosine)].arrays
    n, theory = arrays["activated"].shape[1], 2 * neurons * toy_design.tail(design)
    for k in range(arrays["activated"].shape[2]):
        name = f"v{k + 1}"
        for trained, counts in zip((False, True), arrays["activated"][..., k], strict=True):
            over = accuracies.over_networks(counts.tolist())
            over = replace(over, low=max(over.low, 0.0) if over.low == over.low else over.low)
            yield _row("activated_neurons", name, neurons, over, trained=trained, n=n)
        start, kept, new = (float(of[:, k].sum()) for of in (arrays["activated"][0], arrays["kept"], arrays["new"]))
        yield from _share_row("activated_neurons", f"{name}_kept", neurons, kept, int(start))
        yield _row("activated_neurons", f"{name}_new", neurons, new / n, n=n)
    for trained, at in ((False, 0), (True, -1)):
        yield _row("activated_neurons", "noise", neurons, float(arrays["through"][at, 0]), trained=trained, n=n)
    told = "expected: 2 m Q(threshold / deviation)"
    yield _row("activated_neurons", "expected", neurons, theory, trained=False, method=told)


def _candidate_rows(design: Design, scores: Scores, neurons: int, cosine: float) -> Iterator[Row]:
    """Yield how many networks begin with, and keep, a neuron for every multiplied signal, and how many learn them."""
    product = toy_design.multiplied(design)
    if not product:
        return
    arrays = scores[_learned(design, neurons, cosine)].arrays
    start, end = (counts[:, product].gt(0).all(1) for counts in arrays["activated"])
    learned = arrays["learned"][:, product].all(1)
    n, begun = len(start), int(start.sum())
    expected = (1 - exp(-2 * neurons * toy_design.tail(design))) ** len(product)
    yield from _share_row("candidates", "start", neurons, begun, n, trained=False)
    told = "expected: (1 - exp(-2 m Q(threshold / deviation)))^order"
    yield _row("candidates", "expected", neurons, expected, trained=False, method=told)
    yield from _share_row("candidates", "end", neurons, end.sum(), n)
    yield from _share_row("candidates", "start_learned", neurons, (start & learned).sum(), begun)
    yield from _share_row("candidates", "others_learned", neurons, (~start & learned).sum(), n - begun)


def _accuracy_rows(design: Design, scores: Scores, neurons: int, cosine: float) -> Iterator[Row]:
    arrays = scores[_learned(design, neurons, cosine)].arrays
    for name in ("train", "test"):
        values = arrays[f"{name}_accuracy"].tolist()
        yield _row("accuracy", name, neurons, accuracies.over_networks(values), n=len(values))
        yield _row("accuracy", f"{name}_lowest", neurons, min(values), n=len(values))
        yield _row("accuracy", f"{name}_highest", neurons, max(values), n=len(values))
    yield _row("training", "epochs", neurons, float(arrays["length"].mean()), n=len(arrays["length"]))
    yield from _share_row("training", "loss_is_small", neurons, arrays["stopped"].sum(), len(arrays["stopped"]))


def _half_rows(design: Design, scores: Scores, cosine: float) -> Iterator[Row]:
    """Yield the number of neurons at which half of the networks learn all multiplied signals, and at which, by theory,
    half begin with a neuron for each of them.
    """
    product, shares = toy_design.multiplied(design), {}
    if not product:
        return
    for neurons in reversed(toy_design.widths(design)):
        learned = scores[_learned(design, neurons, cosine)].arrays["learned"]
        shares[neurons] = float(learned[:, product].all(1).double().mean())
    for (few, below), (many, above) in pairwise(shares.items()):
        if below < 0.5 <= above:
            place = (0.5 - below) / (above - below)
            told = f"between {few} and {many}, on a logarithmic scale"
            half = exp(log(few) + place * (log(many) - log(few)))
            yield Row(STUDY, "half_width", "multiplied", value=half, method=told)
            break
    half = -log(1 - 0.5 ** (1 / len(product))) / (2 * toy_design.tail(design))
    told = "(1 - exp(-2 m Q(threshold / deviation)))^order = 1/2: half begin with all neurons"
    yield Row(STUDY, "half_width", "expected", trained=False, value=half, method=told)


# What can be read out -----------------------------------------------------------------------------------


def _error_rows(design: Design, scores: Scores, c: Comparison, neurons: int) -> Iterator[Row]:
    """Yield how badly a source spans every truth, and a wide network's features, with intervals over rows."""
    features = _features(design, c)
    for k, name in enumerate(toy_design.names(design)):
        yield _span_row(c, name, "signs", neurons, _over_rows(scores[c], [features + k]))
    if c.target:
        yield _span_row(c, "mean", described(c.target), neurons, _over_rows(scores[c], range(features)))


def _many_rows(design: Design, scores: Scores, neurons: int, together: int, trained: bool) -> Iterator[Row]:
    """Yield what many networks span, all of them and the first 1, 2, 4, ..., and what a wide one spans of them."""
    c = _read_from_many(design, neurons, together, trained)
    yield from _error_rows(design, scores, c, neurons)
    features, arrays = _features(design, c), scores[c].arrays
    supported = arrays["supported"][:features]
    for m in _sizes(len(c.source)):
        at = arrays["per_feature"][m - 1]
        for k, name in enumerate(toy_design.names(design)):
            yield _span_row(c, f"{name}_growth", "signs", neurons, float(at[features + k]), m)
        if bool(supported.any()):
            value = float(at[:features][supported].mean())
            yield _span_row(c, "mean_growth", described(c.target), neurons, value, m)
    back = list(_reverse(design, neurons, together, trained))
    if values := [value for value in (scores[c].value for c in back) if value == value]:
        yield _span_row(back[0], "mean", str(neurons), neurons, accuracies.over_networks(values))


def _span_row(
    c: Comparison, statistic: str, target: str, neurons: int, over: Interval | float, m: int | None = None
) -> Row:
    where = {"split": "readout", "trained": c.trained, "source": described(c.source[:m]), "target": target}
    return _row("span_error", statistic, neurons, over, **where)


def _features(design: Design, c: Comparison) -> int:
    """Return how many columns of a comparison's target are features; the truths are behind them."""
    return sum(design.features(net.width) for net in c.target)


def _over_rows(score, columns) -> Interval:
    """Return the mean error of some targets with its interval over rows."""
    columns = list(columns)
    supported = score.arrays["supported"][columns]
    last = score.arrays["per_feature"]
    errors = (last[-1] if last.ndim == 2 else last)[columns]
    sums, totals = (score.arrays[name][:, columns] for name in ("block_errors", "block_totals"))
    over = intervals.row_interval(sums, totals, supported, generator=seeds.stream(0, "row bootstrap"))
    return intervals.shifted(over, float(errors[supported].mean()) - over.value)


def _sizes(most: int) -> list[int]:
    return [m for m in (2**k for k in range(20)) if m < most] + [most]


# Findings -----------------------------------------------------------------------------------------------


def _learns(design: Design, scores: Scores, few: int, many: int, cosine: float) -> Finding:
    """Return finding 4.1 as shares of networks: of the most neurons, and of the fewest."""

    def share(neurons: int, signals: list[int]) -> Interval:
        learned = scores[_learned(design, neurons, cosine)].arrays["learned"]
        return _share(learned[:, signals].all(1).sum(), len(learned))

    product = toy_design.multiplied(design)
    narrow, wide = share(few, product), share(many, product)
    word = BELOW_RESOLUTION
    if narrow.high < wide.low:
        word = CONFIRMED
    elif wide.high < narrow.low:
        word = OPPOSITE
    sentence = (
        f"Of networks of {many:,} neurons {_percent(wide)} learned all multiplied signals, of those of {few:,} "
        f"{_percent(narrow)}."
    )
    decided = []
    for neurons in toy_design.widths(design):
        single = [
            f"v{k + 1} {_percent(share(neurons, [k]))}" for k in range(max(b for _, b in toy_design.signals(design)))
        ]
        decided.append(f"{neurons:,} neurons: {', '.join(single)}; Wilson intervals over networks.")
    return Finding(STUDY, LEARNS, word, sentence, tuple(decided))


def _reads(design: Design, scores: Scores, neurons: int, together: int) -> Finding:
    """Return what a linear readout of the narrow networks together misses of the products, beside one wide one."""
    many, one = _read_from_many(design, neurons, together, True), _read_from_one(design, neurons, True)
    products = [name for name in toy_design.names(design) if name.count("s") > 1]
    added = [name for name in toy_design.names(design)[: toy_design.options(design)["added"]]]

    def missed(c: Comparison, names: list[str]) -> Interval:
        start = _features(design, c)
        return _over_rows(scores[c], [start + toy_design.names(design).index(name) for name in names])

    narrow, wide = missed(many, products), missed(one, products)
    margin = design.study.margins.span_gap
    word = NOT_CONFIRMED
    if narrow.low > wide.high + margin:
        word = CONFIRMED
    elif narrow.high < wide.low - margin:
        word = OPPOSITE
    elif max(narrow.high - wide.low, wide.high - narrow.low) > max(0.1, margin):
        word = BELOW_RESOLUTION
    what = " and ".join(products)
    sentence = (
        f"A linear readout of {described(many.source)} neurons, together, misses {_percent(narrow)} of {what}; of one "
        f"network of {toy_design.wide(design):,} neurons it misses {_percent(wide)}."
    )
    told = [f"Of {what}: {_percent(narrow)} and {_percent(wide)}, intervals over rows."]
    if added:
        told.append(
            f"Of what is added ({', '.join(added)}) it misses {_percent(missed(many, added))} and "
            f"{_percent(missed(one, added))}; intervals over rows."
        )
    return Finding(STUDY, READS.format(neurons), word, sentence, tuple(told))


def _percent(over: Interval) -> str:
    return f"{100 * over.value:.1f} % [{100 * over.low:.1f}, {100 * over.high:.1f}]"
