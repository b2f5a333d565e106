"""Training curves: loss and accuracy by epoch, one thin line a network."""

from collections.abc import Iterable

from widthwise.report.comparison import widths
from widthwise.report.spec import (
    Style,
    ends,
    figure,
    layer,
    panel,
    panel_width,
    quantitative,
    shares,
    strokes,
    width_styles,
)
from widthwise.report.table import finite
from widthwise.results import Results, TrainedNetwork

LINES_A_WIDTH, POINTS_A_LINE = 24, 100
CURVES = {
    "train_loss": "Training loss",
    "train_accuracy": "Training accuracy",
    "test_accuracy": "Test accuracy",
}


def training_curves(results: Results) -> dict | None:
    """Return one panel a curve, coloured by width."""
    networks = _some(results.networks)
    looks = width_styles(network.width for network in networks)
    datasets = {name: _entries(networks, name, looks) for name in CURVES}
    datasets = {name: entries for name, entries in datasets.items() if len({e["epoch"] for e in entries}) > 1}
    width = panel_width(len(datasets))
    panels = [
        panel(CURVES[name], "by epoch", name, [_lines(entries, list(looks.values()), name)], width)
        for name, entries in datasets.items()
    ]
    return figure(datasets, panels) if panels else None


def _some(networks: Iterable[TrainedNetwork]) -> list[TrainedNetwork]:
    """Return at most so many networks of each width, evenly over their seeds."""
    networks = list(networks)
    found = []
    for width in widths(network.width for network in networks):
        found += _evenly([network for network in networks if network.width == width], LINES_A_WIDTH)
    return found


def _entries(networks: list[TrainedNetwork], name: str, looks: dict[str | None, Style]) -> list[dict]:
    return [
        {
            "epoch": epoch["epoch"],
            "value": epoch[name],
            "network": network.key,
            "series": looks[network.width].label,
        }
        for network in networks
        for epoch in _evenly(network.history, POINTS_A_LINE)
        if finite(epoch.get(name)) is not None
    ]


def _lines(entries: list[dict], styles: list[Style], name: str) -> dict:
    epochs = [entry["epoch"] for entry in entries]
    percent = {"format": ".0%"} if name.endswith("accuracy") else {}
    first, last = min(epochs), max(epochs)
    low, high = ends(entry["value"] for entry in entries)
    domain = (max(low, 0.0), high)  # neither losses nor accuracies are negative
    encoding = {
        "x": quantitative("epoch", (first, last), title="epoch", values=_ticks(first, last), format="d"),
        "y": quantitative("value", shares(domain) if percent else domain, **percent),
        **strokes(styles),
        "detail": {"field": "network", "type": "nominal"},
    }
    return layer({"type": "line", "strokeWidth": 1, "opacity": 0.65}, encoding)


def _ticks(first: int, last: int) -> list[int]:
    """Return whole epochs to mark: the first, the last and a few round ones between."""
    step = next(k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, last) if last <= 6 * k)
    between = [epoch for epoch in range(step, last, step) if first < epoch <= last - step / 2]
    return [first, *(epoch for epoch in between if epoch - first >= step / 2), last]


def _evenly(items, most: int) -> list:
    """Return at most so many of the items, evenly spaced, the first and the last among them."""
    items = list(items)
    if len(items) <= most:
        return items
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]
