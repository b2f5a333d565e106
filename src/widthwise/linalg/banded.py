"""S = Q B Q' with B block tridiagonal: one reduction, after which (S + shift)^-1 costs little for every shift.

Householder panels, two-sided (Golub and Van Loan, Matrix Computations, 8.3; Schreiber and Van Loan 1989 for the
compact form I - V T V'): 4/3 p^3 flops, nearly all of them matrix products, where an eigendecomposition takes seven
times that. Then each shift is a block Cholesky factorisation of B, p b^2 flops, and p b for every right-hand side.
"""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from widthwise import native
from widthwise.linalg import residuals
from widthwise.native import NUMBER, POINTER

BLOCK = 64
NARROW, FEW = 32, 2048  # a block of few columns on a processor: each shift costs less, and caches hold the rest
JOINED = 4  # panels that are applied as one
HEIGHT = 256  # rows of a symmetric matrix that are worked on at once, or a few more
SOURCE = Path(__file__).with_suffix(".cpp")
FACTOR = (POINTER, NUMBER, POINTER, NUMBER, NUMBER, NUMBER)
COLUMNS = (*FACTOR, POINTER, NUMBER, NUMBER, POINTER, NUMBER)
PACKS = (*FACTOR, POINTER, POINTER, NUMBER, NUMBER, POINTER)


class NotPositive(ArithmeticError):
    """A matrix that is not positive definite, to rounding."""


@dataclass(frozen=True)
class Panel:
    """The orthogonal matrix I - V T V' on the coordinates from `start` on."""

    start: int
    V: Float[Tensor, "rows block"]
    T: Float[Tensor, "block block"]


@dataclass(frozen=True)
class Banded:
    """A symmetric matrix as Q B Q', B of equal blocks; coordinates that were added to make them equal are zero.

    Of a matrix of low rank, Q may start with `basis`, orthonormal columns that span it.
    """

    size: int
    panels: tuple[Panel, ...]
    diagonal: Float[Tensor, "blocks block block"]
    below: Float[Tensor, "below block block"]
    basis: Float[Tensor, "whole size"] | None = None

    @property
    def padded(self) -> int:
        """The number of rows of B."""
        return len(self.diagonal) * self.diagonal.shape[1]

    def rotate(self, M: Float[Tensor, "size columns"]) -> Float[Tensor, "padded columns"]:
        """Return Q' M."""
        M = M if self.basis is None else self.basis.T @ M
        M = torch.cat([M, M.new_zeros(self.padded - len(M), M.shape[1])])
        for panel in self.panels:
            M[panel.start :].addmm_(panel.V, panel.T.T @ (panel.V.T @ M[panel.start :]), alpha=-1)
        return M

    def back(self, Z: Float[Tensor, "padded columns"]) -> Float[Tensor, "size columns"]:
        """Return Q Z."""
        Z = Z.clone()
        for panel in reversed(self.panels):
            Z[panel.start :].addmm_(panel.V, panel.T @ (panel.V.T @ Z[panel.start :]), alpha=-1)
        return Z[: self.size] if self.basis is None else self.basis @ Z[: self.size]

    def turned(self, H: Float[Tensor, "rows rows"]) -> Float[Tensor, "padded padded"]:
        """Return Q' H Q of another symmetric matrix, which is lost: on and below the diagonal, the rest is not right.

        The matrix may have the zeros behind it already that `room` gives.

        2 p^3 flops. What rounding leaves is what it leaves of S: 1e-16 of the largest, and less of columns that are
        small in both.
        """
        H = _padded(H if self.basis is None else self.basis.T @ H @ self.basis, self.padded)
        for panel in self.panels:
            VT, beside = panel.V @ panel.T, H[panel.start :, : panel.start]
            _Half(H, panel.start, HEIGHT).turn(panel.V, VT)
            beside.addmm_(panel.V, VT.T @ beside, alpha=-1)
        return H

    def solve(
        self,
        C: Float[Tensor, "padded columns"],
        shifts: Float[Tensor, " shifts"],
        out: Float[Tensor, "padded shifts columns"] | None = None,
    ) -> Float[Tensor, "padded shifts columns"]:
        """Return (B + shift)^-1 C for every shift, in `out` if given."""
        solved = C.new_empty(len(C), len(shifts), C.shape[1]) if out is None else out
        for k, shift in enumerate(shifts.tolist()):
            self._solve(C, shift, solved[:, k])
        return solved

    def solve_packs(self, C: residuals.Weights, shifts: Float[Tensor, " shifts"], memory: Tensor) -> residuals.Weights:
        """Return (B + shift)^-1 C for every shift, packed as C is, in memory for so many."""
        assert C.packed is not None, "compiled alone"
        packs, squares = len(C.packed), C.squares.new_zeros(len(shifts), len(C.packed), residuals.wide())
        solve = native.function(SOURCE, "solve_packs", torch.float64, PACKS)
        for own, norms, shift in zip(memory.split(packs), squares, shifts.tolist(), strict=False):
            factor, out = self._factor(shift), (own.data_ptr(), packs, own.stride(0), norms.data_ptr())
            solve(*_blocks(*factor), C.packed.data_ptr(), *out)
        return residuals.Weights(None, C.targets, memory, squares.flatten(1)[:, : C.targets].flatten())

    def solve_each(
        self, C: Float[Tensor, "padded columns"], shifts: Float[Tensor, " columns"]
    ) -> Float[Tensor, "padded columns"]:
        """Return (B + shift)^-1 c for every column, each with its own shift."""
        order = shifts.argsort(stable=True)  # columns of one shift side by side
        C, solved, start = C[:, order], torch.empty_like(C), 0
        for shift, count in zip(*(x.tolist() for x in shifts.unique(return_counts=True)), strict=True):
            own = slice(start, start + count)
            self._solve(C[:, own], shift, solved[:, own])
            start = own.stop
        return torch.empty_like(C).index_copy_(1, order, solved)

    def _solve(
        self, C: Float[Tensor, "padded columns"], shift: float, out: Float[Tensor, "padded columns"]
    ) -> Float[Tensor, "padded columns"]:
        """Return (B + shift)^-1 C, in `out`: forward with the Cholesky factor, then back.

        Compiled (`banded.cpp`) in half the time; without a compiler, and on a GPU, by PyTorch.
        """
        inverse, left = self._factor(shift)
        if C.device.type == "cpu" and compiled() is not None:
            solve = native.function(SOURCE, "solve", C.dtype, COLUMNS)
            solve(*_blocks(inverse, left), *native.matrix(C), C.shape[1], *native.matrix(out))
            return out
        right, solved = C.split(self.diagonal.shape[1]), out.split(self.diagonal.shape[1])
        for k, own in enumerate(right):
            own = torch.addmm(own, left[k - 1], solved[k - 1], alpha=-1) if k else own
            torch.mm(inverse[k], own, out=solved[k])
        for k in reversed(range(len(solved))):
            own = solved[k]
            own = torch.addmm(own, left[k].T, solved[k + 1], alpha=-1) if k < len(left) else own.clone()
            torch.mm(inverse[k].T, own, out=solved[k])
        return out

    def degrees(self, shifts: Float[Tensor, " shifts"]) -> Float[Tensor, " shifts"]:
        """Return tr S (S + shift)^-1 = size - shift tr (S + shift)^-1 for every shift."""
        factors = [self._factor(shift) for shift in shifts.tolist()]
        trace = -(self.padded - self.size) / shifts  # of the coordinates that were added
        after = None
        for k in reversed(range(len(self.diagonal))):
            inverse = torch.stack([own[k] for own, _ in factors])
            own = inverse.mT @ inverse
            if after is not None:
                # With L the factor's block, G the one below it: (L L')^-1 + L^-T G' X G L^-1, X what lies below.
                G = torch.stack([left[k] for _, left in factors]) @ inverse
                own += G.mT @ (after @ G)
            after = own
            trace = trace + own.diagonal(dim1=1, dim2=2).sum(1)
        return self.size - shifts * trace

    def positive(self, shift: float) -> bool:
        """Return whether B + shift is positive definite, to rounding."""
        try:
            self._factor(shift)
        except NotPositive:
            return False
        return True

    def prepare(self, shifts: Float[Tensor, " shifts"]) -> None:
        """Factor B + shift at once for shifts that will be asked for, together or one by one."""
        inverse, left = _cholesky(self.diagonal, self.below, shifts)
        for k, shift in enumerate(shifts.tolist()):
            self._factors[shift] = (inverse[:, k], left[:, k])

    def _factor(self, shift: float) -> tuple[Tensor, Tensor]:
        """Return the Cholesky factor of B + shift: inverses of the blocks on its diagonal, and the blocks below it."""
        if shift not in self._factors:
            inverse, left = _cholesky(self.diagonal, self.below, self.diagonal.new_tensor([shift]))
            return inverse[:, 0], left[:, 0]
        return self._factors[shift]

    @cached_property
    def _factors(self) -> dict[float, tuple[Tensor, Tensor]]:
        return {}


def compiled() -> ctypes.CDLL | None:
    """Return the compiled library; None without a compiler."""
    return native.load(SOURCE)


def room(fill: Callable[[Tensor], object], size: int, device: torch.device) -> Float[Tensor, "padded padded"]:
    """Return a symmetric matrix that `fill` makes in the first rows and columns, with the zeros that fill its blocks.

    Where they are missing the matrix is copied to have them.
    """
    padded = size + -size % _block(size, device)
    made = torch.empty(padded, padded, dtype=torch.float64, device=device)
    made[size:] = 0.0
    made[:, size:] = 0.0
    fill(made[:size, :size])
    return made


def reduce(
    S: Float[Tensor, "rows rows"], block: int | None = None, *, size: int | None = None, overwrite: bool = False
) -> Banded:
    """Return a symmetric matrix in block-tridiagonal form.

    Columns are best in the order of falling variance: small ones then keep their digits beside large ones.

    Args:
        block: rows of a block; what is fastest if left out.
        size: of the matrix, where zeros are behind it as `room` gives them.
        overwrite: work in S itself, which is as large as all else that is needed.
    """
    size = len(S) if size is None else size
    block = min(block, max(size, 1)) if block else _block(size, S.device)
    added = -size % block
    A = S if overwrite else S.clone()
    A, padded, height = _padded(A, size + added), size + added, -(-HEIGHT // block) * block
    del S
    wide: list[Panel] = []
    panels: list[Panel] = []
    below: list[Tensor] = []
    for start in range(block, padded, block):
        panel, triangle = _panel(A[start:, start - block : start], start)
        _Half(A, start, height).turn(panel.V, panel.V @ panel.T)
        panels.append(panel)
        below.append(triangle)
        if len(panels) == JOINED or start + block == padded:
            wide.append(_joined(panels))
            panels = []
    blocks = [A[k : k + block, k : k + block].clone() for k in range(0, padded, block)]
    diagonal = torch.stack(blocks) if blocks else A.new_zeros(0, block, block)
    return Banded(size, tuple(wide), diagonal, torch.stack(below) if below else diagonal[:0])


def _block(size: int, device: torch.device) -> int:
    return min(NARROW if size <= FEW and device.type == "cpu" else BLOCK, max(size, 1))


def _blocks(inverse: Tensor, left: Tensor) -> tuple[int, ...]:
    """Return where a factor's blocks lie, how many they are and how large."""
    return (*(x for blocks in (inverse, left) for x in (blocks.data_ptr(), blocks.stride(0))), *inverse.shape[:2])


@dataclass(frozen=True)
class _Half:
    """A symmetric matrix from a row and column on, of which what is right of its diagonal blocks is never looked at."""

    A: Float[Tensor, "size size"]
    start: int
    height: int  # of the diagonal blocks, which begin at its multiples

    def turn(self, V: Float[Tensor, "rest block"], VT: Float[Tensor, "rest block"]) -> None:
        """Bring it to (I - VT V')' times it times I - VT V', which is orthogonal."""
        X = self.times(VT)
        W = X - V @ (0.5 * (VT.T @ X))
        self.subtract(torch.cat([V, W], 1), torch.cat([W, V], 1))

    def times(self, M: Float[Tensor, "rest block"]) -> Float[Tensor, "rest block"]:
        """Return the matrix times M."""
        product = torch.zeros_like(M)
        for rows, own in self._runs():
            left = self.A[rows, self.start : rows.stop]
            product[own].addmm_(left, M[: own.stop])
            product[: own.start].addmm_(left[:, : own.start].T, M[own])
        return product

    def subtract(self, left: Float[Tensor, "rest both"], right: Float[Tensor, "rest both"]) -> None:
        """Take left right', which is symmetric, from the matrix."""
        for rows, own in self._runs():
            self.A[rows, self.start : rows.stop].addmm_(left[own], right[: own.stop].T, alpha=-1)

    def _runs(self) -> Iterator[tuple[slice, slice]]:
        """Yield the rows of every diagonal block; and counted from `start`."""
        for first in range(self.start // self.height * self.height, len(self.A), self.height):
            top, end = max(first, self.start), min(first + self.height, len(self.A))
            yield slice(top, end), slice(top - self.start, end - self.start)


def _padded(S: Float[Tensor, "size size"], size: int) -> Float[Tensor, "padded padded"]:
    """Return S with as many rows and columns of zeros as make it so large; itself if it is."""
    added = size - len(S)
    return torch.nn.functional.pad(S, (0, added, 0, added)) if added else S


def _panel(columns: Float[Tensor, "rows block"], start: int) -> tuple[Panel, Float[Tensor, "block block"]]:
    """Return the reflectors that make columns upper triangular, and that triangle."""
    packed, tau = torch.geqrf(columns)
    block = columns.shape[1]
    triangle = packed[:block].triu()
    V = packed.tril(-1)
    V[range(block), range(block)] = (tau != 0).to(V.dtype)  # tau 0: no reflector
    inverse = (V.T @ V).triu(1)
    inverse.diagonal().copy_(torch.where(tau != 0, 1 / tau, 1.0))
    T = torch.linalg.solve_triangular(inverse, torch.eye(block, dtype=V.dtype, device=V.device), upper=True)
    return Panel(start, V, T), triangle


def _joined(panels: list[Panel]) -> Panel:
    """Return the product of consecutive panels as one, whose products are wider and so faster."""
    start = panels[0].start
    columns = [torch.cat([p.V.new_zeros(p.start - start, p.V.shape[1]), p.V]) for p in panels]
    V = torch.cat(columns, 1)
    T = V.new_zeros(V.shape[1], V.shape[1])
    at = 0
    for panel in panels:
        stop = at + panel.V.shape[1]
        T[at:stop, at:stop] = panel.T
        # (I - V T V') (I - W U W') = I - [V W] [[T, -T V'W U], [0, U]] [V W]'
        T[:at, at:stop] = -T[:at, :at] @ (V[:, :at].T @ V[:, at:stop]) @ panel.T
        at = stop
    return Panel(start, V, T)


def _cholesky(
    diagonal: Float[Tensor, "blocks block block"],
    below: Float[Tensor, "below block block"],
    shifts: Float[Tensor, " shifts"],
) -> tuple[Float[Tensor, "blocks shifts block block"], Float[Tensor, "below shifts block block"]]:
    """Return what `Banded._factor` does, for every shift. Products with inverted blocks are several times as fast as
    solving with them; of blocks this small that loses no digits that the shift leaves.
    """
    eye = torch.eye(diagonal.shape[1], dtype=diagonal.dtype, device=diagonal.device)
    inverse = diagonal.new_empty(len(diagonal), len(shifts), *diagonal.shape[1:])
    left = below.new_empty(len(below), len(shifts), *below.shape[1:])
    for k, own in enumerate(diagonal):
        schur = own + shifts[:, None, None] * eye
        if k:
            torch.matmul(below[k - 1], inverse[k - 1].mT, out=left[k - 1])
            schur.baddbmm_(left[k - 1], left[k - 1].mT, alpha=-1)
        factor, failed = torch.linalg.cholesky_ex(schur)
        if bool(failed.any()):
            raise NotPositive(f"block {k} of {len(diagonal)} is not positive definite")
        inverse[k] = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
    return inverse, left
