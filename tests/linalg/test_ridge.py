"""The whole path of penalties against one fit at a time, and the optimum read off it."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Peer

from widthwise.linalg import ridge
from widthwise.linalg.moments import Moments

SCALE = (1e-9, 1e-6, 1e-3, 1.0)


def design(random, n=80, p=12, t=4):
    X = random.normal(size=(n, p)) @ random.normal(size=(p, p)) + 100
    return X, X @ random.normal(size=(p, t)) + random.normal(size=(n, t))


def moments_of(X, Y) -> tuple[Moments, torch.Tensor, torch.Tensor]:
    Z = torch.from_numpy(np.hstack([X, Y]))
    moments = Moments(Z.shape[1])
    moments.update(Z)
    return moments, torch.arange(X.shape[1]), X.shape[1] + torch.arange(Y.shape[1])


def fitted(X, Y, **options) -> ridge.Ridge:
    moments, source, target = moments_of(X, Y)
    return ridge.fit(moments, source, target, **options)


def weights(fit: ridge.Ridge, penalty: float) -> np.ndarray:
    t = fit.projected.shape[1]
    return fit.weights(torch.full((t,), penalty, dtype=torch.float64), torch.arange(t)).numpy()


@pytest.fixture
def random(seed):
    return np.random.default_rng(seed)


# Fits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", SCALE)
def test_weights_are_those_of_scikit_learn_at_the_same_absolute_penalty(penalty, random):
    X, Y = design(random)
    fit = fitted(X, Y)
    peer = Peer(alpha=penalty * fit.scale, solver="svd").fit(X, Y)
    assert np.allclose(weights(fit, penalty), peer.coef_.T, rtol=1e-8, atol=1e-10)


def test_a_penalty_is_relative_to_the_squares_of_a_live_column(random):
    X, Y = design(random)
    dead = np.hstack([X, np.full((len(X), 5), 3.3)])
    assert fitted(dead, Y).scale == pytest.approx(((X - X.mean(0)) ** 2).sum() / 12, rel=1e-12)
    assert fitted(dead, Y).p_live == 12
    assert np.abs(weights(fitted(dead, Y), 1e-3)[12:]).max() == 0
    assert np.allclose(weights(fitted(dead, Y), 1e-3)[:12], weights(fitted(X, Y), 1e-3), rtol=1e-9)


def test_without_a_penalty_the_weights_are_those_of_least_norm(random):
    X, Y = design(random, n=10, p=25)
    X = np.hstack([X, X[:, :4], np.zeros((10, 2))])
    truth = np.linalg.lstsq(X - X.mean(0), Y - Y.mean(0), rcond=1e-10)[0]
    assert np.allclose(weights(fitted(X, Y), 0.0), truth, rtol=1e-7, atol=1e-9)


def test_without_a_penalty_small_columns_count_as_much_as_large_ones(random):
    X, Y = design(random)
    sizes = np.logspace(-4, 4, 12)
    centred = X - X.mean(0)
    truth = np.linalg.lstsq(centred, Y - Y.mean(0), rcond=None)[0]
    ours = weights(fitted((X - 100) * sizes, Y), 0.0) * sizes[:, None]
    assert np.allclose(centred @ ours, centred @ truth, rtol=0, atol=1e-5 * Y.std())


def test_an_infinite_penalty_leaves_no_weights(random):
    assert not weights(fitted(*design(random)), np.inf).any()


def test_degrees_of_freedom_are_the_trace_of_the_smoother(random):
    X, Y = design(random)
    fit, centred = fitted(X, Y), X - X.mean(0)
    for penalty in SCALE:
        smoother = centred @ np.linalg.solve(centred.T @ centred + penalty * fit.scale * np.eye(12), centred.T)
        degrees = fit.degrees(torch.tensor([penalty, np.inf], dtype=torch.float64)).tolist()
        assert degrees == [pytest.approx(np.trace(smoother), rel=1e-9), 0]


def test_standardizing_divides_by_deviations_down_to_a_floor(random):
    X, Y = design(random)
    X[:, 0] = X[:, 0] * 1e-6
    deviation = X.std(0)
    scaled = X / np.maximum(deviation, 1e-3 * deviation.max())
    truth = weights(fitted(scaled, Y), 1e-2)
    ours = weights(fitted(X, Y, standardize=True), 1e-2)
    predictions = [(A - A.mean(0)) @ W for A, W in ((scaled, truth), (X, ours))]
    assert np.allclose(*predictions, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("penalty", SCALE)
def test_held_out_errors_are_those_of_predictions(penalty, random):
    X, Y = design(random, n=120)
    fit = fitted(X[:80], Y[:80])
    held_out, source, target = moments_of(X[80:], Y[80:] + 3)
    held_out = held_out.about(moments_of(X[:80], Y[:80])[0].shift)
    held = ridge.held_out(fit, held_out, source, target)
    errors = held.errors(torch.tensor([penalty, 7.0], dtype=torch.float64))
    residual = Y[80:] + 3 - Y[:80].mean(0) - (X[80:] - X[:80].mean(0)) @ weights(fit, penalty)
    assert np.allclose(errors[0], (residual**2).sum(0), rtol=1e-10)
    assert np.allclose(held.squares, ((Y[80:] + 3 - Y[:80].mean(0)) ** 2).sum(0), rtol=1e-12)


@pytest.mark.parametrize("targets", [1, 200, 600])
def test_any_number_of_targets_takes_the_same_path(targets, random):
    X, Y = design(random, t=targets)
    fit = fitted(X, Y)
    held = ridge.held_out(fit, *moments_of(X, Y))
    grid = torch.logspace(-6, 1, 9, dtype=torch.float64)
    errors = held.errors(grid)
    one = held.errors(grid[4:5])
    assert torch.allclose(errors[4:5], one, rtol=1e-12, atol=0)
    centred = X - X.mean(0), Y - Y.mean(0)
    truth = ((centred[1] - centred[0] @ weights(fit, float(grid[8]))) ** 2).sum(0)
    assert np.allclose(errors[8], truth, rtol=1e-9)
