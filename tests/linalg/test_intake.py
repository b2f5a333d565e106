"""Rows on their way into moments: compiled and by PyTorch, against torch."""

import numpy as np
import pytest
import torch
from spread_rows import rows_of

from widthwise import native
from widthwise.errors import DataError
from widthwise.linalg import intake
from widthwise.linalg.moments import Moments


@pytest.mark.parametrize("columns", [1, 8, 100])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes_are_those_of_the_chosen_rows_and_nan_where_one_is_not_finite(columns, value, dtype, by, seed):
    rows = rows_of(seed, 70, columns, dtype)
    chosen = torch.tensor([0, 69, 5, 5, 31])
    for own in (None, chosen):
        low, high = intake.extremes(rows, own)
        of = rows if own is None else rows[own]
        assert torch.equal(low, of.amin(0).double())
        assert torch.equal(high, of.amax(0).double())
    rows[4, columns // 2] = value
    assert not bool(intake.extremes(rows, chosen)[0].isnan().any())
    for extreme in intake.extremes(rows):
        assert extreme.isnan().nonzero()[:, 0].tolist() == [columns // 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8, torch.int32, torch.int64, torch.bool])
def test_rows_of_any_type_become_floats_that_hold_them(dtype):
    rows = (torch.arange(24).reshape(3, 8) % 7).to(dtype).T
    found = intake.plain(rows)
    assert found.dtype in native.DTYPES
    assert found.stride(1) == 1
    assert torch.equal(found.double(), rows.double())


def test_numbers_that_float32_does_not_hold_stay_whole():
    rows = torch.tensor([[2**24 + 1]])
    assert float(intake.plain(rows)) == 2**24 + 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_chosen_rows_of_several_pieces_have_the_moments_they_have_alone(dtype, by, seed):
    pieces = [rows_of(seed, 700, 11).T.contiguous().T.to(dtype), rows_of(seed + 1, 700, 6, torch.float32)]
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(700)[:600])
    ours = Moments(17, crossed=11, powered=7)
    ours.update(*pieces, rows=chosen[:570])
    ours.update(*pieces, rows=chosen[570:])
    truth = Moments(17, ours.shift, crossed=11, powered=7)
    truth.update(torch.cat([piece[chosen].double() for piece in pieces], 1))
    deviation = (truth.products(torch.arange(11), torch.arange(11)).diagonal() / 600).sqrt()
    for name in ("n", "low", "high"):
        assert torch.equal(*(torch.as_tensor(getattr(x, name)) for x in (ours, truth)))
    for name in ("mean", "centred_squares"):
        torch.testing.assert_close(getattr(ours, name), getattr(truth, name), rtol=1e-10, atol=0)
    torch.testing.assert_close(ours.effective_rows[7:], truth.effective_rows[7:], rtol=1e-9, atol=0)
    apart = (ours.second - truth.second)[:, :11] / torch.outer(deviation, deviation) / 600
    assert float(apart.abs().max()) <= 1e-13


def test_a_value_that_is_not_finite_is_named_by_its_row_of_the_batch(by):
    rows = torch.zeros(9, 4)
    rows[5, 2] = torch.nan
    moments = Moments(4)
    moments.update(rows, rows=torch.tensor([1, 2, 8]))
    with pytest.raises(DataError, match=r"row 5, column 2 is nan"):
        moments.update(rows, rows=torch.tensor([8, 5]))
    assert moments.n == 3


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_numbers_of_rows_may_lie_apart_and_be_short(dtype, by, seed):
    rows, chosen = rows_of(seed, 90, 5), torch.arange(90, dtype=dtype)[::3]
    ours, truth = Moments(5), Moments(5)
    ours.update(rows, rows=chosen)
    truth.update(rows[::3])
    assert torch.equal(ours.second, truth.second)
    assert torch.equal(ours.low, truth.low)


def test_float32_products_that_are_exact_are_still_float32_products():
    whole = Moments(3, precision="float32_chunks")
    whole.update(torch.arange(24).reshape(8, 3) % 5)
    whole.second  # noqa: B018 - products are made when they are asked for
    assert 0 < whole.rounding < 1e-6


def test_the_number_of_threads_changes_nothing(count, seed):
    rows = rows_of(seed, 70, 41, torch.float32)
    assert torch.equal(torch.stack(intake.extremes(rows)), torch.stack([rows.amin(0), rows.amax(0)]).double())


def test_narrow_matrices_that_follow_each_other_are_one(seed):
    wide, narrow = rows_of(seed, 7, intake.NARROW + 1), [rows_of(seed + k, 7, 3) for k in range(4)]
    given = [*narrow[:2], wide, narrow[2].float(), narrow[3]]
    found = intake.joined(given)
    assert [tuple(x.shape) for x in found] == [(7, 6), (7, intake.NARROW + 1), (7, 3), (7, 3)]
    assert [x.dtype for x in found] == [torch.float64, torch.float64, torch.float32, torch.float64]
    assert torch.equal(torch.cat(found, 1), torch.cat(given, 1))
    assert found[1] is wide
