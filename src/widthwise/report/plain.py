"""The figures drawn by hand: the part of Vega-Lite that `spec.py` speaks, for where vl-convert is missing."""

import math
from collections.abc import Callable, Iterable
from html import escape

from widthwise.report.theme import FONT, LIGHT

Entry = dict
LEFT, LEFT_OF_NAMES, TOP, RIGHT, BOTTOM, LEGEND_ROW = 52, 170, 56, 14, 66, 22
CHARACTER = 6.6  # the mean width of one at 12 pixels


def draw(spec: dict) -> str:
    """Return a specification as SVG."""
    panels, columns = spec["concat"], spec["columns"]
    sizes = [(_left(panel) + panel["width"] + RIGHT, _top(panel) + panel["height"] + BOTTOM) for panel in panels]
    width = max(sum(w for w, _ in sizes[k : k + columns]) for k in range(0, len(sizes), columns))
    legend, y = _legend(panels, width, spec["config"]["legend"].get("columns"))
    parts = [legend]
    for k in range(0, len(panels), columns):
        x = 0
        for panel, (w, _) in zip(panels[k : k + columns], sizes[k : k + columns], strict=True):
            parts.append(
                f'<g transform="translate({x + _left(panel)},{y + _top(panel)})">{_panel(panel, spec["datasets"])}</g>'
            )
            x += w
        y += max(h for _, h in sizes[k : k + columns])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}"'
    ground = f'<rect width="{width}" height="{y}" fill="{LIGHT["paper"]}"/>'
    return f'{head} font-family="{FONT}" font-size="12px">{ground}{"".join(parts)}</svg>\n'


def _panel(panel: dict, datasets: dict[str, list[Entry]]) -> str:
    size = {"x": panel["width"], "y": panel["height"]}
    scaled = next(layer for layer in panel["layer"] if {"x", "y"} <= set(layer["encoding"]))["encoding"]
    places = {
        channel: _scale(scaled[channel], scaled.get(f"{channel}Offset"), size[channel], channel) for channel in "xy"
    }
    title = panel["title"]
    parts = [
        _text(0, -32, title["text"], weight=600, size=13),
        _text(0, -15, title["subtitle"], colour="muted"),
        *(_axis(channel, scaled[channel], places[channel], size) for channel in "xy"),
    ]
    for layer in panel["layer"]:
        source = layer.get("data", panel["data"])
        entries = source["values"] if "values" in source else datasets[source["name"]]
        parts.append(_layer(layer, [entry for entry in entries if _kept(layer, entry)], places, size))
    return "".join(parts)


def _scale(encoding: dict, offset: dict | None, size: int, channel: str) -> Callable[[Entry, float | str], float]:
    """Return where a value of an entry stands, in pixels from the left or the top."""
    domain = encoding["scale"]["domain"]
    if encoding["type"] == "ordinal":
        inner, outer = encoding["scale"]["paddingInner"], encoding["scale"]["paddingOuter"]
        step = size / (len(domain) - inner + 2 * outer)
        within = offset["scale"]["domain"] if offset else []

        def named(entry: Entry, value) -> float:
            centre = step * (outer + domain.index(value) + (1 - inner) / 2)
            shift = (within.index(entry["series"]) + 0.5) / len(within) - 0.5 if entry.get("series") in within else 0
            return centre + shift * step * (1 - inner)

        return named
    log = encoding["scale"].get("type") == "log"
    low, high = (math.log(end) if log else end for end in domain)

    def measured(entry: Entry, value) -> float:
        share = ((math.log(value) if log else value) - low) / ((high - low) or 1)
        return size * (1 - share if channel == "y" else share)

    return measured


def _axis(channel: str, encoding: dict, place: Callable, size: dict) -> str:
    axis = encoding["axis"]
    named = encoding["type"] == "ordinal"
    values = encoding["scale"]["domain"] if named else axis["values"]
    parts = []
    for value in values:
        at = place({}, value)
        if not named:
            across = (0, at, size["x"], at) if channel == "y" else (at, 0, at, size["y"])
            parts.append(_line(*across, LIGHT["grid"]))
        for k, line in enumerate(str(value).split("|") if named else [_label(value, axis)]):
            x, y, anchor = (at, size["y"] + 16 + 14 * k, "middle") if channel == "x" else (-8, at + 4, "end")
            parts.append(_text(x, y, line, anchor=anchor))
    titles = axis["title"] if isinstance(axis["title"], list) else [axis["title"] or ""]
    if channel == "x":
        parts.append(_line(0, size["y"], size["x"], size["y"], LIGHT["line"]))
        below = size["y"] + (46 if named else 36)
        parts += [
            _text(size["x"] / 2, below + 14 * k, t, anchor="middle", colour="muted") for k, t in enumerate(titles)
        ]
    return "".join(parts)


def _layer(layer: dict, entries: list[Entry], places: dict[str, Callable], size: dict) -> str:
    mark, encoding = layer["mark"], layer["encoding"]
    paint = _paint(mark, encoding)
    at = {name: _position(encoding[name], places[name[0]]) for name in ("x", "y", "x2", "y2") if name in encoding}
    if mark["type"] == "point":
        return "".join(_point(at["x"](e), at["y"](e), paint(e), mark, e.get("text", "")) for e in entries)
    if mark["type"] in ("line", "area"):
        return "".join(_path(group, at, paint(group[0]), mark, size) for group in _groups(entries, encoding))
    return "".join(_span(at, entry, paint(entry), mark, size) for entry in entries)


def _position(encoding: dict, place: Callable) -> Callable[[Entry], float]:
    """Return where a channel puts an entry: at its field, or where one datum says for all."""
    if "datum" in encoding:
        return lambda entry: place(entry, encoding["datum"])
    return lambda entry: place(entry, entry[encoding["field"]])


def _paint(mark: dict, encoding: dict) -> Callable[[Entry], dict]:
    """Return the colour, shape and dash of an entry: those of its series, else the mark's own."""

    def look(entry: Entry) -> dict:
        found = {"color": mark.get("color"), "strokeDash": mark.get("strokeDash", [1, 0]), "shape": "circle"}
        for channel in found:
            scale = encoding.get(channel, {}).get("scale")
            if scale and entry.get("series") in scale["domain"]:
                found[channel] = scale["range"][scale["domain"].index(entry["series"])]
        return found

    return look


def _groups(entries: list[Entry], encoding: dict) -> Iterable[list[Entry]]:
    """Return the entries of each line: one a series, or one a network."""
    detail = encoding.get("detail", {}).get("field", "series")
    groups: dict = {}
    for entry in entries:
        groups.setdefault(entry[detail], []).append(entry)
    return groups.values()


def _path(entries: list[Entry], at: dict, look: dict, mark: dict, size: dict) -> str:
    points = [(at["x"](entry), at["y"](entry)) for entry in entries]
    if mark.get("interpolate") == "step-after":
        points = [
            corner
            for (x, y), (x2, _) in zip(points, [*points[1:], points[-1]], strict=True)
            for corner in ((x, y), (x2, y))
        ]
    if mark["type"] == "area":
        points = [(points[0][0], size["y"]), *points, (points[-1][0], size["y"])]
        painted = f'fill="{look["color"]}"'
    else:
        stroke = f'stroke="{look["color"]}" stroke-width="{mark["strokeWidth"]}"'
        painted = f'fill="none" {stroke}{_dashed(look["strokeDash"])}'
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{corners}" {painted} opacity="{mark.get("opacity", 1)}"/>'


def _span(at: dict, entry: Entry, look: dict, mark: dict, size: dict) -> str:
    """Return a rule between two ends, or across the panel; a rect is a rule as high as its two ends."""
    x, y = (at[c](entry) if c in at else 0 for c in "xy")
    x2 = at["x2"](entry) if "x2" in at else x if "x" in at else size["x"]
    y2 = at["y2"](entry) if "y2" in at else y if "y" in at else size["y"]
    if mark["type"] == "rect":
        box = f'x="{x:.1f}" y="{min(y, y2):.1f}" width="{x2 - x:.1f}" height="{abs(y2 - y):.1f}"'
        return f'<rect {box} fill="{look["color"]}" opacity="{mark["opacity"]}"/>'
    return _line(x, y, x2, y2, look["color"], mark["strokeWidth"], look["strokeDash"])


def _point(x: float, y: float, look: dict, mark: dict, words: str) -> str:
    r = math.sqrt(mark["size"]) / 2
    corners = {
        "square": ((-r, -r), (r, -r), (r, r), (-r, r)),
        "diamond": ((0, -r * 1.3), (r * 1.3, 0), (0, r * 1.3), (-r * 1.3, 0)),
        "triangle-up": ((0, -r), (r, r), (-r, r)),
        "triangle-down": ((0, r), (r, -r), (-r, -r)),
    }.get(look["shape"])
    painted = f'fill="{look["color"]}" opacity="{mark.get("opacity", 1)}"'
    title = f"<title>{escape(words)}</title>" if words else ""
    if corners is None:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" {painted}>{title}</circle>'
    around = " ".join(f"{x + a:.1f},{y + b:.1f}" for a, b in corners)
    return f'<polygon points="{around}" {painted}>{title}</polygon>'


def _legend(panels: list[dict], width: float, columns: int | None) -> tuple[str, float]:
    """Return the legend over all panels and its height: entries in a row until it is full."""
    looks = {}
    for layer in panels[0]["layer"]:
        scale = layer["encoding"].get("color", {}).get("scale")
        for label in scale["domain"] if scale else []:
            looks[label] = (layer["mark"], _paint(layer["mark"], layer["encoding"])({"series": label}))
    x, y, parts = 12.0, 16.0, []
    for label, (mark, look) in looks.items():
        length = 34 + CHARACTER * len(label)
        if x > 12 and (columns == 1 or x + length > width):
            x, y = 12.0, y + LEGEND_ROW
        parts.append(_sample(x, y - 4, mark, look) + _text(x + 22, y, label))
        x += length + 12
    return "".join(parts), y + 8 if looks else 0


def _sample(x: float, y: float, mark: dict, look: dict) -> str:
    if mark["type"] == "point":
        return _point(x + 8, y, look, mark, "")
    return _line(x - 6, y, x + 16, y, look["color"], 1.8, look["strokeDash"])


def _kept(layer: dict, entry: Entry) -> bool:
    """Return whether an entry passes a layer's filters."""
    tests = [step["filter"] for step in layer.get("transform", [])]
    return all(entry[t["field"]] == t["equal"] if "equal" in t else entry[t["field"]] is not None for t in tests)


def _label(value: float, axis: dict) -> str:
    form = axis["format"]
    if "labelExpr" in axis and value == 0:
        return "0"
    return format(int(value) if form == "d" else value, form.replace("~", "")).replace("-", "−")


def _line(x, y, x2, y2, colour, width: float = 1, dash=(1, 0)) -> str:
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"{_dashed(dash)}/>'


def _dashed(dash) -> str:
    return "" if list(dash) == [1, 0] else f' stroke-dasharray="{",".join(map(str, dash))}"'


def _text(x, y, words, *, anchor="start", colour="ink", weight=400, size=12) -> str:
    if not words:
        return ""
    look = f'text-anchor="{anchor}" fill="{LIGHT[colour]}" font-weight="{weight}" font-size="{size}px"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(str(words))}</text>'


def _top(panel: dict) -> int:
    return TOP if panel["title"]["text"] else 12


def _left(panel: dict) -> int:
    named = any(layer["encoding"].get("y", {}).get("type") == "ordinal" for layer in panel["layer"])
    return LEFT_OF_NAMES if named else LEFT
