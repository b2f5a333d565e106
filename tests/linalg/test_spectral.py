"""Principal directions of second moments, small ones as exact as large ones."""

import numpy as np
import pytest
import torch

from widthwise.linalg import spectral


@pytest.fixture
def random(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("n", "p"), [(50, 20), (20, 50), (400, 150), (5, 1)])
def test_a_factor_gives_its_matrix_back_to_the_digits_of_every_column(n, p, random):
    X = (random.normal(size=(n, p)) - 0.1) * 10 ** random.uniform(-6, 6, p)
    X = np.hstack([X, X[:, : p // 3], np.zeros((n, 2))])
    S = torch.from_numpy(X.T @ X)
    F = spectral.factor(S, n)
    size = torch.outer(S.diagonal(), S.diagonal()).sqrt()
    assert F.shape == (S.shape[0], min(n, p))
    assert bool(((F @ F.T - S).abs() <= 1e-13 * size).all())


def test_a_factor_of_nothing_has_no_columns():
    assert spectral.factor(torch.zeros(3, 3).double(), 9).shape == (3, 0)
    assert spectral.factor(torch.zeros(0, 0).double(), 9).shape == (0, 0)


# Principal directions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [
        np.ones(60),
        np.logspace(0, -6, 60),
        np.where(np.arange(60) < 50, 1, 1e-5),
        np.where(np.arange(60) < 5, 1e6, 1),
        np.r_[np.logspace(0, -2, 55), np.full(5, 1e-2 * 10**-0.5)],  # some right beside the small ones
    ],
    ids=["equal", "decaying", "few small", "few large", "at the border"],
)
def test_principal_directions_are_those_of_the_singular_values_of_the_rows(sizes, random):
    X = np.linalg.qr(random.normal(size=(90, 60)))[0] * sizes
    X = np.hstack([X, X[:, :3], np.zeros((90, 2))])
    S = torch.from_numpy(X.T @ X)
    values, vectors = spectral.principal(S, spectral.factor(S, 90))
    truth = np.linalg.svd(X, compute_uv=False)[:60] ** 2
    assert np.allclose(np.sort(values)[::-1], truth, rtol=1e-9, atol=0)
    assert np.allclose(vectors.T @ vectors, np.eye(60), atol=1e-13)
    rows = X @ vectors.numpy() / np.sqrt(values.numpy())
    assert np.abs(rows.T @ rows - np.eye(60)).max() < 1e-9


def test_principal_directions_of_nothing_are_none():
    values, vectors = spectral.principal(torch.zeros(4, 4).double(), torch.zeros(4, 0).double())
    assert (values.shape, vectors.shape) == ((0,), (4, 0))
