"""Moments against numpy, however the rows are cut, shifted and merged."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from widthwise.errors import DataError, UsageError
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


@pytest.mark.parametrize(("columns", "crossed"), [(5, 5), (9, 4), (300, 290), (2, 0)])
def test_their_product_with_a_matrix_is_that_of_the_sums(columns, crossed, seed):
    random = np.random.default_rng(seed)
    moments = Moments(columns, crossed=crossed)
    moments.update(torch.from_numpy(rows_with_means(random, columns=columns)))
    V = torch.from_numpy(random.normal(size=(crossed, 3)))
    truth = moments.second[:, :crossed] @ V
    assert torch.allclose(moments.times(V), truth, rtol=0, atol=1e-12 * float(truth.abs().max()) if crossed else 0)


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


# Products of some columns, powers of others --------------------------------------------------------------


def with_products(rows, crossed, powered, shift=None, **options) -> Moments:
    moments = Moments(rows.shape[1], shift, crossed=crossed, powered=powered, **options)
    moments.update(torch.as_tensor(rows))
    return moments


SHARES = [(6, 0), (4, 0), (4, 2), (4, 4), (0, 0), (6, 6)]


@pytest.mark.parametrize(("crossed", "powered"), SHARES)
@pytest.mark.parametrize("how", ["at once", "in batches", "merged", "about another point"])
def test_products_and_powers_of_some_columns_are_those_of_all(crossed, powered, how, seed):
    random = np.random.default_rng(seed)
    rows = rows_with_means(random)
    shift = torch.from_numpy(rows.mean(0) + rows.std(0) * random.normal(size=6))
    whole = of(rows, shift)
    if how == "at once":
        some = with_products(rows, crossed, powered, shift)
    elif how == "in batches":
        some = Moments(6, shift, crossed=crossed, powered=powered)
        for batch in torch.from_numpy(rows).split(33):
            some.update(batch)
    elif how == "merged":
        some = merged(with_products(part, crossed, powered, shift) for part in np.split(rows, [50, 120]))
    else:
        some = with_products(rows, crossed, powered).about(shift)
    assert some.second.shape == (crossed, 6)
    assert torch.allclose(some.second, whole.second[:crossed], rtol=1e-9, atol=1e-9 * float(whole.second.max()))
    for name in ("total", "squares", "mean", "low", "high", "constant"):
        assert torch.allclose(getattr(some, name), getattr(whole, name), rtol=1e-9), name
    assert torch.allclose(some.centred_squares, whole.centred_squares, rtol=1e-9)
    effective = some.effective_rows
    assert effective[:powered].isnan().all()
    assert torch.allclose(effective[powered:], whole.effective_rows[powered:], rtol=1e-9)


def test_columns_chosen_across_the_shares_keep_what_each_has(seed):
    rows = rows_with_means(np.random.default_rng(seed), size=10)
    some, chosen = with_products(rows, 4, 2), torch.tensor([1, 3, 2, 5])
    picked = some.select(chosen, crossed=3)
    assert (picked.crossed, picked.powered) == (3, 1)
    assert torch.equal(picked.second, some.second[chosen[:3]][:, chosen])
    assert torch.equal(picked.squares, some.squares[chosen])
    assert torch.equal(picked.effective_rows[1:], some.effective_rows[chosen[1:]])


def test_columns_without_products_and_powers_are_refused():
    with pytest.raises(AssertionError, match="neither crossed nor powered have no squares"):
        Moments(6, crossed=2, powered=3)


def test_another_precision_is_refused():
    with pytest.raises(UsageError, match="precision must be 'float64' or 'float32_chunks', not 'float16'"):
        Moments(6, precision="float16")


@pytest.mark.parametrize("size", [0, 1e4])
def test_products_in_float32_are_within_3e_7_of_the_columns_deviations(size, seed):
    rows = rows_with_means(np.random.default_rng(seed), n=3000, size=size)
    cheap, exact = (with_products(rows, 6, 0, precision=p) for p in ("float32_chunks", "float64"))
    deviations = exact.squares.sqrt()
    assert ((cheap.second - exact.second).abs() <= 3e-7 * torch.outer(deviations, deviations)).all()
    for name in ("total", "low", "high", "constant", "effective_rows"):  # only products are cheap
        assert torch.equal(getattr(cheap, name), getattr(exact, name)), name


# Files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("crossed", "powered"), SHARES)
@pytest.mark.parametrize("columns", [6, 300])
def test_what_is_saved_is_loaded_and_goes_on(crossed, powered, columns, seed, tmp_path):
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(2, 700, columns)) + 10  # more rows than one product has, some of them wait
    kept = with_products(first, columns * crossed // 6, columns * powered // 6)
    kept.save(tmp_path / "moments")
    loaded = Moments.load(tmp_path / "moments")
    for name in ("n", "columns", "crossed", "powered"):
        assert getattr(loaded, name) == getattr(kept, name), name
    for name in ("shift", "low", "high", "total", "squares", "second", "effective_rows"):
        assert torch.equal(*(getattr(m, name).nan_to_num(-1) for m in (loaded, kept))), name
    for moments in (kept, loaded):
        moments.update(torch.from_numpy(second))
    assert torch.equal(loaded.second, kept.second)
    assert merged([loaded, kept]).n == 2800


def damage(path, how) -> None:
    whole = path.read_bytes()
    tensors = load_file(path)
    if how == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "of something else":
        save_file({"weights": torch.zeros(3)}, path)
    elif how == "missing":
        path.unlink()
    elif how == "header":
        path.write_bytes(b"\xff" * 64 + whole[64:])
    elif how == "fewer products":
        save_file(tensors | {"blocks": tensors["blocks"][:-1].clone()}, path)
    elif how == "no sizes":
        save_file({name: x for name, x in tensors.items() if name != "sizes"}, path)
    elif how == "two sizes":
        save_file(tensors | {"sizes": tensors["sizes"][:2].clone()}, path)
    elif how == "fewer totals":
        save_file(tensors | {"total": tensors["total"][:-1].clone()}, path)
    elif how == "fewer powers":
        save_file(tensors | {"powers": tensors["powers"][:, :-1].clone()}, path)
    elif how == "other extremes":
        save_file(tensors | {"low": tensors["low"][:-1].clone()}, path)
    elif how == "more powered than crossed":
        save_file(tensors | {"sizes": torch.tensor([700, 2, 5])}, path)
    elif how == "no rows":
        save_file(tensors | {"sizes": torch.tensor([-1, 6, 0])}, path)


DAMAGE = ("cut short", "empty", "of something else", "missing", "header", "fewer products", "no sizes", "two sizes")
DAMAGE = (*DAMAGE, "fewer totals", "fewer powers", "other extremes", "more powered than crossed", "no rows")


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_refused(how, seed, tmp_path):
    of(rows_with_means(np.random.default_rng(seed), n=700)).save(tmp_path / "moments")
    damage(tmp_path / "moments", how)
    with pytest.raises(DataError, match=r"moments does not hold moments \(.+\); write them again with save"):
        Moments.load(tmp_path / "moments")


@pytest.mark.parametrize("columns", [1, 6, 300])
def test_moments_of_known_sums_are_those_that_gave_them_and_go_on(columns, seed):
    random = np.random.default_rng(seed)
    rows = rows_with_means(random, columns=columns)
    first = of(rows[:150])
    c = torch.from_numpy(rows[:150]) - first.shift
    powers = torch.stack([(c**k).sum(0) for k in (2, 3, 4)])
    vectors = {"shift": first.shift, "total": c.sum(0), "powers": powers, "low": first.low, "high": first.high}
    made = Moments.of(150, c.T @ c, **vectors)
    check(made, rows[:150])
    made.update(torch.from_numpy(rows[150:]))
    check(made, rows)
