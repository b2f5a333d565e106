"""Intervals: over networks by jackknife, over rows by bootstrap with the fits fixed, Wilson's.

An interval says what it is over and how it was made. Networks are never bootstrapped: one that is drawn
twice spans itself. Rows are never resampled with a refit: a row that is drawn twice is in fit and score.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.special import ndtr, ndtri, stdtrit
from torch import Tensor

from widthwise.errors import DataError, UsageError

Table = Tensor | Sequence[float] | Sequence[Sequence[float]]

TARGETS_AT_ONCE = 128  # 2,000 draws of them, 2 MB, stay in the cache
FEWEST_BLOCKS = 50


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval: `low` and `high` NaN where there can be none, and `method` says why.

    `df` and `variance` are those of a t interval, which can be had at any `level`; None for the others.
    """

    value: float
    low: float
    high: float
    level: float
    over: str
    method: str
    df: float | None = None
    variance: float | None = None

    def at(self, level: float) -> "Interval":
        """Return the interval at another level, from the same variance and degrees of freedom.

        Raises:
            UsageError: if this is not a t interval.
        """
        if self.variance is None or self.df is None:
            raise UsageError(f"an interval by {self.method} keeps no variance; compute it again with level={level:g}.")
        half = _t_quantile(level, self.df) * math.sqrt(self.variance) if self.df > 0 else math.nan
        return dataclasses.replace(self, low=self.value - half, high=self.value + half, level=level)

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.4g} ({self.method})"
        df = f", df {self.df:.1f}" if self.df else ""
        return (
            f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] "
            f"({100 * self.level:.4g} % over {self.over}, {self.method}{df})"
        )


def verdict_level(number_of_widths: int) -> float:
    """Return the level of a verdict's interval: 1 - 0.05 / widths, Bonferroni over the widths of a study."""
    if number_of_widths < 1:
        raise UsageError(f"a verdict needs at least one width; got {number_of_widths}.")
    return 1 - 0.05 / number_of_widths


# Networks -----------------------------------------------------------------------------------------------


def jackknife_variance(leave_one_out: Table) -> float:
    """Return (g - 1)/g * sum_i (theta_i - mean theta)^2 of the g estimates that each lack one unit.

    Efron and Tibshirani (1993), eq. 11.5. Of a mean it is the classical s^2 / g.
    """
    theta = _table(leave_one_out, "leave-one-out estimates")
    g = theta.shape[-1]
    if theta.ndim != 1 or g < 2:
        raise UsageError(f"a jackknife needs one estimate for each of 2 or more units; got shape {tuple(theta.shape)}.")
    return float((g - 1) / g * (theta - theta.mean()).square().sum())


def jackknife_gap(value: float, factors: Sequence[Table], *, level: float = 0.95) -> Interval:
    """Return the interval over networks of an estimate with one or more independent factors.

    A factor is what the estimate depends on (wide networks, narrow networks), as a table of leave-one-out
    values: (g,), the estimate without unit i; or (R, g), for an estimate that averages R disjoint sets of g
    units, set c's own share of it without unit j. Its variance and degrees of freedom are

        V = R^-2 sum_c (g-1)/g sum_j (share_cj - mean_j share_cj)^2,        df = R (g-1).

    Several factors are added by `combine`. A factor with a NaN (too few networks to leave one out) gives no
    interval: `low` and `high` are NaN and `method` says so.
    """
    tables = [torch.atleast_2d(torch.as_tensor(factor, dtype=torch.float64)) for factor in factors]
    if any(bool(table.isnan().any()) for table in tables):
        method = "no interval over networks: too few to leave one out"
        return Interval(value, math.nan, math.nan, level, "networks", method)
    parts = []
    for table in tables:
        R, g = table.shape
        parts.append((sum(jackknife_variance(row) for row in table) / R**2, R * (g - 1)))
    return combine(value, parts, level=level)


def combine(value: float, parts: Sequence[tuple[float, float]], *, level: float = 0.95) -> Interval:
    """Return value +- t_df sqrt(V) from independent parts (variance V_k, degrees of freedom df_k).

    V = sum V_k and df = V^2 / sum (V_k^2 / df_k): Satterthwaite (1946). Where V = 0, df = sum df_k.
    """
    if not parts or any(not (variance >= 0 and df > 0) for variance, df in parts):
        raise UsageError(f"parts are (variance >= 0, degrees of freedom > 0), at least one; got {list(parts)}.")
    # Relative to the largest: squares of tiny variances must not underflow.
    total, largest = sum(v for v, _ in parts), max(v for v, _ in parts)
    if largest == 0:
        df = float(sum(df for _, df in parts))
    else:
        df = (total / largest) ** 2 / sum((v / largest) ** 2 / df for v, df in parts)
    centre = Interval(float(value), math.nan, math.nan, level, "networks", "jackknife", df, float(total))
    return centre.at(level)


def span_gap_leave_one_out(A: Table, B: Table) -> tuple[float, Float[Tensor, " wide"]]:
    """Return the span gap, mean A - mean B over all pairs, and the gap without each wide network.

    A[c, i] is the span error of concatenation c to wide network i, (R, S). B[k, i] is that of wide network k
    to wide network i, (S, S), its diagonal unused (NaN). A wide network is left out of A's columns and of
    both B's rows and columns: as target and as source. With S < 3 nothing is left of B: NaN.

    Raises:
        UsageError: if S < 2, or the shapes do not fit.
        DataError: if an entry in use is NaN or infinite.
    """
    A, B = (torch.as_tensor(x, dtype=torch.float64) for x in (A, B))
    if A.ndim != 2 or B.shape != (A.shape[-1],) * 2 or A.shape[1] < 2:
        raise UsageError(
            "a span gap takes A (concatenations, wide) and B (wide, wide) for at least 2 wide networks; "
            f"got {tuple(A.shape)} and {tuple(B.shape)}."
        )
    S = A.shape[1]
    between = ~torch.eye(S, dtype=torch.bool)
    _finite(A, "span errors of concatenations")
    _finite(B[between], "span errors between wide networks")
    gaps = []
    for i in range(S):
        kept = torch.arange(S) != i
        gaps.append(A[:, kept].mean() - B[between & kept & kept[:, None]].mean())  # S = 2: of nothing, NaN
    return float(A.mean() - B[between].mean()), torch.stack(gaps)


def span_gap_interval(A: Table, B: Table, A_without: Table, *, level: float = 0.95) -> Interval:
    """Return the span gap and its interval over networks.

    `A` and `B` are those of `span_gap_leave_one_out`. `A_without`[c, j] is the mean over wide networks of
    the span error of concatenation c without its narrow group j: (R, g).
    """
    gap, without_wide = span_gap_leave_one_out(A, B)
    return jackknife_gap(gap, [without_wide, A_without], level=level)


# Rows ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Term:
    """One ratio of a signed sum: weight * mean over `mask` of (sum_b errors / sum_b totals).

    `errors` are sums over a block's rows of squared error, `totals` of squares about the mean of all rows.
    Counts do as well: (wrong, rows) of each block is an error rate.
    """

    weight: float
    errors: Float[Tensor, "blocks targets"]
    totals: Float[Tensor, "blocks targets"]
    mask: Bool[Tensor, " targets"] | None = None


def row_interval(
    errors: Float[Tensor, "blocks targets"],
    totals: Float[Tensor, "blocks targets"],
    mask: Bool[Tensor, " targets"] | None = None,
    *,
    other: tuple[Tensor, Tensor] | None = None,
    generator: torch.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return the interval over rows of one mean error, or of its difference from the paired `other` one."""
    terms = [Term(1.0, errors, totals, mask)]
    if other is not None:
        terms.append(Term(-1.0, *other, mask))
    return row_interval_of(terms, generator=generator, draws=draws, level=level)


def row_interval_of(
    terms: Sequence[Term], *, generator: torch.Generator, draws: int = 2000, level: float = 0.95
) -> Interval:
    """Return the interval over rows of a sum of terms that share their row blocks, the fits held fixed.

    Blocks of rows are drawn with replacement, the same ones for every term, and the statistic computed from
    the drawn sums: an expanded percentile interval. With N blocks the percentile interval is too short by
    sqrt((N-1)/N) and by z for t, so its tails are taken at

        Phi(-sqrt(N/(N-1)) t_{N-1, (1+level)/2})        Hesterberg (2015), American Statistician 69, sec. 4.

    Raises:
        UsageError: if there are fewer than 50 blocks, or the terms' blocks differ.
        DataError: if a total over all rows is zero, or an entry in use is NaN or infinite.
    """
    if not terms or len({len(term.errors) for term in terms}) > 1:
        shapes = [tuple(term.errors.shape) for term in terms]
        raise UsageError(f"the terms of a row interval share their row blocks; got tables of {shapes}.")
    counts = block_counts(len(terms[0].errors), generator=generator, draws=draws)
    return interval_of_draws([drawn(term, counts) for term in terms], level)


@dataclass(frozen=True)
class Drawn:
    """A term's value of all rows, and in each draw of its row blocks."""

    value: float
    draws: Float[Tensor, " draws"]
    blocks: int

    def __mul__(self, weight: float) -> "Drawn":
        return Drawn(weight * self.value, weight * self.draws, self.blocks)


def block_counts(blocks: int, *, generator: torch.Generator, draws: int = 2000) -> Float[Tensor, "draws blocks"]:
    """Return how often each row block is in each draw with replacement: the same for one stream."""
    ones = torch.ones(draws, blocks, dtype=torch.float64)
    return torch.zeros_like(ones).scatter_add_(1, torch.randint(blocks, (draws, blocks), generator=generator), ones)


def drawn(term: Term, counts: Float[Tensor, "draws blocks"]) -> Drawn:
    """Return a term of all rows, and in draws of its row blocks.

    Raises:
        UsageError, DataError: as `row_interval_of`.
    """
    term = _checked(term)
    return Drawn(float(_mean_ratio(torch.ones_like(counts[:1]), term)), _mean_ratio(counts, term), counts.shape[1])


def interval_of_draws(parts: Sequence[Drawn], level: float = 0.95) -> Interval:
    """Return the interval over rows of a sum of terms in the same draws of row blocks; see `row_interval_of`.

    Raises:
        UsageError: if the terms' blocks differ.
    """
    blocks = {part.blocks for part in parts}
    if len(blocks) != 1:
        raise UsageError(f"the terms of a row interval share their row blocks; got {sorted(blocks)} of them.")
    tails = torch.tensor(_expanded_tails(level, blocks.pop()), dtype=torch.float64)
    low, high = torch.quantile(torch.stack([part.draws for part in parts]).sum(0), tails)
    return Interval(sum(part.value for part in parts), float(low), float(high), level, "rows", "block bootstrap")


def shifted(interval: Interval, by: float) -> Interval:
    """Return the interval of an estimate plus a known number."""
    moved = {name: getattr(interval, name) + by for name in ("value", "low", "high")}
    return dataclasses.replace(interval, **moved)


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return the score interval of a proportion: the p with |successes/n - p| <= z sqrt(p (1-p) / n).

    Wilson (1927), Journal of the American Statistical Association 22.
    """
    if n < 1 or not 0 <= successes <= n:
        raise UsageError(f"a proportion needs 0 <= successes <= n and n >= 1; got {successes} of {n}.")
    z, share = _normal_quantile(level), successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # Exactly 0 and 1 at the ends, where rounding would leave 1e-17.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(share, low, high, level, "rows", "Wilson")


def _mean_ratio(counts: Float[Tensor, "draws blocks"], term: Term) -> Float[Tensor, " draws"]:
    """Return weight * mean over targets of (counts @ errors) / (counts @ totals), in blocks of targets."""
    total = torch.zeros(len(counts), dtype=torch.float64)
    for errors, totals in zip(
        term.errors.split(TARGETS_AT_ONCE, 1), term.totals.split(TARGETS_AT_ONCE, 1), strict=True
    ):
        total += ((counts @ errors) / (counts @ totals)).sum(1)
    return term.weight * total / term.errors.shape[1]


def _checked(term: Term) -> Term:
    """Return the term in float64 with only the targets of its mask, which is then None."""
    errors, totals = (x.to("cpu", torch.float64) for x in (term.errors, term.totals))
    if errors.ndim != 2 or errors.shape != totals.shape or len(errors) < FEWEST_BLOCKS:
        raise UsageError(
            f"a row interval takes errors and totals (blocks, targets) of {FEWEST_BLOCKS} or more row "
            f"blocks; got {tuple(errors.shape)} and {tuple(totals.shape)}."
        )
    if term.mask is not None:
        errors, totals = errors[:, term.mask], totals[:, term.mask]
    if errors.shape[1] == 0:
        raise UsageError("a row interval needs at least one supported target; its mask leaves none.")
    _finite(errors, "sums of squared error")
    _finite(totals, "sums of squares")
    if bool((totals.sum(0) <= 0).any()):
        column = int((totals.sum(0) <= 0).nonzero()[0])
        raise DataError(f"supported target {column} is constant over the rows; leave it out by the mask.")
    return Term(term.weight, errors, totals)


def _expanded_tails(level: float, blocks: int) -> tuple[float, float]:
    tail = float(ndtr(-math.sqrt(blocks / (blocks - 1)) * _t_quantile(level, blocks - 1)))
    return tail, 1 - tail


def _t_quantile(level: float, df: float) -> float:
    return float(stdtrit(df, 0.5 + _level(level) / 2))


def _normal_quantile(level: float) -> float:
    return float(ndtri(0.5 + _level(level) / 2))


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise UsageError(f"a level lies between 0 and 1, such as 0.95; got {level}.")
    return level


def _table(values: Table, what: str) -> Tensor:
    table = torch.as_tensor(values, dtype=torch.float64)
    _finite(table, what)
    return table


def _finite(table: Tensor, what: str) -> None:
    bad = (~table.isfinite()).nonzero()
    if len(bad):
        raise DataError(f"{what} must be finite; entry {tuple(bad[0].tolist())} is {float(table[tuple(bad[0])])}.")
