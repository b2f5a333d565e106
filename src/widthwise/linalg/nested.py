"""Ridge regressions on the first 1, 2, ... groups of columns, for little more than the last one costs.

The leading blocks of a Cholesky factor are the factors of the leading blocks. With L L' = S + penalty, Z = L^-1 C and
U = R L^-T, where R'R are the held-out moments, the fit on the first p columns predicts U[:, :p] Z[:p] in the
coordinates of R: the held-out error of every leading design is a partial sum, |c - sum_k U_k Z_k|^2 + rest.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from widthwise import native
from widthwise.errors import DataError
from widthwise.linalg import spectral, threads
from widthwise.linalg.moments import Moments
from widthwise.linalg.strata import second_about, squares_about, strata, varying
from widthwise.native import NUMBER, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
SIZES, ROOM = (NUMBER, NUMBER, POINTER), (*[POINTER] * 4, NUMBER)
ERRORS = (*(POINTER, NUMBER) * 2, *SIZES, *(POINTER, NUMBER) * 2, *ROOM, POINTER, POINTER)
BLOCK = 256  # columns that are factored at once, at most; an eighth of all where they are few
DEPENDENT = 1e-12  # a column with less of its squares left beside those before it is taken for dependent on them
PAD = 8  # columns that are only there to keep rows apart
BAND = 128  # rows of U that are multiplied at once: below its diagonal it is zero


@dataclass(frozen=True)
class Design:
    """The centred moments of the rows of a fit."""

    S: Float[Tensor, "source source"]
    C: Float[Tensor, "source targets"]
    live: Bool[Tensor, " source"]  # columns that vary; the others are zero in S and C
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
    return Design(S, C, live, float(S.diagonal().sum()) / max(int(live.sum()), 1) or 1.0, own.means)


def scored(fit: Design, moments: Moments, source: Int[Tensor, " source"], target: Int[Tensor, " targets"]) -> Scored:
    """Return what the moments of rows that are not in the fit say of its errors."""
    own = strata(moments)
    H = second_about(moments, own, fit.means, source, source)
    c = second_about(moments, own, fit.means, source, target)
    squares = squares_about(moments, own, fit.means, target)
    free, level = _free(fit, moments, source)
    root, failed = torch.linalg.cholesky_ex(H[free][:, free], upper=True)
    if not bool(failed) and bool((root.diagonal().square() >= DEPENDENT * H.diagonal()[free]).all()):
        R = H.new_zeros(len(root), len(H))
        R[:, free] = root
        R += R @ level[:, None] * (level * ~free)
        return Scored(R, torch.linalg.solve_triangular(root.T, c[free], upper=False), squares)
    F, pivots = spectral.pivoted(H.cpu(), moments.n)  # H = F F', F triangular on its pivots
    F, leading = F.to(H.device), pivots[: F.shape[1]]
    d = torch.linalg.solve_triangular(F[leading], c[leading], upper=False)  # c = F d
    R = torch.linalg.qr(torch.cat([F.T, d], 1), mode="r").R  # F' = Q R; beside R: Q'd
    return Scored(R[:, : len(H)], R[:, len(H) :], squares)


def _free(
    fit: Design, moments: Moments, source: Int[Tensor, " source"]
) -> tuple[Bool[Tensor, " source"], Float[Tensor, " source"]]:
    """Return which columns may well be independent on the rows of some moments, and the level of those that are not.

    A column that has one value on all of these rows, such as a neuron that is silent there, is a multiple of any other:
    only the first of them may be independent. Levels are in units of that one's, about the fit's means.
    """
    constant = moments.constant[source] & fit.live
    assert moments.shift is not None
    level = torch.where(constant, (moments.low - moments.shift - fit.means[0])[source], 0.0)
    free, some = fit.live & ~constant, level.nonzero()[:1, 0]
    free[some] = True
    return free, level / level[some] if len(some) else level


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
    own = fit.S.device.type == "cpu" and compiled() is not None
    # Once for all rooms: the rows of R side by side.
    parts = [replace(part, root=part.root.T.contiguous().T, cross=part.cross.contiguous()) for part in parts]

    def room() -> "_Stack | _Panels":
        return _Panels(fit, parts) if own else _Stack(fit, parts)

    def at(shift: float, room: "_Stack | _Panels") -> tuple[Tensor, Tensor | None]:
        return room.errors(shift, edges), None if weights is None else room.weights()

    shifts, count = (penalties * fit.scale).tolist(), threads.count(fit.S.device, 0 if own else len(fit.S))
    found, known = zip(*threads.each_in(room, at, shifts, count), strict=True)
    if weights is not None:
        weights.extend(known)
    return torch.stack(found, 2)


class _Panels:
    """L, Z = L^-1 C, with L L' = S + shift, and some of the rows of U = R L^-T: room for what `nested.cpp` makes."""

    def __init__(self, fit: Design, parts: Sequence[Scored]):
        self.fit, self.parts = fit, parts
        self.size, self.targets = fit.C.shape
        library = compiled()
        assert library is not None, "no compiler: `_Stack` does it"
        self.wide, tall, together = (native.constant(library, name) for name in ("wide", "tall", "at_once"))
        padded, packs = -(-self.size // tall) * tall, -(-self.targets // self.wide)
        panels, self.apart = -(-padded // self.wide), padded * self.wide + PAD
        self.L = fit.S.new_empty(self.wide**2 * panels * (panels + 1) // 2)
        self.inverse = fit.S.new_empty(padded)
        self.Z = fit.S.new_empty(packs, self.apart)
        self.U = fit.S.new_empty(max(together // max(padded * self.wide, 1), 1), self.apart)
        self.rest = torch.stack([part.squares - part.cross.square().sum(0) for part in parts])

    def errors(self, shift: float, edges: Sequence[int]) -> Float[Tensor, "parts edges targets"]:
        """Return the sums of squared error of every leading design."""
        left, fine = self.rest.new_zeros(len(self.parts), len(edges), self.targets), torch.zeros(1, dtype=torch.int64)
        added, ends = torch.tensor([shift], dtype=torch.float64), torch.tensor(edges)
        parts = [(*native.matrix(p.root.T), *native.matrix(p.cross), len(p.cross)) for p in self.parts]
        told = torch.tensor(parts)
        given = *native.matrix(self.fit.S), *native.matrix(self.fit.C), self.size, self.targets, added.data_ptr()
        sizes = told.data_ptr(), len(parts), ends.data_ptr(), len(edges)
        room = (x.data_ptr() for x in (self.L, self.inverse, self.Z, self.U))
        solve = native.function(SOURCE, "errors", torch.float64, ERRORS)
        solve(*given, *sizes, *room, self.apart, left.data_ptr(), fine.data_ptr())
        if not bool(fine):
            raise _collinear()
        return (left + self.rest[:, None]).clamp_min(0)

    def weights(self) -> Float[Tensor, "source targets"]:
        """Return the weights of all columns: L'^-1 Z."""
        L, at = self.fit.S.new_zeros(self.size, self.size), 0
        for row in range(0, self.size, self.wide):
            end = min(row + self.wide, self.size)
            L[row:end, :end] = self.L[at : at + end * self.wide].view(end, self.wide).T[: end - row]
            at += (row + self.wide) * self.wide
        packs = self.Z[:, : self.size * self.wide].view(-1, self.size, self.wide)
        Z = packs.transpose(0, 1).reshape(self.size, -1)[:, : self.targets]
        return torch.linalg.solve_triangular(L.mT, Z, upper=True)


class _Stack:
    """L, Z = L^-1 C and U = R L^-T of every part, with L L' = S + shift, as rows of one matrix: [L; Z'; U].

    What a block of columns owes to those before it is one product for L and Z', and one for every band of U's rows,
    in which the parts' rows follow each other.
    """

    def __init__(self, fit: Design, parts: Sequence[Scored]):
        self.fit, self.parts = fit, parts
        self.size, self.targets = fit.C.shape
        self.block = min(max(self.size // 8, 64), BLOCK)
        self.turned = fit.C.T.contiguous()
        rank = max(len(part.root) for part in parts)
        self.band = max(min(BAND, rank), 1)
        self.bands = -(-rank // self.band)
        self.heads = self.size + self.targets  # rows before U
        rows = self.bands * len(parts) * self.band
        # Rows that begin a power of two apart share cache lines.
        self.values = fit.S.new_zeros(self.heads + rows, self.size + PAD)[:, : self.size]
        self.cross = fit.C.new_zeros(self.bands, len(parts), self.band, self.targets)
        for k, part in enumerate(parts):
            for own, some in zip(self.cross[:, k], part.cross.split(self.band), strict=False):
                own[: len(some)] = some
        self.rest = torch.stack([part.squares for part in parts]) - self.cross.square().sum((0, 2))

    def _factor(self, shift: float) -> None:
        """Factor S + shift: one left-looking pass over blocks of columns."""
        M, size = self.values, self.size
        for start in range(0, size, self.block):
            stop = min(start + self.block, size)
            block, left = slice(start, stop), M[start:stop, :start].T
            M[start:size, block] = self.fit.S[start:, block]
            M[block, block].diagonal().add_(shift)
            M[size : self.heads, block] = self.turned[:, block]
            M[start : self.heads, block].addmm_(M[start : self.heads, :start], left, alpha=-1)
            end = self._fill(start, stop)
            own, failed = torch.linalg.cholesky_ex(M[block, block])
            if bool(failed):
                raise _collinear()
            M[block, block] = own
            # Transposed, LAPACK has the rows as it wants them, without a copy that turns them.
            M[stop:end, block] = torch.linalg.solve_triangular(own, M[stop:end, block].mT, upper=False).mT

    def errors(self, shift: float, edges: Sequence[int]) -> Float[Tensor, "parts edges targets"]:
        """Return the sums of squared error of every leading design: of c less predictions, and the rest."""
        self._factor(shift)
        Z, found = self.values[self.size : self.heads].T, self.rest[:, None].repeat(1, len(edges), 1)
        for j, (U, cross) in enumerate(zip(self._rows(), self.cross, strict=True)):
            left, at = cross.flatten(0, 1).clone(), j * self.band
            for k, edge in enumerate(edges):
                if at < edge:  # U is zero left of its diagonal
                    left.addmm_(U[:, at:edge], Z[at:edge], alpha=-1)
                    at = edge
                found[:, k] += left.view_as(cross).square().sum(1)
        return found.clamp_min(0)

    def weights(self) -> Float[Tensor, "source targets"]:
        """Return the weights of all columns: L'^-1 Z."""
        L, Z = self.values[: self.size], self.values[self.size : self.heads]
        return torch.linalg.solve_triangular(L.mT, Z.mT, upper=True)

    def _fill(self, start: int, stop: int) -> int:
        """Bring some columns of U up to what L asks of them; return the last row that is not zero there."""
        M, end = self.values, self.heads
        for j, U in enumerate(self._rows()):
            top = j * self.band
            if top >= stop:
                break
            for part, own in zip(self.parts, U.split(self.band), strict=True):
                some = part.root[top : top + self.band, start:stop]
                own[: len(some), start:stop] = some
            if top < start:  # U is zero left of its diagonal
                U[:, start:stop].addmm_(U[:, top:start], M[start:stop, top:start].T, alpha=-1)
            end += len(U)
        return end

    def _rows(self) -> Sequence[Float[Tensor, "some source"]]:
        """Return U's rows, band by band."""
        height = self.band * len(self.parts)
        return [self.values[self.heads + j * height :][:height] for j in range(self.bands)]


def compiled() -> ctypes.CDLL | None:
    """Return the compiled library; None without a compiler."""
    return native.load(SOURCE)


def _collinear() -> DataError:
    return DataError(
        "the features are collinear beyond what the smallest penalty can part; leave out columns that are sums of "
        "others, or pass penalties= that start higher."
    )
