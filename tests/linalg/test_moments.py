"""Moments against numpy, however the rows are cut, shifted and merged."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from widthwise.errors import DataError
from widthwise.linalg import moments as module
from widthwise.linalg.moments import Moments, merged


def of(rows, shift=None) -> Moments:
    moments = Moments(rows.shape[1], shift)
    moments.update(torch.as_tensor(rows))
    return moments


def rows_with_means(random, n=200, columns=6, size=1e4):
    return random.normal(size=(n, columns)) * np.logspace(-2, 2, columns) + size * random.normal(size=columns)


def check(moments: Moments, rows: np.ndarray, tolerance: float = 1e-12) -> None:
    """Check moments against a direct computation, in units of each column's deviation."""
    c = rows - rows.mean(0)
    c = c - c.mean(0)  # of a mean of 1e8 the first subtraction leaves some
    size = np.sqrt(np.outer((c**2).sum(0), (c**2).sum(0)))
    centred = moments.second - torch.outer(moments.total, moments.total) / moments.n
    assert moments.n == len(rows)
    assert np.allclose(moments.mean, rows.mean(0), rtol=1e-14, atol=1e-14 * rows.std(0).max())
    assert (np.abs(centred.numpy() - c.T @ c) <= tolerance * size).all()
    assert np.allclose(moments.centred_squares, (c**2).sum(0), rtol=tolerance, atol=0)
    assert np.allclose(moments.effective_rows, (c**2).sum(0) ** 2 / (c**4).sum(0), rtol=100 * tolerance, atol=0)
    assert np.array_equal(moments.low, rows.min(0))
    assert np.array_equal(moments.high, rows.max(0))


@pytest.mark.parametrize("size", [0, 1, 1e4, 1e8])
def test_they_are_the_sums_of_the_rows_whatever_their_mean(size, seed):
    rows = rows_with_means(np.random.default_rng(seed), size=size)
    check(of(rows), rows)


@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    grouping=st.integers(0, 2),
    size=st.sampled_from([0.0, 1.0, 1e4]),
)
@settings(max_examples=60, deadline=None)
def test_any_cutting_and_grouping_gives_the_same(seed, cuts, grouping, size):
    rows = rows_with_means(np.random.default_rng(seed), n=60, columns=4, size=size)
    pieces = [of(piece) for piece in np.split(rows, sorted(cuts)) if len(piece)] + [Moments(4)]
    if grouping == 0:
        whole = merged(pieces)
    elif grouping == 1:
        whole = merged(reversed(pieces))
    else:
        whole = merged([merged(pieces[::2]), merged(pieces[1::2])] if len(pieces) > 1 else pieces)
    check(whole, rows)


def test_merging_leaves_the_parts_alone(seed):
    rows = rows_with_means(np.random.default_rng(seed))
    parts = [of(rows[:50]), of(rows[50:])]
    before = [part.second.clone() for part in parts]
    merged(parts)
    assert all(torch.equal(part.second, second) for part, second in zip(parts, before, strict=True))
    assert [part.n for part in parts] == [50, 150]


def test_batches_add_up_bitwise_the_same_in_the_same_order(seed):
    rows = torch.from_numpy(rows_with_means(np.random.default_rng(seed)))
    first, second = Moments(6), Moments(6)
    for moments in (first, second):
        for batch in rows.split(33):
            moments.update(batch)
    assert torch.equal(first.second, second.second)


@pytest.mark.parametrize("columns", [1, 127, 128, 259, 1100])
def test_second_moments_are_symmetric_at_any_number_of_columns(columns, seed):
    rows = np.random.default_rng(seed).normal(size=(20, columns))
    moments = of(rows, torch.zeros(columns))
    moments.update(torch.from_numpy(rows))
    assert np.allclose(moments.second, 2 * rows.T @ rows, rtol=0, atol=1e-12)
    some, others = torch.arange(columns // 3, columns), torch.arange(columns // 2, columns)
    assert torch.equal(moments.products(some, others), moments.second[some][:, others])
    assert torch.equal(moments.products(others.flip(0), some), moments.second[others.flip(0)][:, some])
    assert torch.equal(moments.second.triu(256), moments.second.tril(-256).T)


def test_a_shift_is_bookkeeping(seed):
    random = np.random.default_rng(seed)
    rows = rows_with_means(random)
    for _ in range(3):
        near = torch.from_numpy(rows.mean(0) + rows.std(0) * random.normal(size=6))
        check(of(rows).about(near), rows)
        check(of(rows, near).about(of(rows).shift), rows)
    assert of(rows, near).about(near.clone()).shift is near


@given(seed=st.integers(0, 2**32 - 1), chosen=st.lists(st.integers(0, 7), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_some_columns_have_the_moments_they_have_alone(seed, chosen):
    rows = rows_with_means(np.random.default_rng(seed), n=40, columns=8)
    some = of(rows).select(torch.tensor(chosen))
    check(some, rows[:, chosen])
    few = of(rows).select(torch.tensor(chosen), crossed=1)
    assert torch.equal(few.second, some.second[:1])
    assert torch.equal(merged([few, few]).second, 2 * some.second[:1])


def test_effective_rows_are_k_for_an_indicator_and_a_third_for_a_gaussian(seed):
    random = np.random.default_rng(seed)
    n = 20000
    rows = np.stack([np.arange(n) < k for k in (1, 8, 20)] + [random.normal(size=n), np.full(n, 1e9 / 3)], 1)
    effective = of(rows).effective_rows
    assert effective[:3].tolist() == pytest.approx([1, 8, 20], rel=0.01)
    assert float(effective[3]) == pytest.approx(n / 3, rel=0.1)
    assert float(effective[4]) == 0


@pytest.mark.parametrize("value", [0.0, 1e8 / 3, -1e-300])
def test_a_column_is_constant_if_no_value_differs_and_only_then(value):
    rows = torch.full((50, 2), value, dtype=torch.float64)
    rows[17, 1] = np.nextafter(value, np.inf)
    moments = of(rows)
    assert moments.constant.tolist() == [True, False]
    assert float(moments.centred_squares[0]) == 0


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.float16, torch.bfloat16, torch.float32])
def test_rows_of_any_type_are_summed_in_float64(kind):
    rows = (torch.arange(24).reshape(8, 3) % 5).to(kind)
    assert torch.equal(of(rows).second, of(rows.double()).second)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_and_leaves_the_sums_alone(value):
    rows = torch.randn(9, 4)
    rows[5, 2] = value
    moments = Moments(4)
    with pytest.raises(DataError, match=f"row 5, column 2 is {value}; every value must be a finite number"):
        moments.update(rows)
    assert moments.n == 0
    assert moments.shift is None


def test_large_numbers_are_not_taken_for_infinity():
    rows = torch.tensor([[1e308], [1e308]], dtype=torch.float64)  # their sum is infinite, they are not
    module.check_finite(rows)


def test_a_batch_of_other_columns_is_refused():
    with pytest.raises(DataError, match=r"a batch must be of shape \(rows, 4\), not \(5, 3\)"):
        Moments(4).update(torch.zeros(5, 3))


def test_no_rows_are_no_change():
    moments = of(np.eye(3))
    moments.update(torch.zeros(0, 3))
    moments.merge(Moments(3))
    assert moments.n == 3
