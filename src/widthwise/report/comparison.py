"""How a row of scores is read: which networks it compares, in which role, in which order of width."""

import re
from collections.abc import Iterable
from fractions import Fraction

from widthwise.report.table import finite
from widthwise.results import Results, Row

SPLITS = ("validation", "test", "unseen", "shuffled")
MATCHINGS = ("parameters", "features")


def select(rows: Iterable[Row], **equal) -> list[Row]:
    """Return the rows whose fields equal the given ones, in order."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in equal.items())]


def distinct(values: Iterable, first: tuple = ()) -> list:
    """Return the values that are not None, once each: those of `first` in its order, then as they come."""
    seen = [value for value in dict.fromkeys(values) if value is not None]
    return [value for value in first if value in seen] + [value for value in seen if value not in first]


def widths(texts: Iterable[str | None]) -> list[str]:
    """Return the widths once each, wide to narrow; what is no number comes last."""
    return sorted(distinct(texts), key=lambda text: -_size(text))


def widest(results: Results) -> str | None:
    """Return the widest width that the results speak of."""
    rows = (*results.rows, *results.feature_errors)
    texts = [row.width for row in rows] + [network.width for network in results.networks]
    sides = distinct(side for row in rows for side in (row.source, row.target))
    texts += [found[1] for side in sides if (found := group(side))]
    return next(iter(widths(texts)), None)


def group(text: str | None) -> tuple[int, str] | None:
    """Return how many networks of which width "16 x 1/4" or "1" says; None if it says neither."""
    match = re.fullmatch(r"(?:(\d+) x )?(\d+(?:/\d+)?)", text or "")
    return (int(match[1] or 1), match[2]) if match else None


def role(source: str | None, target: str | None, wide: str | None) -> str:
    """Return what a source is to its target.

    "compared" is the question itself, "baseline" another seed of the target's own kind, "control" several
    wide networks where the question has one.
    """
    a, b = group(source), group(target)
    if a is None or b is None:
        return "compared"
    if a[1] == wide and a[0] > 1:
        return "control"
    return "baseline" if a[1] == b[1] else "compared"


def counts(rows: Iterable[Row]) -> str:
    """Return how many narrow networks stand together, by parameters then by features: "16 · 4"."""
    found = sorted(rows, key=lambda row: MATCHINGS.index(row.matching) if row.matching in MATCHINGS else 9)
    numbers = [parsed[0] for row in found if (parsed := group(row.source))]
    several = distinct(number for number in numbers if number > 1)
    return " · ".join(str(number) for number in several or numbers[:1])


def one_interval(rows: list[Row]) -> list[Row]:
    """Return each score once: with its interval over networks where it has one, else with that over rows."""
    best: dict[tuple, Row] = {}
    for row in sorted(rows, key=lambda row: (finite(row.low) is None, row.interval_over != "networks")):
        best.setdefault((row.study, row.measure, row.statistic, row.split, row.width, row.matching, row.source), row)
    kept = {id(row) for row in best.values()}
    return [row for row in rows if id(row) in kept]


def slug(text: str) -> str:
    """Return a study's name as a part of a file's name and of an id in the page."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def _size(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        return -1.0
