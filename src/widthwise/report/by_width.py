"""Scores against width: span error, span gap and what its verdict rests on, accuracy of linear readouts."""

from collections.abc import Iterable

from widthwise.report.comparison import MATCHINGS, SPLITS, counts, distinct, one_interval, role, select, widest, widths
from widthwise.report.spec import (
    Style,
    band,
    dots,
    ends,
    figure,
    level,
    ordinal,
    panel,
    panel_width,
    quantitative,
    series,
    shares,
    signed,
    style,
    width_styles,
)
from widthwise.report.table import finite, text
from widthwise.results import FeatureErrors, Results, Row

COMPARED = {
    "width_gap": {
        ("compared", "parameters"): style("narrow networks, as many parameters", "blue", 0),
        ("compared", "features"): style("narrow networks, as many features", "vermilion", 1),
        ("baseline", None): style("another wide network", "baseline", 2),
        ("control", None): style("wide networks, as many features in all", "green", 3),
    },
    "reverse_gap": {
        ("compared", None): style("one wide network", "blue", 0),
        ("baseline", None): style("other narrow networks", "baseline", 2),
    },
}
COMPARED_ELSEWHERE = {
    ("compared", "parameters"): style("matched by parameters", "blue", 0),
    ("compared", "features"): style("matched by features", "vermilion", 1),
    ("compared", None): style("compared", "green", 3),
    ("baseline", None): style("another of the target's kind", "baseline", 2),
    ("control", None): style("several wide networks", "green", 3),
}
READOUTS = {
    "probe": style("linear probe", "blue", 0),
    "probe_unseen": style("linear probe, fitted on unseen rows", "green", 3),
    "ensemble_logits": style("ensemble, mean logits", "vermilion", 1),
    "ensemble_probabilities": style("ensemble, mean probabilities", "purple", 4),
    "own": style("one network alone", "baseline", 2),
}
CHECKS = {
    "extrapolated_richardson": "extrapolated, Richardson",
    "extrapolated_aitken": "extrapolated, Aitken",
    "standardized": "standardised sources",
    "within_class": "within class",
    "equal_accuracy": "equal training accuracy",
}
ZERO = {"value": 0.0, "low": None, "high": None}
WIDTH_TITLE = ["width", "networks together"]


def span_error(results: Results, study: str, trained: bool = True) -> dict | None:
    """Return span error against width, one panel a split."""
    rows, wide = _means(results, study, "span_error", trained), widest(results)
    places = _places(rows)
    shown = [(row, compared_style(row, wide)) for row in rows]
    equal = _shown(select(results.rows, study=study, statistic="mean_equal_size", trained=trained))
    shown += [(row, _look(study, "control", None)) for row in equal if row.width in places]
    entries = [_entry(row, places, look, "FSE") for row, look in shown]
    return _by_split(entries, in_order(look for _, look in shown), places, "span error (FSE)")


def span_gap(results: Results, study: str, trained: bool = True) -> dict | None:
    """Return the span gap against width with its zero line, one panel a split."""
    rows = one_interval(_means(results, study, "span_gap", trained))
    named = _places(_means(results, study, "span_error", trained) + rows)
    places = {width: named[width] for width in widths(row.width for row in rows)}
    shown = [(row, _look(study, "compared", row.matching)) for row in rows]
    entries = [_entry(row, places, look, "FSG") for row, look in shown]
    return _by_split(entries, in_order(look for _, look in shown), places, "span gap (FSG)", gap=True)


def gap_checks(results: Results, study: str) -> dict | None:
    """Return every form of the gap that a verdict looks at, one line each, coloured by width."""
    rows = one_interval(select(results.rows, study=study, measure="span_gap", trained=True, seed=None))
    named = _checks([row for row in rows if finite(row.value) is not None])
    order, looks = distinct(name for name, _ in named), width_styles(row.width for _, row in named)
    if len(order) < 2:
        return None
    entries = [{"check": name, **_numbers(row, looks[row.width], name)} for name, row in named]
    x = signed(quantitative("value", _domain([*entries, ZERO]), title="span gap (FSG)"))
    layers = [level(0, "x"), *series(x, ordinal("check", order), list(looks.values()), lines=False)]
    height = len(order) * (10 + 12 * len(looks))
    return figure({"checks": entries}, [panel("", "", "checks", layers, panel_width(1), height)])


def probe_accuracy(results: Results, study: str) -> dict | None:
    """Return test accuracy against width for every readout, one panel a matching rule."""
    rows = select(results.rows, study=study, measure="probe_accuracy", trained=True)
    rows = [row for row in rows if finite(row.value) is not None and row.width]
    rows = [row for row in rows if not row.statistic.endswith("_equal_size")]
    looks = _readouts(rows)
    datasets, panels = {}, []
    matchings = distinct((row.matching for row in rows), MATCHINGS) or ["all"]
    for name in matchings:
        here = [row for row in rows if row.matching in (name, None)]
        places = _places([row for row in here if row.seed is None] or here)
        entries = [_entry(row, places, looks[row.statistic], row.statistic) for row in here]
        datasets[name] = [entry for entry, row in zip(entries, here, strict=True) if row.seed is None]
        datasets[f"{name}, alone"] = [entry for entry, row in zip(entries, here, strict=True) if row.seed is not None]
        x = ordinal("x", list(places.values()), WIDTH_TITLE)
        y = quantitative("value", shares(_domain([_numbers(row) for row in rows])), format=".0%")
        layers = [dots(x, y, list(looks.values()), f"{name}, alone"), *series(x, y, list(looks.values()))]
        panels.append(panel(_matched(name), "test accuracy", name, layers, panel_width(len(matchings)), 270))
    return figure(datasets, panels) if rows else None


def compared_style(row: Row | FeatureErrors, wide: str | None) -> Style:
    """Return how a comparison is drawn, by the role of its source and its matching rule."""
    return _look(row.study, role(row.source, row.target, wide), row.matching)


def in_order(looks: Iterable[Style]) -> list[Style]:
    """Return the styles once each, what is compared before what it is read against."""
    known = [look for table in (*COMPARED.values(), COMPARED_ELSEWHERE) for look in table.values()]
    return distinct(looks, tuple(known))


def is_baseline(look: Style) -> bool:
    """Return whether a series is what the others are read against."""
    return any(table["baseline", None] == look for table in (*COMPARED.values(), COMPARED_ELSEWHERE))


def _look(study: str, part: str, matching: str | None) -> Style:
    keys = [(part, matching), (part, None)]
    tables = [COMPARED.get(study, {}), COMPARED_ELSEWHERE]
    return next(table[key] for table in tables for key in keys if key in table)


def _means(results: Results, study: str, measure: str, trained: bool) -> list[Row]:
    """Return the headline scores that have a place in a figure: a number, a width, no control."""
    rows = select(results.rows, study=study, measure=measure, statistic="mean", trained=trained, seed=None)
    wide = widest(results)
    return [row for row in _shown(rows) if role(row.source, row.target, wide) != "control"]


def _shown(rows: list[Row]) -> list[Row]:
    return [row for row in rows if finite(row.value) is not None and row.width and row.split]


def _places(rows: list[Row]) -> dict[str | None, str]:
    """Return for each width its place on the axis: the width, and below it how many networks together."""
    return {
        width: f"{width}|{counts(select(rows, width=width))}".rstrip("|") for width in widths(row.width for row in rows)
    }


def _entry(row: Row, places: dict, look: Style, what: str) -> dict:
    return {"x": places[row.width], "split": row.split, **_numbers(row, look, what.replace("_", " "))}


def _numbers(row: Row, look: Style | None = None, what: str = "") -> dict:
    """Return a row's numbers for a figure, with the words that a pointer or a screen reader meets."""
    low, high = finite(row.low), finite(row.high)
    words = f"{what} {text(row.value)}" + (f" [{text(low)}, {text(high)}]" if low is not None else "")
    label = look.label if look else ""
    source = (row.source or "").replace(" x ", " × ")
    return {
        "series": label,
        "value": row.value,
        "low": low,
        "high": high,
        "text": f"{label}, width {row.width}{f' ({source})' if source else ''}: {words}",
    }


def _by_split(entries, styles, places, subtitle, *, gap=False) -> dict | None:
    """Return one panel a split, all on one vertical scale."""
    splits = distinct((entry["split"] for entry in entries), SPLITS)
    if not splits:
        return None
    datasets = {split: [entry for entry in entries if entry["split"] == split] for split in splits}
    x = ordinal("x", list(places.values()), WIDTH_TITLE)
    y = quantitative("value", _domain([*entries, ZERO]) if gap else _domain(entries, floor=(0.0,)))
    layers = series(x, signed(y) if gap else y, styles)
    below = [level(0)] if gap else []
    panels = [
        panel(
            f"{split.capitalize()} rows",
            subtitle,
            split,
            [*below, *_reference(here, styles), *layers],
            panel_width(len(splits)),
        )
        for split, here in datasets.items()
    ]
    return figure(datasets, panels)


def _reference(entries: list[dict], styles: list[Style]) -> list[dict]:
    """Return the baseline across the whole panel, where it is one for all widths."""
    label = next((look.label for look in styles if is_baseline(look)), None)
    found = [entry for entry in entries if entry["series"] == label]
    return band(found[0]["value"], found[0]["low"], found[0]["high"]) if len(found) == 1 else []


def _checks(rows: list[Row]) -> list[tuple[str, Row]]:
    """Return the forms of the gap by name, the headline first."""
    split = next(iter(distinct((row.split for row in rows), SPLITS)), None)
    primary = next(iter(distinct((row.matching for row in rows), MATCHINGS)), None)
    found = []
    for name in distinct((row.split for row in rows if row.statistic == "mean"), SPLITS):
        found += [(f"{name} rows", row) for row in select(rows, statistic="mean", split=name, matching=primary)]
    for statistic, name in CHECKS.items():
        found += [(name, row) for row in select(rows, statistic=statistic, split=split, matching=primary)]
    others = [row for row in select(rows, statistic="mean", split=split) if row.matching != primary]
    return found + [(f"matched by {row.matching}", row) for row in others]


def _readouts(rows: list[Row]) -> dict[str, Style]:
    """Return a style for every readout there is, known ones first and in their own colours."""
    names = distinct((row.statistic for row in rows), tuple(READOUTS))
    spare = style("", "amber", 3)
    return {
        name: READOUTS.get(name) or Style(name.replace("_", " "), spare.colour, spare.shape, spare.dash)
        for name in names
    }


def _domain(entries: Iterable[dict], *, floor: tuple[float, ...] = ()) -> tuple[float, float]:
    return ends([entry[name] for entry in entries for name in ("value", "low", "high")], include=floor)


def _matched(name: str) -> str:
    return "All networks" if name == "all" else f"Matched by {name}"
