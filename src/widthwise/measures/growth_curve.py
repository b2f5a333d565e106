"""The span error of the first 1, 2, ... networks together: what one more network adds, and where it ends.

All of them from one factorisation a penalty (linalg/nested.py). The penalty is relative to the scale of all networks
together, so that a curve of m networks has the same absolute grid throughout; the rest is span_error's definition.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from widthwise import arrays, seeds
from widthwise.errors import DataError, UsageError
from widthwise.linalg import limits, nested
from widthwise.linalg.intervals import Interval, jackknife_gap
from widthwise.linalg.moments import Moments
from widthwise.linalg.strata import strata
from widthwise.measures.base import Score
from widthwise.pairs import SUPPORT_ROWS, Pair
from widthwise.regression import Options, block_sums, choose, given
from widthwise.words import for_json

VERSION = 1
NEEDS = frozenset({"moments"})
INVARIANT_TO = frozenset(
    {"source rotation", "source scale", "source translation", "target column scale", "target translation"}
)
LARGEST = 2048  # source features up to which networks are left out in turn, or put into other orders
SMALLEST = 1e-10
UNITS = 16  # groups of networks that are left out in turn


@dataclass(frozen=True)
class GrowthCurve:
    """The span error of the first m networks together, for every m; lower is better.

    Attributes:
        networks, p: m, and the source features of the first m.
        mean: the error over supported target features, for every m. low, high: its 95 % interval over networks;
            None where they cannot be left out.
        limit: where the fitted power law ends, with its interval over networks; None where none fits.
        orders: orders of the networks that `mean` is averaged over.
        per_feature: (sizes, targets) errors in the order given.
    """

    networks: tuple[int, ...]
    p: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    limit: float | None
    limit_low: float | None
    limit_high: float | None
    orders: int
    per_feature: Float[Tensor, "sizes targets"] = field(repr=False, compare=False)
    interval_over: str = "networks"
    method: str = "jackknife"

    def __str__(self) -> str:
        if len(self.networks) == 1:
            return f"1 network misses {self.mean[0]:.3f} of the target"
        low, high = self.low[-1], self.high[-1]
        interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}] over networks"
        end = "" if self.limit is None else f", towards {self.limit:.3f} with more"
        return (
            f"{self.networks[-1]} networks together miss {self.mean[-1]:.3f}{interval} of the target, "
            f"{'the first' if self.orders == 1 else 'one'} alone {self.mean[0]:.3f}{end}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "per_feature"}

    def to_frame(self):
        """Return one row a number of networks as a pandas DataFrame (needs pandas, which Widthwise does not)."""
        import pandas

        return pandas.DataFrame({name: getattr(self, name) for name in ("networks", "p", "mean", "low", "high")})

    def _repr_html_(self) -> str:
        rows = zip(self.networks, self.p, self.mean, strict=True)
        cells = "".join(f"<tr><td>{m}</td><td>{p}</td><td>{e:.4g}</td></tr>" for m, p, e in rows)
        return f"<table><caption>{self}</caption><tr><th>networks<th>features<th>error</tr>{cells}</table>"


def growth_curve(
    networks: Sequence[Any],
    target: Any,
    *,
    split: str = "validation",
    networks_test: Sequence[Any] | None = None,
    target_test: Any = None,
    folds: int = 5,
    groups: Any = None,
    orders: int = 1,
    leave_out: bool | None = None,
    penalties: Any = None,
    precision: str = "float64",
    device: str | None = None,
) -> GrowthCurve:
    """Return the span error of the first 1, 2, ... networks together, from their features.

    Curves of narrow and of wide networks to one target stand on one axis by their `p`.

    Args:
        networks: features (rows, d) of each network, on the same rows, in the order in which they are added.
        target: (rows, t) what is explained.
        split, folds, groups, precision, device: as in `span_error`; with split="test", `networks_test` and
            `target_test`.
        orders: orders of the networks to average over, the given one first.
        leave_out: leave every network, or one of 16 groups of them, out in turn, for intervals over networks; by
            default where there are at most 2,048 source features.
        penalties: relative to the scale of all networks together, 1e-10 and above; half decades from 1e-9 to 10.

    Raises:
        UsageError: for options that cannot be.
        DataError: for features that are not finite or do not match, or collinear beyond the smallest penalty.

    Example:
        >>> import torch
        >>> rows = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
        >>> curve = growth_curve([rows[:, :2], rows[:, 2:6]], rows[:, :4])
        >>> [round(error, 2) for error in curve.mean]
        [0.5, 0.0]
    """
    sides = arrays.listed("networks", networks)
    if not sides:
        raise UsageError("there are no networks; pass a list with the features of one or more.")
    tests = dict.fromkeys(sides)
    if networks_test is not None:
        tests = arrays.listed("networks_test", networks_test, "networks")
    if len(tests) != len(sides):
        raise UsageError(f"there are {len(sides)} networks and test rows of {len(tests)}; pass one of each.")
    joint = arrays.joint(
        sides | {"target": target},
        tests | {"target": target_test},
        split,
        folds=folds,
        groups=groups,
        sources=tuple(sides),
        precision=precision,
        device=device,
    )
    pair = Pair(joint, tuple(sides), ("target",))
    score = measure(pair, orders=orders, leave_out=leave_out, penalties=penalties)
    if math.isnan(score.value):
        raise DataError(
            f"no target feature varies on {SUPPORT_ROWS:.0f} effective rows or more of those that fit and of those "
            "that are scored (a Gaussian one on a third of them), so there is no mean. Use more rows, or others."
        )
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in score.values.items()}
    return GrowthCurve(**values, per_feature=score.arrays["per_feature"])


@dataclass(frozen=True)
class Curve:
    """Errors of the first m networks, m = 1, 2, ..., in one order."""

    networks: tuple[int, ...]  # in the order in which they are added
    errors: Float[Tensor, "sizes targets"]
    supported: Bool[Tensor, " targets"]
    blocks: tuple[Tensor, Tensor] | None = (
        None  # sums of all networks' squared error, and of squares, (blocks, targets)
    )

    @property
    def mean(self) -> list[float]:
        """The mean over supported target features at every size."""
        return self.errors[:, self.supported].mean(1).tolist()


def measure(
    pair: Pair,
    *,
    orders: int = 1,
    leave_out: bool | None = None,
    penalties: Any = None,
    row_blocks: bool = False,
) -> Score:
    """Return the growth curve of a pair: the span error of its first source networks, for every number of them.

    Args:
        pair: its source's groups are the networks, in the order in which they are added.
        orders: orders of the networks to average over, the given one first, the others drawn; at the last point
            all orders meet, so their spread says nothing of it.
        leave_out: leave every network (or one of 16 groups of them) out in turn, for intervals over networks; by
            default where there are at most 2,048 source features.
        penalties: relative to the scale of all networks together; half decades from 1e-9 to 10 if left out.
        row_blocks: keep all networks' sums of squared error and of squares by (row block, target), for intervals over
            rows.

    Raises:
        UsageError: for orders that are no number of them, or if they or leaving out is asked of more than 2,048 source
            features, or a penalty is below 1e-10.
        DataError: if features are collinear beyond the smallest penalty.
    """
    if isinstance(orders, bool) or not isinstance(orders, Integral) or orders < 1:
        raise UsageError(f"orders must be a whole number, 1 or more; not {orders!r}.")
    p, penalties = len(pair.source_columns), given(penalties)
    leave_out = p <= LARGEST if leave_out is None else leave_out
    if p > LARGEST and (orders > 1 or leave_out):
        raise UsageError(
            f"{p} source features: other orders and networks left out take a factorisation each, up to {LARGEST} "
            "features. Pass orders=1 and leave_out=False, or fewer networks."
        )
    if min(penalties) < SMALLEST:
        raise UsageError(f"a growth curve takes penalties of {SMALLEST:g} and above; got {min(penalties):g}.")
    order = tuple(range(len(pair.source)))
    first = _curve(pair, order, penalties, row_blocks=row_blocks)
    drawn = [_curve(pair, _shuffled(order, k), penalties).mean for k in range(1, orders)]
    mean = torch.tensor([first.mean, *drawn], dtype=torch.float64).mean(0).tolist()
    without = _without(pair, order, penalties) if leave_out else {}
    sizes = [m + 1 for m in order]
    limit = limits.power_law(sizes, first.mean)
    over = [_interval(value, size, without) for value, size in zip(mean, sizes, strict=True)]
    values: dict[str, Any] = {
        "networks": sizes,
        "p": torch.tensor([len(pair.joint.columns[name]) for name in pair.source]).cumsum(0).tolist(),
        "mean": mean,
        "low": [for_json(x.low) for x in over],
        "high": [for_json(x.high) for x in over],
        "limit": limit,
        "limit_low": None,
        "limit_high": None,
        "orders": orders,
    }
    if limit is not None and without:
        found = _limit_interval(limit, without)
        values |= {"limit_low": for_json(found.low), "limit_high": for_json(found.high)}
    arrays = {"per_feature": first.errors, "supported": first.supported}
    arrays |= dict(zip(("block_errors", "block_totals"), first.blocks or (), strict=False))
    return Score(mean[-1], values, arrays)


def _curve(pair: Pair, order: tuple[int, ...], penalties: tuple[float, ...], *, row_blocks: bool = False) -> Curve:
    """Return the curve of networks added in an order."""
    joint, target = pair.joint, pair.target_columns
    columns = [joint.columns[pair.source[k]] for k in order]
    edges = torch.tensor([len(c) for c in columns]).cumsum(0).tolist()
    chosen, p = torch.cat([*columns, target]), edges[-1]
    source, targets = torch.arange(p), p + torch.arange(len(target))
    grid = torch.tensor(sorted(penalties), dtype=torch.float64)

    def moments(cells: tuple[int, ...]) -> Moments:
        return joint.moments(cells, chosen, crossed=p)

    scale = joint.moments(joint.split.score_cells, target, crossed=0).centred_squares.cpu()
    curves: dict[int, Tensor] = {}
    means: dict[int, Tensor] = {}
    weights: dict[int, tuple[Tensor, list[Tensor]]] = {}
    for cells, own in joint.split.by_fit().items():
        fit = nested.design(moments(cells), source, targets)
        scored = [nested.scored(fit, moments(joint.split.parts[k].score), source, targets) for k in own]
        kept: list[Tensor] = []
        found_errors = nested.errors(fit, scored, edges, grid, kept if row_blocks else None)
        curves.update(zip(own, found_errors.cpu(), strict=True))
        weights.update((k, (fit.means, kept)) for k in own)
        means.update((k, part.squares.cpu()) for k, part in zip(own, scored, strict=True))
    parts = range(len(joint.split.parts))
    divisor = torch.where(scale > 0, scale, 1.0)
    errors = torch.stack([curves[k] for k in parts]) / divisor  # (parts, sizes, penalties, targets)
    at_infinity = (torch.stack([means[k] for k in parts]) / divisor).repeat(1, len(edges))
    every_size = errors.transpose(1, 2).flatten(2)  # (parts, penalties, sizes times targets)
    found = choose(every_size, at_infinity, scale.repeat(len(edges)), grid, Options())
    blocks = None
    if row_blocks:
        last = found.of(torch.arange((len(edges) - 1) * len(target), len(edges) * len(target)))
        maps = [_map(*weights[k], optimum.node, source, targets) for k, optimum in zip(parts, last.optima, strict=True)]
        about = joint.moments(joint.split.score_cells, target, crossed=0)
        sides = ([pair.source[k] for k in order], pair.target, torch.arange(len(target)))
        blocks = block_sums(joint, sides, maps, strata(about).means)
    per_feature = found.error.unflatten(0, (len(edges), len(target)))
    return Curve(order, per_feature, joint.support(target)[1] & (scale > 0), blocks)


def _map(
    means: Float[Tensor, "1 columns"],
    weights: Sequence[Float[Tensor, "source targets"]],
    node: Int[Tensor, " targets"],
    source: Int[Tensor, " source"],
    targets: Int[Tensor, " targets"],
) -> tuple[Float[Tensor, "source targets"], Float[Tensor, "1 targets"]]:
    """Return a part's weights and centre, every target's at the grid point nearest to its penalty; zeros for none."""
    known = torch.stack([*weights, torch.zeros_like(weights[0])])
    W = known[node, :, torch.arange(len(node))].T
    return W, means[:, targets] - means[:, source] @ W


def _shuffled(order: tuple[int, ...], number: int) -> tuple[int, ...]:
    permutation = torch.randperm(len(order), generator=seeds.stream(number, "orders"))
    return tuple(order[k] for k in permutation.tolist())


def _without(pair: Pair, order: tuple[int, ...], penalties: tuple[float, ...]) -> dict[tuple[int, ...], Curve]:
    """Return the curve without each unit: a network, or one of 16 runs of networks."""
    units = [tuple(run.tolist()) for run in torch.tensor(order).tensor_split(min(len(order), UNITS))]
    if len(units) < 3:
        return {}
    return {unit: _curve(pair, tuple(k for k in order if k not in unit), penalties) for unit in units}


def _interval(value: float, size: int, without: dict[tuple[int, ...], Curve]) -> Interval:
    """Return the jackknife interval of the first networks' error, each unit of them left out in turn.

    NaN where the first networks are not whole units, or fewer than three.
    """
    inside = {unit: curve for unit, curve in without.items() if max(unit) < size}
    whole = sum(len(unit) for unit in inside) == size
    values = [curve.mean[size - len(unit) - 1] for unit, curve in inside.items()] if whole else []
    return jackknife_gap(value, [values if len(values) > 2 else [float("nan")] * 2])


def _limit_interval(limit: float, without: dict[tuple[int, ...], Curve]) -> Interval:
    found = [limits.power_law(range(1, len(curve.networks) + 1), curve.mean) for curve in without.values()]
    return jackknife_gap(limit, [[float("nan") if x is None else x for x in found]])
