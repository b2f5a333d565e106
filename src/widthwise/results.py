"""The table of scores: plain numbers, one row each, the same bytes when made again."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass

from widthwise.words import for_json


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


@dataclass(frozen=True)
class Finding:
    """One claim of the paper or of ours, the word it gets here, and the numbers that decide it.

    `verdict` is "confirmed", "opposite", "not confirmed here" or "below resolution"; `decided_by` are
    sentences with their intervals. `primary`: whether it is the one endpoint declared before the run.
    """

    study: str
    claim: str
    verdict: str
    sentence: str
    decided_by: tuple[str, ...] = ()
    primary: bool = False


@dataclass(frozen=True)
class FeatureErrors:
    """The error of every target feature of one comparison: what a mean hides."""

    study: str
    measure: str
    split: str
    trained: bool
    width: str
    matching: str | None
    source: str
    target: str
    errors: tuple[float | None, ...]


@dataclass(frozen=True)
class TrainedNetwork:
    """One row of the training table. `history` has one entry an epoch.

    Its keys: epoch, rate, train_loss, train_accuracy, test_accuracy, seconds.
    """

    key: str
    kind: str
    width: str
    seed: int
    parameters: int
    features: int
    train_loss: float
    train_accuracy: float
    test_accuracy: float
    seconds: float
    history: tuple[dict, ...] = ()


@dataclass(frozen=True)
class Results:
    """All that a study file gave: what `run` returns and what a report is drawn from."""

    title: str
    study: dict
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...] = ()
    feature_errors: tuple[FeatureErrors, ...] = ()
    networks: tuple[TrainedNetwork, ...] = ()
    provenance: dict = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """Return the score table as one JSON document: a list of rows."""
        return to_json(self.rows)

    def to_frame(self):
        """Return the score table as a pandas DataFrame (needs pandas, which Widthwise does not)."""
        import pandas

        return pandas.DataFrame([dataclasses.asdict(row) for row in self.rows], columns=list(COLUMNS))


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def to_json(rows: Iterable[Row]) -> str:
    """Return the table as one JSON document: a list of rows, NaN as null."""
    return json.dumps([{k: for_json(v) for k, v in dataclasses.asdict(row).items()} for row in rows], indent=1)


def to_csv(rows: Iterable[Row]) -> str:
    """Return the table as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: for_json(v) for k, v in dataclasses.asdict(row).items()} for row in rows)
    return text.getvalue()
