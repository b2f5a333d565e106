"""Multi-target ridge regression over a whole path of penalties, from second moments alone.

One eigendecomposition of the source's covariance serves every penalty and target, and the held-out error
comes from the held-out moments, without predictions.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.interpolate import CubicSpline
from torch import Tensor

from widthwise.linalg.moments import Moments

HALF_DECADES = tuple(10 ** (k / 2 - 9) for k in range(21))  # 1e-9 .. 10
FLOOR = 1e-15  # relative errors below this are rounding


@dataclass(frozen=True)
class Strata:
    """What an unpenalised intercept is fitted to: all rows, or each class of rows (then per class)."""

    counts: Float[Tensor, " strata"]
    sums: Float[Tensor, "strata columns"]

    @property
    def means(self) -> Float[Tensor, "strata columns"]:
        """The mean of every column in every stratum, about the moments' shift; 0 where there are no rows."""
        return self.sums / self.counts.clamp_min(1)[:, None]


def strata(moments: Moments, labels: Int[Tensor, " classes"] | None = None) -> Strata:
    """Return the strata of all rows, or, with the columns of one-hot labels (shift 0), of each class."""
    if labels is None:
        return Strata(torch.tensor([float(moments.n)], dtype=torch.float64), moments.total[None])
    return Strata(moments.second[labels, labels], moments.second[labels])


def second_about(
    moments: Moments, own: Strata, means: Float[Tensor, "strata columns"], rows: Tensor, columns: Tensor
) -> Float[Tensor, "rows columns"]:
    """Return the sum of (z - m)(z - m)' with m the stratum's mean, for chosen rows and columns of it.

    With means M, counts N and sums s of the strata: Z'Z - M's - s'M + M'NM.
    """
    M, s = means[:, rows], own.sums[:, rows]
    Mc, sc = means[:, columns], own.sums[:, columns]
    raw = moments.second[rows[:, None], columns]
    return raw - M.T @ sc - s.T @ Mc + (M * own.counts[:, None]).T @ Mc


@dataclass(frozen=True)
class Ridge:
    """A fit for every penalty at once, in the eigenbasis of the source's centred second moments.

    Weights at an absolute penalty are `vectors @ (projected / (values + penalty))`.
    """

    n: int
    scale: float  # trace of the centred source's second moments / live columns: what penalties are relative to
    p_live: int
    means: Float[Tensor, "strata columns"]  # of all columns of the moments
    values: Float[Tensor, " source"]
    vectors: Float[Tensor, "source source"]
    projected: Float[Tensor, "source targets"]

    def shrunk(self, penalty: float) -> Float[Tensor, "source targets"]:
        """Return the weights at one relative penalty in the eigenbasis."""
        damped = self.values[:, None] + penalty * self.scale
        # A direction without variance or penalty has no weight: the solution of least norm.
        return torch.where(damped > self._negligible, self.projected / damped, 0.0)

    def weights(
        self, penalty: Float[Tensor, " chosen"], targets: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "source chosen"]:
        """Return the weights of some targets, each at its own relative penalty; infinity gives zeros."""
        damped = self.values[:, None] + penalty * self.scale
        shrunk = torch.where(damped > self._negligible, self.projected[:, targets] / damped, 0.0)
        return self.vectors @ shrunk

    def degrees(self, penalty: Tensor) -> Float[Tensor, " penalties"]:
        """Return the effective degrees of freedom, tr S (S + penalty)^-1, at relative penalties."""
        damped = self.values[:, None] + penalty.to(torch.float64) * self.scale
        return torch.where(damped > self._negligible, self.values[:, None] / damped, 0.0).sum(0)

    @property
    def _negligible(self) -> float:
        return float(self.values.amax()) * len(self.values) * 2e-16 if len(self.values) else 0.0


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
    live = ~moments.constant[source]
    S[~live], S[:, ~live], C[~live] = 0.0, 0.0, 0.0
    factors = standard_factors(S) if standardize else torch.ones(len(source), dtype=torch.float64)
    S, C = S * factors * factors[:, None], C * factors[:, None]
    p_live = int(live.sum())
    values, vectors = torch.linalg.eigh(S)
    return Ridge(
        n=moments.n,
        scale=float(S.trace()) / max(p_live, 1),
        p_live=p_live,
        means=own.means,
        values=values.clamp_min(0),
        vectors=vectors * factors[:, None],
        projected=vectors.T @ C,
    )


STANDARD_FLOOR = 1e-3


def standard_factors(S: Float[Tensor, "source source"]) -> Float[Tensor, " source"]:
    """Return 1 / max(deviation, STANDARD_FLOOR * largest deviation) of every column, up to a common scale."""
    deviation = S.diagonal().clamp_min(0).sqrt()
    largest = float(deviation.amax()) if len(deviation) else 0.0
    if largest == 0.0:
        return torch.ones_like(deviation)
    return largest / deviation.clamp_min(STANDARD_FLOOR * largest)


def held_out_errors(
    ridge: Ridge,
    held_out: Moments,
    source: Int[Tensor, " source"],
    target: Int[Tensor, " targets"],
    penalties: Float[Tensor, " penalties"],
    labels: Int[Tensor, " classes"] | None = None,
) -> tuple[Float[Tensor, "penalties targets"], Float[Tensor, " targets"]]:
    """Return the sums of squared held-out error of every penalty, and of an infinite one (the fit's mean).

    y'y - 2 w'c + w'Gw in the eigenbasis of the fit, with G, c and y'y the held-out moments about the *fit's*
    means. In that basis G is close to diagonal, and the three terms lose no digit that a target's error,
    relative to its variance, has above 1e-14.
    """
    own = strata(held_out, labels)
    V = ridge.vectors
    G = V.T @ second_about(held_out, own, ridge.means, source, source) @ V
    c = V.T @ second_about(held_out, own, ridge.means, source, target)
    squares = _squares_about(held_out, own, ridge.means, target)
    errors = torch.empty(len(penalties), len(target), dtype=torch.float64)
    for k, penalty in enumerate(penalties.tolist()):
        w = ridge.shrunk(penalty)
        errors[k] = squares + (w * (G @ w - 2 * c)).sum(0)
    return errors.clamp_min(0), squares


def _squares_about(
    moments: Moments, own: Strata, means: Float[Tensor, "strata columns"], columns: Tensor
) -> Float[Tensor, " columns"]:
    M, s = means[:, columns], own.sums[:, columns]
    squares = moments.second.diagonal()[columns]
    return (squares + (M * (M * own.counts[:, None] - 2 * s)).sum(0)).clamp_min(0)


@dataclass(frozen=True)
class Optimum:
    """The best penalty of every target on a path, and how to read another curve there."""

    penalty: Float[Tensor, " targets"]  # relative; infinity where the mean is best
    node: Int[Tensor, " targets"]  # nearest grid point; len(penalties) where the mean is best
    on_edge: Tensor  # bool (targets,): the optimum is the grid's first or last point


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
    last = len(penalties) - 1
    if _splined(penalties, interpolate):
        x, lowest = _spline_minimum(_spline(curve, penalties))
        penalty, best = x.exp(), lowest.exp()
        node = (x[:, None] - penalties.log()).abs().argmin(1)
        on_edge = (x <= penalties[0].log()) | (x >= penalties[-1].log())
    else:
        best, node = curve.min(0)
        penalty = penalties[node]
        on_edge = (node == 0) | (node == last) if last else torch.zeros_like(node, dtype=torch.bool)
    mean_wins = at_infinity < best
    return Optimum(
        penalty=torch.where(mean_wins, torch.inf, penalty),
        node=torch.where(mean_wins, len(penalties), node),
        on_edge=on_edge & ~mean_wins,
    )


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
    # 3 a x^2 + 2 b x + s = 0, by the form that does not cancel where a is small.
    a, b, slope = c[0], c[1], c[2]
    root = (b.square() - 3 * a * slope).sqrt()  # NaN: no turning point
    u = slope / -(b + root)  # the root at which the second derivative, 2 root, is positive
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
