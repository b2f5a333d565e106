"""The whole path of penalties against one fit at a time, and the optimum read off it."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Ridge as Peer

import reference_span as reference
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


# The factor ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "p"), [(50, 20), (20, 50), (400, 150), (5, 1)])
def test_a_factor_gives_its_matrix_back_to_the_digits_of_every_column(n, p, random):
    X = (random.normal(size=(n, p)) - 0.1) * 10 ** random.uniform(-6, 6, p)
    X = np.hstack([X, X[:, : p // 3], np.zeros((n, 2))])
    S = torch.from_numpy(X.T @ X)
    F = ridge.factor(S, n)
    size = torch.outer(S.diagonal(), S.diagonal()).sqrt()
    assert F.shape == (S.shape[0], min(n, p))
    assert bool(((F @ F.T - S).abs() <= 1e-13 * size).all())


def test_a_factor_of_nothing_has_no_columns():
    assert ridge.factor(torch.zeros(3, 3).double(), 9).shape == (3, 0)
    assert ridge.factor(torch.zeros(0, 0).double(), 9).shape == (0, 0)


def test_a_triangular_product_is_the_product(random):
    R = torch.from_numpy(np.triu(random.normal(size=(300, 310))))
    w = torch.from_numpy(random.normal(size=(310, 7)))
    assert torch.allclose(ridge.squares_of_product(R, w), (R @ w).square().sum(0), rtol=1e-12, atol=0)


def test_an_eigendecomposition_instead_would_lose_small_columns(random, monkeypatch):
    """Why it is not used: at the smallest penalties of the grid its error is far above a millionth."""
    X = random.normal(size=(200, 60))
    Y = X @ random.normal(size=(60, 3)) + random.normal(size=(200, 3))
    X = X * np.logspace(-6, 6, 60)
    centred = X - X.mean(0)
    penalty = 1e-9 * (centred**2).sum() / 60
    truth = (centred @ reference.ridge(centred, Y - Y.mean(0), penalty)).std()
    ours = (centred @ weights(fitted(X, Y), 1e-9)).std()
    values, vectors = np.linalg.eigh(centred.T @ centred)
    theirs = (centred @ vectors @ ((vectors.T @ (centred.T @ Y)) / (values[:, None].clip(0) + penalty))).std()
    assert abs(ours - truth) < 1e-11 * truth
    assert abs(theirs - truth) > 100 * abs(ours - truth)


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
    values, vectors = ridge.principal(S, ridge.factor(S, 90))
    truth = np.linalg.svd(X, compute_uv=False)[:60] ** 2
    assert np.allclose(np.sort(values)[::-1], truth, rtol=1e-9, atol=0)
    assert np.allclose(vectors.T @ vectors, np.eye(60), atol=1e-13)
    rows = X @ vectors.numpy() / np.sqrt(values.numpy())
    assert np.abs(rows.T @ rows - np.eye(60)).max() < 1e-9


def test_principal_directions_of_nothing_are_none():
    values, vectors = ridge.principal(torch.zeros(4, 4).double(), torch.zeros(4, 0).double())
    assert (values.shape, vectors.shape) == ((0,), (4, 0))


# The optimum ---------------------------------------------------------------------------------------------

GRID = torch.tensor(ridge.HALF_DECADES, dtype=torch.float64)


def curves(random, targets=20) -> torch.Tensor:
    """Return error curves with a minimum anywhere, on the edges too."""
    x, centre = GRID.log10()[:, None], torch.from_numpy(random.uniform(-11, 3, targets))
    return 0.1 + 0.01 * (x - centre).square() + 0.002 * torch.from_numpy(random.normal(size=(21, targets)))


def test_the_optimum_is_the_lowest_point_of_the_spline(random):
    curve = curves(random)
    best = ridge.best_penalty(curve, torch.full((20,), 9.0).double(), GRID)
    for j in range(20):
        spline = CubicSpline(GRID.log().numpy(), curve[:, j].log().numpy())
        dense = np.linspace(np.log(1e-9), np.log(10), 4001)
        k = spline(dense).argmin()
        bounds = dense[max(k - 1, 0)], dense[min(k + 1, 4000)]
        lowest = min(minimize_scalar(spline, bounds=bounds, method="bounded").fun, *spline(dense[[0, -1]]))
        at = ridge.error_at(curve, torch.zeros(20).double(), GRID, best)[j]
        assert float(at) == pytest.approx(np.exp(lowest), rel=1e-9)
        assert float(at) == pytest.approx(np.exp(spline(np.log(float(best.penalty[j])))), rel=1e-12)
        assert int(best.node[j]) == (GRID.log() - best.penalty[j].log()).abs().argmin()
        assert bool(best.on_edge[j]) == (k == 4000 or (k == 0 and float(curve[1, j] / curve[0, j]) > 1.001))


def test_without_interpolation_the_optimum_is_on_the_grid(random):
    curve = curves(random)
    best = ridge.best_penalty(curve, torch.full((20,), 9.0).double(), GRID, interpolate=False)
    assert torch.equal(best.node, curve.argmin(0))
    assert torch.equal(best.penalty, GRID[best.node])
    assert torch.equal(ridge.error_at(curve, curve[0], GRID, best, interpolate=False), curve.amin(0))


@pytest.mark.parametrize("interpolate", [True, False])
def test_the_mean_wins_where_every_penalty_is_worse(interpolate):
    curve = torch.stack([torch.linspace(3, 1.2, 21), torch.linspace(0.5, 0.9, 21)], 1).double()
    mean = torch.tensor([1.0, 1.0]).double()
    best = ridge.best_penalty(curve, mean, GRID, interpolate)
    assert best.penalty.tolist() == [np.inf, pytest.approx(1e-9)]
    assert best.node.tolist() == [21, 0]
    assert best.on_edge.tolist() == [False, True]
    assert ridge.error_at(curve, mean, GRID, best, interpolate).tolist() == [1.0, pytest.approx(0.5)]


@pytest.mark.parametrize("interpolate", [True, False])
def test_an_optimum_is_on_the_edge_if_a_wider_grid_would_move_it(interpolate):
    x = GRID[:, None].log10()
    rises = torch.cat([GRID[:, None] ** 2, 0.5 + GRID[:, None], 0.5 + 0.01 * (x + 9), 0.5 + 0.1 * (x + 8).abs()], 1)
    falls = torch.cat([1 - 0.05 * x, 1 - 1e-6 * x], 1)
    curve = torch.cat([rises, falls], 1)
    best = ridge.best_penalty(curve, torch.full((6,), 9.0, dtype=torch.float64), GRID, interpolate)
    assert best.on_edge.tolist() == [False, False, True, False, True, True]


def test_a_curve_through_zero_is_floored():
    curve = torch.zeros(21, 1).double()
    best = ridge.best_penalty(curve, torch.ones(1).double(), GRID)
    assert float(ridge.error_at(curve, torch.ones(1).double(), GRID, best)) == pytest.approx(1e-15)
