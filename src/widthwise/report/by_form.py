"""Accuracies of probes by what they are fitted on: a line a form, coloured by width."""

from widthwise.report.comparison import select
from widthwise.report.paper import FORMS
from widthwise.report.spec import ends, figure, ordinal, panel, panel_width, quantitative, series, shares, width_styles
from widthwise.report.table import finite, text
from widthwise.results import Results


def residual_accuracy(results: Results, study: str) -> dict | None:
    """Return the accuracy with and without residuals, one line a kind of features."""
    rows = [r for r in select(results.rows, study=study, measure="residual_accuracy") if finite(r.value) is not None]
    if not rows:
        return None
    looks = width_styles(row.width for row in rows)
    names = {row.statistic: FORMS.get(row.statistic, row.statistic) for row in rows}
    entries = [
        {
            "form": names[row.statistic],
            "series": looks[row.width].label,
            "value": row.value,
            "low": finite(row.low),
            "high": finite(row.high),
            "text": f"{names[row.statistic]}, width {row.width}: {text(row.value)}",
        }
        for row in rows
    ]
    x = quantitative(
        "value", shares(ends([e[k] for e in entries for k in ("value", "low", "high")])), title="accuracy", format=".0%"
    )
    layers = series(x, ordinal("form", list(names.values())), list(looks.values()), lines=False)
    height = len(names) * (12 + 12 * len(looks))
    return figure({"forms": entries}, [panel("", "", "forms", layers, panel_width(1), height)])
