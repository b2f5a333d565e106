"""The figures of a report: valid specifications of the results' numbers, drawn with and without Vega."""

import dataclasses
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from example import empty, example, small

from widthwise.report import drawing, figures, plain, theme
from widthwise.report.by_epoch import training_curves
from widthwise.report.by_feature import feature_errors
from widthwise.report.by_width import gap_checks, probe_accuracy, span_error, span_gap
from widthwise.report.spec import ends, quantitative, stacked
from widthwise.results import FeatureErrors, Results, Row

FULL = example()
DRAWN = figures.figures(FULL)


def results(*rows: Row, **fields) -> Results:
    return Results(title="A title", study={}, rows=rows, **fields)


def span(value, width="1/4", source="16 x 1/4", matching="parameters", **fields) -> Row:
    row = Row("width_gap", "span_error", "mean", "validation", True, width, matching, source, "1", value=value)
    return dataclasses.replace(row, **fields)


def values(spec: dict, name: str) -> list[float]:
    return [entry["value"] for entry in spec["datasets"][name]]


@pytest.mark.parametrize("figure", figures.figures(small()), ids=lambda figure: figure.name)
def test_a_specification_is_valid_vega_lite(figure):
    altair = pytest.importorskip("altair")
    spec = stacked(figure.spec)
    short = {name: entries[:2] for name, entries in spec["datasets"].items()}
    altair.Chart.from_dict({**spec, "datasets": short, "concat": spec["concat"][:1]})  # whole ones take seconds


def test_the_figures_come_in_the_order_of_the_page():
    names = [figure.name for figure in DRAWN]
    assert names[:3] == ["span_error_width_gap", "span_gap_width_gap", "gap_checks_width_gap"]
    assert names[-1] == "training_curves"
    assert "span_error_width_gap_untrained" in names
    assert len(set(names)) == len(names)


def test_every_figure_says_what_to_see():
    for figure in DRAWN:
        assert figure.title
        assert figure.caption.endswith(".")
    assert "over networks (jackknife)" in DRAWN[1].caption
    assert "over rows" in DRAWN[0].caption


def test_a_caption_says_which_bars_are_over_networks_and_which_over_rows():
    gap = Row("width_gap", "span_gap", "mean", "validation", True, "1/4", "parameters", value=0.01, low=0.0, high=0.1)
    networks = dataclasses.replace(gap, interval_over="networks", method="jackknife")
    rows = [dataclasses.replace(gap, interval_over="rows", split=split) for split in ("test", "unseen")]
    (drawn, *_) = figures.figures(results(networks, *rows))
    bars = "Bars: 95 % intervals over networks (jackknife) on validation rows; over rows on test and unseen rows."
    assert bars in drawn.caption


def test_span_error_shows_each_number_under_its_width_and_count():
    baseline = span(0.03, "1", "1", None, low=0.029, high=0.031)
    spec = span_error(results(baseline, span(0.04), span(0.06, source="4 x 1/4", matching="features")), "width_gap")
    assert spec is not None
    shown = {(entry["x"], entry["series"]): entry["value"] for entry in spec["datasets"]["validation"]}
    assert shown == {
        ("1|1", "another wide network"): 0.03,
        ("1/4|16 · 4", "narrow networks, as many parameters"): 0.04,
        ("1/4|16 · 4", "narrow networks, as many features"): 0.06,
    }


def test_the_splits_are_panels_with_validation_first_and_one_scale():
    rows = [span(value, split=split) for split, value in (("unseen", 0.2), ("test", 0.1), ("validation", 0.05))]
    spec = span_error(results(*rows), "width_gap")
    assert spec is not None
    assert [panel["title"]["text"] for panel in spec["concat"]] == [
        "Validation rows",
        "Test rows",
        "Unseen rows",
    ]
    domains = {tuple(panel["layer"][0]["encoding"]["y"]["scale"]["domain"]) for panel in spec["concat"]}
    assert domains == {(0.0, 0.25)}


def test_several_wide_networks_as_a_source_are_left_to_the_table():
    spec = span_error(results(span(0.03, "1", "1", None), span(0.02, "1", "2 x 1", None), span(0.04)), "width_gap")
    assert spec is not None
    assert values(spec, "validation") == [0.03, 0.04]


def test_wide_networks_of_equal_size_have_a_mark_of_their_own():
    equal = span(0.02, source="2 x 1", matching=None, statistic="mean_equal_size")
    spec = span_error(results(span(0.03, "1", "1", None), span(0.04), equal), "width_gap")
    assert spec is not None
    shown = {entry["series"]: (entry["x"], entry["value"]) for entry in spec["datasets"]["validation"]}
    assert shown["wide networks, as many features in all"] == ("1/4|16", 0.02)


def test_a_gap_shows_its_interval_over_networks_and_a_line_at_zero():
    gap = Row("width_gap", "span_gap", "mean", "validation", True, "1/4", "parameters", value=0.01)
    networks = dataclasses.replace(gap, low=0.0, high=0.02, interval_over="networks", method="jackknife")
    rows = dataclasses.replace(gap, low=0.009, high=0.011, interval_over="rows")
    spec = span_gap(results(rows, networks, span(0.04)), "width_gap")
    assert spec is not None
    (entry,) = spec["datasets"]["validation"]
    assert (entry["x"], entry["low"], entry["high"]) == ("1/4|16", 0.0, 0.02)
    assert {"datum": 0, "type": "quantitative"} in [layer["encoding"].get("y") for layer in spec["concat"][0]["layer"]]


def test_the_checks_of_a_gap_name_every_form_there_is():
    spec = gap_checks(small(), "width_gap")
    assert spec is not None
    checks = list(dict.fromkeys(entry["check"] for entry in spec["datasets"]["checks"]))
    assert checks[:3] == ["validation rows", "test rows", "unseen rows"]
    assert checks[3:5] == ["extrapolated, Richardson", "extrapolated, Aitken"]
    assert checks[5:] == ["standardised sources", "within class", "matched by features"]


def test_a_histogram_holds_every_feature_once():
    errors = (1e-9, 1e-3, 1e-2, 1e-1, 1.0, 0.0, 99.0, None, math.nan)
    found = FeatureErrors("width_gap", "span_error", "validation", True, "1/4", "parameters", "16 x 1/4", "1", errors)
    spec = feature_errors(results(feature_errors=(found,)), "width_gap")
    assert spec is not None
    bins = spec["datasets"]["1/4"]
    assert sum(entry["share"] for entry in bins[:-1]) == pytest.approx(1)
    assert (bins[0]["error"], bins[-1]["error"]) == (pytest.approx(1e-4), pytest.approx(10))
    assert bins[0]["share"] == pytest.approx(2 / 7)


def test_the_wide_networks_baseline_stands_behind_every_width():
    spec = feature_errors(small(), "width_gap")
    assert spec is not None
    assert list(spec["datasets"]) == ["1/2", "1/4", "1/8"]
    for entries in spec["datasets"].values():
        assert {entry["series"] for entry in entries} == {
            "another wide network", "narrow networks, as many parameters", "narrow networks, as many features"
        }  # fmt: skip


def test_single_networks_are_dots_and_their_mean_is_a_mark():
    spec = probe_accuracy(small(), "width_gap")
    assert spec is not None
    assert len(spec["datasets"]["parameters, alone"]) == 91
    assert {entry["series"] for entry in spec["datasets"]["parameters"]} == {
        "linear probe", "linear probe, fitted on unseen rows", "ensemble, mean logits",
        "ensemble, mean probabilities", "one network alone",
    }  # fmt: skip


def test_a_readout_that_nobody_foresaw_is_drawn_under_its_own_name():
    row = Row("width_gap", "probe_accuracy", "own_way", "test", True, "1/4", "parameters", "16 x 1/4", value=0.5)
    spec = probe_accuracy(results(row), "width_gap")
    assert spec is not None
    assert spec["datasets"]["parameters"][0]["series"] == "own way"


def test_training_curves_have_a_line_a_network_and_at_most_so_many():
    spec = training_curves(FULL)
    assert spec is not None
    assert len({entry["network"] for entry in spec["datasets"]["train_loss"]}) == 3 + 8 + 16 + 24


def test_long_training_curves_keep_their_ends():
    network = FULL.networks[0]
    history = tuple({**network.history[0], "epoch": epoch, "train_loss": float(epoch)} for epoch in range(1, 301))
    spec = training_curves(results(networks=(dataclasses.replace(network, history=history),)))
    assert spec is not None
    epochs = [entry["epoch"] for entry in spec["datasets"]["train_loss"]]
    assert (len(epochs), epochs[0], epochs[-1]) == (100, 1, 300)


def test_nothing_to_draw_is_none():
    for chart in (span_error, span_gap, gap_checks, feature_errors, probe_accuracy):
        assert chart(empty(), "width_gap") is None
    assert training_curves(empty()) is None
    assert figures.figures(empty()) == []
    assert span_error(results(span(None), span(math.nan)), "width_gap") is None


def test_a_missing_end_leaves_a_mark_without_a_bar():
    spec = span_error(results(span(0.04), span(0.05, width="1/2", low=0.04, high=0.06)), "width_gap")
    assert spec is not None
    for svg in (drawing.draw(spec), plain.draw(spec)):
        assert "NaN" not in svg
        assert "null" not in svg


def test_one_network_of_one_epoch_has_no_curve():
    network = FULL.networks[0]
    short = dataclasses.replace(network, history=network.history[:1])
    assert training_curves(results(networks=(short,))) is None


@pytest.mark.parametrize("figure", DRAWN, ids=lambda figure: figure.name)
def test_each_figure_can_be_drawn_by_hand(figure):
    for spec in (figure.spec, stacked(figure.spec)):
        root = ElementTree.fromstring(plain.draw(spec))
        width, height = (float(root.attrib[name]) for name in ("width", "height"))
        texts = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
        for panel in spec["concat"]:
            assert not panel["title"]["text"] or panel["title"]["text"] in texts
        assert 0 < width < 1000
        assert height > 100


def test_by_hand_a_value_stands_where_the_axis_says():
    spec = span_error(results(span(0.0), span(0.05, width="1/2", source="4 x 1/2")), "width_gap")
    assert spec is not None
    height = spec["concat"][0]["height"]
    top = spec["concat"][0]["layer"][0]["encoding"]["y"]["scale"]["domain"][1]
    heights = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', plain.draw(spec))]
    assert heights[1:] == [pytest.approx(height, abs=0.1), pytest.approx(height * (1 - 0.05 / top), abs=0.1)]


def test_a_drawing_is_the_same_again_and_keeps_strange_names_as_text():
    spec = span_error(results(span(0.04, width='<b>"&', source=None)), "width_gap")
    assert spec is not None
    for draw in (drawing.draw, plain.draw):
        svg = draw(spec)
        assert svg == draw(spec)
        assert "<b>" not in svg
        ElementTree.fromstring(svg)


def test_a_figure_uses_only_colours_that_have_a_dark_partner():
    known = set(theme.LIGHT.values())
    for figure in DRAWN[:2]:
        for svg in (drawing.draw(figure.spec), plain.draw(figure.spec)):
            assert set(re.findall(r'(?:fill|stroke)="(#\w+)"', svg)) <= known
            assert not re.search(r'(?:fill|stroke)="(?!#|none|transparent)', svg)


def test_no_two_series_of_a_figure_look_alike_in_grey():
    for figure in DRAWN:
        layers = [layer["encoding"] for panel in figure.spec["concat"] for layer in panel["layer"]]
        for channel in ("shape", "strokeDash"):
            for ranges in (encoding[channel]["scale"]["range"] for encoding in layers if channel in encoding):
                assert len(set(map(str, ranges))) == len(ranges)


@pytest.mark.parametrize(
    "numbers", [(0.03, 0.09), (-0.02, 0.04), (0.5, 0.5), (1e-7, 3e-7), (-4.0, -1.0), (0.0, 0.0), ()]
)
def test_the_ends_of_an_axis_hold_its_values_between_round_ticks(numbers):
    low, high = ends(numbers)
    assert all(low <= value <= high for value in numbers)
    ticks = quantitative("value", (low, high))["axis"]["values"]
    assert 2 <= len(ticks) <= 11
    assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in ticks)
