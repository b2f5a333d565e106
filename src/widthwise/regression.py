"""Ridge regression of one group of a joint on others, held out and cross-fitted: every part chooses elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from widthwise.errors import UsageError
from widthwise.linalg import ridge
from widthwise.pairs import BLOCKS, Joint


@dataclass(frozen=True)
class Options:
    """How a regression is done; see `measures.span_error.span_error`."""

    penalties: tuple[float, ...] = ridge.HALF_DECADES
    interpolate: bool = True
    per_target: bool = True
    standardize: bool = False
    within_class: bool = False

    def __post_init__(self):
        if not self.penalties or any(not (0 <= p < float("inf")) for p in self.penalties):
            raise UsageError(f"penalties must be at least one number, 0 or above and finite, not {self.penalties!r}.")
        if self.interpolate and len(self.penalties) >= 4 and min(self.penalties) == 0:
            raise UsageError("a penalty of 0 has no logarithm to interpolate; pass interpolate=False.")


@dataclass(frozen=True)
class Choice:
    """The held-out error of every target at penalties chosen on the other parts, and those penalties."""

    error: Float[Tensor, " targets"]
    optima: tuple[ridge.Optimum, ...]

    @property
    def penalty(self) -> Float[Tensor, " targets"]:
        """The median over parts of every target's penalty; infinity where the mean was best."""
        return torch.stack([o.penalty for o in self.optima]).median(0).values

    def on_edge(self, of: Bool[Tensor, " targets"]) -> int:
        """Return how many targets have an optimum on the grid's edge in some part."""
        return int((torch.stack([o.on_edge for o in self.optima]).any(0) & of).sum())


class Regression:
    """Groups of a joint regressed on one source, for every part of the split and every penalty.

    Args:
        source: names of the groups that make up the source.
        targets: names of the groups that are regressed on it, all at once.
        size: "fit" for all rows that fit; "half" and "quarter" for nested shares of them.
    """

    def __init__(
        self, joint: Joint, source: Sequence[str], targets: Sequence[str], options: Options, size: str = "fit"
    ):
        self.joint, self.options, self.size = joint, options, size
        self.source = torch.cat([joint.columns[name] for name in source])
        self.target = torch.cat([joint.columns[name] for name in targets])
        self.labels = joint.label_columns if options.within_class else None
        self.penalties, order = torch.tensor(options.penalties, dtype=torch.float64).sort()
        self.given_order = order.argsort()  # row of the sorted path for each penalty as given

    def local(self, names: Sequence[str]) -> Int[Tensor, " targets"]:
        """Return where the columns of some target groups lie among all targets of the joint."""
        place = {int(column): k for k, column in enumerate(self.target)}
        return torch.tensor([place[int(c)] for name in names for c in self.joint.columns[name]])

    @cached_property
    def fits(self) -> tuple[ridge.Ridge, ...]:
        """One fit a part; parts that fit on the same rows share it."""
        made: dict[tuple[int, ...], ridge.Ridge] = {}
        for part in self.joint.split.parts:
            cells = getattr(part, self.size)
            if cells not in made:
                moments = self.joint.moments(cells)
                made[cells] = ridge.fit(
                    moments, self.source, self.target, labels=self.labels, standardize=self.options.standardize
                )
        return tuple(made[getattr(part, self.size)] for part in self.joint.split.parts)

    @cached_property
    def squares(self) -> Float[Tensor, " targets"]:
        """Sums of squares of every target over all scored rows, about their mean or their class's."""
        moments = self.joint.moments(self.joint.split.score_cells)
        own = ridge.strata(moments, self.labels)
        return ridge.squares_about(moments, own, own.means, self.target)

    @cached_property
    def _held_out(self) -> tuple[Float[Tensor, "parts penalties targets"], Float[Tensor, "parts targets"]]:
        """Errors relative to `squares`: at every penalty, and at an infinite one."""
        curves, means = [], []
        scale = torch.where(self.squares > 0, self.squares, 1.0)
        for part, fit in zip(self.joint.split.parts, self.fits, strict=True):
            scored = self.joint.moments(part.score)
            errors, at_infinity = ridge.held_out_errors(
                fit, scored, self.source, self.target, self.penalties, self.labels
            )
            curves.append(errors / scale)
            means.append(at_infinity / scale)
        return torch.stack(curves), torch.stack(means)

    def path(self) -> Float[Tensor, "penalties targets"]:
        """Return every target's pooled error at each penalty, in the order they were given."""
        return self._held_out[0].sum(0)[self.given_order]

    def choose(self, targets: Int[Tensor, " chosen"]) -> Choice:
        """Return some targets' errors, each part's at the penalty that is best on the *other* parts.

        A shared penalty (`per_target=False`) is the best for the sum of all the targets' squared errors.
        """
        curves, means = self._held_out[0][:, :, targets], self._held_out[1][:, targets]
        grid, interpolate = self.penalties, self.options.interpolate
        error = torch.zeros(len(targets), dtype=torch.float64)
        optima = []
        for k in range(len(curves)):
            others = [j for j in range(len(curves)) if j != k]
            curve, at_infinity = curves[others].sum(0), means[others].sum(0)
            if not self.options.per_target:
                weight = self.squares[targets]
                curve, at_infinity = (curve @ weight)[:, None], (at_infinity @ weight)[None]
            optimum = ridge.best_penalty(curve, at_infinity, grid, interpolate)
            if not self.options.per_target:
                optimum = ridge.Optimum(*(x.expand(len(targets)) for x in vars(optimum).values()))
            error += ridge.error_at(curves[k], means[k], grid, optimum, interpolate)
            optima.append(optimum)
        return Choice(error, tuple(optima))

    def degrees(self, choice: Choice, of: Bool[Tensor, " targets"]) -> float:
        """Return the effective degrees of freedom, averaged over parts and some of the chosen targets."""
        each = [f.degrees(o.penalty)[of] for f, o in zip(self.fits, choice.optima, strict=True)]
        return float(torch.stack(each).mean()) if bool(of.any()) else float("nan")

    def block_sums(
        self, targets: Int[Tensor, " chosen"], choice: Choice
    ) -> tuple[Float[Tensor, "blocks targets"], Float[Tensor, "blocks targets"]]:
        """Return sums of squared error, and of squares about the mean, of every block of scored rows.

        One prediction pass, at the grid points nearest to the chosen penalties.
        """
        joint, split, columns = self.joint, self.joint.split, self.target[targets]
        shift = joint.cells[0].shift
        assert shift is not None
        nodes = torch.cat([self.penalties, torch.tensor([torch.inf], dtype=torch.float64)])
        weights = [f.weights(nodes[o.node], targets) for f, o in zip(self.fits, choice.optima, strict=True)]
        centre = joint.moments(split.score_cells).mean[columns]
        errors = torch.zeros(BLOCKS, len(targets), dtype=torch.float64)
        totals = torch.zeros_like(errors)
        for rows, start in joint.batches():
            cell, block = (x[start : start + len(rows)] for x in (split.cell, split.block))
            for part, fit, W in zip(split.parts, self.fits, weights, strict=True):
                own = torch.isin(cell, torch.tensor(part.score))
                X, Y = rows[own][:, self.source], rows[own][:, columns]
                mean = shift + fit.means[0]
                residual = Y - mean[columns] - (X - mean[self.source]) @ W
                errors.index_add_(0, block[own], residual.square())
                totals.index_add_(0, block[own], (Y - centre).square())
        return errors, totals
