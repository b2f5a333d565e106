"""The tables of a report say what the results say: to a reader, and to a machine at full precision."""

import csv
import dataclasses
import io
import json
import math

import pytest
from example import empty, example

from widthwise import results as scores
from widthwise.report import tables
from widthwise.report.comparison import counts, group, role, widths
from widthwise.report.table import Table, text
from widthwise.results import Results, Row


@pytest.fixture(scope="module")
def full() -> Results:
    return example()


def results(*rows: Row) -> Results:
    return Results(title="A title", study={}, rows=rows)


def span(value, width="1/4", matching="parameters", source="16 x 1/4", **fields) -> Row:
    row = Row("width_gap", "span_error", "mean", "validation", True, width, matching, source, "1", value=value)
    return dataclasses.replace(row, **fields)


WIDE = span(0.03, width="1", matching=None, source="1")
GAP = Row("width_gap", "span_gap", "mean", "validation", True, "1/4", "parameters", value=0.01)


def test_the_score_table_is_the_one_that_run_prints(full):
    table = tables.score_table(full)
    assert tables.to_csv(table) == scores.to_csv(full.rows)
    assert tables.to_json(table) == full.to_json()


def test_csv_and_json_carry_every_number_exactly(full):
    for table in tables.tables(full):
        back = list(csv.reader(io.StringIO(tables.to_csv(table))))
        assert tuple(back[0]) == table.header
        assert back[1:] == [["" if cell is None else str(cell) for cell in row] for row in table.rows]
        assert [tuple(row.values()) for row in json.loads(tables.to_json(table))] == list(table.rows)


def test_a_number_that_is_none_or_not_finite_is_empty_everywhere():
    table = Table("t", "T", "", ("a", "b", "c"), ((math.nan, math.inf, None), (0.5, 1, "x")))
    assert table.texts[0] == ["", "", ""]
    assert tables.to_csv(table) == "a,b,c\n,,\n0.5,1,x\n"
    assert json.loads(tables.to_json(table))[0] == {"a": None, "b": None, "c": None}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.04123456, "0.0412"), (12.3456, "12.35"), (1612.4, "1612"), (2.0, "2"), (1e-6, "1.0e-06"), (8.8e12, "8.8e+12"),
     (-0.5, "-0.5000"), (True, "yes"), (None, ""), (math.nan, ""), (128, "128"), ("x", "x")],
)  # fmt: skip
def test_a_value_is_shown_as_a_reader_wants_it(value, shown):
    assert text(value) == shown


def test_a_summary_sets_the_gap_beside_its_interval_and_baseline():
    gap = dataclasses.replace(GAP, low=0.005, high=0.015, interval_over="networks", verdict="confirmed")
    rows = dataclasses.replace(GAP, low=0.009, high=0.011, interval_over="rows")
    (table,) = tables.summaries(results(WIDE, span(0.04), rows, gap))
    line = dict(zip(table.header, table.rows[1], strict=True))
    assert line == {
        "width": "1/4", "matching": "parameters", "networks": 16, "FSE": 0.04, "baseline": 0.03, "FSG": 0.01,
        "low": 0.005, "high": 0.015, "interval": "networks", "FP": None, "verdict": "confirmed",
    }  # fmt: skip
    printed = tables.to_text(table).splitlines()[3]
    assert printed.split() == [
        "1/4",
        "parameters*",
        "16",
        "0.0400",
        "0.0300",
        "+0.0100",
        "[+0.0050,",
        "+0.0150]",
        "confirmed",
    ]


def test_a_reverse_gap_is_read_against_the_baseline_of_its_own_width():
    def row(source, value, width):
        return Row(
            "reverse_gap",
            "span_error",
            "mean",
            "validation",
            True,
            width,
            "features",
            source,
            width,
            value=value,
        )

    rows = [row("1", 0.05, "1/4"), row("4 x 1/4", 0.08, "1/4"), row("2 x 1", 0.04, "1/4")]
    rows += [row("1", 0.06, "1/8"), row("8 x 1/8", 0.09, "1/8")]
    (table,) = tables.summaries(results(*rows))
    assert [line[:5] for line in table.rows] == [
        ("1/4", "features", 4, 0.05, 0.08),
        ("1/8", "features", 8, 0.06, 0.09),
    ]


def test_the_interval_over_rows_stands_in_where_networks_have_none():
    none = dataclasses.replace(GAP, low=math.nan, high=math.nan, interval_over="networks", verdict="below resolution")
    gap = dataclasses.replace(GAP, low=0.009, high=0.011, interval_over="rows")
    printed = tables.summary(results(WIDE, span(0.04), none, gap))
    assert "below resolution" in printed
    assert "+0.0100 [+0.0090, +0.0110]" in printed
    assert "[95 %]: over rows" in printed


def test_what_intervals_are_over_has_a_column_where_they_differ():
    rows = dataclasses.replace(GAP, low=0.009, high=0.011, interval_over="rows")
    networks = dataclasses.replace(GAP, width="1/8", low=0.005, high=0.015, interval_over="networks")
    for gaps, shown in (([rows], False), ([rows, networks], True)):
        printed = tables.summary(results(WIDE, span(0.04), *gaps)).splitlines()
        header = next(line.split() for line in printed if line.startswith("width ") and "FSG" in line)
        assert ("over" in header) is shown
    line = next(line for line in printed if line.startswith("1/8"))
    assert line.split()[-1] == "networks"


def test_the_summary_fits_a_terminal_and_says_how_to_read_it(full):
    printed = tables.summary(full)
    assert max(map(len, printed.splitlines())) <= 100
    assert printed.isascii()
    for word in (
        "width gap",
        "reverse gap",
        "parameters*",
        "the paper's matching",
        "over networks",
        "0 spanned",
    ):
        assert word in printed


def test_untrained_networks_and_single_seeds_stay_out_of_the_summary():
    rows = (span(0.9, trained=False), span(0.8, seed=3), WIDE, span(0.04))
    (table,) = tables.summaries(results(*rows))
    assert [line[3] for line in table.rows] == [None, 0.04]


def test_markdown_aligns_numbers_and_keeps_bars_apart():
    table = Table("t", "T", "", ("name", "value"), (("a|b", 0.5),))
    assert tables.to_markdown(table) == "| name | value |\n| :-- | --: |\n| a\\|b | 0.5000 |"


def test_measures_and_studies_that_nobody_foresaw_are_in_the_score_table():
    odd = Row("my.own-study", "cka", "debiased", value=0.5)
    names = {table.name: table for table in tables.tables(results(odd))}
    assert set(names) == {"scores"}
    assert names["scores"].rows[0][:3] == ("my.own-study", "cka", "debiased")


def test_results_without_a_number_have_no_tables_and_an_empty_summary():
    assert tables.tables(empty()) == []
    assert tables.summary(empty()) == ""


def test_the_curves_are_a_table_too(full):
    table = tables.history(full)
    assert table.header[:5] == ("key", "width", "seed", "epoch", "rate")
    assert len(table.rows) == sum(len(network.history) for network in full.networks)


def test_a_constant_feature_has_an_empty_error(full):
    table = tables.feature_errors(full)
    errors = [row[-1] for row in table.rows if row[-2] == 126]
    assert errors == [None] * len(full.feature_errors)


def test_widths_go_from_wide_to_narrow_and_numbers_of_neurons_do_too():
    assert widths(["1/4", "1", None, "1/16", "1/2", "1/4"]) == ["1", "1/2", "1/4", "1/16"]
    assert widths(["100", "300", "odd", "50"]) == ["300", "100", "50", "odd"]


def test_the_text_of_a_source_says_how_many_networks_of_which_width():
    assert group("16 x 1/4") == (16, "1/4")
    assert group("1") == (1, "1")
    assert group("signals") is None
    assert counts([span(0, matching="features", source="4 x 1/4"), span(0)]) == "16 · 4"


@pytest.mark.parametrize(
    ("source", "target", "part"),
    [("16 x 1/4", "1", "compared"), ("1", "1/4", "compared"), ("1", "1", "baseline"),
     ("4 x 1/4", "1/4", "baseline"), ("2 x 1", "1", "control"), ("4 x 1", "1/4", "control"),
     (None, None, "compared")],
)  # fmt: skip
def test_a_source_has_a_role_by_its_width_and_its_targets(source, target, part):
    assert role(source, target, "1") == part
