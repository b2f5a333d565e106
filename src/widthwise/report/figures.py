"""The figures of the report, in order: what each is called, what to see in it, how it was computed.

What they draw is in `by_width.py`, `by_feature.py` and `by_epoch.py`: pure functions from results to a
Vega-Lite specification, or None where there is nothing to draw.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from widthwise.report import by_neurons
from widthwise.report.by_epoch import LINES_A_WIDTH, training_curves
from widthwise.report.by_feature import BINS_A_DECADE, feature_errors
from widthwise.report.by_form import residual_accuracy
from widthwise.report.by_width import gap_checks, probe_accuracy, span_error, span_gap
from widthwise.report.comparison import MATCHINGS, distinct, one_interval, select, slug
from widthwise.report.table import finite
from widthwise.results import Results, Row

TABLES_ONLY = ("outliers", "toy")  # or figures of their own
UNJUDGED = ("shuffled",)  # studies of gaps that no verdict rests on
ASKED = {
    "width_gap": "narrow networks span a wide one",
    "reverse_gap": "a wide network spans narrow ones",
    "shuffled": "narrow networks span a wide one, on rows of every kind and mixed",
}
PAPER = {  # which of the paper's figures a figure draws anew
    "span_error_width_gap": "The paper's Figures 1 and 11.",
    "span_gap_width_gap": "The paper's Figures 1 and 11.",
    "span_error_reverse_gap": "The paper's Figures 2 and 13.",
    "span_gap_reverse_gap": "The paper's Figures 2 and 13.",
    "probe_accuracy_feature_performance": "The paper's Figure 3.",
    "residual_accuracy_residuals": "The paper's Figures 4 and 10.",
    "span_error_width_gap_untrained": "The paper's Figures 7 and 12.",
    "span_gap_width_gap_untrained": "The paper's Figures 7 and 12.",
    "span_error_reverse_gap_untrained": "The paper's Figures 8 and 14.",
    "span_gap_reverse_gap_untrained": "The paper's Figures 8 and 14.",
}


@dataclass(frozen=True)
class Figure:
    """A figure: `name` is its file's, `spec` its Vega-Lite specification; `study` whose page it is on."""

    name: str
    title: str
    caption: str
    spec: dict
    study: str | None = None


def figures(results: Results) -> list[Figure]:
    """Return every figure that has something to show, in the order of the page."""
    studies = distinct([row.study for row in results.rows] + [found.study for found in results.feature_errors])
    studies = [study for study in studies if study not in TABLES_ONLY]
    found = [replace(f, study=s) for s in studies for f in (*_spans(results, s), *_readouts(results, s))]
    found += [replace(f, study=s) for s in studies for f in _untrained(results, s)]
    found += [replace(figure, study="toy") for figure in _toy(results)]
    return found + [replace(figure, study="training") for figure in _training(results)]


def _spans(results: Results, study: str) -> Iterator[Figure]:
    asked, named = _asked(study), study.replace("_", " ")
    yield from _drawn(
        f"span_error_{study}",
        f"Span error: how well {asked}",
        f"Lower is better spanned: 0 is spanned, 1 no better than the mean.{_bars(results, study, 'span_error')}",
        span_error(results, study),
    )
    yield from _drawn(
        f"span_gap_{study}",
        f"Span gap: how well {asked}",
        "The span error less that of another network of the target’s own kind: above the line the source "
        f"misses more, below it misses less.{_bars(results, study, 'span_gap')}",
        span_gap(results, study),
    )
    yield from _drawn(
        f"gap_checks_{study}",
        f"What the verdict rests on: {named}",
        "A gap counts where it is beyond the margin on the first kind of rows, extrapolated to endless rows in two "
        "ways too, and on the same side of zero on the others and with standardised sources. With the means of the "
        "classes taken out, and between networks of equal training accuracy, it stands beside; no verdict asks these."
        f"{_bars(results, study, 'span_gap', below=False)}",
        None if study in UNJUDGED else gap_checks(results, study),
    )
    yield from _drawn(
        f"feature_errors_{study}",
        f"Errors of single features: {named}",
        "What a mean hides: the share of target features by their own span error, on a logarithmic scale "
        f"with {BINS_A_DECADE} bins a decade; grey is the baseline, where there is one.",
        feature_errors(results, study),
    )


def _readouts(results: Results, study: str) -> Iterator[Figure]:
    yield from _drawn(
        f"probe_accuracy_{study}",
        "Performance: what a linear readout gets",
        "A probe below the ensemble of the same networks says nothing of their features, for that ensemble "
        "is a linear readout of them too. Small dots, where there are any, are single networks."
        f"{_bars(results, study, 'probe_accuracy')}",
        probe_accuracy(results, study),
    )

    yield from _drawn(
        f"residual_accuracy_{study}",
        "Residuals: what one side misses of the other, beside its own features",
        "Probes fitted and scored on rows that no network was trained on. What residuals of the other kind add is "
        "read against what as many of the same kind, of noise, or of other rows add."
        f"{_bars(results, study, 'residual_accuracy', below=False)}",
        residual_accuracy(results, study),
    )


def _untrained(results: Results, study: str) -> Iterator[Figure]:
    yield from _drawn(
        f"span_error_{study}_untrained",
        f"Before training: how well {_asked(study)}",
        "The same measurement at initialisation: what training has to be compared with."
        f"{_bars(results, study, 'span_error', trained=False)}",
        span_error(results, study, trained=False),
    )
    yield from _drawn(
        f"span_gap_{study}_untrained",
        f"Before training: {study.replace('_', ' ')}",
        f"The same gap at initialisation.{_bars(results, study, 'span_gap', trained=False)}",
        span_gap(results, study, trained=False),
    )


def _toy(results: Results) -> Iterator[Figure]:
    """Yield the figures of networks that differ in their number of neurons."""
    yield from _drawn(
        "toy_cosines",
        "What neurons turn to",
        "The best cosine of an activated neuron with each signal, the mean over networks; 0 where a network has no "
        "such neuron; from the end of the first epoch. The paper's Figure 5.",
        by_neurons.cosines(results),
    )
    yield from _drawn(
        "toy_activated",
        "Neurons that signals and noise activate, through training",
        "Neurons a network that each signal activates, of either sign, and that one noise patch activates on average; "
        "from the end of the first epoch. The paper's Figures 6 and 9.",
        by_neurons.activated(results),
    )
    yield from _drawn(
        "toy_readouts",
        "What can be read out of networks put together",
        "The span error of every sign and product, from the last hidden layers: 0 can be read out linearly, 1 "
        "not at all. Bars: 95 % intervals, of networks put together over rows, of one wide network over networks.",
        by_neurons.readouts(results),
    )
    yield from _drawn(
        "toy_growth",
        "What one more network adds",
        "The same error, of the first 1, 2, 4, ... networks together, trained.",
        by_neurons.growth(results),
    )


def _training(results: Results) -> Iterator[Figure]:
    yield from _drawn(
        "training_curves",
        "Training",
        "Each line is one network: features are compared fairly only between networks that have trained "
        f"equally far. At most {LINES_A_WIDTH} networks of a width are drawn.",
        training_curves(results),
    )


def _drawn(name: str, title: str, caption: str, spec: dict | None) -> Iterator[Figure]:
    if spec is not None:
        yield Figure(slug(name), title, f"{caption} {PAPER.get(slug(name), '')}".rstrip(), spec)


def _asked(study: str) -> str:
    return ASKED.get(study, study.replace("_", " "))


def _bars(results: Results, study: str, measure: str, *, trained: bool = True, below: bool = True) -> str:
    """Return what the bars of a figure are, and how the numbers below its widths are to be read."""
    rows = select(results.rows, study=study, measure=measure, trained=trained, seed=None)
    rows = [row for row in one_interval(rows) if row.measure.endswith("_accuracy") or row.statistic == "mean"]
    words = distinct(_over(row) for row in rows)
    if len(words) > 1:
        words = [f"{word} on {_splits(rows, word)}" for word in words]
    bars = f" Bars: 95 % intervals {'; '.join(words)}." if words else ""
    rules = distinct((row.matching for row in rows), MATCHINGS)
    both = " Below each width: how many networks stand together, by parameters and by features."
    return bars + (both if below and len(rules) > 1 and measure != "probe_accuracy" else "")


def _splits(rows: list[Row], word: str) -> str:
    return f"{' and '.join(distinct(row.split for row in rows if _over(row) == word))} rows"


def _over(row: Row) -> str | None:
    if finite(row.low) is None or not row.interval_over:
        return None
    return f"over {row.interval_over}" + (f" ({row.method.partition(';')[0]})" if row.method else "")
