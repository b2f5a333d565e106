"""Sums of squared residuals, compiled and by PyTorch, against numpy."""

import numpy as np
import pytest
import torch

from widthwise.linalg import residuals

SIZES = [
    (1, 1, 1, 1),
    (8, 24, 1, 24),
    (130, 130, 3, 7),
    (48, 40, 2, 25),
    (600, 601, 1, 50),
    (20, 7, 2, 1),
    (700, 1100, 2, 400),
]


@pytest.mark.parametrize(("rows", "size", "fits", "targets"), SIZES)
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("turned", ["neither", "weights", "rows"])
def test_they_are_those_of_products(rows, size, fits, targets, upper, turned, by, seed):
    random = np.random.default_rng(seed)
    given, c = random.normal(size=(rows, size + 3)), random.normal(size=(rows, targets)) + 1
    w = random.normal(size=(size, fits * targets))
    if upper:
        given[:, 2 : size + 2] = np.triu(given[:, 2 : size + 2])
    A = given[:, 2 : size + 2]
    theirs = ((np.tile(c, (1, fits)) - A @ w) ** 2).sum(0)
    plain = torch.from_numpy(w.T.copy()).T if turned == "weights" else torch.from_numpy(w)
    weights = residuals.pack(plain, targets)
    np.testing.assert_allclose(weights.squares, (w**2).sum(0), rtol=1e-13)
    own = torch.from_numpy(A)
    own = own.T.contiguous().T if turned == "rows" else own
    np.testing.assert_allclose(residuals.squares(own, torch.from_numpy(c), weights, upper=upper), theirs, rtol=1e-11)


@pytest.mark.parametrize(("rows", "size", "targets"), [(1, 1, 1), (100, 30, 50), (700, 600, 24), (9, 0, 3)])
@pytest.mark.parametrize("strata", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_of_some_rows_have_their_own(rows, size, targets, strata, dtype, by, seed):
    random = np.random.default_rng(seed)
    x, y = (torch.from_numpy(random.normal(size=(rows, n)) + 5).to(dtype) for n in (size, targets + 2))
    y = y[:, 1 : targets + 1]
    W, shift = (torch.from_numpy(random.normal(size=n)) for n in ((size, targets), size))
    centre, mean = (torch.from_numpy(random.normal(size=(strata, targets))) for _ in range(2))
    chosen = torch.from_numpy(random.permutation(rows)[: rows - rows // 3])
    block, stratum = (torch.from_numpy(random.integers(k, size=len(chosen))) for k in (4, strata))
    errors, totals = torch.ones(2, 5, targets, dtype=torch.float64)
    own = None if strata == 1 else stratum
    about = residuals.About(shift, centre, mean)
    residuals.add_blocks(x, y, residuals.pack(W, targets), about, chosen, block, own, errors, totals)
    Y, at = y[chosen].double(), stratum if strata > 1 else torch.zeros_like(stratum)
    left = Y - centre[at] - (x[chosen].double() - shift) @ W
    for sums, squares in ((errors, left.square()), (totals, (Y - mean[at]).square())):
        truth = torch.ones(5, targets, dtype=torch.float64).index_add_(0, block, squares)
        torch.testing.assert_close(sums, truth, rtol=1e-11, atol=0)


def test_memory_is_used_again_and_what_was_there_does_not_matter(by, seed):
    random = np.random.default_rng(seed)
    memory = residuals.room(30, 2, 7, torch.device("cpu"))
    if memory is not None:
        memory.fill_(torch.nan)
    w, A, c = (torch.from_numpy(random.normal(size=shape)) for shape in ((30, 14), (50, 30), (50, 7)))
    found = residuals.squares(A, c, residuals.pack(w, 7, memory))
    torch.testing.assert_close(found, (c.repeat(1, 2) - A @ w).square().sum(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("rows", "size", "targets"), [(0, 3, 2), (3, 0, 2), (2, 3, 0)])
def test_without_rows_numbers_or_targets(rows, size, targets, by):
    A, c = torch.ones(rows, size).double(), torch.full((rows, targets), 2.0).double()
    found = residuals.squares(A, c, residuals.pack(torch.ones(size, targets).double(), targets))
    assert torch.equal(found, torch.full((targets,), rows * (2.0 - size) ** 2).double())
