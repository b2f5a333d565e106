"""Multi-target ridge regression over a whole path of penalties, from second moments alone.

The source's second moments S are factored once, S = F F' by a pivoted Cholesky, and their principal directions
serve every penalty and target; the held-out error comes from the held-out moments, without predictions. An
eigendecomposition of S knows no eigenvalue better than to 1e-15 of the largest, and the smallest penalties are not
much above that: the small ones are taken from F, in which they are squared.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.interpolate import CubicSpline
from scipy.linalg import get_lapack_funcs
from torch import Tensor

from widthwise.linalg.moments import Moments

HALF_DECADES = tuple(10 ** (k / 2 - 9) for k in range(21))  # 1e-9 .. 10
FLOOR = 1e-15  # relative errors below this are rounding
FALLS = 1e-3  # a fall of the error by less than this, relatively and of 1e-3, is none
EPSILON = 2.0**-52
SMALL = 1e-5  # an eigenvalue below this, relative to the largest, is taken from the factor
PARTIALLED = 1e-13  # a class-centred column with less of its variance than this is rounding
STANDARD_FLOOR = 1e-3
AT_ONCE = 512  # columns of one matrix product
BLOCK = 128  # rows of a triangular factor that are multiplied at once


@dataclass(frozen=True)
class Strata:
    """What an unpenalised intercept is fitted to: all rows, or each class of rows (then per class)."""

    counts: Float[Tensor, " strata"]
    sums: Float[Tensor, "strata columns"]
    mean: Float[Tensor, " columns"]  # of all rows

    @property
    def means(self) -> Float[Tensor, "strata columns"]:
        """The mean of every column in every stratum, about the moments' shift; without rows, that of all."""
        counts = self.counts[:, None]
        return torch.where(counts > 0, self.sums / counts.clamp_min(1), self.mean)


def strata(moments: Moments, labels: Int[Tensor, " classes"] | None = None) -> Strata:
    """Return the strata of all rows, or, with the columns of one-hot labels (shift 0), of each class."""
    mean = moments.total / max(moments.n, 1)
    if labels is None:
        return Strata(torch.tensor([float(moments.n)], dtype=torch.float64), moments.total[None], mean)
    return Strata(moments.second[labels, labels], moments.second[labels], mean)


def second_about(
    moments: Moments,
    own: Strata,
    means: Float[Tensor, "strata columns"],
    rows: Int[Tensor, " rows"],
    columns: Int[Tensor, " chosen"],
) -> Float[Tensor, "rows chosen"]:
    """Return the sum of (z - m)(z - m)' with m the stratum's mean, for chosen rows and columns of it.

    With means M, counts N and sums s of the strata: Z'Z - M's - s'M + M'NM.
    """
    M, s = means[:, rows], own.sums[:, rows]
    Mc, sc = means[:, columns], own.sums[:, columns]
    raw = moments.second[rows[:, None], columns]
    return raw - M.T @ sc - s.T @ Mc + (M * own.counts[:, None]).T @ Mc


def squares_about(
    moments: Moments, own: Strata, means: Float[Tensor, "strata columns"], columns: Int[Tensor, " chosen"]
) -> Float[Tensor, " chosen"]:
    """Return the diagonal of `second_about`."""
    M, s = means[:, columns], own.sums[:, columns]
    return (moments.squares[columns] + (M * (M * own.counts[:, None] - 2 * s)).sum(0)).clamp_min(0)


def varying(
    moments: Moments,
    squares: Float[Tensor, " chosen"],
    columns: Int[Tensor, " chosen"],
    labels: Int[Tensor, " classes"] | None,
) -> Bool[Tensor, " chosen"]:
    """Return which columns vary, given their squares: are not constant, or not within every class."""
    live = ~moments.constant[columns]
    return live if labels is None else live & (squares > PARTIALLED * moments.centred_squares[columns])


def factor(S: Float[Tensor, "columns columns"], rank: int) -> Float[Tensor, "columns rank"]:
    """Return F with F F' = S and as many columns as S has rank: a pivoted Cholesky factorisation.

    Of S scaled to a unit diagonal, so that a column keeps its digits beside one that is 1e12 times larger.
    """
    if not len(S):
        return S
    deviation = S.diagonal().clamp_min(0).sqrt()
    inverse = torch.where(deviation > 0, 1 / deviation, 0.0)
    scaled = S * inverse * inverse[:, None]
    tolerance = 4 * EPSILON
    (pstrf,) = get_lapack_funcs(("pstrf",), dtype="float64")
    lower, pivots, found, _ = pstrf(scaled.numpy().T, tol=tolerance, lower=1, overwrite_a=1)
    rank = min(rank, found)
    F = torch.empty(len(S), rank, dtype=torch.float64)
    F[torch.from_numpy(pivots - 1).long()] = torch.from_numpy(lower[:, :rank]).tril()
    return F * deviation[:, None]


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


@dataclass(frozen=True)
class Ridge:
    """A fit for every penalty at once, in the principal directions of the source's second moments.

    Weights at an absolute penalty are `vectors @ (projected / (values + penalty))`.
    """

    n: int
    scale: float  # trace of the centred source's second moments / live columns: what penalties are relative to
    p_live: int
    means: Float[Tensor, "strata columns"]  # of all columns of the moments
    values: Float[Tensor, " rank"]
    noise: Float[Tensor, " rank"]  # what rounding alone may leave of a value
    vectors: Float[Tensor, "source rank"]
    projected: Float[Tensor, "rank targets"]

    def gains(self, penalty: Float[Tensor, "*chosen"]) -> Float[Tensor, "rank *chosen"]:
        """Return 1 / (values + penalty) at relative penalties.

        0 for a direction that is rounding and has no penalty either: the solution of least norm.
        """
        values, noise = (x.reshape(-1, *[1] * penalty.ndim) for x in (self.values, self.noise))
        damped = values + penalty.to(torch.float64) * self.scale
        return torch.where(damped > noise, 1 / damped, 0.0)

    def weights(
        self, penalty: Float[Tensor, " chosen"], targets: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "source chosen"]:
        """Return the weights of some targets, each at its own relative penalty; infinity gives zeros."""
        return self.vectors @ (self.projected[:, targets] * self.gains(penalty))

    def degrees(self, penalty: Float[Tensor, " penalties"]) -> Float[Tensor, " penalties"]:
        """Return the effective degrees of freedom, tr S (S + penalty)^-1, at relative penalties."""
        return self.values @ self.gains(penalty)


def fit(
    moments: Moments,
    source: Int[Tensor, " source"],
    target: Int[Tensor, " targets"],
    *,
    labels: Int[Tensor, " classes"] | None = None,
    standardize: bool = False,
) -> Ridge:
    """Fit targets on sources, both columns of the same moments, for every penalty at once.

    Minimises |Y - X W|^2 + penalty * scale * |W|^2 with columns centred on their mean, or on their class's
    mean where `labels` names the one-hot columns (then what is fitted is the within-class part).

    Args:
        standardize: divide every source column by its standard deviation, floored at `STANDARD_FLOOR` of
            the largest, so that a rare feature's noise is not blown up.
    """
    own = strata(moments, labels)
    S = second_about(moments, own, own.means, source, source)
    C = second_about(moments, own, own.means, source, target)
    live = varying(moments, S.diagonal(), source, labels)
    S[~live], S[:, ~live], C[~live] = 0.0, 0.0, 0.0
    factors = standard_factors(S) if standardize else torch.ones(len(source), dtype=torch.float64)
    S = S * factors * factors[:, None]
    values, U = principal(S, factor(S, moments.n - int((own.counts > 0).sum())))
    squares = S.diagonal()
    p_live = int(live.sum())
    return Ridge(
        n=moments.n,
        scale=float(squares.sum()) / max(p_live, 1),
        p_live=p_live,
        means=own.means,
        values=values,
        noise=EPSILON * len(S) * (squares @ U.square()),
        vectors=U * factors[:, None],
        projected=U.T @ (C * factors[:, None]),
    )


def standard_factors(S: Float[Tensor, "source source"]) -> Float[Tensor, " source"]:
    """Return 1 / max(deviation, STANDARD_FLOOR * largest deviation) of every column, up to a common scale."""
    deviation = S.diagonal().clamp_min(0).sqrt()
    largest = float(deviation.amax()) if len(deviation) else 0.0
    if largest == 0.0:
        return torch.ones_like(deviation)
    return largest / deviation.clamp_min(STANDARD_FLOOR * largest)


@dataclass(frozen=True)
class HeldOut:
    """Held-out moments about the *fit's* means, in the directions of the fit: what the error of any weights needs.

    Of weights w there it is y'y - 2 w'c + |R w|^2. R is triangular, and as exact as if it came from the rows: w
    may be as large as penalty^-1/2, and w'(R'R)w would lose the digits that |R w|^2 keeps.
    """

    fit: Ridge
    factor: Float[Tensor, "rows rank"]  # R
    cross: Float[Tensor, "rank targets"]  # c
    squares: Float[Tensor, " targets"]  # y'y: the error at an infinite penalty, of the fit's mean

    def errors(self, penalties: Float[Tensor, " penalties"]) -> Float[Tensor, "penalties targets"]:
        """Return the sums of squared error of every target at every relative penalty."""
        errors = []
        for some in penalties.split(max(AT_ONCE // max(len(self.squares), 1), 1)):
            w = self.fit.projected[:, None] * self.fit.gains(some)[:, :, None]  # (rank, some, targets)
            spread = squares_of_product(self.factor, w.flatten(1)).reshape(len(some), -1)
            errors.append(self.squares - 2 * (w * self.cross[:, None]).sum(0) + spread)
        return torch.cat(errors).clamp_min(0)


def held_out(
    fit: Ridge,
    moments: Moments,
    source: Int[Tensor, " source"],
    target: Int[Tensor, " targets"],
    labels: Int[Tensor, " classes"] | None = None,
) -> HeldOut:
    """Return what the moments of rows that are not in the fit say of its errors, without predictions."""
    own, V = strata(moments, labels), fit.vectors
    F = factor(second_about(moments, own, fit.means, source, source), moments.n)
    return HeldOut(
        fit,
        factor=torch.linalg.qr(F.T @ V, mode="r").R,
        cross=V.T @ second_about(moments, own, fit.means, source, target),
        squares=squares_about(moments, own, fit.means, target),
    )


def squares_of_product(R: Float[Tensor, "rows rank"], w: Float[Tensor, "rank chosen"]) -> Float[Tensor, " chosen"]:
    """Return |R w|^2 of every column of w, for R that is zero below its diagonal."""
    total = torch.zeros(w.shape[1], dtype=w.dtype)
    for start in range(0, len(R), BLOCK):
        total += (R[start : start + BLOCK, start:] @ w[start:]).square().sum(0)
    return total


@dataclass(frozen=True)
class Optimum:
    """The best penalty of every target on a path, and how to read another curve there."""

    penalty: Float[Tensor, " targets"]  # relative; infinity where the mean is best
    node: Int[Tensor, " targets"]  # nearest grid point; len(penalties) where the mean is best
    on_edge: Bool[Tensor, " targets"]  # a wider grid would move the optimum


def best_penalty(
    curve: Float[Tensor, "penalties targets"],
    at_infinity: Float[Tensor, " targets"],
    penalties: Float[Tensor, " penalties"],
    interpolate: bool = True,
) -> Optimum:
    """Return where each target's error curve is lowest: off a spline of log error against log penalty.

    The mean (an infinite penalty) is one more candidate, compared after the spline's minimum.

    Args:
        curve: errors relative to the target's variance; `penalties` in increasing order.
        interpolate: False takes the lowest point of the grid.
    """
    if _splined(penalties, interpolate):
        x, lowest = _spline_minimum(_spline(curve, penalties))
        best, node = lowest.exp(), (x[:, None] - penalties.log()).abs().argmin(1)
        penalty = torch.where(x == penalties.log()[node], penalties[node], x.exp())  # a knot: it, not exp(log(it))
    else:
        best, node = curve.min(0)
        penalty = penalties[node]
    mean_wins = at_infinity <= best * (1 + 1e-12)  # where the curve is flat, and only rounding differs, too
    return Optimum(
        penalty=torch.where(mean_wins, torch.inf, penalty),
        node=torch.where(mean_wins, len(penalties), node),
        on_edge=_on_edge(penalty, curve, penalties) & ~mean_wins,
    )


def _on_edge(
    penalty: Float[Tensor, " targets"],
    curve: Float[Tensor, "penalties targets"],
    penalties: Float[Tensor, " penalties"],
) -> Bool[Tensor, " targets"]:
    """Return which optima a wider grid would move: those on its edge, but at the lower one only while it falls.

    Towards no penalty a curve is linear in it: where it hardly falls any more, nothing is left to gain.
    """
    if len(penalties) == 1:
        return torch.zeros_like(penalty, dtype=torch.bool)
    falls = curve[1] - curve[0] > FALLS * curve[0].clamp_min(FALLS)
    return (penalty >= penalties[-1]) | ((penalty <= penalties[0]) & falls)


def error_at(
    curve: Float[Tensor, "penalties targets"],
    at_infinity: Float[Tensor, " targets"],
    penalties: Float[Tensor, " penalties"],
    optimum: Optimum,
    interpolate: bool = True,
) -> Float[Tensor, " targets"]:
    """Return the error of each target at a penalty chosen elsewhere, read off this curve's own spline."""
    mean_wins = optimum.node == len(penalties)
    if _splined(penalties, interpolate):
        x = torch.where(mean_wins, penalties[-1], optimum.penalty).log()
        error = _spline_at(_spline(curve, penalties), x).exp()
    else:
        error = curve.gather(0, optimum.node.clamp_max(len(penalties) - 1)[None])[0]
    return torch.where(mean_wins, at_infinity, error)


def _splined(penalties: Tensor, interpolate: bool) -> bool:
    return interpolate and len(penalties) >= 4


def _spline(curve: Float[Tensor, "penalties targets"], penalties: Float[Tensor, " penalties"]) -> CubicSpline:
    return CubicSpline(penalties.log().numpy(), curve.clamp_min(FLOOR).log().numpy(), axis=0)


def _spline_minimum(spline: CubicSpline) -> tuple[Float[Tensor, " targets"], Float[Tensor, " targets"]]:
    """Return the place and value of each target's lowest point: a knot, or where a piece's slope is 0."""
    knots, c = torch.from_numpy(spline.x), torch.from_numpy(spline.c)  # c: (4, pieces, targets)
    length = knots.diff()[:, None]
    # 3 a u^2 + 2 b u + slope = 0: the root at which the second derivative, 2 root, is positive, by the form
    # of it that does not cancel.
    a, b, slope = c[0], c[1], c[2]
    root = (b.square() - 3 * a * slope).sqrt()  # NaN: no turning point
    u = torch.where(b > 0, -slope / (b + root), (root - b) / (3 * a))
    inside = (u > 0) & (u < length)
    u = torch.where(inside, u, 0.0)  # 0 is the piece's left knot
    value = ((a * u + b) * u + slope) * u + c[3]
    x = torch.cat([knots[:-1, None] + u, knots[-1].expand(1, c.shape[2])])
    value = torch.cat([value, torch.from_numpy(spline(spline.x[-1]))[None]])
    lowest, piece = value.min(0)
    return x.gather(0, piece[None])[0], lowest


def _spline_at(spline: CubicSpline, x: Float[Tensor, " targets"]) -> Float[Tensor, " targets"]:
    """Return each target's own spline at its own x."""
    knots, c = torch.from_numpy(spline.x), torch.from_numpy(spline.c)
    piece = (torch.searchsorted(knots, x, right=True) - 1).clamp(0, c.shape[1] - 1)
    a, b, slope, value = c[:, piece, torch.arange(len(x))]
    u = x - knots[piece]
    return ((a * u + b) * u + slope) * u + value
