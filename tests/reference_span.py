"""Slow truths of the span error, in numpy and scipy: explicit folds, the augmented design's SVD, no second moments."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from widthwise.splits import Split


@dataclass(frozen=True)
class Truth:
    """Errors of every part, penalty and target, over the sums of squares of all scored rows."""

    penalties: np.ndarray
    curves: np.ndarray  # (parts, penalties, targets)
    means: np.ndarray  # (parts, targets): an infinite penalty
    squares: np.ndarray  # (targets,)

    @property
    def path(self) -> np.ndarray:
        return self.curves.sum(0)


def truth(X, Y, split: Split, penalties, labels=None, standardize=False, size="fit") -> Truth:
    """Return the errors by definition, a fit for every part and penalty."""
    X, Y = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    rows = [(rows_of(split, getattr(part, size)), rows_of(split, part.score)) for part in split.parts]
    scored = np.concatenate([score for _, score in rows])
    squares = (about(Y, scored, scored, labels) ** 2).sum(0)
    curves = np.zeros((len(rows), len(penalties), Y.shape[1]))
    means = np.zeros((len(rows), Y.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        for k, (fit, score) in enumerate(rows):
            means[k] = (about(Y, fit, score, labels) ** 2).sum(0) / squares
            for j, penalty in enumerate(penalties):
                residual = residuals(X, Y, fit, score, penalty, labels, standardize)
                curves[k, j] = (residual**2).sum(0) / squares
    return Truth(np.asarray(penalties, float), curves, means, squares)


def error_at(X, Y, split: Split, chosen, squares) -> np.ndarray:
    """Return the errors at one penalty for every part, (parts, targets), by definition."""
    error = np.zeros(Y.shape[1])
    for part, penalties in zip(split.parts, chosen, strict=True):
        fit, score = (rows_of(split, cells) for cells in (part.fit, part.score))
        each = [(residuals(X, Y[:, [j]], fit, score, q) ** 2).sum() for j, q in enumerate(penalties)]
        error += np.array(each) / squares
    return error


def residuals(X, Y, fit, score, penalty, labels=None, standardize=False) -> np.ndarray:
    """Return the scored rows' targets less their prediction, for one relative penalty (infinity: the mean)."""
    A, B = about(X, fit, fit, labels), about(Y, fit, fit, labels)
    As, Bs = about(X, fit, score, labels), about(Y, fit, score, labels)
    if np.isinf(penalty):
        return Bs
    live = X[fit].max(0) != X[fit].min(0)
    A[:, ~live], As[:, ~live] = 0, 0
    if standardize:
        deviation = np.sqrt((A**2).sum(0))
        scale = np.maximum(deviation, 1e-3 * deviation.max())
        A, As = A / scale, As / scale
    absolute = penalty * (A**2).sum() / max(live.sum(), 1)
    return Bs - As @ ridge(A, B, absolute)


def ridge(A, B, penalty: float) -> np.ndarray:
    """Return the weights that minimise |B - A W|^2 + penalty |W|^2, by the SVD of [A; sqrt(penalty) I]."""
    p = A.shape[1]
    U, s, Vt = np.linalg.svd(np.vstack([A, np.sqrt(penalty) * np.eye(p)]), full_matrices=False)
    kept = s > 1e-15 * s.max(initial=0) * max(A.shape)
    return (Vt.T[:, kept] / s[kept]) @ (U.T[kept] @ np.vstack([B, np.zeros((p, B.shape[1]))]))


def about(Z, by, rows, labels=None) -> np.ndarray:
    """Return some rows less the mean of the rows `by`, or, with labels, less their class's mean in them."""
    if labels is None:
        return Z[rows] - Z[by].mean(0)
    centred = np.empty_like(Z[rows])
    for label in np.unique(labels):
        of_class = by[labels[by] == label]
        centred[labels[rows] == label] = Z[rows][labels[rows] == label] - Z[of_class if len(of_class) else by].mean(0)
    return centred


def rows_of(split: Split, cells) -> np.ndarray:
    """Return the numbers of the rows in some cells."""
    return np.flatnonzero(np.isin(split.cell.numpy(), cells))


def choose(truth: Truth, interpolate=False, per_target=True) -> tuple[np.ndarray, np.ndarray]:
    """Return (errors, penalties by (part, target)): every part's at the penalty that is best on the others."""
    error, chosen = np.zeros(len(truth.squares)), np.zeros(truth.means.shape)
    for k in range(len(truth.curves)):
        curve, mean = (np.delete(x, k, 0).sum(0) for x in (truth.curves, truth.means))
        if not per_target:
            curve = np.broadcast_to((curve @ truth.squares)[:, None], curve.shape)
            mean = np.broadcast_to(mean @ truth.squares, mean.shape)
        for j in range(len(error)):
            best = _best(truth.penalties, curve[:, j], interpolate)
            if mean[j] < _at(truth.penalties, curve[:, j], best, interpolate):
                error[j] += truth.means[k, j]
                chosen[k, j] = np.inf
            else:
                error[j] += _at(truth.penalties, truth.curves[k, :, j], best, interpolate)
                chosen[k, j] = best
    return error, chosen


def support(Y, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return which targets are constant, and which are supported."""
    fit = np.concatenate([rows_of(split, part.fit) for part in split.parts])
    fit, score = np.unique(fit), np.concatenate([rows_of(split, part.score) for part in split.parts])
    constant = Y[fit].max(0) == Y[fit].min(0)
    deviation = Y[fit].std(0)
    typical = np.median(deviation[~constant]) if (~constant).any() else 0
    enough = np.minimum(effective_rows(Y[fit]), effective_rows(Y[score])) >= 20
    return constant, ~constant & enough & (deviation > 1e-6 * typical)


def effective_rows(Y) -> np.ndarray:
    """Return (sum c^2)^2 / sum c^4 of every centred column."""
    c = Y - Y.mean(0)
    constant = Y.max(0) == Y.min(0)
    return np.where(constant, 0, (c**2).sum(0) ** 2 / np.where(constant, 1, (c**4).sum(0)))


def _best(penalties, curve, interpolate) -> float:
    if not interpolate:
        return penalties[curve.argmin()]
    spline = _spline(penalties, curve)
    turns = spline.derivative().roots(discontinuity=False, extrapolate=False)
    return float(np.exp(min([*np.log(penalties), *turns[np.isfinite(turns)]], key=spline)))


def _at(penalties, curve, penalty, interpolate) -> float:
    if not interpolate:
        return curve[np.flatnonzero(penalties == penalty)[0]]
    return float(np.exp(_spline(penalties, curve)(np.log(penalty))))


def _spline(penalties, curve) -> CubicSpline:
    return CubicSpline(np.log(penalties), np.log(np.maximum(curve, 1e-15)))
