"""span_gap from arrays alone: truths by construction, the definition computed by hand, orders that do not matter."""

import dataclasses
import functools
import json
import math
import warnings

import numpy as np
import pytest
import torch

from widthwise import array_gap as module
from widthwise.array_gap import SpanGap, span_gap
from widthwise.columns import concatenate
from widthwise.errors import DataError, NumericsWarning, UsageError
from widthwise.linalg import intervals
from widthwise.measures.span_error import span_error

KNOWN, SEEN, WIDE, NARROW, ROWS = 10, 7, 12, 6, 600


@pytest.fixture(autouse=True)
def of_small_data():
    """Of few rows most results have a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericsWarning)
        yield


def gap(*sides, **options):
    """Return the span gap, of two folds: as true, and quicker."""
    return span_gap(*sides, **{"folds": 2} | options)


def networks(seed=0, wide=3, narrow=4, seen=SEEN, rows=ROWS, noise=0.05):
    """Return wide networks that know everything and narrow ones that know `seen` of it, each its own mixture."""
    draw = torch.Generator().manual_seed(seed)
    known = torch.randn(rows, KNOWN, generator=draw, dtype=torch.float64)

    def network(some, d):
        mixed = some @ torch.randn(some.shape[1], d, generator=draw, dtype=torch.float64)
        return mixed + noise * torch.randn(rows, d, generator=draw, dtype=torch.float64)

    return [network(known, WIDE) for _ in range(wide)], [network(known[:, :seen], NARROW) for _ in range(narrow)]


@functools.cache
def example():
    """Return the gap of three wide networks and of four narrow ones in twos."""
    wide, narrow = networks()
    return gap(wide, narrow, count=2)


# Truths --------------------------------------------------------------------------------------------------


def test_directions_that_no_narrow_network_sees_are_the_gap(seed):
    draw = torch.Generator().manual_seed(seed)
    known = torch.randn(2000, KNOWN, generator=draw, dtype=torch.float64)
    mixtures = [torch.randn(KNOWN, WIDE, generator=draw, dtype=torch.float64) for _ in range(3)]
    narrow = [known[:, :SEEN] @ torch.randn(SEEN, NARROW, generator=draw, dtype=torch.float64) for _ in range(4)]
    found = gap([known @ W for W in mixtures], narrow, matching="features")
    unseen = [float((W[SEEN:].square().sum(0) / W.square().sum(0)).mean()) for W in mixtures]
    assert found.value == pytest.approx(sum(unseen) / 3, rel=0.15)
    assert found.wide_error < 1e-6
    assert found.low < found.value < found.high
    assert found.row_low < found.value < found.row_high


def test_narrow_networks_that_are_slices_of_all_wide_ones_have_a_gap_below_zero():
    wide, _ = networks(noise=1.0)
    slices = list(torch.cat(wide, 1).split(NARROW, 1))
    found = gap(wide, slices, count=len(slices))
    assert found.narrow_error < 1e-6
    assert found.value == pytest.approx(-found.wide_error, abs=1e-6)
    assert found.value < -0.1
    assert (found.concatenations, found.count, found.left_over) == (1, 6, 0)


def test_networks_that_are_rotations_of_each_other_have_no_gap():
    X = networks(noise=1.0)[0][0]
    rotations = [torch.linalg.qr(torch.randn(WIDE, WIDE, dtype=torch.float64)).Q for _ in range(5)]
    found = gap([X @ Q for Q in rotations[:3]], [X @ Q for Q in rotations[3:]], count=1)
    assert abs(found.value) < 1e-6
    assert max(max(of) for of in found.narrow_errors) < 1e-6
    assert found.verdict == "not confirmed here"
    assert found.low <= found.value <= found.high


def test_the_numbers_are_those_of_the_definition():
    wide, narrow = networks()
    found = example()
    pairs = [narrow[:2], narrow[2:]]
    A = [[span_error(concatenate(*c), M, folds=2).mean for M in wide] for c in pairs]
    B = [[math.nan if i == k else span_error(wide[k], wide[i], folds=2).mean for i in range(3)] for k in range(3)]
    without = [[np.mean([span_error(kept, M, folds=2).mean for M in wide]) for kept in (c[1], c[0])] for c in pairs]
    expected = intervals.span_gap_interval(A, B, without)
    assert np.allclose(found.narrow_errors, A, rtol=1e-6)
    assert np.allclose(found.wide_errors, B, rtol=1e-6, equal_nan=True)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high), rel=1e-6
    )
    assert found.df == pytest.approx(expected.df, rel=1e-6)


def test_single_networks_are_left_out_themselves():
    wide, narrow = networks(narrow=3)
    found = gap(wide, narrow, count=1)
    A = torch.tensor(found.narrow_errors, dtype=torch.float64)
    without_narrow = [float(A[torch.arange(3) != c].mean() - A.mean() + found.value) for c in range(3)]
    value, without_wide = intervals.span_gap_leave_one_out(A, found.wide_errors)
    expected = intervals.jackknife_gap(value, [without_wide, without_narrow])
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_the_order_of_networks_does_not_matter():
    wide, narrow = networks()
    one = example()
    other = gap([wide[k] for k in (2, 0, 1)], [narrow[k] for k in (3, 2, 0, 1)], count=2)
    for name in ("value", "low", "high", "row_low", "row_high", "standardized", "narrow_error", "wide_error"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6), name


def test_features_of_another_scale_and_shift_change_nothing():
    wide, narrow = networks()
    one = example().value
    assert gap([3 * M + 7 for M in wide], [-2 * M + 1 for M in narrow], count=2).value == pytest.approx(one)


def test_where_memory_is_short_the_rows_are_read_in_more_passes_to_the_same_end(monkeypatch):
    wide, narrow = networks()
    one = example()
    monkeypatch.setattr(module, "TOGETHER", 0)
    other = gap(wide, narrow, count=2)
    assert (one.value, one.low, one.row_high) == pytest.approx((other.value, other.low, other.row_high), rel=1e-6)


# What is said --------------------------------------------------------------------------------------------


def test_a_gap_is_confirmed_only_on_rows_that_no_network_saw():
    wide, narrow = networks(rows=1500)
    fit = {"wide": [M[:1000] for M in wide], "narrow": [M[:1000] for M in narrow], "count": 2}
    alone = gap(**fit)
    assert (alone.verdict, alone.unchecked) == ("below resolution", ("test", "unseen"))
    assert "not checked on test and unseen rows" in str(alone)
    both = gap(**fit, wide_test=[M[1000:] for M in wide], narrow_test=[M[1000:] for M in narrow])
    assert (both.verdict, both.unchecked) == ("confirmed", ())
    assert set(both.elsewhere) == {"test", "unseen"}
    assert both.value == pytest.approx(alone.value, rel=1e-9)
    for split in both.elsewhere.values():
        assert 0 < split["low"] < split["value"] < split["high"]


def test_two_wide_networks_have_a_gap_and_no_interval_over_networks():
    wide, narrow = networks(wide=2)
    found = gap(wide, narrow, matching="features")
    assert math.isnan(found.low)
    assert math.isfinite(found.row_low)
    assert "no interval over networks" in str(found)
    assert found.verdict == "below resolution"
    assert found.to_dict()["low"] is None


def test_a_result_is_a_sentence_a_table_and_plain_values():
    wide, narrow = networks(narrow=5)
    labels = np.arange(ROWS) % 3
    found = gap(wide, narrow, matching="features", labels=labels)
    assert str(found).startswith("2 narrow networks, together, miss ")
    assert "more of a wide network's features than another wide one does: narrow -> wide" in str(found)
    assert "(2 x 2 narrow, 1 left over)" in str(found)
    assert found.within_class == pytest.approx(found.value, rel=0.1)
    assert "<table>" in found._repr_html_()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["wide_errors"][0][0] is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.value = 0.0
    assert {f.name for f in dataclasses.fields(SpanGap)} == set(found.to_dict())


def test_the_table_has_a_row_for_every_span_error():
    pytest.importorskip("pandas")
    frame = example().to_frame()
    assert list(frame.columns) == ["source", "target", "error"]
    assert len(frame) == 2 * 3 + 3 * 2


def test_it_tells_how_far_it_is():
    wide, narrow = networks(narrow=2)
    told = []
    gap(wide, narrow, count=2, tell=lambda *step: told.append(step))
    assert told[0] == ("features", ROWS, ROWS)
    scores = [step for step in told if step[0] == "scores"]
    assert [done for _, done, _ in scores] == list(range(1, int(scores[0][2]) + 1))


def test_too_few_rows_for_their_regressors_are_warned_of():
    wide, narrow = networks(rows=100, noise=1.0)
    with pytest.warns(NumericsWarning, match="effective degrees of freedom are up to .* of the rows of a fit"):
        gap(wide, narrow, count=2)


def test_networks_that_say_nothing_are_warned_of(seed):
    wide, narrow = networks(rows=600, seed=seed)
    with pytest.warns(NumericsWarning, match="narrow networks have no feature that varies"):
        span_gap(wide, [0 * n + 1 for n in narrow], count=2)


@pytest.mark.filterwarnings("ignore::widthwise.errors.NumericsWarning")
def test_groups_that_are_too_few_for_a_quarter_leave_nothing_to_extrapolate(seed):
    wide, narrow = networks(rows=600, seed=seed)
    found = span_gap(wide, narrow, count=2, groups=np.arange(600) % 5)
    assert found.extrapolated == {"richardson": None, "aitken": None}
    assert span_gap(wide, narrow, count=2, groups=np.arange(600) % 100).extrapolated["richardson"] is not None


# Refusals ------------------------------------------------------------------------------------------------

W, N = networks(rows=60)


@pytest.mark.parametrize(
    ("wide", "narrow", "options", "error", "told"),
    [
        (W[:1], N, {"count": 2}, UsageError, "needs 2 or more wide networks.* 1 is given"),
        ([w[:, :0] for w in W], N, {"count": 2}, DataError, r"wide\[0\] has no features"),
        (
            W,
            N,
            {"count": 2, "wide_test": W, "narrow_test": N},
            UsageError,
            r"wide_test\[0\] is wide\[0\] again",
        ),
        (W, N, {"count": 2, "labels": range(60)}, DataError, r"wide\[0\]: .* Use more rows for a class; are labels"),
        ([W[0], W[1], W[0].numpy().copy()], N, {"count": 2}, UsageError, r"wide\[2\] is wide\[0\] again"),
        ([W[0], W[1], W[0]], N, {"count": 2}, UsageError, r"wide\[2\] is wide\[0\] again; every network is"),
        (W, [N[0], N[0]], {"count": 2}, UsageError, r"narrow\[1\] is narrow\[0\] again"),
        (W[0], N, {"count": 2}, UsageError, "wide must be a list of feature arrays, one a network"),
        (W, [], {"count": 2}, UsageError, "narrow is empty"),
        (W, N, {}, UsageError, r"features do not say how many parameters their networks have: give count \(--count\)"),
        (W, N, {"count": 5}, UsageError, "5 narrow networks stand against one wide network, .* and 4 are given"),
        (W, N, {"count": 0}, UsageError, "count must be a whole number from 1 on"),
        (W, N[:1], {"matching": "features"}, UsageError, "2 narrow networks stand against .* by features, and 1 are"),
        (W, N, {"matching": "features", "count": 2}, UsageError, "count belongs to matching by parameters"),
        (W, N, {"matching": "flops"}, UsageError, 'matching must be "parameters" or "features", not \'flops\''),
        (W, [N[0], N[1][:, :3]], {"count": 1}, DataError, r"narrow\[1\] has 3 features and narrow\[0\] has 6"),
        (W, [N[0], N[1][:50]], {"count": 1}, DataError, r"narrow\[0\] has 60 rows and narrow\[1\] has 50 rows"),
        (W, [N[0], N[1] / 0], {"count": 2}, DataError, r"narrow\[1\]: row 0, column 0 is"),
        (W, N, {"count": 2, "wide_test": W}, UsageError, "wide_test and narrow_test are given together"),
        (
            W,
            N,
            {"count": 2, "wide_test": W, "narrow_test": N[:1]},
            UsageError,
            "3 networks in wide_test and 1 in narrow",
        ),
        (W, N, {"count": 2, "groups": [1]}, DataError, "groups have shape"),
        (W, N, {"count": 2, "precision": "half"}, UsageError, "precision must be"),
        ([W[0], W[1] * 0], N, {"count": 2}, DataError, r"wide\[1\]: none of its features varies on 20 effective"),
        (W, N, {"margin": -1.0}, UsageError, "margin must be a number, 0 or more; not -1.0"),
        (W, N, {"margin": float("nan")}, UsageError, "margin must be a number, 0 or more; not nan"),
    ],
)
def test_what_gives_no_gap_is_one_clear_error(wide, narrow, options, error, told):
    with pytest.raises(error, match=told):
        gap(wide, narrow, **options)


def test_a_stack_of_networks_is_as_good_as_a_list(seed):
    wide, narrow = networks(rows=200)
    given, stacked = span_gap(wide, narrow, count=2), span_gap(np.stack(wide), np.stack(narrow), count=2)
    assert stacked.value == given.value
