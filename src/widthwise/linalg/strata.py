"""Moments about the mean of all rows, or about every class's own: what an unpenalised intercept is fitted to."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from widthwise.linalg.moments import Moments

PARTIALLED = 1e-13  # a class-centred column with less of its variance than this is rounding


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
        return Strata(torch.full_like(mean[:1], float(moments.n)), moments.total[None], mean)
    sums = moments.products(labels, torch.arange(moments.columns))
    return Strata(sums[:, labels].diagonal(), sums, mean)


def second_about(
    moments: Moments,
    own: Strata,
    means: Float[Tensor, "strata columns"],
    rows: Int[Tensor, " rows"],
    columns: Int[Tensor, " chosen"],
    out: Float[Tensor, "rows chosen"] | None = None,
) -> Float[Tensor, "rows chosen"]:
    """Return the sum of (z - m)(z - m)' with m the stratum's mean, for chosen rows and columns of it.

    In `out`, if given. With means M, counts N and sums s of the strata: Z'Z - M's - s'M + M'NM.
    """
    left, right = _correction(own, means, rows, columns)
    return moments.products(rows, columns, out).addmm_(left.T, right)


def second_times(
    moments: Moments,
    own: Strata,
    means: Float[Tensor, "strata columns"],
    columns: Int[Tensor, " chosen"],
    V: Float[Tensor, "chosen some"],
) -> Float[Tensor, "chosen some"]:
    """Return `second_about` of columns with themselves, times V: without making that matrix."""
    left, right = _correction(own, means, columns, columns)
    spread = V.new_zeros(moments.crossed, V.shape[1]).index_copy_(0, columns.to(V.device), V)
    return moments.times(spread)[columns].addmm_(left.T, right @ V)


def _correction(
    own: Strata, means: Float[Tensor, "strata columns"], rows: Int[Tensor, " _"], columns: Int[Tensor, " _"]
) -> tuple[Float[Tensor, "terms rows"], Float[Tensor, "terms chosen"]]:
    """Return L and R with L'R = M'NM - M's - s'M: what products about the means have beside those about the shift."""
    M, s = means[:, rows], own.sums[:, rows]
    Mc, sc = means[:, columns], own.sums[:, columns]
    return torch.cat([M, s, M * own.counts[:, None]]), torch.cat([-sc, -Mc, Mc])


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
