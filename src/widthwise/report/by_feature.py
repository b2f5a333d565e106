"""How the errors of single features are spread: what a mean hides."""

import math

from widthwise.report.by_width import compared_style, in_order, is_baseline
from widthwise.report.comparison import SPLITS, distinct, widest, widths
from widthwise.report.spec import (
    Style,
    ends,
    figure,
    layer,
    logarithmic,
    of,
    panel,
    panel_width,
    quantitative,
    strokes,
)
from widthwise.results import FeatureErrors, Results

BINS_A_DECADE = 8
LOWEST, HIGHEST = 1e-4, 10.0


def feature_errors(results: Results, study: str) -> dict | None:
    """Return one histogram a width and series, on a logarithmic scale; its end bins take the rest."""
    found = [e for e in results.feature_errors if e.study == study and e.trained and e.measure == "span_error"]
    split = next(iter(distinct((e.split for e in found), SPLITS)), None)
    pooled = _pooled([e for e in found if e.split == split], widest(results))
    edges = _edges([error for errors in pooled.values() for error in errors])
    bins = {key: _bins(errors, edges, key[1]) for key, errors in pooled.items() if errors}
    shown = [width for width in widths(width for width, _ in bins) if _is_compared(bins, width)]
    if not shown:
        return None
    shared = [entry for (width, _), entries in bins.items() if width not in shown for entry in entries]
    datasets = {w: shared + [e for (width, _), entries in bins.items() if width == w for e in entries] for w in shown}
    styles = in_order(look for _, look in bins)
    top = ends([entry["share"] for entries in bins.values() for entry in entries], include=(0.0,))
    layers = _steps(styles, edges, top)
    panels = [panel(f"Width {w}", "share of features", w, layers, panel_width(len(shown)), 170) for w in shown]
    return figure(datasets, panels)


def _pooled(found: list[FeatureErrors], wide: str | None) -> dict[tuple[str, Style], list[float]]:
    """Return the errors of all pairs of networks of a width and series together, constants left out."""
    pooled: dict[tuple[str, Style], list[float]] = {}
    for errors in found:
        known = [error for error in errors.errors if error is not None and math.isfinite(error)]
        pooled.setdefault((errors.width, compared_style(errors, wide)), []).extend(known)
    return pooled


def _edges(errors: list[float]) -> list[float]:
    """Return the edges of equal bins of the logarithm, between whole decades that hold the errors."""
    held = [min(max(error, LOWEST), HIGHEST) for error in errors if error > 0] or [LOWEST, 1.0]
    first, last = math.floor(math.log10(min(held))), math.ceil(math.log10(max(held)))
    count = BINS_A_DECADE * max(1, last - first)
    return [10 ** (first + k / BINS_A_DECADE) for k in range(count + 1)]


def _bins(errors: list[float], edges: list[float], look: Style) -> list[dict]:
    """Return the share of the errors in each bin, and a closing entry at the last edge."""
    counts = [0] * (len(edges) - 1)
    for error in errors:
        place = (math.log10(error / edges[0]) * BINS_A_DECADE) if error > 0 else 0
        counts[min(max(int(place), 0), len(counts) - 1)] += 1
    shares = [count / len(errors) for count in counts]
    return [
        {"error": edge, "share": share, "series": look.label}
        for edge, share in zip(edges, [*shares, shares[-1]], strict=True)
    ]


def _is_compared(bins: dict[tuple[str, Style], list[dict]], width: str) -> bool:
    return any(place == width and not is_baseline(look) for place, look in bins)


def _steps(styles: list[Style], edges: list[float], top: tuple[float, float]) -> list[dict]:
    """Return one outline a series; the baseline's is also filled, so that it stands behind in grey."""
    x = logarithmic("error", (edges[0], edges[-1]), title="error of a feature")
    axes = {"x": x, "y": quantitative("share", top, format=".0%")}
    look = {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5}
    filled = {"type": "area", "interpolate": "step-after", "opacity": 0.2}
    behind = [layer({**filled, "color": s.colour}, axes, only=of(s)) for s in styles if is_baseline(s)]
    return [*behind, layer(look, {**axes, **strokes(styles)})]
