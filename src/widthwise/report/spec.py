"""The vocabulary of the figures: panels side by side, series against width, all as Vega-Lite dictionaries.

Every specification is a `concat` of panels over named data sets, with the domain of every scale written
out, so that vl-convert draws it and `plain.py` can where vl-convert is missing.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from widthwise.report import theme
from widthwise.report.comparison import widths

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
STACKED_WIDTH = 292
LEAST_SPAN = 1e-6  # of an axis: what differs by less is rounding


@dataclass(frozen=True)
class Style:
    """How one series is drawn: its label in the legend, colour, shape and dash."""

    label: str
    colour: str
    shape: str
    dash: tuple[int, ...]


def style(label: str, colour: str, k: int) -> Style:
    """Return the style of the k-th series in a colour of the theme."""
    return Style(label, theme.LIGHT[colour], theme.SHAPES[k % 5], theme.DASHES[k % 5])


def width_styles(texts: Iterable[str | None]) -> dict[str | None, Style]:
    """Return a style for each width, ordered wide to narrow along one scale of colours."""
    return {
        width: Style(f"width {width}", theme.WIDTHS[k % 5], theme.SHAPES[k % 5], theme.DASHES[k % 5])
        for k, width in enumerate(widths(texts))
    }


def panel_width(n: int) -> int:
    """Return the width of one of n panels."""
    return {1: 520, 2: 372, 3: 232}[_columns(n)]


def figure(datasets: dict[str, list[dict]], panels: list[dict]) -> dict:
    """Return the whole specification of some panels over some data."""
    return {
        "$schema": SCHEMA,
        "config": theme.config(),
        "datasets": datasets,
        "columns": _columns(len(panels)),
        "concat": panels,
    }


def stacked(spec: dict) -> dict:
    """Return the same figure for a narrow screen: one panel a row, one legend entry a row."""
    legend = {**spec["config"]["legend"], "columns": 1}
    config = {**spec["config"], "legend": legend, "axisQuantitative": {"labelOverlap": "parity"}}
    panels = [{**panel, "width": min(panel["width"], _room(panel))} for panel in spec["concat"]]
    return {**spec, "config": config, "columns": 1, "concat": panels}


def panel(title: str, subtitle: str, data: str, layers: list[dict], width: int, height: int = 210) -> dict:
    """Return one panel: what its vertical axis shows is its subtitle, where it is read first."""
    words = {"text": title, "subtitle": subtitle}
    return {"title": words, "width": width, "height": height, "data": {"name": data}, "layer": layers}


def ordinal(field: str, domain: list[str], title: list[str] | None = None) -> dict:
    """Return an axis of named places; "1/4|16" is a label of two lines."""
    axis = {"labelExpr": "split(datum.label, '|')", "labelAngle": 0, "title": title, "ticks": False}
    scale = {"domain": domain, "paddingInner": 0.4, "paddingOuter": 0.2}
    return {"field": field, "type": "ordinal", "scale": scale, "sort": None, "axis": axis}


def quantitative(field: str, domain: tuple[float, float], **axis) -> dict:
    """Return an axis of numbers between two round ends, ticked at round numbers."""
    step = _step(domain[1] - domain[0])
    first, last = math.ceil(domain[0] / step - 1e-9), math.floor(domain[1] / step + 1e-9)
    ticks = [round(k * step, 12) for k in range(first, last + 1)]
    scale = {"domain": list(domain), "nice": False, "zero": False}
    form = f".{max(0, -math.floor(math.log10(step)))}f"
    axis = {"title": None, "values": ticks, "format": form, "grid": True, **axis}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": axis}


def logarithmic(field: str, domain: tuple[float, float], **axis) -> dict:
    """Return an axis of positive numbers by their logarithm, ticked at the decades; of few, between them too."""
    first, last = (round(math.log10(end)) for end in domain)
    between = (1, 2, 5) if last - first < 3 else (1,)
    ticks = [float(f"{k}e{power}") for power in range(first, last + 1) for k in between]
    ticks = [tick for tick in ticks if domain[0] * 0.999 <= tick <= domain[1] * 1.001]
    axis = {"values": ticks, "format": "~g", **axis}
    return {
        "field": field,
        "type": "quantitative",
        "scale": {"domain": list(domain), "type": "log"},
        "axis": axis,
    }


def signed(axis: dict) -> dict:
    """Return an axis of numbers whose labels carry their sign."""
    words = {"format": f"+{axis['axis']['format']}", "labelExpr": "datum.value === 0 ? '0' : datum.label"}
    return {**axis, "axis": {**axis["axis"], **words}}


def paint(channel: str, styles: list[Style]) -> dict:
    """Return the colour, shape or strokeDash of the series; those of one layer share one legend."""
    values = {"color": "colour", "shape": "shape", "strokeDash": "dash"}[channel]
    ranges = [list(value) if isinstance(value := getattr(s, values), tuple) else value for s in styles]
    scale = {"domain": [s.label for s in styles], "range": ranges}
    return {"field": "series", "type": "nominal", "title": None, "scale": scale}


def strokes(styles: list[Style]) -> dict:
    """Return the colour and dash of series that are lines only, with a legend of lines."""
    legend = {"symbolOpacity": 1, "symbolSize": 500, "symbolStrokeWidth": 1.8}
    return {channel: {**paint(channel, styles), "legend": legend} for channel in ("color", "strokeDash")}


def series(x: dict, y: dict, styles: list[Style], *, lines: bool = True) -> list[dict]:
    """Return the layers of series over named places: interval, line and point, side by side."""
    order = _side_by_side(styles)
    across, along = ("x", "y") if x["type"] == "ordinal" else ("y", "x")
    axes = {
        "x": x,
        "y": y,
        f"{across}Offset": {"field": "series", "type": "nominal", "scale": {"domain": order}},
    }
    colour = {"color": paint("color", styles)}
    ends = {along: {**axes[along], "field": "low"}, f"{along}2": {"field": "high"}}
    bars = layer({"type": "rule", "strokeWidth": 2}, {**axes, **ends, **colour}, only={"field": "low", "valid": True})
    paths = [
        layer({"type": "line", "strokeWidth": 1.5, "strokeDash": list(s.dash)}, {**axes, **colour}, only=of(s))
        for s in styles
    ]
    mark = {"type": "point", "filled": True, "size": 62, "opacity": 1}
    words = {"field": "text", "type": "nominal"}
    points = layer(mark, {**axes, **colour, "shape": paint("shape", styles), "description": words})
    return [bars, *paths, points] if lines else [bars, points]


def level(value: float, channel: str = "y", **mark) -> dict:
    """Return a line across the panel at one value."""
    look = {"type": "rule", "color": theme.LIGHT["zero"], "strokeWidth": 1, **mark}
    return {
        "data": {"values": [{}]},
        "mark": look,
        "encoding": {channel: {"datum": value, "type": "quantitative"}},
    }


def band(value: float, low: float | None, high: float | None) -> list[dict]:
    """Return a reference across the panel: a dashed line, and its interval as a band behind it."""
    colour = theme.LIGHT["baseline"]
    line = level(value, color=colour, strokeDash=[2, 2])
    if low is None or high is None:
        return [line]
    sides = {"y": {"datum": low, "type": "quantitative"}, "y2": {"datum": high}}
    return [
        {
            "data": {"values": [{}]},
            "mark": {"type": "rect", "color": colour, "opacity": 0.16},
            "encoding": sides,
        },
        line,
    ]


def dots(x: dict, y: dict, styles: list[Style], data: str) -> dict:
    """Return small dots of a data set of their own, behind the series."""
    offset = {"field": "series", "type": "nominal", "scale": {"domain": _side_by_side(styles)}}
    mark = {"type": "point", "filled": True, "size": 10, "opacity": 0.45, "color": theme.LIGHT["baseline"]}
    words = {"field": "text", "type": "nominal"}
    return layer(mark, {"x": x, "xOffset": offset, "y": y, "description": words}, data=data)


def layer(mark: dict, encoding: dict, *, data: str | None = None, only: dict | None = None) -> dict:
    """Return one layer; with `only` of the entries that satisfy that predicate."""
    found: dict = {"mark": mark, "encoding": encoding}
    if only:
        found["transform"] = [{"filter": only}]
    return {"data": {"name": data}, **found} if data else found


def of(look: Style) -> dict:
    """Return the predicate of one series."""
    return {"field": "series", "equal": look.label}


def ends(values: Iterable[float | None], *, include: Iterable[float] = ()) -> tuple[float, float]:
    """Return round ends that hold all the values, with a step's room where they are not in `include`."""
    numbers = [v for v in (*values, *include) if v is not None and math.isfinite(v)] or [0.0, 1.0]
    low, high = min(numbers), max(numbers)
    step = _step(max(high - low or abs(high) or 1.0, LEAST_SPAN))
    below = low if low in include else low - 0.2 * step
    above = high if high in include else high + 0.2 * step
    return round(math.floor(below / step) * step, 12), round(math.ceil(above / step) * step, 12)


def shares(domain: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of an axis of shares: none below 0 or above 1."""
    return max(0.0, domain[0]), min(1.0, domain[1])


def _step(span: float) -> float:
    """Return the round number, 1, 2 or 5 times a power of ten, nearest above a fifth of the span."""
    unit = 10.0 ** math.floor(math.log10(span / 5))
    return next(unit * k for k in (1, 2, 5, 10) if unit * k >= span / 5 * 0.999)


def _side_by_side(styles: list[Style]) -> list[str]:
    """Return the order of the series within a place: the others on either side of a baseline."""
    baseline = [s.label for s in styles if s.colour == theme.LIGHT["baseline"]]
    others = [s.label for s in styles if s.label not in baseline]
    middle = (len(others) + 1) // 2
    return [*others[:middle], *baseline, *others[middle:]]


def _columns(n: int) -> int:
    return {0: 1, 1: 1, 2: 2, 4: 2}.get(n, 3)


def _room(panel: dict) -> int:
    """Return the width that a panel has on a narrow screen: less where words stand to its left."""
    named = any(part["encoding"].get("y", {}).get("type") == "ordinal" for part in panel["layer"])
    return STACKED_WIDTH - 120 if named else STACKED_WIDTH
