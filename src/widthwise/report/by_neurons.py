"""The toy's figures and tables: what networks of so many neurons learn, and what becomes of their neurons."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import isfinite
from typing import Literal

from widthwise.report.comparison import distinct, group, select, widths
from widthwise.report.spec import (
    Style,
    ends,
    figure,
    layer,
    logarithmic,
    ordinal,
    panel,
    panel_width,
    quantitative,
    series,
    shares,
    strokes,
    style,
    width_styles,
)
from widthwise.report.table import Cell, Table, text
from widthwise.results import Results, Row, TrainedNetwork

STUDY = "toy"
COLOURS = ("blue", "vermilion", "green", "purple", "baseline", "ink")


def tables(results: Results) -> list[Table]:
    """Return the paper's table anew, and the mechanism in numbers."""
    rows = select(results.rows, study=STUDY)
    return [_learned(rows), _why(rows), _neurons(rows)] if rows else []


def _learned(rows: list[Row]) -> Table:
    signals = _signals(rows)
    lines = []
    for width in widths(row.width for row in rows if row.measure == "signal_learned"):
        own = select(rows, width=width)
        cells: list[Cell] = [width, _one(own, "signal_learned", "all").n]
        cells += [_one(own, "accuracy", name).value for name in ("train", "test", "test_lowest", "test_highest")]
        cells += [_one(own, "signal_learned", name).value for name in (*signals, "multiplied")]
        over = _one(own, "signal_learned", "multiplied")
        lines.append((*cells, over.low, over.high))
    header = ("neurons", "networks", "train", "test", "lowest", "highest", *signals, "multiplied")
    caption = (
        "Accuracies (train, test) are means over networks, and the lowest and highest. Of each signal the share of "
    )
    caption += (
        "networks that learned it, of the multiplied ones of those that learned all, with its 95 % Wilson interval."
    )
    return Table("paper_toy", "Section 4: what networks learn", caption, (*header, "low", "high"), tuple(lines))


def _why(rows: list[Row]) -> Table:
    lines = []
    for width in widths(row.width for row in rows if row.measure == "candidates"):
        own = select(rows, width=width)
        found = [_one(own, "candidates", s) for s in ("start", "expected", "end", "start_learned", "others_learned")]
        start = found[0]
        lines.append((width, start.n, *(row.value for row in found), found[3].n))
    header = ("neurons", "networks", "at the start", "expected", "at the end", "of those at the start", "of the others")
    caption = "Shares of networks that have a neuron for each of the multiplied signals, at the start, by theory "
    caption += (
        "(1 - exp(-2 m Q(threshold / deviation)))^signals, and at the end; then the shares that learned all of them, "
    )
    caption += "of those that began so and of the others."
    half = {row.statistic: row.value for row in rows if row.measure == "half_width"}
    if "multiplied" in half:
        caption += (
            f" Half of the networks learn them at {half['multiplied']:,.0f} neurons; half begin with a neuron for each "
        )
        caption += f"at {half['expected']:,.0f} by theory."
    return Table("paper_toy_why", "Why: who begins with what it takes", caption, (*header, "begun so"), tuple(lines))


def _neurons(rows: list[Row]) -> Table:
    signals, lines = _signals(rows), []
    for width in widths(row.width for row in rows if row.measure == "activated_neurons"):
        own = select(rows, width=width, measure="activated_neurons")
        expected = _one(own, "activated_neurons", "expected").value
        for name in (*signals, "noise"):
            first, last = (_one(select(own, trained=t), "activated_neurons", name) for t in (False, True))
            kept, new = (_one(own, "activated_neurons", f"{name}_{what}") for what in ("kept", "new"))
            theory = expected if name != "noise" else None
            lines.append((width, name, first.value, first.low, first.high, theory, last.value, kept.value, new.value))
    header = ("neurons", "activated by", "at the start", "low", "high", "expected", "at the end", "share kept", "new")
    caption = "Neurons a network that each signal activates, of either sign, and that one noise patch activates on "
    caption += "average; theory is 2 m Q(threshold / deviation). New are those at the end that were none at the start."
    return Table("paper_toy_neurons", "Figures 6 and 9: activated neurons", caption, header, tuple(lines))


def activated(results: Results) -> dict | None:
    """Return activated neurons through training, a panel a number of neurons: by each signal, and by noise."""
    return _through(results, "activated", "activated neurons a network")


def cosines(results: Results) -> dict | None:
    """Return the best cosine of an activated neuron with each signal, the mean over networks, through training."""
    return _through(results, "cosine", "cosine with the signal")


def _through(results: Results, what: str, words: str) -> dict | None:
    networks = [network for network in results.networks if any(f"{what}_v1" in epoch for epoch in network.history)]
    if not networks:
        return None
    names = [name for name in networks[0].history[0] if name.startswith(f"{what}_")]
    looks = _looks([name.partition("_")[2] for name in names])
    order = widths(network.width for network in networks)
    datasets = {w: list(_course([n for n in networks if n.width == w], names, looks)) for w in order}
    room = panel_width(len(order))
    panels = [panel(f"{w} neurons", words, w, [_course_lines(datasets[w], looks, what)], room, 170) for w in order]
    return figure(datasets, panels)


def _course(networks: list[TrainedNetwork], names: list[str], looks: list[Style]) -> Iterator[dict]:
    """Yield the means over networks at every epoch; a network that has stopped stays as it was."""
    longest = max(len(network.history) for network in networks)
    for epoch in range(longest):
        at = [network.history[min(epoch, len(network.history) - 1)] for network in networks]
        for name, look in zip(names, looks, strict=True):
            yield {"epoch": epoch + 1, "value": sum(e[name] for e in at) / len(at), "series": look.label}


def _course_lines(entries: list[dict], looks: list[Style], what: str) -> dict:
    last = max(entry["epoch"] for entry in entries)
    domain = ends((e["value"] for e in entries), include=(0.0,))
    y = quantitative("value", shares(domain) if what == "cosine" else domain)
    x = quantitative("epoch", (0, last), title="epoch", format="d")
    return layer({"type": "line", "strokeWidth": 1.5}, {"x": x, "y": y, **strokes(looks)})


def readouts(results: Results) -> dict | None:
    """Return the span error of every sign and product from each source, trained and untrained."""
    rows = select(results.rows, study=STUDY, measure="span_error", target="signs")
    rows = [row for row in rows if not row.statistic.endswith("_growth")]
    if not rows:
        return None
    names = distinct(row.statistic for row in rows)
    looks = dict(zip(distinct(row.source for row in rows), _looks_of(rows), strict=True))
    datasets, panels = {}, []
    for trained, title in ((True, "Trained"), (False, "At the start")):
        own = select(rows, trained=trained)
        if not own:
            continue
        datasets[title] = [
            {
                "form": row.statistic,
                "series": looks[row.source].label,
                "value": row.value,
                "low": max(_end(row, "low"), 0.0),  # of a t interval; no error is below 0
                "high": _end(row, "high"),
                "text": f"{row.statistic} from {looks[row.source].label}: {text(row.value)}",
            }
            for row in own
        ]
        y = quantitative("value", ends((_end(row, "high") for row in rows), include=(0.0,)))
        layers = series(ordinal("form", names), y, list(looks.values()), lines=False)
        panels.append(panel(title, "span error (FSE)", title, layers, panel_width(2)))
    return figure(datasets, panels)


def _end(row: Row, which: Literal["low", "high"]) -> float:
    """Return an end of a row's interval, or its value where one network leaves it none."""
    end: float | None = getattr(row, which)
    return end if end is not None and isfinite(end) else row.value or 0.0


def _looks_of(rows: list[Row]) -> list[Style]:
    """Return a style a source, by the number of neurons of its networks."""
    found = [group(source) or (1, "") for source in distinct(row.source for row in rows)]
    of_width = width_styles(width for _, width in found)
    labels = [f"{m} networks of {width}" if m > 1 else f"one network of {width}" for m, width in found]
    return [replace(of_width[width], label=label) for label, (_, width) in zip(labels, found, strict=True)]


def growth(results: Results) -> dict | None:
    """Return span errors against the number of networks put together, a panel a number of neurons."""
    rows = select(results.rows, study=STUDY, measure="span_error", trained=True)
    rows = [row for row in rows if row.statistic.endswith("_growth")]
    if not rows:
        return None
    names = distinct(row.statistic for row in rows)
    labels = ["a wide network's features" if n == "mean_growth" else n.removesuffix("_growth") for n in names]
    looks = dict(zip(names, _looks(labels), strict=True))
    datasets, panels, order = {}, [], widths(row.width for row in rows)
    for width in order:
        own = select(rows, width=width)
        datasets[width] = [
            {"networks": (group(r.source) or (1, ""))[0], "value": r.value, "series": looks[r.statistic].label}
            for r in own
        ]
        most = max(entry["networks"] for entry in datasets[width])
        x = logarithmic("networks", (1, max(most, 2)), title="networks together", values=_doubling(most))
        y = quantitative("value", ends((e["value"] for e in datasets[width]), include=(0.0,)))
        lines = layer({"type": "line", "strokeWidth": 1.5}, {"x": x, "y": y, **strokes(list(looks.values()))})
        panels.append(panel(f"{width} neurons", "span error (FSE)", width, [lines], panel_width(len(order))))
    return figure(datasets, panels)


def _doubling(most: int) -> list[float]:
    return [float(4**k) for k in range(12) if 4**k <= most]


def _looks(labels: Iterable[str]) -> list[Style]:
    labels = list(labels)
    return [style(label, COLOURS[k % len(COLOURS)], k) for k, label in enumerate(labels)]


def _signals(rows: list[Row]) -> list[str]:
    names = distinct(row.statistic for row in rows if row.measure == "signal_learned")
    return [name for name in names if name not in ("multiplied", "all")]


def _one(rows: Iterable[Row], measure: str, statistic: str) -> Row:
    found = select(rows, measure=measure, statistic=statistic)
    return found[0] if found else Row("", "", "")
