"""The paper's tables made anew from our numbers, its published values in columns of their own beside them."""

from collections.abc import Iterable

from widthwise.report import by_neurons, published
from widthwise.report.comparison import SPLITS, group, select, widths
from widthwise.report.table import Cell, Table
from widthwise.results import Results, Row

READ = "Published: the paper's own, of its own runs at full size; the headers of its tables are lost in our text"
FORMS = {
    "narrow": "narrow together",
    "wide": "wide",
    "narrow_joined": "narrow + wide",
    "narrow_with_wide_residuals": "narrow + residuals of wide",
    "narrow_with_narrow_residuals": "narrow + residuals of narrow",
    "narrow_with_noise": "narrow + noise",
    "narrow_with_permuted_residuals": "narrow + permuted residuals",
    "wide_with_narrow_residuals": "wide + residuals of narrow",
    "wide_with_wide_residuals": "wide + residuals of wide",
    "wide_with_noise": "wide + noise",
    "wide_residuals_alone": "residuals of wide",
    "narrow_residuals_alone": "residuals of narrow",
    "wide_untrained": "wide, untrained",
    "narrow_untrained": "narrow together, untrained",
    "majority_class": "the commonest class",
}


def tables(results: Results) -> list[Table]:
    """Return every table of the paper that these results have numbers for."""
    kind = str(results.study.get("network", {}).get("kind", ""))
    found = [
        _matching(results, kind),
        _tuning(results),
        _training(results),
        _residuals(results, kind),
        _shuffled(results, kind),
    ]
    return [table for table in [*found, _outliers(results), *by_neurons.tables(results)] if table.rows]


def _matching(results: Results, kind: str) -> Table:
    """Return m by parameters beside the paper's."""
    rows = [row for row in results.rows if row.matching == "parameters" and row.measure.startswith("span")]
    ours = {row.width: found[0] for row in rows if (found := group(row.source)) and found[0] > 1}
    known = published.MATCHING.get(kind, {})
    lines = tuple((width, ours[width], known.get(width)) for width in widths(ours)) if known else ()
    caption = "How many narrow networks have as many parameters as a wide one. The paper's base network is wider than "
    caption += "one with a base below 1; the head and the first layer do not shrink by the square of the width."
    header = ("width", "networks", "published")
    return Table("paper_matching", "Networks together, by parameters", caption, header, lines)


def _training(results: Results) -> Table:
    rows = select(results.rows, study="training")
    lines = []
    for width in widths(row.width for row in rows):
        train, test = (_one(rows, width=width, statistic=name) for name in ("train", "test"))
        lines.append((width, train.value, train.low, train.high, test.value, test.low, test.high))
    header = ("width", "training accuracy", "low", "high", "test accuracy", "test low", "test high")
    caption = "Means over networks, with 95 % intervals over networks. Training rows un-augmented, in evaluation mode."
    return Table("paper_table_2", "Table 2: how well each width has learned", caption, header, tuple(lines))


def _tuning(results: Results) -> Table:
    rows = select(results.rows, study="tuning")
    lines = []
    for width in widths(row.width for row in rows):
        losses = [row.value for row in select(rows, width=width, measure="log_loss")]
        rate, decay = (_one(rows, width=width, measure="chosen", statistic=s).value for s in ("rate", "weight_decay"))
        lines.append((width, rate, decay, min(v for v in losses if v is not None), len(losses)))
    header = ("width", "rate", "weight decay", "log-loss", "trials")
    caption = "Chosen for every width from one grid by the log-loss of one network on rows that none trains on; that "
    caption += "network is not reported."
    return Table("paper_tuning", "A.2: rates and weight decays", caption, header, tuple(lines))


def _residuals(results: Results, kind: str) -> Table:
    rows = select(results.rows, study="residuals", measure="residual_accuracy")
    known: dict[str, float | None] = dict(
        zip(published.TABLE_3_ROWS, published.TABLE_3.get(kind, (None,) * 4), strict=True)
    )
    lines = tuple(
        (row.width, FORMS.get(row.statistic, row.statistic), row.value, row.low, row.high, known.get(row.statistic))
        for row in rows
    )
    caption = "Accuracy of a probe on rows that no network was trained on, with 95 % intervals over rows. "
    caption += f"{READ}: its four rows are read as untrained and residual features, wide before narrow."
    at = published.TABLE_3_WIDTH.get(kind)
    header = ("width", "features", "accuracy", "low", "high", f"published at {at}" if at else "published")
    return Table("paper_table_3", "Table 3, Figures 4 and 10: residuals", caption, header, lines)


def _shuffled(results: Results, kind: str) -> Table:
    rows = select(results.rows, study="shuffled", measure="span_error")
    order = widths(row.width for row in rows)
    lines: list[tuple[Cell, ...]] = []
    for split in SPLITS if order else ():
        values = [_one(rows, width=width, split=split).value for width in order]
        lines.append(("ours", split, *_with_gaps(values)))
    if kind in published.VISION and lines:
        for (number, regression, split), values in published.TABLES_4_5.items():
            at = [values[published.WIDTHS.index(w)] if w in published.WIDTHS else None for w in order]
            told = split if regression == "regular" else f"shuffled, {split}"
            lines.append((f"published, Table {number}", told, *_with_gaps(at)))
    header = ("whose", "rows", "another wide", *(f"FSE {w}" for w in order[1:]), *(f"FSG {w}" for w in order[1:]))
    caption = "Span error of a wide network from another one and from narrow ones matched by parameters, and the gap. "
    caption += f"{READ}, and which of its two tables is ResNet-18's and which VGG-16's; its gaps are computed here."
    signed = frozenset(name for name in header if name.startswith("FSG"))
    title = "Tables 4 and 5: rows that trained the networks, others, and both mixed"
    return Table("paper_tables_4_5", title, caption, header, tuple(lines), signed=signed)


def _outliers(results: Results) -> Table:
    rows = select(results.rows, study="outliers")
    names = ("mean_all", "mean_without_outlying", "mean", "outlying", "features")
    lines = []
    for trained in (False, True):
        for width in widths(row.width for row in rows):
            for split in ("validation", "test"):
                here = select(rows, trained=trained, width=width, split=split)
                if here:
                    values = [_one(here, statistic=name).value for name in names]
                    lines.append(("trained" if trained else "untrained", width, split, *values))
    count, features = published.OUTLIERS
    caption = (
        "Span error over all features that vary, without those above 5, and over supported ones (the headline), of all "
    )
    caption += "pairs of source and target; features are counted once a pair. "
    caption += f"Published: {count} features of {features:,} above 5, on test rows of untrained VGG-16."
    header = ("networks", "width", "rows", "all", "without above 5", "supported", "above 5", "features")
    return Table("paper_outliers", "D.3: features that nothing fits", caption, header, tuple(lines))


def _with_gaps(values: list[float | None]) -> list[float | None]:
    first = values[0]
    return [*values, *(None if v is None or first is None else v - first for v in values[1:])]


def _one(rows: Iterable[Row], **equal) -> Row:
    found = select(rows, **equal)
    return found[0] if found else Row("", "", "")
