"""The optimum of every target, read off its curve."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar

from widthwise.linalg import penalty_path


@pytest.fixture
def random(seed):
    return np.random.default_rng(seed)


GRID = torch.tensor(penalty_path.HALF_DECADES, dtype=torch.float64)


def curves(random, targets=20) -> torch.Tensor:
    """Return error curves with a minimum anywhere, on the edges too."""
    x, centre = GRID.log10()[:, None], torch.from_numpy(random.uniform(-11, 3, targets))
    return 0.1 + 0.01 * (x - centre).square() + 0.002 * torch.from_numpy(random.normal(size=(21, targets)))


def test_the_optimum_is_the_lowest_point_of_the_spline(random):
    curve = curves(random)
    best = penalty_path.best_penalty(curve, torch.full((20,), 9.0).double(), GRID)
    for j in range(20):
        spline = CubicSpline(GRID.log().numpy(), curve[:, j].log().numpy())
        dense = np.linspace(np.log(1e-9), np.log(10), 4001)
        k = spline(dense).argmin()
        bounds = dense[max(k - 1, 0)], dense[min(k + 1, 4000)]
        lowest = min(minimize_scalar(spline, bounds=bounds, method="bounded").fun, *spline(dense[[0, -1]]))
        at = penalty_path.error_at(curve, torch.zeros(20).double(), GRID, best)[j]
        assert float(at) == pytest.approx(np.exp(lowest), rel=1e-9)
        assert float(at) == pytest.approx(np.exp(spline(np.log(float(best.penalty[j])))), rel=1e-12)
        assert int(best.node[j]) == (GRID.log() - best.penalty[j].log()).abs().argmin()
        assert bool(best.on_edge[j]) == (k == 4000 or (k == 0 and float(curve[1, j] / curve[0, j]) > 1.001))


def test_without_interpolation_the_optimum_is_on_the_grid(random):
    curve = curves(random)
    best = penalty_path.best_penalty(curve, torch.full((20,), 9.0).double(), GRID, interpolate=False)
    assert torch.equal(best.node, curve.argmin(0))
    assert torch.equal(best.penalty, GRID[best.node])
    assert torch.equal(penalty_path.error_at(curve, curve[0], GRID, best, interpolate=False), curve.amin(0))


@pytest.mark.parametrize("interpolate", [True, False])
def test_the_mean_wins_where_every_penalty_is_worse(interpolate):
    curve = torch.stack([torch.linspace(3, 1.2, 21), torch.linspace(0.5, 0.9, 21)], 1).double()
    mean = torch.tensor([1.0, 1.0]).double()
    best = penalty_path.best_penalty(curve, mean, GRID, interpolate)
    assert best.penalty.tolist() == [np.inf, pytest.approx(1e-9)]
    assert best.node.tolist() == [21, 0]
    assert best.on_edge.tolist() == [False, True]
    assert penalty_path.error_at(curve, mean, GRID, best, interpolate).tolist() == [1.0, pytest.approx(0.5)]


@pytest.mark.parametrize("interpolate", [True, False])
def test_an_optimum_is_on_the_edge_if_a_wider_grid_would_move_it(interpolate):
    x = GRID[:, None].log10()
    rises = torch.cat([GRID[:, None] ** 2, 0.5 + GRID[:, None], 0.5 + 0.01 * (x + 9), 0.5 + 0.1 * (x + 8).abs()], 1)
    falls = torch.cat([1 - 0.05 * x, 1 - 1e-6 * x], 1)
    curve = torch.cat([rises, falls], 1)
    best = penalty_path.best_penalty(curve, torch.full((6,), 9.0, dtype=torch.float64), GRID, interpolate)
    assert best.on_edge.tolist() == [False, False, True, False, True, True]


def test_a_curve_through_zero_is_floored():
    curve = torch.zeros(21, 1).double()
    best = penalty_path.best_penalty(curve, torch.ones(1).double(), GRID)
    assert float(penalty_path.error_at(curve, torch.ones(1).double(), GRID, best)) == pytest.approx(1e-15)
