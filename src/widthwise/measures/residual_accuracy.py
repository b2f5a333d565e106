"""What the residuals of one group of features from another add to a linear probe.

R(B|A) = B less its ridge prediction from A. Since [A, R(B|A)] spans what [A, B] spans, the probe of the joined
features says the same in another basis. Duzgun, Jelassi and Li (2024), definition 2.6, figures 4 and 10, table 3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median_low as median

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from widthwise import seeds
from widthwise.errors import UsageError
from widthwise.linalg.logistic import LogisticPath
from widthwise.linalg.probe_path import DECADES, TIE, path
from widthwise.measures.base import Score, accuracy_score
from widthwise.pairs import Joint, Pair
from widthwise.regression import Options, Regression
from widthwise.splits import Part

VERSION = 2
COST = 25
NEEDS = frozenset({"moments", "features", "labels"})
INVARIANT_TO = frozenset({"source rotation", "source scale", "source translation", "target translation"})
SPANNED = 1e-6  # span error below which a feature has no residual
SCALES = (0.0, 1.0)  # of what is appended, its block's scale relative to the source's; 0: the source alone
FORMS = ("source", "joined", "appended", "alone", "noise", "permuted")


def measure(
    pair: Pair,
    *,
    form: str = "appended",
    columns: int | None = None,
    scale: float | None = None,
    penalty: float | None = None,
) -> Score:
    """Return the accuracy of a probe of the source, with or without something of the target, on K folds of rows.

    The rows must be ones that no network was trained on. In every fold the residuals of the rows that fit are
    cross-fitted among them, those of the rows that are scored are the average of these maps'. Each block of
    columns has one scale and one penalty: the penalty is common, the appended block's scale is chosen with it.

    Args:
        pair: its split is K folds; all rows are scored.
        form: what is probed: the "source" alone; "joined", source and target; "appended", source and residuals of
            the target; "alone", the residuals; "noise" and "permuted": the source and as many columns of noise, or
            the residuals of other rows. Where a target has more features than directions that the source misses,
            the ridge's shrinkage leaves traces of the source in its residuals, and "alone" can read them.
        columns: of the target, its first so many; all if left out.
        scale, penalty: of the appended block and of the probe, used as given instead of choices.

    Raises:
        UsageError: if `form` is none of these.
    """
    if form not in FORMS:
        raise UsageError(f'a probe with residuals has a form of {", ".join(FORMS)}, not "{form}".')
    joint = pair.joint
    assert joint.labels is not None, "a probe needs labels"
    rows = _Rows(pair, columns)
    if scale == 0:
        form = "source"
    scales = SCALES if scale is None else (scale,)
    grid = DECADES if penalty is None else (penalty,)
    folds = [_fold(rows, form, k, scales, grid) for k in range(len(joint.split.parts))]
    logits = torch.full((len(joint.labels), joint.classes), torch.nan, dtype=torch.float64)
    chosen = [_chosen(folds, k) for k in range(len(folds))]
    for k, (fold, (s, q)) in enumerate(zip(folds, chosen, strict=True)):
        logits[rows.fold == k] = fold.probes[s].path.logits(fold.probes[s].held_out, q)
    return accuracy_score(
        logits.argmax(1) == joint.labels,
        joint,
        majority=float(joint.labels.bincount().max()) / len(joint.labels),
        p=rows.X.shape[1],
        columns=rows.Y.shape[1],
        spanned=median([fold.spanned for fold in folds]),
        scale=median([fold.scales[s] for fold, (s, _) in zip(folds, chosen, strict=True)]),
        penalty=median([grid[q] for _, q in chosen]),
    )


@dataclass(frozen=True)
class _Fold:
    """One fold's probes, one for each scale; how many target features the source spans."""

    scales: tuple[float, ...]
    probes: "list[_Probe]"
    spanned: int


def _fold(rows: "_Rows", form: str, k: int, scales: Sequence[float], grid: Sequence[float]) -> _Fold:
    fit = rows.fold != k
    added, spanned = rows.added(form, k)
    if form in ("source", "alone"):
        scales = (1.0,)
    found = []
    for scale in scales:
        if form != "alone" and (scale == 0 or not added.shape[1]):
            found.append(rows.source_alone(k, grid))
            continue
        added = _scaled(added, fit)
        X = added if form == "alone" else torch.cat([_scaled(rows.X, fit), scale * added], 1)
        found.append(_Probe.of(X, rows, k, grid))
    return _Fold(tuple(scales), found, spanned)


@dataclass(frozen=True)
class _Probe:
    """A path of penalties fitted without one fold, its losses there, and the rows of that fold."""

    path: LogisticPath
    losses: list[float]
    held_out: Tensor

    @classmethod
    def of(cls, X: Tensor, rows: "_Rows", k: int, grid: Sequence[float]) -> "_Probe":
        """Return the path of some features without fold k."""
        X = X if X.shape[1] else torch.zeros(len(X), 1, dtype=X.dtype)
        own = rows.fold == k
        found, losses = path(X, rows.labels, ~own, {k: own}, rows.classes, grid)
        return cls(found, losses[k], X[own])


def _scaled(X: Float[Tensor, "rows columns"], fit: Bool[Tensor, " rows"]) -> Float[Tensor, "rows columns"]:
    """Return a block about its mean and divided by its root mean square on the rows that fit."""
    X = X - X[fit].mean(0)
    size = X[fit].square().mean().sqrt() if X.shape[1] else torch.ones(())
    return X / torch.where(size > 0, size, 1.0)


def _chosen(folds: Sequence[_Fold], own: int) -> tuple[int, int]:
    """Return the scale and the penalty with the least loss on the other folds, by number.

    Of nearly equal losses, those of the smallest scale and, of these, the largest penalty; of the penalties that the
    paths of all folds have, its own among them.
    """
    sums = []
    for scale in range(len(folds[0].scales)):
        curves = [fold.probes[scale].losses for fold in folds]
        losses = torch.tensor([c[: min(map(len, curves))] for c in curves], dtype=torch.float64)
        sums.append(losses.sum(0) - losses[own])
    least = min(float(losses.min()) for losses in sums)
    for scale, losses in enumerate(sums):
        near = (losses <= least * (1 + TIE)).nonzero()[:, 0]
        if len(near):
            return scale, int(near[0])
    raise AssertionError("no loss is the least")


class _Rows:
    """The source's and the target's values on all rows, and the residuals of every fold."""

    def __init__(self, pair: Pair, columns: int | None):
        joint = pair.joint
        assert joint.labels is not None
        self.pair, self.labels, self.classes = pair, joint.labels, joint.classes
        self.X = pair.rows_of(pair.source).to(torch.float64)
        self.Y = pair.rows_of(pair.target).to(torch.float64)[:, :columns] if pair.target else self.X[:, :0]
        fold_of = torch.zeros(joint.split.cells, dtype=torch.long)
        for k, part in enumerate(joint.split.parts):
            fold_of[list(part.score)] = k
        self.fold: Int[Tensor, " rows"] = fold_of[joint.split.cell]

    def source_alone(self, k: int, grid: Sequence[float]) -> _Probe:
        """Return the probe of the source alone without fold k: made once for all that stands beside it."""
        kept = self.pair.joint.kept.get("source alone")
        if kept is None or kept[0] != (self.pair.source, grid):
            kept = self.pair.joint.kept["source alone"] = ((self.pair.source, grid), {})
        if k not in kept[1]:
            kept[1][k] = _Probe.of(_scaled(self.X, self.fold != k), self, k, grid)
        return kept[1][k]

    def added(self, form: str, k: int) -> tuple[Float[Tensor, "rows columns"], int]:
        """Return what stands beside the source when fold k is held out, and how many target features it spans."""
        if form == "source":
            return self.X[:, :0], 0
        if form == "joined":
            return self.Y, 0
        generator = seeds.stream(k, "beside residuals")
        if form == "noise":
            return torch.randn(self.Y.shape, generator=generator, dtype=torch.float64), 0
        found, spanned = self.residuals(k)
        if form == "permuted":
            found = found[torch.randperm(len(found), generator=generator)]
        return found, spanned

    def residuals(self, k: int) -> tuple[Float[Tensor, "rows columns"], int]:
        """Return the residuals when fold k is held out; features that the source spans have none."""
        regression, others = self._among_others(k)
        chosen = torch.arange(self.Y.shape[1])
        choice = regression.choose(chosen)
        kept = chosen[(choice.error >= SPANNED) & (regression.squares[chosen] > 0)]
        found = torch.empty(len(self.Y), len(kept), dtype=torch.float64)
        predictions = torch.zeros(int((self.fold == k).sum()), len(kept), dtype=torch.float64)
        for j, predict in zip(others, _maps(regression, kept, choice), strict=True):
            found[self.fold == j] = self.Y[self.fold == j][:, kept] - predict(self.X[self.fold == j])
            predictions += predict(self.X[self.fold == k]) / len(others)
        found[self.fold == k] = self.Y[self.fold == k][:, kept] - predictions
        return found, len(chosen) - len(kept)

    def _among_others(self, k: int) -> tuple[Regression, list[int]]:
        """Return the regression of the target on the source among the folds but k, and the numbers of those."""
        joint = self.pair.joint
        others = [j for j in range(len(joint.split.parts)) if j != k]
        cells = {j: joint.split.parts[j].score for j in others}
        parts = tuple(Part(tuple(c for i in others if i != j for c in cells[i]), cells[j]) for j in others)
        split = replace(joint.split, parts=parts, block=torch.where(self.fold == k, -1, joint.split.block))
        inner = Joint(joint.groups, split, joint.labels, joint.sources, collect=lambda _: joint.cells)
        return Regression(inner, self.pair.source, self.pair.target, Options()), others


def _maps(regression: Regression, targets: Int[Tensor, " chosen"], choice) -> Iterator:
    """Yield every part's prediction of some targets from the source's values."""
    shift = regression.joint.cells[0].shift
    assert shift is not None
    at_source, at_target = shift[regression.source], shift[regression.target][targets]
    for W, centre in regression.maps(targets, choice.of(targets)):
        yield lambda X, W=W, centre=centre: (X - at_source) @ W + centre[0] + at_target
