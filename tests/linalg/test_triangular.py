"""Triangular roots: equal to dense ones, and of singular matrices too."""

import pytest
import torch

from widthwise.linalg import triangular


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_root_is_upper_triangular_and_squares_to_the_matrix_and_its_jitter(seed):
    rows = torch.randn(40, 20, generator=_generator(seed), dtype=torch.float64)
    H = rows.T @ rows
    R, jitter = triangular.root(H.clone)
    assert torch.equal(R, R.triu())
    assert jitter == pytest.approx(triangular.JITTER * float(H.diagonal().mean()))
    torch.testing.assert_close(R.T @ R, H + jitter * torch.eye(20, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    theirs = torch.linalg.cholesky(H, upper=True)
    torch.testing.assert_close(R, theirs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("rank", [0, 3])
def test_a_singular_matrix_has_a_root_with_a_small_jitter(rank):
    rows = torch.randn(rank, 20, generator=_generator(2), dtype=torch.float64)
    H = rows.T @ rows
    R, jitter = triangular.root(H.clone)
    assert bool(R.isfinite().all())
    assert jitter <= 1e-10 * float(H.diagonal().mean()) or rank == 0
    torch.testing.assert_close(R.T @ R, H + jitter * torch.eye(20, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_a_jitter_that_is_too_small_makes_the_matrix_anew():
    made = []

    def second():
        made.append(torch.tensor([[1.0, 1.0], [1.0, 1.0 - 1e-9]], dtype=torch.float64))
        return made[-1]

    R, jitter = triangular.root(second)
    assert len(made) > 1
    assert jitter >= 1e-10
    assert bool(R.isfinite().all())
