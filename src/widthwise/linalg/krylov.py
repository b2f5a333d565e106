"""(S + shift)^-1 C for every shift where S is too large to reduce: from products S V alone, in a block Krylov space.

The space of C, S C, S S C, ... is that of S + shift too, so one serves all shifts (block Lanczos: Golub and Underwood
1977; every block is orthogonalised twice against all before it). In it S is the small matrix V'SV, which takes band
form. What the space leaves undone is the residual r = c - (S + shift) w: all of it lies in the next block, so its
size is known without another product with S. As S has no negative direction, the penalised error of a fit is at most
|r|^2 / shift above the least. That certificate is strict, and loose where the shift is far below S's eigenvalues.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.linalg import banded

FROM = 16_000  # columns above which a band form, 2 p^3 flops and four p x p matrices, is 8 GB and grows
QUARTER = 4  # of the columns are the space's dimensions: its products then cost what moments of p / 2 rows do
BLOCKS = 8  # that a space has at least, where that is no more than half of the columns
TOLERANCE = 1e-4  # of a target's variance: a certificate above it is worth a warning
ROUNDING = 1e-14  # of S: a direction below it is not there
SETTLED = 1e-13  # a residual, relatively, below which no block is added
PROBES, STEPS = 8, 60  # random vectors and Lanczos steps for degrees of freedom

Times = Callable[[Float[Tensor, "size some"]], Float[Tensor, "size some"]]


@dataclass(frozen=True)
class Certificate:
    """How far weights are from exact ones: at most."""

    residual: Float[Tensor, " targets"]  # |c - (S + penalty) w| / |c|
    excess: Float[Tensor, " targets"]  # of the penalised squared error of a row above the least: |r|^2 / penalty / n


@dataclass(frozen=True)
class Krylov:
    """A symmetric matrix S as what it does within a space, V (V'SV) V', and what leads out of the space."""

    basis: Float[Tensor, "size dimensions"]  # V, orthonormal
    inner: banded.Banded  # V'SV
    outward: Float[Tensor, "padded next"]  # V'S V_next, V_next the block that was not added, in the band's coordinates
    nodes: Float[Tensor, "probes steps"]  # eigenvalues of S, with masses that sum to the size: of every probe
    masses: Float[Tensor, "probes steps"]

    def rotate(self, M: Float[Tensor, "size columns"]) -> Float[Tensor, "padded columns"]:
        """Return M in the coordinates of the band form; of M only what lies in the space."""
        return self.inner.rotate(self.basis.T @ M)

    def back(self, Z: Float[Tensor, "padded columns"]) -> Float[Tensor, "size columns"]:
        """Return what has these coordinates."""
        return self.basis @ self.inner.back(Z)

    def solve(
        self,
        C: Float[Tensor, "padded columns"],
        shifts: Float[Tensor, " shifts"],
        out: Float[Tensor, "padded shifts columns"] | None = None,
    ) -> Float[Tensor, "padded shifts columns"]:
        """Return (V'SV + shift)^-1 C for every shift, in `out` if given."""
        return self.inner.solve(C, shifts, out)

    def solve_each(
        self, C: Float[Tensor, "padded columns"], shifts: Float[Tensor, " columns"]
    ) -> Float[Tensor, "padded columns"]:
        """Return (V'SV + shift)^-1 c for every column, each with its own shift."""
        return self.inner.solve_each(C, shifts)

    def prepare(self, shifts: Float[Tensor, " shifts"]) -> None:
        """Factor at once for shifts that will be asked for."""
        self.inner.prepare(shifts)

    def degrees(self, shifts: Float[Tensor, " shifts"]) -> Float[Tensor, " shifts"]:
        """Return tr S (S + shift)^-1 for every shift, estimated.

        Its standard error is at most half its root (Hutchinson 1990, 8 probes). By Gauss quadrature of every probe
        (Ubaru, Chen and Saad 2017), which is some percent too high where the shift is far below S's eigenvalues.
        """
        gains = self.nodes / (self.nodes + shifts[:, None, None])
        return (gains * self.masses).sum(2).mean(1)

    def residuals(
        self, C: Float[Tensor, "padded columns"], shifts: Float[Tensor, " columns"]
    ) -> Float[Tensor, " columns"]:
        """Return |c - (S + shift) w| of every column, each with its own shift; w the weights back(solve(c, shift))."""
        return (self.outward.T @ self.solve_each(C, shifts)).norm(dim=0)

    def turned(self, times: Times) -> Float[Tensor, "padded padded"]:
        """Return another symmetric matrix H, given by its products, in these coordinates, as `Banded.turned` does."""
        return self.inner.turned(torch.cat([self.basis.T @ times(V) for V in self.basis.split(512, 1)], 1))


def told(residual: float, excess: float, size: int) -> str:
    """Return the sentence of a warning about a certificate above `TOLERANCE`."""
    return (
        f"{size} features are more than {FROM}, so their fits are approximate: at the chosen penalties a fit's error "
        f"may lie up to {excess:.1e} of a target's variance above the least (relative residual {residual:.1e}). Give "
        "fewer features, or penalties= without the small ones."
    )


def space(size: int, targets: int, rank: int) -> int:
    """Return the most dimensions that a space has: all there are, as a dual has, where rows are few."""
    if 2 * rank <= size:
        return rank
    return max(size // QUARTER, min(BLOCKS * targets, size // 2))


def reduce(times: Times, C: Float[Tensor, "size columns"], smallest: float, rank: int) -> Krylov:
    """Return S in a Krylov space of C.

    Args:
        times: returns S V.
        smallest: the smallest shift that will be asked for.
        rank: that S has at most.
    """
    most = min(space(len(C), C.shape[1], rank), rank)
    V, T, beyond = _grown(times, C, smallest, most, min(rank, len(C)))
    inner = banded.reduce(T, overwrite=True)
    outward = inner.rotate(beyond)
    nodes, masses = _quadrature(times, V)
    return Krylov(V, inner, outward, nodes, masses)


def _grown(times: Times, C: Tensor, smallest: float, most: int, room: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return V, V'SV and V'S V_next of a space of at most so many dimensions, or that of C alone."""
    sizes = C.norm(dim=0)
    block, _ = _directions(C / torch.where(sizes > 0, sizes, 1.0), ROUNDING, room)
    if not block.shape[1]:  # No target has anything to explain: any space will do.
        block = torch.ones_like(C[:, :1]) / len(C) ** 0.5
    V = C.new_empty(len(C), max(most, block.shape[1]))
    T = C.new_zeros(V.shape[1], V.shape[1])
    start, stop, looked = 0, block.shape[1], 0
    V[:, :stop] = block
    link = C.new_zeros(0, stop)  # V_next' S V_last
    while stop > start:
        known = V[:, :stop]
        block = times(V[:, start:stop].contiguous())
        across = known.T @ block
        T[:stop, start:stop], T[start:stop, :stop] = across, across.T
        T[start:stop, start:stop] = (across[start:] + across[start:].T) / 2
        block.addmm_(known, across, alpha=-1)
        block.addmm_(known, known.T @ block, alpha=-1)
        block, link = _directions(block, ROUNDING * float(T.diagonal().amax()), room - stop)
        if stop + block.shape[1] > V.shape[1] or not block.shape[1]:
            break
        if stop > 5 / 4 * looked:  # Looking takes a factorisation: the larger, the rarer.
            looked = stop
            if _settled(T[:stop, :stop], known.T @ C, link, smallest, sizes):
                break
        block.addmm_(known, known.T @ block, alpha=-1)
        start, stop = stop, stop + block.shape[1]
        V[:, start:stop] = torch.linalg.qr(block)[0]
    beyond = C.new_zeros(stop, len(link))
    beyond[start:] = link.T
    return V[:, :stop], T[:stop, :stop].clone(), beyond


def _directions(
    block: Float[Tensor, "size columns"], floor: float, room: int
) -> tuple[Float[Tensor, "size kept"], Float[Tensor, "kept columns"]]:
    """Return Q and R, block = Q R, Q orthonormal, of the directions that are longer than a floor, the longest first."""
    Q, R = torch.linalg.qr(block)
    U, lengths, W = torch.linalg.svd(R, full_matrices=False)
    kept = min(int((lengths > floor).sum()), max(room, 0))
    return Q @ U[:, :kept], lengths[:kept, None] * W[:kept]


def _settled(T: Tensor, C: Tensor, link: Tensor, smallest: float, sizes: Tensor) -> bool:
    """Return whether no residual at the smallest shift is more than rounding."""
    factor, failed = torch.linalg.cholesky_ex(T + smallest * torch.eye(len(T), dtype=T.dtype, device=T.device))
    if bool(failed):
        return False
    last = torch.cholesky_solve(C, factor)[-link.shape[1] :]
    return bool(((link @ last).norm(dim=0) <= SETTLED * sizes).all())


def _quadrature(times: Times, like: Float[Tensor, "size _"]) -> tuple[Tensor, Tensor]:
    """Return nodes and masses of Gauss quadratures of S's spectrum, of random signs: Lanczos, each on its own.

    The signs are always the same ones: a result depends on its input alone.
    """
    size, steps = len(like), min(STEPS, len(like))
    signs = torch.randint(0, 2, (size, PROBES), generator=torch.Generator().manual_seed(0)).to(like) * 2 - 1
    diagonal, beside = [], []
    for alpha, beta in _lanczos(times, signs / max(size, 1) ** 0.5, steps):
        diagonal.append(alpha)
        beside.append(beta)
    if not steps:
        return like.new_zeros(PROBES, 0), like.new_zeros(PROBES, 0)
    J, off = torch.diag_embed(torch.stack(diagonal, 1)), torch.stack(beside, 1)[:, :-1]
    nodes, vectors = torch.linalg.eigh(J + torch.diag_embed(off, 1) + torch.diag_embed(off, -1))
    return nodes.clamp_min(0), size * vectors[:, 0].square()


def _lanczos(times: Times, v: Float[Tensor, "size probes"], steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    before, beta = torch.zeros_like(v), v.new_zeros(v.shape[1])
    for _ in range(steps):
        w = times(v) - beta * before
        alpha = (w * v).sum(0)
        w = w - alpha * v
        beta = w.norm(dim=0)
        yield alpha, beta
        before, v = v, w / torch.where(beta > 0, beta, 1.0)
