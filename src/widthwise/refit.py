"""Rows dealt to folds as they come, and one ridge regression of them all: held-out errors choose, a refit answers."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise import seeds
from widthwise.columns import CHUNK
from widthwise.errors import DataError, NumericsWarning
from widthwise.linalg import intake, krylov, ridge
from widthwise.linalg.moments import Moments, merged
from widthwise.linalg.penalty_path import Optimum
from widthwise.regression import Options, choose, optimum

ROUNDS = 1024  # of dealing rows to folds that one random stream serves


class Dealt:
    """A stream of rows, dealt to folds: their moments, [features | targets], one of each fold."""

    def __init__(self, folds: int, features: int, targets: int, device: torch.device):
        columns, kind = features + targets, {"crossed": features, "powered": features, "device": device}
        self.features, self.device, self.rows = features, device, 0
        self.cells = [Moments(columns, **kind) for _ in range(folds)]

    def add(self, X: Any, Y: Any) -> None:
        """Add rows, a few at a time."""
        for start in range(0, len(X), CHUNK):
            some = slice(start, start + CHUNK)
            rows = torch.cat([double(X[some], self.device), double(Y[some], self.device)], 1)
            if not self.rows:  # All folds take their sums about one point, so that they merge cheaply.
                for cell in self.cells:
                    cell.shift = rows.mean(0)
            fold = dealt(self.rows, len(rows), len(self.cells)).to(self.device)
            for k, cell in enumerate(self.cells):
                cell.update(rows[fold == k])
            self.rows += len(rows)


def dealt(first: int, count: int, folds: int) -> Int[Tensor, " rows"]:
    """Return the folds of some rows of a stream, from number `first` on.

    Every `folds` rows are dealt one to each fold, in an order that is drawn anew: seeded, balanced wherever the
    stream stops, and known without how long it will be.
    """
    size = ROUNDS * folds
    start = first // size
    rounds = [
        torch.rand(ROUNDS, folds, generator=seeds.stream(0, "dealt rows", k)).argsort(dim=1, stable=True).flatten()
        for k in range(start, -(-(first + count) // size))
    ]
    return torch.cat(rounds)[first - start * size :][:count]


def double(rows: Any, device: str | torch.device) -> Float[Tensor, "rows columns"]:
    """Return rows in float64 on a device; of numpy a copy, since they may be read-only or of a foreign byte order."""
    if isinstance(rows, Tensor):
        return rows.to(device, torch.float64)
    return torch.from_numpy(np.array(rows, dtype=np.float64)).to(device)


@dataclass(frozen=True)
class Solution:
    """Coefficients of all rows, and what chose them; attributes of `SpanRegressor` say more."""

    coef: Float[Tensor, "targets features"]
    intercept: Float[Tensor, " targets"]
    penalty: Float[Tensor, " targets"]
    absolute: Float[Tensor, " targets"]
    error: Float[Tensor, " targets"]


def solve(cells: Sequence[Moments], features: int, options: Options) -> Solution:
    """Return the ridge regression of the last columns on the first, from the moments of two folds or more."""
    if len(cells) < 2:
        raise DataError("there is one row (n_samples = 1); cross-validation needs 2 or more.")
    everything = merged(cells)
    source, target = torch.arange(features), torch.arange(features, everything.columns)
    for name, own in (("X", source), ("y", target)):
        if told := intake.scale_told(everything.squares[own], everything.low[own], everything.high[own]):
            raise DataError(f"{name}: numbers are {told}")
    held_out = _HeldOut(cells, source, target, everything.centred_squares[target].cpu(), options)
    best, error = held_out.best(), held_out.error()
    _warn(best, held_out.squares > 0)
    # Principal directions, which smallest=0 asks for, serve as many penalties as there are targets at once.
    smallest = 0.0 if features <= krylov.FROM else float(held_out.penalties[0])
    fit = ridge.fit(everything, source, target, standardize=options.standardize, smallest=smallest)
    finite, own = best.penalty.isfinite(), _scale(fit, everything, options)
    absolute = torch.where(finite, best.penalty * held_out.scale, torch.inf)
    penalty = torch.where(finite, absolute / (own or 1.0), torch.inf)
    _certify(fit, penalty, everything)
    W, mean = fit.weights(penalty, torch.arange(len(target))), everything.mean
    return Solution(W.T, mean[target] - mean[source] @ W, best.penalty, absolute, error)


class _HeldOut:
    """The errors of every fold's rows, fitted on the other folds' rows, at all penalties; on the CPU.

    Attributes:
        squares: of all rows about their mean; errors are relative to them.
        curves, means: errors at all penalties, and at an infinite one.
        scale: what penalties are relative to, the average over the folds' fits.
    """

    def __init__(
        self,
        cells: Sequence[Moments],
        source: Int[Tensor, " source"],
        target: Int[Tensor, " targets"],
        squares: Float[Tensor, " targets"],
        options: Options,
    ):
        self.cells, self.source, self.target, self.squares, self.options = cells, source, target, squares, options
        self.penalties = torch.tensor(sorted(options.penalties), dtype=torch.float64)
        self.total = torch.where(squares > 0, squares, 1.0)
        self.fits: list[ridge.Ridge] = []
        curves, means, scales = [], [], []
        for k in range(len(cells)):
            others = merged(other for j, other in enumerate(cells) if j != k)
            how = {"standardize": options.standardize, "smallest": float(self.penalties[0])}
            self.fits.append(ridge.fit(others, source, target, **how))
            scales.append(_scale(self.fits[k], others, options))
            held_out = self._fold(k, len(self.penalties))  # of one fold at a time: they are large
            curves.append(held_out.errors(self.penalties).cpu() / self.total)
            means.append(held_out.squares.cpu() / self.total)
        self.curves, self.means, self.scale = torch.stack(curves), torch.stack(means), sum(scales) / len(scales)

    def best(self) -> Optimum:
        """Return the penalties with the least error on all folds."""
        return optimum(self.curves.sum(0), self.means.sum(0), self.squares, self.penalties, self.options)

    def error(self) -> Float[Tensor, " targets"]:
        """Return the error of every target, each fold's at the penalty that is best on the others."""
        found = choose(self.curves, self.means, self.squares, self.penalties, self.options, self._exactly)
        return torch.where(self.squares > 0, found.error, torch.nan)

    def _exactly(self, k: int, penalty: float) -> Float[Tensor, " targets"]:
        return self._fold(k, 1).errors(torch.tensor([penalty], dtype=torch.float64))[0].cpu() / self.total

    def _fold(self, k: int, penalties: int) -> ridge.HeldOut:
        return ridge.held_out(self.fits[k], self.cells[k], self.source, self.target, penalties=penalties)


def _scale(fit: ridge.Ridge, moments: Moments, options: Options) -> float:
    """Return what a fit's penalties are relative to; of standardised features, as if each had a variance of 1.

    The fit has them as large as the largest, the first that is live: that is another in every fold.
    """
    if not options.standardize or not len(fit.live):
        return fit.scale
    return fit.scale * moments.n / float(moments.centred_squares[fit.live[0]])


def _certify(fit: ridge.Ridge, penalty: Float[Tensor, " targets"], moments: Moments) -> None:
    """Warn where weights are not exact, to a tolerance."""
    certificate = fit.certificate(penalty, torch.arange(len(penalty)))
    if certificate is None:
        return
    squares = moments.centred_squares[-len(penalty) :]
    excess = float((certificate.excess * moments.n / torch.where(squares > 0, squares, torch.inf)).amax())
    if excess > krylov.TOLERANCE:
        told = krylov.told(float(certificate.residual.amax()), excess, len(fit.live))
        warnings.warn(told, NumericsWarning, stacklevel=5)


def _warn(best: Optimum, varies: Tensor) -> None:
    count = int((best.on_edge & varies).sum())
    if count:
        told = f"the best penalty of {count} targets is on the grid's edge; pass penalties= with a wider grid."
        warnings.warn(told, NumericsWarning, stacklevel=5)
