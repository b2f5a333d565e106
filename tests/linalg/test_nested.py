"""The errors of every leading design against a fit of its own."""

import numpy as np
import pytest
import torch

from widthwise.errors import DataError
from widthwise.linalg import nested, ridge
from widthwise.linalg.moments import Moments

GRID = torch.tensor([1e-9, 1e-6, 1e-3, 1.0], dtype=torch.float64)


@pytest.fixture
def random(seed):
    return np.random.default_rng(seed)


def moments_of(Z: np.ndarray, shift=None) -> Moments:
    moments = Moments(Z.shape[1], shift)
    moments.update(torch.from_numpy(Z))
    return moments


def awkward(random, n: int, p: int, t: int = 5) -> np.ndarray:
    """Return rows of sources, then targets: some columns dead, some twice, a spectrum that falls."""
    X = random.normal(size=(n, p)) @ (random.normal(size=(p, p)) * np.logspace(0, -4, p))
    Y = X @ random.normal(size=(p, t)) / np.abs(X).max() + 0.1 * random.normal(size=(n, t))
    X[:, p // 2], X[:, p // 3], X[:, 5:8] = 3.3, X[:, 0], X[:, 1:4]
    return np.hstack([X + 10, Y])


@pytest.mark.parametrize(("p", "edges"), [(24, (3, 10, 24)), (300, (128, 129, 300)), (300, tuple(range(20, 301, 20)))])
@pytest.mark.parametrize("held", [60, 500])
def test_every_leading_design_has_the_error_of_its_own_fit(p, edges, held, by, random):
    Z = awkward(random, 900 + held, p)
    fit = moments_of(Z[:900])
    score = moments_of(Z[900:], fit.shift)
    source, target = torch.arange(p), p + torch.arange(5)
    design = nested.design(fit, source, target)
    part = nested.scored(design, score, source, target)
    ours = nested.errors(design, [part, part], edges, GRID)
    assert torch.allclose(ours[0], ours[1], rtol=1e-12, atol=0)
    for k, edge in enumerate(edges):
        own = ridge.fit(fit, source[:edge], target, smallest=1e-10)
        penalties = GRID * design.scale / own.scale
        truth = ridge.held_out(own, score, source[:edge], target).errors(penalties)
        assert torch.allclose(ours[0, k], truth, rtol=1e-8, atol=1e-11 * float(part.squares.max()))


def test_columns_that_no_penalty_parts_are_refused(by):
    Z = np.hstack([np.ones((50, 1)) * np.arange(50)[:, None]] * 3 + [np.arange(50.0)[:, None] ** 2])
    fit = moments_of(Z)
    source, target = torch.arange(3), torch.tensor([3])
    design = nested.design(fit, source, target)
    part = nested.scored(design, fit, source, target)
    with pytest.raises(DataError, match="collinear"):
        nested.errors(design, [part], (3,), torch.tensor([1e-300], dtype=torch.float64))


@pytest.mark.parametrize("held", [(60, 500), (1, 400)])
def test_parts_of_other_ranks_have_the_errors_that_they_have_alone(held, by, random):
    Z = awkward(random, 900 + sum(held), 140)
    fit = moments_of(Z[:900])
    source, target = torch.arange(140), 140 + torch.arange(5)
    design = nested.design(fit, source, target)
    rows = Z[900 : 900 + held[0]], Z[900 + held[0] :]
    parts = [nested.scored(design, moments_of(some, fit.shift), source, target) for some in rows]
    together = nested.errors(design, parts, (20, 140), GRID)
    for own, part in zip(together, parts, strict=True):
        alone = nested.errors(design, [part], (20, 140), GRID)[0]
        assert torch.allclose(own, alone, rtol=1e-9, atol=1e-12 * float(part.squares.max()))


def test_rows_on_which_the_source_says_nothing_have_the_errors_of_the_mean(by, random):
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64).repeat(50, 1).numpy()
    fit = moments_of(np.hstack([signs, signs[:, :1]]))
    score = moments_of(np.hstack([np.zeros((30, 2)), random.normal(size=(30, 1))]), fit.shift)
    source, target = torch.arange(2), torch.tensor([2])
    design = nested.design(fit, source, target)
    part = nested.scored(design, score, source, target)
    assert len(part.root) == 0
    assert torch.equal(nested.errors(design, [part], (1, 2), GRID)[0], part.squares.expand(2, len(GRID), 1))


@pytest.mark.parametrize("silent", [(4,), (0, 3, 7), (2, 5, 20, 21)])
@pytest.mark.parametrize("level", [0.0, 3.0])
def test_columns_with_one_value_on_the_scored_rows_leave_the_errors_exact(silent, level, by, random):
    """Neurons that are silent on a few held-out rows are common; all of them are then multiples of one."""
    p, edges = 24, (3, 10, 24)
    Z = np.hstack([np.maximum(random.normal(size=(1200, p)) + 0.5, 0), random.normal(size=(1200, 5))])
    Z[:, p:] += Z[:, :p] @ random.normal(size=(p, 5))
    Z[900:, list(silent)] = level * np.arange(len(silent))
    fit = moments_of(Z[:900])
    score = moments_of(Z[900:], fit.shift)
    source, target = torch.arange(p), p + torch.arange(5)
    design = nested.design(fit, source, target)
    part = nested.scored(design, score, source, target)
    assert len(part.root) == p - len(silent) + 1
    ours = nested.errors(design, [part], edges, GRID)[0]
    for k, edge in enumerate(edges):
        own = ridge.fit(fit, source[:edge], target, smallest=1e-10)
        truth = ridge.held_out(own, score, source[:edge], target).errors(GRID * design.scale / own.scale)
        assert torch.allclose(ours[k], truth, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("p", "targets", "held"), [(1, 1, 5), (101, 30, 40), (130, 24, 400), (75, 49, 200)])
def test_any_size_has_the_weights_and_errors_of_a_solution(p, targets, held, by, random):
    Z = random.normal(size=(600 + held, p + targets))
    Z[:, p:] += Z[:, :p] @ random.normal(size=(p, targets))
    fit = moments_of(Z[:600])
    source, target = torch.arange(p), p + torch.arange(targets)
    design = nested.design(fit, source, target)
    part = nested.scored(design, moments_of(Z[600:], fit.shift), source, target)
    weights: list[torch.Tensor] = []
    edges = sorted({1, p // 2 + 1, p})
    ours = nested.errors(design, [part], edges, GRID, weights)[0]
    X, Y = (torch.from_numpy(Z[600:] - Z[:600].mean(0))[:, own] for own in (source, target))
    for j, penalty in enumerate(GRID * design.scale):
        for k, edge in enumerate(edges):
            shifted = design.S[:edge, :edge] + penalty * torch.eye(edge, dtype=torch.float64)
            W = torch.linalg.solve(shifted, design.C[:edge])
            torch.testing.assert_close(ours[k, j], (Y - X[:, :edge] @ W).square().sum(0), rtol=1e-7, atol=0)
        torch.testing.assert_close(weights[j], W, rtol=1e-7, atol=1e-9)
