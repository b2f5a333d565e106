"""Sums of squared residuals, compiled and by PyTorch, against numpy."""

import numpy as np
import pytest
import torch

from widthwise.linalg import residuals

SIZES = [
    (1, 1, 1, 1, 1),
    (1, 8, 24, 1, 24),
    (1, 130, 130, 3, 7),
    (3, 16, 40, 2, 25),
    (2, 300, 601, 1, 50),
    (4, 5, 7, 2, 1),
    (1, 700, 1100, 2, 400),
]


@pytest.mark.parametrize(("bands", "band", "size", "fits", "targets"), SIZES)
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("turned", ["neither", "weights", "rows"])
def test_they_are_those_of_leading_parts(bands, band, size, fits, targets, upper, turned, by, seed):
    random, rows = np.random.default_rng(seed), bands * band
    given, c = random.normal(size=(bands, band, size + 3)), random.normal(size=(bands, band, targets)) + 1
    w = random.normal(size=(size, fits * targets))
    A = given[:, :, 2 : size + 2].reshape(rows, size)
    if upper:
        A = np.triu(A)
        given[:, :, 2 : size + 2] = A.reshape(bands, band, size)
    edges = sorted({0, size // 3, size // 2, size})
    cross = np.tile(c.reshape(rows, -1), (1, fits))
    theirs = np.stack([((cross - A[:, :e] @ w[:e]) ** 2).sum(0) for e in edges])
    plain = torch.from_numpy(w.T.copy()).T if turned == "weights" else torch.from_numpy(w)
    weights = residuals.pack(plain, targets)
    np.testing.assert_allclose(weights.squares, (w**2).sum(0), rtol=1e-13)
    own = torch.from_numpy(given)[:, :, 2 : size + 2]
    own = own.mT.contiguous().mT if turned == "rows" else own
    told = own, torch.from_numpy(c), weights
    ours = residuals.squares(*told, upper=upper, edges=edges)
    np.testing.assert_allclose(ours, theirs, rtol=1e-11)
    whole = residuals.squares(*told, upper=upper)
    np.testing.assert_allclose(whole[0], theirs[-1], rtol=1e-11)


def test_memory_is_used_again_and_what_was_there_does_not_matter(by, seed):
    random = np.random.default_rng(seed)
    memory = residuals.room(30, 2, 7, torch.device("cpu"))
    if memory is not None:
        memory.fill_(torch.nan)
    w, A, c = (torch.from_numpy(random.normal(size=shape)) for shape in ((30, 14), (1, 50, 30), (1, 50, 7)))
    found = residuals.squares(A, c, residuals.pack(w, 7, memory))
    torch.testing.assert_close(found[0], (c[0].repeat(1, 2) - A[0] @ w).square().sum(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("rows", "size", "targets"), [(0, 3, 2), (3, 0, 2), (2, 3, 0)])
def test_without_rows_numbers_or_targets(rows, size, targets, by):
    A, c = torch.ones(1, rows, size).double(), torch.full((1, rows, targets), 2.0).double()
    found = residuals.squares(A, c, residuals.pack(torch.ones(size, targets).double(), targets))
    assert torch.equal(found, torch.full((1, targets), rows * (2.0 - size) ** 2).double())
