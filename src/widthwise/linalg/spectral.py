"""S = U diag(values) U': exact down to no penalty at all, where it is a matter of ranks.

An eigendecomposition of S knows no eigenvalue better than to 1e-15 of the largest. Small ones are taken from a
pivoted Cholesky factor F, S = F F', in which they are squared.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.linalg import get_lapack_funcs
from torch import Tensor

EPSILON = 2.0**-52
SMALL = 1e-5  # an eigenvalue below this, relative to the largest, is taken from the factor


@dataclass(frozen=True)
class Spectral:
    """A symmetric matrix in its principal directions, those that are not zero."""

    values: Float[Tensor, " rank"]
    noise: Float[Tensor, " rank"]  # what rounding alone may leave of a value
    vectors: Float[Tensor, "size rank"]

    def rotate(self, M: Float[Tensor, "size columns"]) -> Float[Tensor, "rank columns"]:
        """Return U' M."""
        return self.vectors.T @ M

    def back(self, Z: Float[Tensor, "rank columns"]) -> Float[Tensor, "size columns"]:
        """Return U Z."""
        return self.vectors @ Z

    def solve(
        self,
        C: Float[Tensor, "rank columns"],
        shifts: Float[Tensor, " shifts"],
        out: Float[Tensor, "rank shifts columns"] | None = None,
    ) -> Float[Tensor, "rank shifts columns"]:
        """Return (diag(values) + shift)^-1 C for every shift, in `out` if given."""
        return torch.mul(C[:, None], self._gains(shifts).T[:, :, None], out=out)

    def solve_each(
        self, C: Float[Tensor, "rank columns"], shifts: Float[Tensor, " columns"]
    ) -> Float[Tensor, "rank columns"]:
        """Return (diag(values) + shift)^-1 c for every column, each with its own shift."""
        return C * self._gains(shifts).T

    def prepare(self, shifts: Float[Tensor, " shifts"]) -> None:
        """Do nothing: every shift is cheap."""

    def degrees(self, shifts: Float[Tensor, " shifts"]) -> Float[Tensor, " shifts"]:
        """Return tr S (S + shift)^-1 for every shift."""
        return self._gains(shifts) @ self.values

    def _gains(self, shifts: Float[Tensor, " shifts"]) -> Float[Tensor, "shifts rank"]:
        """Return 1 / (values + shift): 0 for a direction that is rounding and has no shift, the least norm."""
        damped = self.values + shifts[:, None]
        return torch.where(damped > self.noise, 1 / damped, 0.0)


def decompose(S: Float[Tensor, "size size"], rank: int) -> Spectral:
    """Return S, of at most this rank, in its principal directions; small columns as exact as large ones."""
    device, S = S.device, S.cpu()
    values, vectors = principal(S, factor(S, rank))
    noise = EPSILON * len(S) * (S.diagonal() @ vectors.square())
    return Spectral(values.to(device), noise.to(device), vectors.to(device))


def factor(S: Float[Tensor, "columns columns"], rank: int) -> Float[Tensor, "columns rank"]:
    """Return F with F F' = S and as many columns as S has rank: a pivoted Cholesky factorisation."""
    return pivoted(S, rank)[0]


def pivoted(
    S: Float[Tensor, "columns columns"], rank: int
) -> tuple[Float[Tensor, "columns rank"], Int[Tensor, " columns"]]:
    """Return F with F F' = S, and the order of its rows in which it is lower triangular.

    Of S scaled to a unit diagonal, so that a column keeps its digits beside one that is 1e12 times larger.
    """
    if not len(S):
        return S, torch.arange(0)
    deviation = S.diagonal().clamp_min(0).sqrt()
    inverse = torch.where(deviation > 0, 1 / deviation, 0.0)
    scaled = S * inverse * inverse[:, None]
    (pstrf,) = get_lapack_funcs(("pstrf",), dtype="float64")
    lower, order, found, _ = pstrf(scaled.numpy().T, tol=4 * EPSILON, lower=1, overwrite_a=1)
    rank, pivots = min(rank, found), torch.from_numpy(order - 1).long()
    F = torch.empty(len(S), rank, dtype=torch.float64)
    F[pivots] = torch.from_numpy(lower[:, :rank]).tril()
    return F * deviation[:, None], pivots


def principal(
    S: Float[Tensor, "columns columns"], F: Float[Tensor, "columns rank"]
) -> tuple[Float[Tensor, " rank"], Float[Tensor, "columns rank"]]:
    """Return the eigenvalues of S = F F' that are not zero and their vectors, small ones as exact as large ones.

    Vectors v, V of S and w, W of its small eigenvalues: what F says that eigh left of V'SW is taken out of both
    (first order is enough, it is 1e-15 of S), and the singular vectors of W'F then are those of the small ones.
    """
    values, vectors = torch.linalg.eigh(S)
    small = int((values < SMALL * values.amax()).sum()) if F.shape[1] else len(S)
    if 2 * small > len(S):
        U, deviations, _ = torch.linalg.svd(F, full_matrices=False)
        return deviations.square(), U
    v, V, W = values[small:], vectors[:, small:], vectors[:, :small]
    mixed = V.T @ (F @ (F.T @ W)) / v[:, None]
    V, W = V + W @ mixed.T, W - V @ mixed
    U, deviations, _ = torch.linalg.svd(W.T @ F, full_matrices=False)
    kept = F.shape[1] - len(v)
    return torch.cat([v, deviations[:kept].square()]), torch.cat([V, W @ U[:, :kept]], 1)
