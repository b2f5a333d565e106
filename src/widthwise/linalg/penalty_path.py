"""The best penalty on a path of held-out errors, per target: a spline of log error against log penalty."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.interpolate import CubicSpline
from torch import Tensor

HALF_DECADES = tuple(10 ** (k / 2 - 9) for k in range(21))  # 1e-9 .. 10
FLOOR = 1e-15  # relative errors below this are rounding
FALLS = 1e-3  # a fall of the error by less than this, relatively and of 1e-3, is none


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
