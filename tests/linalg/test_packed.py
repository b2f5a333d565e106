"""Rows that are packed, their sums and products: compiled and by PyTorch, against numpy."""

import copy
import pickle

import numpy as np
import pytest
import torch
from spread_rows import rows_of

from widthwise.linalg import packed
from widthwise.linalg.packed import ROWS, Packed, Product, Products

CPU = torch.device("cpu")


def filled(seed, columns, rows=ROWS):
    """Return packed rows, and what was packed."""
    own, values = Packed(columns, CPU), rows_of(seed, rows, columns)
    nothing = torch.zeros(columns).double()
    own.take(values, None, nothing, nothing.clone(), torch.zeros(3, 0).double())
    return own, values.numpy()


@pytest.mark.parametrize(("n", "columns", "before"), [(1, 1, 0), (64, 8, 8), (65, 9, 0), (130, 53, 5), (300, 41, 41)])
@pytest.mark.parametrize("at", [(0, 0), (7, 3), (24, 200)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("some", [False, True])
def test_rows_are_shifted_and_their_powers_added(n, columns, before, at, dtype, some, by, seed):
    (column, row), rows = at, rows_of(seed, n, columns, dtype)
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(n)[: n // 2 + 1]) if some else None
    shift = rows_of(seed + 1, 1, columns)[0]
    total, powers = torch.ones(columns).double(), torch.full((3, columns - before), 2.0).double()
    whole, count = Packed(column + columns + 5, CPU), n if chosen is None else len(chosen)
    whole.packs.fill_(-1)
    whole.take(rows, chosen, shift, total, powers, column=column, row=row)
    centred = rows.double().numpy()[slice(None) if chosen is None else chosen.numpy()] - shift.numpy()
    found = whole.columns(slice(0, column + columns + 5), ROWS).numpy()
    assert np.array_equal(found[column : column + columns, row : row + count], centred.T)
    assert (found == -1).sum() == found.size - centred.size, "more was written than rows"
    size = np.abs(centred).sum(0) + 1
    assert (np.abs(total.numpy() - centred.sum(0) - 1) <= 1e-13 * size).all()
    for k, own in enumerate(powers.numpy()):
        power = centred[:, before:] ** (k + 2)
        assert (np.abs(own - power.sum(0) - 2) <= 1e-13 * (np.abs(power).sum(0) + 2)).all()


@pytest.mark.parametrize("rows", [1, 9, ROWS])
@pytest.mark.parametrize(("left", "right"), [(1, 1), (8, 24), (9, 70), (140, 25), (257, 200)])
def test_products_are_those_of_columns(left, right, rows, by, count, seed):
    (a, x), (b, y) = filled(seed, left, rows), filled(seed + 1, right, rows)
    out = torch.full((left, right + 3), 5.0).double()
    Products([Product(a, slice(0, left), b, slice(0, right), out[:, 1 : right + 1])]).add(rows)
    found, size = out.numpy(), np.linalg.norm(x, axis=0)[:, None] * np.linalg.norm(y, axis=0)
    assert (np.abs(found[:, 1 : right + 1] - x.T @ y - 5) <= 1e-14 * (size + 5)).all()
    assert (found[:, [0, right + 1, right + 2]] == 5).all(), "more was written than the product"


@pytest.mark.parametrize(
    ("columns", "crossed", "height"), [(1, 1, 8), (100, 100, 64), (300, 130, 128), (700, 512, 256)]
)
def test_half_a_square_is_made_in_blocks(columns, crossed, height, by, count, seed):
    """Of columns with themselves and those behind: all on and right of the diagonal, and nothing outside."""
    own, values = filled(seed, columns, 100)
    runs = [slice(k, min(k + height, crossed)) for k in range(0, crossed, height)]
    outs = [torch.zeros(run.stop - run.start, columns - run.start).double() for run in runs]
    products = [
        Product(own, run, own, slice(run.start, columns), out, upper=True) for run, out in zip(runs, outs, strict=True)
    ]
    for _ in range(2):
        Products(products).add(100)
    length = np.linalg.norm(values, axis=0)
    for run, out in zip(runs, outs, strict=True):
        apart = (out.numpy() - 2 * values[:, run].T @ values[:, run.start :]) / np.outer(
            length[run], length[run.start :]
        )
        assert np.abs(np.triu(apart)).max() <= 1e-14


@pytest.mark.skipif(packed.compiled() is None, reason="no C++ compiler (CXX, c++)")
def test_the_number_of_threads_changes_no_bit(seed):
    rows, shift, before = rows_of(seed, 300, 301, torch.float32), rows_of(seed + 1, 1, 301)[0], torch.get_num_threads()
    found = []
    for threads in (1, 2, 5):
        total, powers, out = (torch.zeros(*shape).double() for shape in ((301,), (3, 301), (301, 301)))
        own = Packed(301, CPU)
        torch.set_num_threads(threads)
        try:
            own.take(rows, None, shift, total, powers)
            Products([Product(own, slice(0, 301), own, slice(0, 301), out)]).add(300)
        finally:
            torch.set_num_threads(before)
        found.append(torch.cat([own.columns(slice(0, 301), 300).flatten(), total, powers.flatten(), out.flatten()]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_no_products_are_none(by):
    Products([]).add(5)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda given: pickle.loads(pickle.dumps(given))])
def test_a_copy_adds_to_what_is_its_own(again, by, seed):
    random = np.random.default_rng(seed)
    own, rows, out = (
        Packed(7, torch.device("cpu")),
        torch.from_numpy(random.normal(size=(20, 7))),
        torch.zeros(7, 7).double(),
    )
    zeros = torch.zeros(7, dtype=torch.float64)
    own.take(rows, None, zeros, zeros.clone(), torch.zeros(3, 0, dtype=torch.float64))
    products = Products([Product(own, slice(0, 7), own, slice(0, 7), out)])
    other, theirs = again((products, out))
    other.add(20)
    assert not out.any()
    torch.testing.assert_close(theirs, rows.T @ rows, rtol=1e-12, atol=1e-12)
