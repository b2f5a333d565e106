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

BLOCK = 256  # columns that are factored at once
BAND = 128  # rows of U that are multiplied at once: below its diagonal it is zero


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
    return Design(S, C, float(S.diagonal().sum()) / max(int(live.sum()), 1) or 1.0, own.means)


def scored(fit: Design, moments: Moments, source: Int[Tensor, " source"], target: Int[Tensor, " targets"]) -> Scored:
    """Return what the moments of rows that are not in the fit say of its errors."""
    own = strata(moments)
    H = second_about(moments, own, fit.means, source, source)
    c = second_about(moments, own, fit.means, source, target)
    squares = squares_about(moments, own, fit.means, target)
    F, pivots = spectral.pivoted(H.cpu(), moments.n)  # H = F F', F triangular on its pivots
    F, leading = F.to(H.device), pivots[: F.shape[1]]
    d = torch.linalg.solve_triangular(F[leading], c[leading], upper=False)  # c = F d
    R = torch.linalg.qr(torch.cat([F.T, d], 1), mode="r").R  # F' = Q R; beside R: Q'd
    return Scored(R[:, : len(H)], R[:, len(H) :], squares)


def errors(
    fit: Design,
    parts: Sequence[Scored],
    edges: Sequence[int],
    penalties: Float[Tensor, " penalties"],
    weights: list[Float[Tensor, "source targets"]] | None = None,
) -> Float[Tensor, "parts edges penalties targets"]:
    """Return the sums of squared error on every part, of fits on the columns before every edge, at every penalty.

    Args:
        edges: numbers of leading columns, increasing.
        penalties: relative to the scale of all columns together, above 0.
        weights: a list that is given the weights of all columns, at every penalty.

    Raises:
        DataError: where S + penalty is not positive definite, to rounding.
    """
    stack, found = _Stack(fit, parts), []
    for shift in (penalties * fit.scale).tolist():
        stack.factor(shift)
        found.append(stack.errors(edges))
        if weights is not None:
            weights.append(stack.weights())
    return torch.stack(found, 2)


class _Stack:
    """L, Z = L^-1 C and U = R L^-T of every part, with L L' = S + shift, as rows of one matrix: [L; Z'; U].

    What a block of columns owes to those before it is one product for L and Z', and one for every band of U's rows,
    in which the parts' rows follow each other.
    """

    def __init__(self, fit: Design, parts: Sequence[Scored]):
        self.fit, self.parts = fit, parts
        self.size, self.targets = fit.C.shape
        rank = max(len(part.root) for part in parts)
        self.band = max(min(BAND, rank), 1)
        self.bands = -(-rank // self.band)
        self.heads = self.size + self.targets  # rows before U
        rows = self.bands * len(parts) * self.band
        self.values = fit.S.new_zeros(self.heads + rows, self.size)
        cross = fit.C.new_zeros(self.bands, len(parts), self.band, self.targets)
        for k, part in enumerate(parts):
            for j in range(self.bands):
                some = part.cross[j * self.band : (j + 1) * self.band]
                cross[j, k, : len(some)] = some
        squares = cross.square().sum(2)  # (bands, parts, targets)
        none = squares.new_zeros(1, len(parts), self.targets)
        self.untouched = torch.cat([squares, none]).flip(0).cumsum(0).flip(0)  # of the bands from each one on
        self.rest = torch.stack([part.squares for part in parts]) - self.untouched[0]
        self.cross = cross.view(rows, self.targets)
        self.left, self.work = torch.empty_like(self.cross), torch.empty_like(self.cross)

    def factor(self, shift: float) -> None:
        """Factor S + shift: one left-looking pass over blocks of columns."""
        M, size = self.values, self.size
        for start in range(0, size, BLOCK):
            stop = min(start + BLOCK, size)
            block, left = slice(start, stop), M[start:stop, :start].T
            M[start:size, block] = self.fit.S[start:, block]
            M[block, block].diagonal().add_(shift)
            M[size : self.heads, block] = self.fit.C[block].T
            M[start : self.heads, block].addmm_(M[start : self.heads, :start], left, alpha=-1)
            end = self._fill(start, stop)
            own, failed = torch.linalg.cholesky_ex(M[block, block])
            if bool(failed):
                raise DataError(
                    "the features are collinear beyond what the smallest penalty can part; leave out columns that are "
                    "sums of others, or pass penalties= that start higher."
                )
            M[block, block] = own
            # Transposed, LAPACK has the rows as it wants them, without a copy that turns them.
            M[stop:end, block] = torch.linalg.solve_triangular(own, M[stop:end, block].mT, upper=False).mT

    def errors(self, edges: Sequence[int]) -> Float[Tensor, "parts edges targets"]:
        """Return the sums of squared error of every leading design: of c less predictions, and the rest."""
        U, Z = self.values[self.heads :], self.values[self.size : self.heads]
        self.left.copy_(self.cross)
        found, start = [], 0
        for stop in edges:
            bands = min(-(-stop // self.band), self.bands)
            left = self.left[: bands * len(self.parts) * self.band]
            left.addmm_(U[: len(left), start:stop], Z[:, start:stop].T, alpha=-1)
            squares = torch.mul(left, left, out=self.work[: len(left)])
            sums = squares.view(bands * len(self.parts), self.band, self.targets).sum(1)
            sums = sums.view(bands, len(self.parts), self.targets).sum(0)
            found.append(sums + self.untouched[bands] + self.rest)
            start = stop
        return torch.stack(found, 1).clamp_min(0)

    def weights(self) -> Float[Tensor, "source targets"]:
        """Return the weights of all columns: L'^-1 Z."""
        L, Z = self.values[: self.size], self.values[self.size : self.heads]
        return torch.linalg.solve_triangular(L.mT, Z.mT, upper=True)

    def _fill(self, start: int, stop: int) -> int:
        """Bring some columns of U up to what L asks of them; return the last row that is not zero there."""
        M, end = self.values, self.heads
        for top in range(0, min(stop, self.bands * self.band), self.band):
            rows = slice(end, end + self.band * len(self.parts))
            for k, part in enumerate(self.parts):
                some = part.root[top : top + self.band, start:stop]
                first = end + k * self.band
                M[first : first + len(some), start:stop] = some
            if top < start:  # U is zero left of its diagonal
                M[rows, start:stop].addmm_(M[rows, top:start], M[start:stop, top:start].T, alpha=-1)
            end = rows.stop
        return end
