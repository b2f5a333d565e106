"""FP(features): the test accuracy of a converged multinomial logistic regression on frozen features.

The penalty is chosen by log-loss on rows that no network trained on: held-out *training* rows cannot choose it,
the networks memorised them. Duzgun, Jelassi and Li (2024), definition 2.5, who train the probe by SGD with
augmentation.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from widthwise.columns import reader
from widthwise.errors import DataError, NumericsWarning, UsageError
from widthwise.linalg.intervals import wilson
from widthwise.linalg.logistic import LogisticPath, log_loss
from widthwise.linalg.probe_path import DECADES, TIE, path
from widthwise.measures.base import Score, accuracy_score
from widthwise.pairs import Pair
from widthwise.splits import Split, held_out, k_fold
from widthwise.words import for_json

VERSION = 3
COST = 25
NEEDS = frozenset({"features", "labels"})
INVARIANT_TO = frozenset(
    {
        "source rotation",
        "source scale",
        "source translation",
        "target rotation",
        "target column scale",
        "target translation",
    }
)
FOLDS = 5


@dataclass(frozen=True)
class ProbeAccuracy:
    """How often a linear probe of the features is right on rows that it was not fitted on.

    Attributes:
        value: share of test rows that are right; the headline. low, high: its 95 % interval over rows.
        log_loss: mean of -log probability of the label; infinite if a class has test rows and no rows to fit.
        penalty: the relative one of every choice, and by what they were chosen: "reserve", "halves" (each half
            of the test rows for the other), "folds" (the other folds), or "given".
        on_edge: number of choices on the edge of the grid.
        rows, rows_fit: rows scored, and rows of one fit. p, p_live: features, and those that vary.
        correct: (rows,) whether each test row is right, in their order.
    """

    value: float
    low: float
    high: float
    log_loss: float
    penalty: tuple[float, ...]
    chosen_by: str
    on_edge: int
    rows: int
    rows_fit: int
    p: int
    p_live: int
    classes: int
    interval_over: str = "rows"
    method: str = "Wilson"
    correct: Bool[Tensor, " rows"] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        penalty = " and ".join(f"{q:g}" for q in sorted(set(self.penalty)))
        return (
            f"a linear probe of {self.p} features is right on {100 * self.value:.1f} % "
            f"[{100 * self.low:.1f}, {100 * self.high:.1f}] of {self.rows} rows that it was not fitted on; "
            f"{self.rows_fit} rows to fit, penalty {penalty}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON: NaN and infinity become None."""
        return for_json({f.name: getattr(self, f.name) for f in fields(self) if f.name != "correct"})

    def to_frame(self):
        """Return one row a test row as a pandas DataFrame (needs pandas, which Widthwise does not)."""
        import pandas

        return pandas.DataFrame({"correct": [] if self.correct is None else self.correct.tolist()})

    def _repr_html_(self) -> str:
        shown = ("value", "low", "high", "log_loss", "rows", "rows_fit", "p", "p_live")
        cells = "".join(f"<tr><th>{name}</th><td>{getattr(self, name):.4g}</td></tr>" for name in shown)
        return f"<table><caption>{self}</caption>{cells}</table>"


def probe_accuracy(
    features: Any,
    labels: Any,
    *,
    test_features: Any = None,
    test_labels: Any = None,
    reserve_features: Any = None,
    reserve_labels: Any = None,
    penalties: Sequence[float] | None = None,
    classes: int | None = None,
) -> ProbeAccuracy:
    """Return how often a linear probe, fitted on the features and labels, is right on test rows.

    Args:
        features: (rows, p): torch, numpy, a memory map, `concatenate(...)`, or an iterable of batches.
        labels: (rows,) classes, whole numbers from 0.
        test_features: (test rows, p) what is scored. Left out, the rows themselves are, in five folds: of
            features of a network, only rows that it did not train on are fair.
        test_labels: (test rows,).
        reserve_features: (reserve rows, p) rows of neither, which choose the penalty. Left out, one half of the
            test rows chooses for the other.
        reserve_labels: (reserve rows,).
        penalties: relative ridge penalties to choose from, or the one to use; 100 to 1e-6 if left out.
        classes: number of classes; the largest label + 1 if left out.

    Raises:
        UsageError: for options that cannot be.
        DataError: for features that are not finite, labels out of range, or rows that do not match.

    Example:
        >>> import torch
        >>> rows = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
        >>> labels = rows[:, 0] + rows[:, 1] > rows[:, 2] * rows[:, 3]
        >>> probe_accuracy(rows[:200], labels[:200], test_features=rows[200:], test_labels=labels[200:]).value
        0.815
    """
    groups = _groups((features, labels), (reserve_features, reserve_labels), (test_features, test_labels))
    X, y = (torch.cat([group[k] for group in groups.values()]) for k in (0, 1))
    if not X.shape[1]:
        raise DataError("features has no columns; there must be some.")
    classes = int(y.max()) + 1 if classes is None else classes
    _check_labels({name: group[1] for name, group in groups.items()}, classes)
    parts, chosen_by = _parts({name: len(group[1]) for name, group in groups.items()})
    grid = DECADES if penalties is None else tuple(sorted({float(q) for q in penalties}, reverse=True))
    found = probe(X, y, parts, classes, grid, crossed=chosen_by == "folds")
    _warn(found, grid)
    scored = torch.stack([part.score for part in parts]).any(0)
    correct = (found.logits.argmax(1) == y)[scored]
    over = wilson(int(correct.sum()), len(correct))
    return ProbeAccuracy(
        over.value,
        over.low,
        over.high,
        float(log_loss(found.logits[scored], y[scored])),
        found.penalties,
        "given" if len(grid) == 1 else chosen_by,
        found.on_edge,
        rows=len(correct),
        rows_fit=int(parts[0].fit.sum()),
        p=X.shape[1],
        p_live=found.live,
        classes=classes,
        correct=correct,
    )


def measure(pair: Pair, *, rows: str = "train", penalty: float | None = None) -> Score:
    """Return the accuracy of a probe of the source's features, on the scored rows of the split.

    Args:
        pair: its split is that of probes: cell 0 holds the rows that trained the networks, cells 1 to 5 folds of
            unseen rows, of which those with a block (test rows) are scored and the others (the reserve) choose.
        rows: "train": fitted on the rows that trained the networks, the penalty chosen on the reserve, or with
            none on one half of the test rows for the other; "unseen": fitted on four folds of unseen rows and
            scored on the fifth, the penalty chosen on the other folds' held-out rows.
        penalty: a relative penalty used as given, instead of a choice.

    Raises:
        UsageError: if `rows` is neither.
    """
    if rows not in ("train", "unseen"):
        raise UsageError(f'a probe is fitted on rows "train" or "unseen", not "{rows}".')
    joint = pair.joint
    assert joint.labels is not None, "a probe needs labels"
    X, cell, block = pair.rows_of(pair.source), joint.split.cell, joint.split.block
    parts = _train_parts(cell, block) if rows == "train" else _unseen_parts(cell)
    grid = DECADES if penalty is None else (penalty,)
    found = probe(X, joint.labels, parts, joint.classes, grid, crossed=rows == "unseen")
    return accuracy_score(
        found.logits.argmax(1) == joint.labels,
        joint,
        penalty=float(torch.tensor(found.penalties, dtype=torch.float64).median()),
        on_edge=found.on_edge,
        n_fit=int(parts[0].fit.sum()),
        p=X.shape[1],
        p_live=found.live,
    )


# The probe ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """The rows of one fit, those that choose its penalty, and those that it is scored on."""

    fit: Bool[Tensor, " rows"]
    select: Bool[Tensor, " rows"]
    score: Bool[Tensor, " rows"]


@dataclass(frozen=True)
class Probe:
    """The probe's logits of every scored row (NaN elsewhere), and the penalty chosen in every part."""

    logits: Float[Tensor, "rows classes"]
    penalties: tuple[float, ...]
    on_edge: int
    live: int


def probe(
    X: Float[Tensor, "rows features"],
    labels: Int[Tensor, " rows"],
    parts: Sequence[Part],
    classes: int,
    penalties: Sequence[float],
    *,
    crossed: bool = False,
) -> Probe:
    """Return the probe's logits: in every part a fit, at the penalty of least log-loss, ties to the larger.

    Args:
        X: features of all rows.
        labels: class of every row.
        parts: which rows fit, choose and are scored; parts that fit on the same tensor of rows share the fit.
        classes: number of classes.
        penalties: relative and decreasing.
        crossed: choose in every part by the *other* parts' losses on their own chosen rows.
    """
    fitted: dict[int, tuple[LogisticPath, dict[int, list[float]]]] = {}
    for part in parts:
        if id(part.fit) not in fitted:
            choosing = {k: other.select for k, other in enumerate(parts) if other.fit is part.fit}
            fitted[id(part.fit)] = path(X, labels, part.fit, choosing, classes, penalties)
    curves = [fitted[id(part.fit)][1][k] for k, part in enumerate(parts)]
    losses = torch.tensor([curve[: min(map(len, curves))] for curve in curves], dtype=torch.float64)
    found = torch.full((len(X), classes), math.nan, dtype=torch.float64)
    chosen = []
    for k, part in enumerate(parts):
        loss = losses.sum(0) - losses[k] if crossed else losses[k]
        best = int((loss <= loss.min() * (1 + TIE)).nonzero()[0])
        found[part.score] = fitted[id(part.fit)][0].logits(X[part.score], best)
        chosen.append(best)
    on_edge = sum(best in (0, len(penalties) - 1) for best in chosen) if len(penalties) > 1 else 0
    live = min(own.live for own, _ in fitted.values())
    return Probe(found, tuple(float(penalties[best]) for best in chosen), on_edge, live)


# Which rows ---------------------------------------------------------------------------------------------


def _train_parts(cell: Int[Tensor, " rows"], block: Int[Tensor, " rows"]) -> list[Part]:
    """Return the reserve selecting for all test rows, or their halves for each other."""
    fit, scored = cell == 0, block >= 0
    reserve = ~fit & ~scored
    if bool(reserve.any()):
        return [Part(fit, reserve, scored)]
    first = scored & (block <= int(block.max()) // 2)
    second = scored & ~first
    return [Part(fit, second, first), Part(fit, first, second)]


def _unseen_parts(cell: Int[Tensor, " rows"]) -> list[Part]:
    """Return every fold of unseen rows, fitted on the others; a fold selects for the others."""
    folds = range(1, int(cell.max()) + 1)
    return [Part((cell > 0) & (cell != k), cell == k, cell == k) for k in folds]


def _parts(sizes: dict[str, int]) -> tuple[list[Part], str]:
    """Return the parts of rows that lie in the order features, reserve, test, and what chooses the penalty."""
    n = sizes["features"]
    if "test_features" not in sizes:
        split = k_fold("unseen", torch.arange(n), FOLDS)
        return [Part(fit, score, score) for fit, score in _cells(split)], "folds"
    m = sizes["test_features"]
    if "reserve_features" in sizes:
        group = torch.repeat_interleave(torch.arange(3), torch.tensor([n, sizes["reserve_features"], m]))
        return [Part(group == 0, group == 1, group == 2)], "reserve"
    (fit, first), (_, second) = _cells(held_out("test", torch.arange(n), torch.arange(n, n + m)))
    return [Part(fit, second, first), Part(fit, first, second)], "halves"


def _cells(split: Split) -> list[tuple[Tensor, Tensor]]:
    """Return the rows of every part of a split that fit, and those that are scored."""
    cells = [(torch.tensor(part.fit), torch.tensor(part.score)) for part in split.parts]
    return [(torch.isin(split.cell, fit), torch.isin(split.cell, score)) for fit, score in cells]


# The door -----------------------------------------------------------------------------------------------


def _groups(fit: tuple, reserve: tuple, test: tuple) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the groups of rows that were given, as tensors, checked against each other."""
    named = {"features": fit, "reserve_features": reserve, "test_features": test}
    for name, (X, y) in named.items():
        if (X is None) != (y is None):
            raise UsageError(f"{name} and {_labels_of(name)} belong together; pass both or neither.")
    if reserve[0] is not None and test[0] is None:
        raise UsageError("reserve rows choose the penalty for test rows; pass test_features and test_labels too.")
    groups = {}
    for name, (X, y) in named.items():
        if X is not None:
            rows = _rows(name, X)
            groups[name] = (rows, _classes(_labels_of(name), y, len(rows)))
    columns = {name: X.shape[1] for name, (X, _) in groups.items()}
    if len(set(columns.values())) > 1:
        told = ", ".join(f"{name} has {p}" for name, p in columns.items())
        raise DataError(f"all rows must have the same features; {told}.")
    return groups


def _labels_of(name: str) -> str:
    return name.replace("features", "labels")


def _classes(name: str, labels: Any, n: int) -> Int[Tensor, " rows"]:
    found = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if found.shape != (n,):
        raise DataError(f"{name} has shape {found.shape}; there must be one label for each of the {n} rows.")
    if found.dtype.kind not in "biu":
        raise DataError(
            f"{name} must be whole numbers from 0, not {found.dtype}; "
            "numpy.unique(labels, return_inverse=True)[1] numbers any labels."
        )
    return torch.from_numpy(found.astype(np.int64))


def _check_labels(groups: dict[str, Tensor], classes: int) -> None:
    for name, labels in groups.items():
        wrong = ((labels < 0) | (labels >= classes)).nonzero()
        if len(wrong):
            row, allowed = int(wrong[0]), f"{classes} classes are numbered 0 to {classes - 1}"
            raise DataError(f"{_labels_of(name)}: label {int(labels[row])} in row {row} is out of range; {allowed}.")


def _rows(name: str, features: Any) -> Float[Tensor, "rows columns"]:
    rows = torch.cat(list(reader(features).batches())).cpu()
    if not rows.is_floating_point():
        rows = rows.to(torch.float32)
    bad = (~rows.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(f"{name}: row {row}, column {column} is {float(rows[row, column])}; features must be finite.")
    return rows


def _warn(found: Probe, grid: Sequence[float]) -> None:
    if found.on_edge:
        warnings.warn(
            f"the best penalty is on the edge of the grid ({grid[-1]:g} to {grid[0]:g}) in {found.on_edge} of "
            f"{len(found.penalties)} choices; pass penalties= with a wider grid, or look at features that say nothing.",
            NumericsWarning,
            stacklevel=3,
        )
