"""Results as tables: the same ones for the page, the CSV and JSON beside it, the terminal and the README."""

import dataclasses
import textwrap
from collections.abc import Iterable

from widthwise import results as scores
from widthwise.report import by_neurons
from widthwise.report.comparison import (
    MATCHINGS,
    SPLITS,
    distinct,
    group,
    one_interval,
    role,
    select,
    slug,
    widest,
    widths,
)
from widthwise.report.table import TERMINAL_COLUMNS, Cell, Table, to_csv, to_json, to_markdown, to_text
from widthwise.results import Results, Row

__all__ = ["Table", "summaries", "summary", "tables", "to_csv", "to_json", "to_markdown", "to_text"]

LEGEND = "FSE: 0 spanned, 1 no better than the mean. FSG: FSE less baseline."
PAPERS = ("shuffled", "outliers", "toy")  # studies that a table of the paper sums up
PAPER = "parameters"  # the paper's matching rule, marked with a star


def tables(results: Results) -> list[Table]:
    """Return every table that has rows, in the order of the page."""
    found = [
        *summaries(results),
        findings(results),
        networks(results),
        history(results),
        score_table(results),
        feature_errors(results),
    ]
    return [table for table in found if table.rows]


def summary(results: Results) -> str:
    """Return the findings' words and the summaries as plain text for a terminal, at most 100 columns wide."""
    told = [textwrap.fill(f"{f.verdict}: {f.sentence}", TERMINAL_COLUMNS) for f in results.findings]
    blocks = ["\n".join(told)] if told else []
    for table in summaries(results):
        extra = frozenset(name for name in table.header if name.startswith("FSG "))
        short = {"networks": "nets", "interval": "over"}  # to fit 100 columns
        header = tuple(short.get(name, name) for name in table.header)
        aside = frozenset(short.get(name, name) for name in table.aside | extra)
        narrow = dataclasses.replace(table, header=header, aside=aside)
        blocks.append(f"{table.title}\n{to_text(narrow)}\n{table.caption}\n{LEGEND}")
    for table in by_neurons.tables(results)[:1]:
        blocks.append(f"{table.title}\n{to_text(table)}\n{textwrap.fill(table.caption, TERMINAL_COLUMNS)}")
    return "\n\n".join(blocks)


def summaries(results: Results) -> list[Table]:
    """Return one short table a study that compares widths: what is spanned, the gap, the performance."""
    spans = (row for row in results.rows if row.measure in ("span_error", "span_gap"))
    studies = distinct(row.study for row in spans if row.study not in PAPERS)
    found = [_summary(results, study) for study in studies]
    return [table for table in found if table.rows]


def findings(results: Results) -> Table:
    """Return the findings, each with its verdict and the numbers that decide it."""
    rows = [(f.study, f.claim, f.verdict, f.sentence, " ".join(f.decided_by)) for f in results.findings]
    header = ("study", "claim", "verdict", "sentence", "decided by")
    return Table("findings", "Findings", "Each claim, and the word it gets here.", header, tuple(rows))


def networks(results: Results) -> Table:
    """Return the training table: one row a network."""
    names = ("key", "kind", "width", "seed", "parameters", "features", "train_loss", "train_accuracy")
    names += ("test_accuracy", "seconds")
    rows = tuple(tuple(getattr(network, name) for name in names) for network in results.networks)
    caption = "Every network that was trained, at the end of its training."
    return Table("networks", "Networks", caption, names, rows)


def history(results: Results) -> Table:
    """Return the training curves: one row a network and epoch."""
    names = distinct(name for network in results.networks for entry in network.history for name in entry)
    rows = tuple(
        (network.key, network.width, network.seed, *(entry.get(name) for name in names))
        for network in results.networks
        for entry in network.history
    )
    header = ("key", "width", "seed", *names)
    return Table("history", "Training curves", "One row a network and epoch.", header, rows)


def score_table(results: Results) -> Table:
    """Return every score, as `run --json` prints them."""
    rows = tuple(tuple(getattr(row, name) for name in scores.COLUMNS) for row in results.rows)
    return Table("scores", "Scores", "Every number of every study.", scores.COLUMNS, rows)


def feature_errors(results: Results) -> Table:
    """Return the error of every target feature of every comparison, one row each."""
    names = ("study", "measure", "split", "trained", "width", "matching", "source", "target")
    rows = tuple(
        (*(getattr(comparison, name) for name in names), feature, error)
        for comparison in results.feature_errors
        for feature, error in enumerate(comparison.errors)
    )
    caption = "The error of every target feature; empty where the feature is constant."
    return Table("feature_errors", "Errors of single features", caption, (*names, "feature", "error"), rows)


def _summary(results: Results, study: str) -> Table:
    rows = [row for row in select(results.rows, study=study, trained=True) if row.seed is None]
    splits = distinct((row.split for row in rows if row.measure.startswith("span")), SPLITS)
    lines = [
        _line(rows, _probes(results, study), widest(results), width, matching, splits)
        for width in widths(row.width for row in rows)
        for matching in distinct((row.matching for row in select(rows, width=width)), MATCHINGS) or [None]
    ]
    gaps = tuple(f"FSG {split}" for split in splits[1:])
    header = ("width", "matching", "networks", "FSE", "baseline", "FSG", "low", "high", "interval", *gaps)
    filled = tuple(line for line in lines if any(cell is not None for cell in line[3:]))
    caption = f"Trained networks, {splits[0]} rows." if splits else "Trained networks."
    caption += " * the paper's matching." if any(line[1] == PAPER for line in filled) else ""
    over = distinct(line[header.index("interval")] for line in filled)
    caption += f" [95 %]: over {' or '.join(map(str, over))}." if over else ""
    signed = frozenset({"FSG", "low", "high", *gaps})
    title = study.replace("_", " ")
    return Table(
        f"summary_{slug(study)}",
        title,
        caption,
        (*header, "FP", "verdict"),
        filled,
        signed=signed,
        marked=PAPER,
        interval=("FSG", "low", "high"),
        aside=frozenset({"interval"}) if len(over) == 1 else frozenset(),
    )


def _line(rows, probes, wide, width, matching, splits) -> tuple[Cell, ...]:
    """Return one line of a summary: a width under one matching rule."""
    compared, baseline = _errors(rows, wide, width, matching, splits)
    gaps = select(rows, measure="span_gap", statistic="mean", width=width, matching=matching)
    by_split = [_first(one_interval(select(gaps, split=split))) for split in splits]
    gap = by_split[0] if by_split else None
    probe = _first(row for row in select(probes, width=width) if row.matching in (matching, None))
    return (
        width,
        matching,
        _count(compared, baseline, probe),
        _value(compared),
        _value(baseline),
        *((gap.value, gap.low, gap.high, gap.interval_over) if gap else (None,) * 4),
        *(_value(row) for row in by_split[1:]),
        _value(probe),
        next((row.verdict for row in gaps if row.verdict), None),
    )


def _errors(rows, wide, width, matching, splits) -> tuple[Row | None, Row | None]:
    """Return the span error of a width and the baseline it is read against, its own or the wide one's."""
    errors = select(rows, measure="span_error", statistic="mean", split=splits[0]) if splits else []
    here = [row for row in select(errors, width=width) if row.matching in (matching, None)]
    compared = _first(row for row in here if role(row.source, row.target, wide) == "compared")
    near = [row for row in [*here, *errors] if role(row.source, row.target, wide) == "baseline"]
    return compared, _first(row for row in near if row in here or row.width == wide)


def _probes(results: Results, study: str) -> list[Row]:
    """Return the probes of the study itself, or of any for the one that asks of performance."""
    every = select(results.rows, measure="probe_accuracy", statistic="probe", trained=True, seed=None)
    return select(every, study=study) or (every if study == "width_gap" else [])


def _count(*rows: Row | None) -> int | None:
    """Return how many networks stand together: in the first source of several, else in the first."""
    found = [parsed[0] for row in rows if row and (parsed := group(row.source))]
    return next((count for count in found if count > 1), found[0] if found else None)


def _first(rows: Iterable[Row]) -> Row | None:
    return next(iter(rows), None)


def _value(row: Row | None) -> float | None:
    return row.value if row else None
