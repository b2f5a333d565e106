"""FSE(source -> target): what share of each target feature a ridge regression on the source cannot explain.

e_j = sum over folds of squared held-out error / sum over scored rows of (y_j - mean y_j)^2. 0: spanned;
1: no better than the mean. Pooled over folds, never a mean of folds' R^2. Duzgun, Jelassi and Li (2024),
definition 2.2; DEFINITIONS 3 for what the paper leaves open.
"""

import math
import warnings
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from widthwise import arrays, seeds
from widthwise.errors import DataError, NumericsWarning
from widthwise.linalg import intervals, krylov, limits
from widthwise.measures.base import Score
from widthwise.pairs import SUPPORT_ROWS, Joint, Pair
from widthwise.regression import Options, Regression, given
from widthwise.splits import BLOCKS
from widthwise.words import for_json

VERSION = 1
NEEDS = frozenset({"moments", "features"})
INVARIANT_TO = frozenset(
    {"source rotation", "source scale", "source translation", "target column scale", "target translation"}
)
OUTLYING = 5.0
CROWDED = 0.2  # df / n_fit above which the error is far from its limit in rows


@dataclass(frozen=True)
class SpanError:
    """How badly a source spans a target, feature by feature. Lower is better: 0 is spanned.

    Attributes:
        mean: over supported features; the headline. low, high: its 95 % interval over rows; NaN where there are
            fewer than 50 rows or groups to score.
        mean_all: over all features that are not constant. variance_weighted: sum of errors / sum of squares.
        per_feature: e_j of every target feature; NaN for a constant. penalty: the relative one chosen for
            each (median over folds; infinity: the mean was best).
        constant, unsupported, outlying: counts; outlying are supported features with e_j > 5.
        rows, rows_fit: rows scored, and rows of one fit. p, p_live: source features, and those that vary.
        df: effective degrees of freedom of the fit, mean over supported features.
        residual, excess: of sources with more than 16,000 features, which are fitted in a Krylov space; the worst
            over supported features at their penalties, None for exact fits. The residual is the norm of
            c - (S + penalty) w over that of c; the excess the most by which the fit's own penalised error can lie
            above the least, in variances of the feature.
        rounding: with float32 products, about the most by which rounding may have moved the error of a supported
            feature; above 1e-4 it may be more. None with float64.
        within_class: the mean with class means partialled out (with labels only).
        extrapolated: F(n/4), F(n/2), F(n) and both limits (with `extrapolate` only); all but F(n) None where groups
            are too few for a quarter of the rows.
        path: per-feature errors of each given penalty, in the order given.
        source, target: what explains and what is explained, as the sentence names them.
    """

    mean: float
    low: float
    high: float
    mean_all: float
    median: float
    variance_weighted: float
    worst: float
    per_feature: tuple[float, ...]
    penalty: tuple[float, ...]
    constant: int
    unsupported: int
    outlying: int
    constant_features: tuple[int, ...]
    unsupported_features: tuple[int, ...]
    rows: int
    rows_fit: int
    p: int
    p_live: int
    df: float
    on_edge: int = 0
    residual: float | None = None
    excess: float | None = None
    rounding: float | None = None
    within_class: float | None = None
    extrapolated: dict[str, float | None] | None = None
    path: tuple[tuple[float, ...], ...] | None = None
    split: str = "validation"
    interval_over: str = "rows"
    method: str = "bootstrap of row blocks, fits fixed"
    source: str = "source"
    target: str = "target"
    blocks: tuple[Tensor, Tensor] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        interval = f" [{self.low:.3f}, {self.high:.3f}] over rows" if math.isfinite(self.low) else ""
        features = len(self.per_feature)
        supported = features - self.constant - self.unsupported
        if not supported:
            told = f"mean over all {self.mean_all:.3f}, 0 of {features} features"
            return f"too few rows to say what {self.source} spans of {self.target}: {told}"
        rounding = "" if self.rounding is None else f", float32 rounding at most about {self.rounding:.0e}"
        return (
            f"{self.source} spans {100 * (1 - self.mean):.1f} % of {self.target}: mean {self.mean:.3f}{interval}, "
            f"{supported} of {features} features{rounding}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON: NaN and infinity become None."""
        return for_json({f.name: getattr(self, f.name) for f in fields(self) if f.name != "blocks"})

    def to_frame(self):
        """Return one row a target feature as a pandas DataFrame (needs pandas, which Widthwise does not)."""
        import pandas

        state = ["supported"] * len(self.per_feature)
        for j in self.constant_features:
            state[j] = "constant"
        for j in self.unsupported_features:
            state[j] = "unsupported"
        return pandas.DataFrame({"error": self.per_feature, "penalty": self.penalty, "state": state})

    def _repr_html_(self) -> str:
        shown = ("mean", "low", "high", "mean_all", "median", "variance_weighted", "worst")
        cells = "".join(f"<tr><th>{name}</th><td>{getattr(self, name):.4g}</td></tr>" for name in shown)
        return f"<table><caption>{self}</caption>{cells}</table>"


def span_error(
    source: Any,
    target: Any,
    *,
    split: str = "validation",
    source_test: Any = None,
    target_test: Any = None,
    folds: int = 5,
    groups: Any = None,
    labels: Any = None,
    penalties: Any = None,
    interpolate: bool = True,
    per_target: bool = True,
    standardize: bool = False,
    extrapolate: bool = False,
    row_interval: bool = True,
    precision: str = "float64",
    device: str | None = None,
) -> SpanError:
    """Return how badly `source` spans `target`: held-out 1 - R^2 of every target feature regressed on it.

    Args:
        source: (rows, p) what explains: torch, numpy, a memory map, `concatenate(...)`, or an iterable of
            batches that can be started again (source and target in lockstep).
        target: (rows, t) what is explained, on the same rows.
        split: "validation": K folds over the rows; "test": one fit on all rows, scored on `source_test` and
            `target_test`, the penalty chosen on one half of them and scored on the other, and swapped.
        source_test: (test rows, p), with `split="test"`.
        target_test: (test rows, t), with `split="test"`.
        folds: number of folds.
        groups: (rows,) rows of one group are never split; of the scored rows with `split="test"`.
        labels: (rows,) classes; `within_class` is then the error with class means partialled out. With
            `split="test"`, those of the rows followed by those of the test rows.
        penalties: relative ridge penalties, used as given; half decades from 1e-9 to 10 if left out.
        interpolate: read the best penalty off a spline through the grid; False takes the best grid point.
        per_target: a penalty for every target feature; False shares one, as the paper does.
        standardize: divide source columns by their standard deviations (floored).
        extrapolate: also fit on a quarter and a half of the rows, and extrapolate to infinitely many.
        row_interval: bootstrap the mean over row blocks.
        precision: "float64"; or "float32_chunks": products of 512 rows at a time in float32, sums in float64, for
            3e-7 in a feature's error (3e-6, relatively, of one of 0.1). Not for a source with directions below
            1e-3 of its largest in deviation: at small penalties their errors are then wrong. `rounding` of the result
            says how far they may be off; above 1e-4 there is a warning.
        device: where it is computed, such as "cuda"; if left out, where the source's rows are.

    Raises:
        UsageError: for options that cannot be.
        DataError: for features that are not finite, or whose rows do not match.

    Example:
        >>> import torch
        >>> rows = torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
        >>> round(span_error(rows, rows[:, :3] + rows[:, 3:6]).mean, 6)
        0.0
    """
    joint = arrays.joint(
        {"source": source, "target": target},
        {"source": source_test, "target": target_test},
        split,
        folds=folds,
        groups=groups,
        labels=labels,
        nested=extrapolate,
        sources=("source",),
        precision=precision,
        device=device,
    )
    options = {"penalties": penalties, "interpolate": interpolate, "per_target": per_target}
    options |= {"standardize": standardize, "extrapolate": extrapolate, "row_interval": row_interval}
    return between(joint, **options)


def between(
    joint: Joint,
    source: str = "source",
    target: str = "target",
    *,
    penalties: Any = None,
    interpolate: bool = True,
    per_target: bool = True,
    standardize: bool = False,
    extrapolate: bool = False,
    row_interval: bool = True,
) -> SpanError:
    """Return how badly one group of a joint spans another; options as in `span_error`.

    Both directions of one joint take one pass over the rows for their moments.

    Raises:
        UsageError: for options that cannot be.
        DataError: if no feature of the target varies.
    """
    pair, options = Pair(joint, (source,), (target,)), Options(given(penalties), interpolate, per_target, standardize)
    result = _spanned(pair, options, row_blocks=row_interval, extrapolate=extrapolate)
    if result.constant == len(result.per_feature):
        n = sum(int((joint.split.cell == k).sum()) for k in joint.split.fit_cells)
        raise DataError(
            f"none of the {result.constant} {target} features varies on the {n} rows that fit; give features that do."
        )
    if joint.labels is not None:
        within = _spanned(pair, replace(options, within_class=True), row_blocks=False)
        result = replace(result, within_class=within.mean)
    if penalties is None:
        result = replace(result, path=None)
    result = replace(result, source=source, target=target)
    _warn(result, joint.classes)
    return result


def measure(
    pair: Pair,
    *,
    standardize: bool = False,
    within_class: bool = False,
    extrapolate: bool = False,
    row_blocks: bool = True,
) -> Score:
    """Return the span error of a pair as a score; options as in `span_error`.

    Args:
        within_class: make the headline the error with class means partialled out.
        row_blocks: keep sums of squared error and of squares by (row block, target), for intervals over rows.
    """
    options = Options(standardize=standardize, within_class=within_class)
    result = _spanned(pair, options, row_blocks=row_blocks, extrapolate=extrapolate)
    per_feature = torch.tensor(result.per_feature, dtype=torch.float64)
    supported = ~per_feature.isnan()
    supported[list(result.unsupported_features)] = False
    arrays = {"per_feature": per_feature, "supported": supported}
    if result.blocks is not None:
        arrays |= dict(zip(("block_errors", "block_totals"), result.blocks, strict=True))
    dropped = {"per_feature", "penalty", "within_class", "path", "blocks", "source", "target"}
    dropped |= {"constant_features", "unsupported_features"}
    kept = [f.name for f in fields(result) if f.name not in dropped]
    values = for_json({name: getattr(result, name) for name in kept})
    return Score(result.mean, values, arrays)


def _spanned(pair: Pair, options: Options, *, row_blocks: bool, extrapolate: bool = False) -> SpanError:
    joint, regression = pair.joint, _regression(pair, options)
    place = regression.local(pair.target)
    constant, supported = pair.support
    squares = regression.squares[place]
    undefined = constant | (squares == 0)  # 0: it has one value on all scored rows, or within every class
    supported = supported & ~undefined
    choice = regression.choose(place)
    certificate = regression.certificate(place, choice)
    error = torch.where(undefined, torch.nan, choice.error)
    blocks = regression.block_sums(place, choice) if row_blocks else None
    interval = None
    if blocks is not None and bool(supported.any()) and joint.split.filled >= BLOCKS:
        interval = intervals.row_interval(*blocks, supported, generator=seeds.stream(0, "row bootstrap"))
        # The sums are at the grid's penalties, the errors at the spline's: those say where the centre is.
        interval = intervals.shifted(interval, _mean(error[supported]) - interval.value)
    return SpanError(
        **_summaries(error, supported, squares),
        low=interval.low if interval else math.nan,
        high=interval.high if interval else math.nan,
        per_feature=tuple(error.tolist()),
        penalty=tuple(choice.penalty.tolist()),
        constant=int(constant.sum()),
        unsupported=int((~supported & ~constant).sum()),
        outlying=int((supported & (error > OUTLYING)).sum()),
        constant_features=_numbers(constant),
        unsupported_features=_numbers(~supported & ~constant),
        rows=int((joint.split.block >= 0).sum()),
        rows_fit=regression.fits[0].n,
        p=len(regression.source),
        p_live=int((~joint.moments(joint.split.fit_cells, regression.source, crossed=0).constant).sum()),
        df=regression.degrees(choice, supported),
        on_edge=choice.on_edge(supported),
        residual=_largest(certificate and certificate.residual, supported),
        excess=_largest(certificate and certificate.excess, supported),
        rounding=_largest(regression.rounding(place, choice), supported),
        extrapolated=_extrapolated(pair, options, supported) if extrapolate else None,
        path=tuple(map(tuple, torch.where(undefined, torch.nan, regression.path()[:, place]).tolist())),
        split=joint.split.name,
        blocks=blocks,
    )


def _largest(each: Float[Tensor, " targets"] | None, supported: Bool[Tensor, " targets"]) -> float | None:
    return None if each is None or not bool(supported.any()) else float(each[supported].max())


def _regression(pair: Pair, options: Options, size: str = "fit") -> Regression:
    """Return the regression on a source; those of the last source are kept, for its other targets."""
    among = pair.among or pair.target
    key = (pair.source, among, options)
    kept = pair.joint.kept.get("regressions")
    if kept is None or kept[0] != key:
        kept = pair.joint.kept["regressions"] = (key, {})
    if size not in kept[1]:
        kept[1][size] = Regression(pair.joint, pair.source, among, options, size)
    return kept[1][size]


def _extrapolated(pair: Pair, options: Options, supported: Bool[Tensor, " targets"]) -> dict[str, float | None]:
    """Return F(n/4), F(n/2), F(n) of nested fits, all scored on the same rows, and both limits in n.

    Richardson: 2 F(n) - F(n/2). Aitken: F(n) - D2^2 / (D1 - D2) with D1 = F(n/4) - F(n/2) and
    D2 = F(n/2) - F(n); None unless 0 < D2 < D1.
    """
    F, rows = {}, []
    for size in ("quarter", "half", "fit"):
        regression = _regression(pair, options, size)
        place = regression.local(pair.target)
        F[size] = _mean(regression.choose(place).error[supported])
        rows.append([fit.n for fit in regression.fits])
    fewer = all(quarter < half < full for quarter, half, full in zip(*rows, strict=True))
    if not fewer:  # a few large groups: no quarter of them is
        return {"quarter": None, "half": None, "fit": F["fit"], "richardson": None, "aitken": None}
    three = F["quarter"], F["half"], F["fit"]
    return {**F, "richardson": limits.richardson(*three[1:]), "aitken": limits.aitken(*three)}


def _summaries(
    error: Float[Tensor, " targets"], supported: Bool[Tensor, " targets"], squares: Float[Tensor, " targets"]
) -> dict[str, Any]:
    defined = ~error.isnan()
    return {
        "mean": _mean(error[supported]),
        "mean_all": _mean(error[defined]),
        "median": float(error[supported].quantile(0.5)) if bool(supported.any()) else math.nan,
        "variance_weighted": float((error * squares)[defined].sum() / squares[defined].sum())
        if bool(defined.any())
        else math.nan,
        "worst": float(error[defined].max()) if bool(defined.any()) else math.nan,
    }


def _warn(result: SpanError, classes: int) -> None:
    told = []
    if not result.p_live:
        told.append(f"none of the {result.p} {result.source} features varies on the rows that fit: nothing is spanned.")
    if result.within_class is not None and classes > result.rows / 4:
        told.append(f"{classes} classes among {result.rows} rows leave little within one: are `labels` classes?")
    if result.df > CROWDED * result.rows_fit:
        told.append(
            f"{result.df:.0f} effective degrees of freedom for {result.rows_fit} rows: the error would be lower with "
            "more rows. `extrapolate` tells how much."
        )
    if result.on_edge:
        told.append(
            f"the best penalty of {result.on_edge} target features is on the grid's edge; a wider grid of "
            "`penalties` may do better."
        )
    if result.excess is not None and result.residual is not None and result.excess > krylov.TOLERANCE:
        told.append(krylov.told(result.residual, result.excess, result.p_live))
    if result.rounding is not None and result.rounding > krylov.TOLERANCE:
        told.append(
            f"float32 products may have moved an error by {result.rounding:.1g} of its feature's variance, or more: "
            "the source has directions that are too small for them. Use `precision` float64."
        )
    if math.isnan(result.mean):
        told.append(
            f"none of {len(result.per_feature)} target features varies on {SUPPORT_ROWS:.0f} effective rows or more "
            f"of those that fit, and of {result.rows} that are scored (a Gaussian one on a third of them), so there is "
            "no mean; mean_all is over those that vary at all. Use more rows, or others."
        )
    for sentence in told:
        warnings.warn(sentence, NumericsWarning, stacklevel=4)


def _mean(values: Tensor) -> float:
    return float(values.mean()) if len(values) else math.nan


def _numbers(mask: Bool[Tensor, " features"]) -> tuple[int, ...]:
    return tuple(mask.nonzero()[:, 0].tolist())
