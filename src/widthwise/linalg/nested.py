"""Ridge regressions on the first 1, 2, ... groups of columns, for little more than the last one costs.

The leading blocks of a Cholesky factor are the factors of the leading blocks. With L L' = S + penalty, Z = L^-1 C and
U = R L^-T, where R'R are the held-out moments, the fit on the first p columns predicts U[:, :p] Z[:p] in the
coordinates of R: the held-out error of every leading design is a partial sum, |c - sum_k U_k Z_k|^2 + rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise.errors import DataError
from widthwise.linalg import spectral
from widthwise.linalg.moments import Moments
from widthwise.linalg.strata import second_about, squares_about, strata, varying

BLOCK = 128  # columns that are factored at once
BAND = 512  # rows of U that are multiplied at once: below its diagonal it is zero


@dataclass(frozen=True)
class Design:
    """The centred moments of the rows of a fit."""

    S: Float[Tensor, "source source"]
    C: Float[Tensor, "source targets"]
    scale: float  # trace S / live columns, of all groups together: what penalties are relative to
    means: Float[Tensor, "1 columns"]


@dataclass(frozen=True)
class Scored:
    """Held-out moments about the means of a fit, in the coordinates of a triangular root."""

    root: Float[Tensor, "rank source"]  # R, R'R the source's second moments
    cross: Float[Tensor, "rank targets"]  # c, R'c the cross moments
    squares: Float[Tensor, " targets"]  # y'y: the error of the fit's mean


def design(moments: Moments, source: Int[Tensor, " source"], target: Int[Tensor, " targets"]) -> Design:
    """Return what a fit of targets on sources, columns of the same moments, needs of them."""
    own = strata(moments)
    S = second_about(moments, own, own.means, source, source)
    C = second_about(moments, own, own.means, source, target)
    live = varying(moments, S.diagonal(), source, None)
    S[~live], S[:, ~live], C[~live] = 0.0, 0.0, 0.0
    return Design(S, C, float(S.diagonal().sum()) / max(int(live.sum()), 1), own.means)


def scored(fit: Design, moments: Moments, source: Int[Tensor, " source"], target: Int[Tensor, " targets"]) -> Scored:
    """Return what the moments of rows that are not in the fit say of its errors."""
    own = strata(moments)
    H = second_about(moments, own, fit.means, source, source)
    c = second_about(moments, own, fit.means, source, target)
    squares = squares_about(moments, own, fit.means, target)
    F, pivots = spectral.pivoted(H.cpu(), moments.n)  # H = F F', F triangular on its pivots
    F, leading = F.to(H.device), pivots[: F.shape[1]]
    d = torch.linalg.solve_triangular(F[leading], c[leading], upper=False)  # c = F d
    Q, R = torch.linalg.qr(F.T)
    return Scored(R, Q.T @ d, squares)


def errors(
    fit: Design, parts: Sequence[Scored], edges: Sequence[int], penalties: Float[Tensor, " penalties"]
) -> Float[Tensor, "parts edges penalties targets"]:
    """Return the sums of squared error on every part, of fits on the columns before every edge, at every penalty.

    Args:
        edges: numbers of leading columns, increasing.
        penalties: relative to the scale of all columns together, above 0.

    Raises:
        DataError: where S + penalty is not positive definite, to rounding.
    """
    found = []
    for shift in (penalties * fit.scale).tolist():
        Z, U = _factored(fit, [part.root for part in parts], shift)
        found.append(torch.stack([_leading(part, u, Z, edges) for part, u in zip(parts, U, strict=True)]))
    return torch.stack(found, 2)


def _leading(
    part: Scored, U: Float[Tensor, "rank source"], Z: Float[Tensor, "source targets"], edges: Sequence[int]
) -> Float[Tensor, "edges targets"]:
    """Return the sums of squared error of every leading design: of what its predictions leave of c, and the rest."""
    left, found, start = part.cross.clone(), [], 0
    rest = part.squares - part.cross.square().sum(0)
    for stop in edges:
        left[:stop].addmm_(U[:stop, start:stop], Z[start:stop], alpha=-1)
        found.append(left.square().sum(0) + rest)
        start = stop
    return torch.stack(found).clamp_min(0)


def _factored(
    fit: Design, roots: Sequence[Float[Tensor, "rank source"]], shift: float
) -> tuple[Float[Tensor, "source targets"], list[Float[Tensor, "rank source"]]]:
    """Return Z = L^-1 C and U = R L^-T of every root, with L L' = S + shift: one left-looking pass over blocks."""
    size = len(fit.S)
    L, Z, U = torch.zeros_like(fit.S), torch.zeros_like(fit.C), [torch.zeros_like(R) for R in roots]
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        left = L[start:stop, :start]
        columns = torch.addmm(fit.S[start:, start:stop], L[start:, :start], left.T, alpha=-1)
        columns[: stop - start].diagonal().add_(shift)
        own, failed = torch.linalg.cholesky_ex(columns[: stop - start])
        if bool(failed):
            raise DataError(
                "the features are collinear beyond what the smallest penalty can part; leave out columns that are "
                "sums of others, or pass penalties= that start higher."
            )
        L[start:stop, start:stop] = own
        L[stop:, start:stop] = _over(columns[stop - start :], own)
        rest = torch.addmm(fit.C[start:stop], left, Z[:start], alpha=-1)
        Z[start:stop] = torch.linalg.solve_triangular(own, rest, upper=False)
        for u, R in zip(U, roots, strict=True):
            rows = R[:stop, start:stop].clone()
            for top in range(0, start, BAND):  # u is zero left of its diagonal
                bottom = min(top + BAND, start)
                rows[top:bottom].addmm_(u[top:bottom, top:start], left[:, top:].T, alpha=-1)
            u[:stop, start:stop] = _over(rows, own)
    return Z, U


def _over(A: Float[Tensor, "rows block"], L: Float[Tensor, "block block"]) -> Float[Tensor, "rows block"]:
    """Return A L^-T."""
    return torch.linalg.solve_triangular(L.T, A, upper=True, left=False)
