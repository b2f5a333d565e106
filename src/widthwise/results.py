"""The table of scores: plain numbers, one row each, the same bytes when made again."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One number of a study, with everything needed to read it.

    `seed` is None for an aggregate over networks. `low` and `high` are 95 % unless `method` says otherwise;
    `interval_over` is "networks" or "rows". `verdict` is None but on rows that carry one. `n` is the rows
    scored, `p` the live source features, `df` the effective degrees of freedom of the fit, or, on rows with
    an interval over networks, those of its t quantile.
    """

    study: str
    measure: str
    statistic: str
    split: str | None = None
    trained: bool = True
    width: str | None = None
    matching: str | None = None
    source: str | None = None
    target: str | None = None
    seed: int | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    interval_over: str | None = None
    method: str | None = None
    df: float | None = None
    verdict: str | None = None
    n: int | None = None
    p: int | None = None


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def to_json(rows: Iterable[Row]) -> str:
    """Return the table as one JSON document: a list of rows, NaN as null."""
    return json.dumps([{k: _plain(v) for k, v in dataclasses.asdict(row).items()} for row in rows], indent=1)


def to_csv(rows: Iterable[Row]) -> str:
    """Return the table as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _plain(v) for k, v in dataclasses.asdict(row).items()} for row in rows)
    return text.getvalue()


def _plain(value):
    """Return `value` with NaN and infinity as None: JSON has no word for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
