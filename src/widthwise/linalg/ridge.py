"""Multi-target ridge regression over a whole path of penalties, from second moments alone.

The source's second moments S are brought into a form in which S + penalty is solved cheaply at every penalty, and
the held-out error comes from the held-out moments, without predictions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise.errors import UsageError
from widthwise.linalg import banded, krylov, residuals, spectral, threads, triangular
from widthwise.linalg.moments import Moments
from widthwise.linalg.strata import Strata, second_about, second_times, squares_about, strata, varying

STANDARD_FLOOR = 1e-3
SMALLEST = 1e-10  # a relative penalty below this asks for ranks: of a band form they are not known
WEIGHTS = {"cpu": 2**19, "cuda": 2**22}  # at once: as few as a processor's caches hold, as many as fill a card
PROBES = 8  # random vectors for a trace
TURNED = 1e-11  # of the mean square, the jitter of a turned root: turning leaves 1e-16 of the largest direction


@dataclass(frozen=True)
class Ridge:
    """A fit for every penalty at once.

    Weights at an absolute penalty are `back(solve(projected, penalty))` of the form, spread over the live columns
    and multiplied by the factors of standardisation.
    """

    n: int
    scale: float  # trace of the centred source's second moments / live columns: what penalties are relative to
    p_live: int
    means: Float[Tensor, "strata columns"]  # of all columns of the moments
    form: banded.Banded | spectral.Spectral | krylov.Krylov
    live: Int[Tensor, " live"]  # which source columns, in falling order of their squares
    factors: Float[Tensor, " live"]  # of standardisation
    columns: int  # of the source
    projected: Float[Tensor, "form targets"]
    lengths: Float[Tensor, " live"]  # roots of the live columns' sums of squares, times their factors
    target_lengths: Float[Tensor, " targets"]
    off: float  # `Moments.rounding`

    def weights(
        self, penalty: Float[Tensor, " chosen"], targets: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "source chosen"]:
        """Return the weights of some targets, each at its own relative penalty; infinity gives zeros."""
        C, finite = self.projected[:, targets], penalty.isfinite().nonzero()[:, 0]
        Z = torch.zeros_like(C)
        Z[:, finite] = self.form.solve_each(C[:, finite], self.absolute(penalty[finite]))
        weights = C.new_zeros(self.columns, len(targets))
        weights[self.live] = self.form.back(Z) * self.factors[:, None]
        return weights

    def degrees(self, penalty: Float[Tensor, " penalties"]) -> Float[Tensor, " penalties"]:
        """Return the effective degrees of freedom, tr S (S + penalty)^-1, at relative penalties."""
        found, finite = torch.zeros_like(penalty), penalty.isfinite()
        if bool(finite.any()) and len(self.live):
            found[finite] = self.form.degrees(self.absolute(penalty[finite])).to(found.device)
        return found

    def certificate(
        self, penalty: Float[Tensor, " chosen"], targets: Int[Tensor, " chosen"]
    ) -> krylov.Certificate | None:
        """Return how far some targets' weights, each at its own relative penalty, may be from exact; None: they are."""
        if not isinstance(self.form, krylov.Krylov):
            return None
        C, finite, shift = self.projected[:, targets], penalty.isfinite(), self.absolute(penalty)
        residual, excess = torch.zeros(2, len(targets), dtype=C.dtype, device=C.device)
        residual[finite] = self.form.residuals(C[:, finite], shift[finite])
        excess[finite] = residual[finite].square() / shift[finite] / self.n
        return krylov.Certificate(residual / C.norm(dim=0).clamp_min(1e-300), excess)

    def rounding(
        self, penalty: Float[Tensor, " chosen"], targets: Int[Tensor, " chosen"]
    ) -> Float[Tensor, " chosen"] | None:
        """Return about the most by which float32 products move a row's squared error; None if they are float64.

        What products are off by is taken for noise E, of norm `off` between columns of length 1. With D the lengths and
        r = D E D w it moves the weights w, of which the error grows by r'(S + penalty)^-1 r, and the error of given
        weights by w'D E D w.
        """
        if not self.off:
            return None
        found, finite = torch.zeros_like(penalty), penalty.isfinite().nonzero()[:, 0]
        C, shift = self.projected[:, targets[finite]], self.absolute(penalty[finite])
        length = (self.form.back(self.form.solve_each(C, shift)) * self.lengths[:, None]).norm(dim=0)
        length = length + self.target_lengths[targets[finite]]
        draw = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, (len(self.live), PROBES), generator=draw).to(C) * 2 - 1
        probes = self.form.rotate(signs * self.lengths[:, None])
        shifts, which = shift.unique(return_inverse=True)
        trace = (probes[:, None] * self.form.solve(probes, shifts)).sum((0, 2)) / PROBES  # of D (S + shift)^-1 D
        noise = (self.off * length).square() / (4 * max(len(self.live), 1))  # of E's norm 2 sigma sqrt(p): sigma^2
        found[finite] = ((noise * trace[which] + self.off * length.square()) / self.n).to(found)
        return found

    def absolute(self, penalty: Float[Tensor, " penalties"]) -> Float[Tensor, " penalties"]:
        """Return relative penalties as what is added to S."""
        return penalty.to(self.projected) * self.scale


def fit(
    moments: Moments,
    source: Int[Tensor, " source"],
    target: Int[Tensor, " targets"],
    *,
    labels: Int[Tensor, " classes"] | None = None,
    standardize: bool = False,
    smallest: float = 0.0,
) -> Ridge:
    """Fit targets on sources, both columns of the same moments, for every penalty at once.

    Minimises |Y - X W|^2 + penalty * scale * |W|^2 with columns centred on their mean, or on their class's
    mean where `labels` names the one-hot columns (then what is fitted is the within-class part).

    Args:
        standardize: divide every source column by its standard deviation, floored at `STANDARD_FLOOR` of
            the largest, so that a rare feature's noise is not blown up.
        smallest: the smallest relative penalty that will be asked for. From 1e-10 on the fit is several times
            faster; below it, and at 0, the solution is that of least norm.

    Raises:
        UsageError: for a penalty below 1e-10 with more than 16,000 live columns.
    """
    own = strata(moments, labels)
    squares = squares_about(moments, own, own.means, source)
    live = varying(moments, squares, source, labels).cpu().nonzero()[:, 0]
    live = live[squares[live].argsort(descending=True, stable=True).cpu()]
    factors = standard_factors(squares[live]) if standardize else torch.ones_like(squares[live])

    def second(out: Float[Tensor, "live live"] | None = None) -> Float[Tensor, "live live"]:
        S = second_about(moments, own, own.means, source[live], source[live], out)
        return S.mul_(factors).mul_(factors[:, None]) if standardize else S

    scale = float((squares[live] * factors.square()).sum()) / max(len(live), 1)
    rank = moments.n - int((own.counts > 0).sum())
    C = second_about(moments, own, own.means, source[live], target) * factors[:, None]
    if len(live) > krylov.FROM:
        form = _approximate(_times(moments, own, own.means, source[live], factors), C, smallest, scale, rank)
    else:
        form = _form(second, len(live), smallest * scale if smallest >= SMALLEST else 0.0, rank, C.device)
    lengths = squares[live].sqrt() * factors, squares_about(moments, own, own.means, target).sqrt()
    projected = form.rotate(C)
    return Ridge(
        moments.n, scale, len(live), own.means, form, live, factors, len(source), projected, *lengths, moments.rounding
    )


def _times(
    moments: Moments,
    own: Strata,
    means: Float[Tensor, "strata columns"],
    columns: Int[Tensor, " live"],
    factors: Float[Tensor, " live"],
) -> krylov.Times:
    """Return what multiplies with the second moments of columns, each times its factor."""
    f = factors[:, None]
    return lambda V: second_times(moments, own, means, columns, V * f).mul_(f)


def _approximate(
    times: krylov.Times, C: Float[Tensor, "live targets"], smallest: float, scale: float, rank: int
) -> krylov.Krylov:
    """Return S in a Krylov space of C, if that serves the smallest relative penalty."""
    form = krylov.reduce(times, C, smallest * scale, rank) if smallest >= SMALLEST else None
    if form is None or not form.inner.positive(smallest * scale):
        raise UsageError(
            f"a penalty of {smallest:g} asks for the ranks of {len(C)} features, which are known of {krylov.FROM} at "
            f"most; pass penalties= of {10 * SMALLEST:g} and above, or fewer features."
        )
    return form


def _form(
    second: Callable[[Tensor | None], Tensor], size: int, smallest: float, rank: int, device: torch.device
) -> banded.Banded | spectral.Spectral:
    """Return S in band form if that serves the smallest absolute penalty, else in its principal directions.

    With fewer rows than columns the form is of what the rows span, as a dual solution would be.

    Args:
        second: makes S, of this size, in memory if given: nothing else holds what is large while it is reduced.
    """
    if smallest > 0:
        form = _banded(second, size, rank, device)
        if form.positive(smallest):
            return form
    return spectral.decompose(second(None), rank)


def _banded(second: Callable[[Tensor | None], Tensor], size: int, rank: int, device: torch.device) -> banded.Banded:
    if rank >= size:
        return banded.reduce(banded.room(second, size, device), size=size, overwrite=True)
    S = second(None)
    basis, T = torch.linalg.qr(spectral.factor(S.cpu(), rank).to(S.device))
    return replace(banded.reduce(T @ T.T, overwrite=True), basis=basis)


def standard_factors(squares: Float[Tensor, " source"]) -> Float[Tensor, " source"]:
    """Return 1 / max(deviation, STANDARD_FLOOR * largest deviation) of every column, up to a common scale."""
    deviation = squares.clamp_min(0).sqrt()
    largest = float(deviation.amax()) if len(deviation) else 0.0
    if largest == 0.0:
        return torch.ones_like(deviation)
    return largest / deviation.clamp_min(STANDARD_FLOOR * largest)


@dataclass(frozen=True)
class HeldOut:
    """Held-out moments about the *fit's* means: what the error of any weights on those rows needs.

    Of weights w it is |c - R w|^2 + rest - jitter |w|^2, R'R = the source's second moments + jitter, which lets a
    singular matrix have a triangular root. The jitter is taken out exactly: |w|^2 is the same in every form.
    """

    fit: Ridge
    turned: bool  # whether w are weights in the fit's form
    root: Float[Tensor, "rows weights"]  # R; no more rows than weights
    cross: Float[Tensor, "rows targets"]  # c, R'c the cross moments
    jitter: float
    squares: Float[Tensor, " targets"]  # y'y: the error at an infinite penalty, of the fit's mean
    rest: Float[Tensor, " targets"]  # what no weights explain, y'y - c'c

    def errors(self, penalties: Float[Tensor, " penalties"]) -> Float[Tensor, "penalties targets"]:
        """Return the sums of squared error of every target at every relative penalty."""
        return errors([self], penalties)[0]


def errors(
    parts: Sequence[HeldOut], penalties: Float[Tensor, " penalties"]
) -> Float[Tensor, "parts penalties targets"]:
    """Return the sums of squared error on several sets of held-out rows of one fit, at every relative penalty."""
    fit, targets, turned = parts[0].fit, len(parts[0].squares), parts[0].turned
    assert all(part.fit is fit and part.turned is turned for part in parts), "held-out rows of several fits"
    fit.form.prepare(fit.absolute(penalties))
    device, size = fit.projected.device, parts[0].root.shape[1]
    count = threads.count(device)
    at_once = WEIGHTS[device.type] // max(len(parts[0].root) * targets * count, 1)
    at_once = max(min(at_once, len(penalties) // count), 1)
    band = fit.form.inner if isinstance(fit.form, krylov.Krylov) else fit.form
    projected = residuals.pack(fit.projected, targets)

    def room() -> tuple[Tensor, Tensor | None]:  # made once: memory that is new at every turn is slow
        solved = fit.projected.new_empty(len(fit.projected), at_once * targets)
        return solved, residuals.room(size, at_once, targets, device)

    def some_weights(some: Float[Tensor, " some"], solved: Tensor, packs: Tensor | None) -> residuals.Weights:
        if turned and isinstance(band, banded.Banded) and packs is not None:
            return band.solve_packs(projected, fit.absolute(some), packs)
        w = solved[:, : len(some) * targets]
        fit.form.solve(fit.projected, fit.absolute(some), w.unflatten(1, (len(some), targets)))
        return residuals.pack(w if turned else fit.form.back(w), targets, packs)

    def some_errors(
        some: Float[Tensor, " some"], room: tuple[Tensor, Tensor | None]
    ) -> Float[Tensor, "parts some targets"]:
        weights = some_weights(some, *room)
        found = [
            residuals.squares(part.root, part.cross, weights, upper=True) - part.jitter * weights.squares
            for part in parts
        ]
        rest = torch.stack([part.rest for part in parts])
        return torch.stack(found).view(len(parts), len(some), targets) + rest[:, None]

    found = threads.each_in(room, some_errors, penalties.split(at_once), count)
    return torch.cat(found, 1).clamp_min(0)


def held_out(
    fit: Ridge,
    moments: Moments,
    source: Int[Tensor, " source"],
    target: Int[Tensor, " targets"],
    labels: Int[Tensor, " classes"] | None = None,
    *,
    penalties: int = 1,
) -> HeldOut:
    """Return what the moments of rows that are not in the fit say of its errors, without predictions.

    Args:
        penalties: how many the errors will be asked at: for many the moments are turned into the fit's form, 2 p^3;
            for few every weight is turned back, 2 p^2.
    """
    own, live, f, form = strata(moments, labels), fit.live, fit.factors, fit.form
    cross = second_about(moments, own, fit.means, source[live], target) * f[:, None]
    turned = len(live) < penalties * len(target) or isinstance(form, krylov.Krylov)  # weights of a space are its own

    def plain(out: Tensor | None = None) -> Tensor:
        return second_about(moments, own, fit.means, source[live], source[live], out).mul_(f).mul_(f[:, None])

    def second() -> Tensor:  # nothing else holds it
        if isinstance(form, krylov.Krylov):
            return form.turned(_times(moments, own, fit.means, source[live], f))
        if not (turned and isinstance(form, banded.Banded)):
            return plain()
        if form.basis is not None:
            return form.turned(plain())
        return form.turned(banded.room(plain, len(live), f.device))

    inside = turned and not isinstance(form, spectral.Spectral)
    root, jitter = triangular.root(second, TURNED if inside else triangular.JITTER)
    cross = form.rotate(cross) if inside else cross
    cross = torch.linalg.solve_triangular(root.T, cross, upper=False)
    squares = squares_about(moments, own, fit.means, target)
    rest = squares - cross.square().sum(0)
    if turned and isinstance(form, spectral.Spectral):
        root, cross, left = _rotated(form, root, cross)
        rest = rest + left
    return HeldOut(fit, turned, root, cross.contiguous(), jitter, squares, rest)


def _rotated(
    form: spectral.Spectral, root: Float[Tensor, "live live"], cross: Float[Tensor, "live targets"]
) -> tuple[Float[Tensor, "rank rank"], Float[Tensor, "rank targets"], Float[Tensor, " targets"]]:
    """Return R, c and what no weights explain, of weights in principal directions: R U and its triangle, 10/3 p^3.

    U'R'R U would be as fast, and lose the digits that weights without a penalty need.
    """
    rotated = form.rotate(root.T)
    rank, both = len(rotated), torch.cat([rotated, cross.T]).T  # with its columns side by side: LAPACK's way
    both = torch.geqrf(both)[0][: both.shape[1]].triu_()
    return both[:rank, :rank], both[:rank, rank:], both[rank:, rank:].square().sum(0)
