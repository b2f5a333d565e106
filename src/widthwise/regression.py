"""Ridge regression of groups of a joint on others, held out and cross-fitted: every part chooses elsewhere."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from widthwise.errors import UsageError
from widthwise.linalg import half_square, intake, krylov, penalty_path, residuals, ridge, threads
from widthwise.linalg import strata as centring
from widthwise.linalg.moments import Moments
from widthwise.pairs import Joint


@dataclass(frozen=True)
class Options:
    """How a regression is done; see `measures.span_error.span_error`."""

    penalties: tuple[float, ...] = penalty_path.HALF_DECADES
    interpolate: bool = True
    per_target: bool = True
    standardize: bool = False
    within_class: bool = False

    def __post_init__(self):
        given, told = self.penalties, ", ".join(f"{p:g}" for p in self.penalties) or "none"
        if not given or any(not (0 <= p < float("inf")) for p in given):
            raise UsageError(f"penalties must be one or more finite numbers, each 0 or above; got {told}.")
        if self.interpolate and len(given) >= 4 and (min(given) == 0 or len(set(given)) < len(given)):
            raise UsageError(
                f"a curve through penalties needs each above 0 and none twice; got {told}. Leave those out, or "
                "pass interpolate=False to take the best of them as they are."
            )


def given(penalties: Any) -> tuple[float, ...]:
    """Return penalties that a caller gives as they are; half decades from 1e-9 to 10 for None."""
    if penalties is None:
        return penalty_path.HALF_DECADES
    try:
        return tuple(float(penalty) for penalty in penalties)
    except (TypeError, ValueError) as error:
        raise UsageError(f"penalties must be numbers in a list, such as [1e-6, 1e-3]; not {penalties!r}.") from error


@dataclass(frozen=True)
class Choice:
    """The held-out error of every target at penalties chosen on the other parts, and those penalties."""

    error: Float[Tensor, " targets"]
    optima: tuple[penalty_path.Optimum, ...]

    @property
    def penalty(self) -> Float[Tensor, " targets"]:
        """The median over parts of every target's penalty; infinity where the mean was best."""
        return torch.stack([o.penalty for o in self.optima]).median(0).values

    def on_edge(self, of: Bool[Tensor, " targets"]) -> int:
        """Return how many targets have an optimum on the grid's edge in some part."""
        return int((torch.stack([o.on_edge for o in self.optima]).any(0) & of).sum())

    def of(self, targets: Int[Tensor, " chosen"]) -> "Choice":
        """Return the choice of some of the targets."""
        optima = [penalty_path.Optimum(o.penalty[targets], o.node[targets], o.on_edge[targets]) for o in self.optima]
        return Choice(self.error[targets], tuple(optima))


def optimum(
    curve: Float[Tensor, "penalties targets"],
    mean: Float[Tensor, " targets"],
    squares: Float[Tensor, " targets"],
    penalties: Float[Tensor, " penalties"],
    options: Options,
) -> penalty_path.Optimum:
    """Return the penalties with the least error: of each target, or of all together.

    Args:
        curve: errors relative to `squares`; `mean` those at an infinite penalty.
        penalties: in increasing order.
    """
    if options.per_target:
        return penalty_path.best_penalty(curve, mean, penalties, options.interpolate)
    weight = squares / squares.sum().clamp_min(1e-300)
    together = (curve @ weight)[:, None], (mean @ weight)[None]
    shared = penalty_path.best_penalty(*together, penalties, options.interpolate)
    return penalty_path.Optimum(*(x.expand(len(weight)) for x in vars(shared).values()))


def choose(
    curves: Float[Tensor, "parts penalties targets"],
    means: Float[Tensor, "parts targets"],
    squares: Float[Tensor, " targets"],
    penalties: Float[Tensor, " penalties"],
    options: Options,
    exactly: Callable[[int, float], Float[Tensor, " targets"]] | None = None,
) -> Choice:
    """Return every target's error, each part's at the penalty that is best on the *other* parts.

    Args:
        curves: errors of every part, relative to the sum of `squares` over all scored rows; `means` those of the
            fit's mean, an infinite penalty.
        penalties: in increasing order.
        exactly: returns the errors of a part at one penalty. A shared one is not read off the parts' curves: splines
            of single targets' logarithms do not add up; a rotation of the targets would move their sum.
    """

    def own(k: int) -> tuple[Float[Tensor, " targets"], penalty_path.Optimum]:
        curve, mean, others = curves[k], means[k], [j for j in range(len(curves)) if j != k]
        best = optimum(curves[others].sum(0), means[others].sum(0), squares, penalties, options)
        shared = None if options.per_target or not len(mean) else float(best.penalty[0])
        if shared is None or math.isinf(shared):
            return penalty_path.error_at(curve, mean, penalties, best, options.interpolate), best
        assert exactly is not None, "a shared penalty, and nothing that knows the errors at it"
        return exactly(k, shared), best

    errors, optima = zip(*threads.each(own, range(len(curves)), threads.count(curves.device)), strict=True)
    return Choice(torch.stack(errors).sum(0), optima)


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
        self.sources, self.targets = tuple(source), tuple(targets)
        self.penalties, order = torch.tensor(options.penalties, dtype=torch.float64).sort()
        self.given_order = order.argsort()  # row of the sorted path for each penalty as given
        # The columns whose moments are read: source, labels, targets.
        p, labels = len(self.source), torch.arange(0)
        if options.within_class:
            assert joint.label_columns is not None, "a within-class regression needs labels"
            labels = joint.label_columns
        self._columns = torch.cat([self.source, labels, self.target])
        self._source, self._labels = torch.arange(p), p + torch.arange(len(labels)) if len(labels) else None
        self._target = p + len(labels) + torch.arange(len(self.target))

    def local(self, names: Sequence[str]) -> Int[Tensor, " targets"]:
        """Return where the columns of some target groups lie among those of all."""
        sizes = [len(self.joint.columns[name]) for name in self.targets]
        place = dict(zip(self.targets, torch.arange(sum(sizes)).split(sizes), strict=True))
        return torch.cat([place[name] for name in names])

    @cached_property
    def fits(self) -> tuple[ridge.Ridge, ...]:
        """One fit a part; parts that fit on the same rows share it."""
        own = self.joint.split.by_fit(self.size)
        options = {"standardize": self.options.standardize, "smallest": float(self.penalties[0])}

        def fit(cells: tuple[int, ...]) -> ridge.Ridge:
            return ridge.fit(self._moments(cells), self._source, self._target, labels=self._labels, **options)

        fits = zip(self._at_once(fit, list(own)), own.values(), strict=True)
        made = {k: found for found, parts in fits for k in parts}
        return tuple(made[k] for k in sorted(made))

    @property
    def squares(self) -> Float[Tensor, " targets"]:
        """Sums of squares of every target over all scored rows, about their mean or their class's.

        Exactly 0 for a target that does not vary on those rows, or not within a class.
        """
        return self._scored[1]

    def path(self) -> Float[Tensor, "penalties targets"]:
        """Return every target's pooled error at each penalty, in the order they were given."""
        return self._curves[0].sum(0)[self.given_order]

    def choose(self, targets: Int[Tensor, " chosen"]) -> Choice:
        """Return some targets' errors, each part's at the penalty that is best on the *other* parts.

        A shared penalty (`per_target=False`) is the best for the sum of all these targets' squared errors.
        """
        return self._each.of(targets) if self.options.per_target else self._choose(targets)

    def degrees(self, choice: Choice, of: Bool[Tensor, " targets"]) -> float:
        """Return the effective degrees of freedom, averaged over parts and some of the chosen targets."""
        each = [self._degrees(d, o)[of] for d, o in zip(self._degree_curves, choice.optima, strict=True)]
        return float(torch.stack(each).mean()) if bool(of.any()) else float("nan")

    def certificate(self, targets: Int[Tensor, " chosen"], choice: Choice) -> krylov.Certificate | None:
        """Return how far the chosen targets' fits may be from exact, the worst over parts; None where all are exact.

        At the grid points nearest to the chosen penalties; the excess is in variances of the target.
        """
        each = [f.certificate(self._nodes[o.node], targets) for f, o in zip(self.fits, choice.optima, strict=True)]
        known = [certificate for certificate in each if certificate is not None]
        if not known:
            return None
        residual, excess = (
            torch.stack([getattr(c, name) for c in known]).amax(0).cpu() for name in ("residual", "excess")
        )
        return krylov.Certificate(residual, excess / self._variance(targets))

    def rounding(self, targets: Int[Tensor, " chosen"], choice: Choice) -> Float[Tensor, " chosen"] | None:
        """Return about the most by which float32 products move the chosen targets' errors; None if they are float64.

        At the grid points nearest to the chosen penalties, the worst over parts; in variances of the target.
        """
        each = [f.rounding(self._nodes[o.node], targets) for f, o in zip(self.fits, choice.optima, strict=True)]
        known = [moved for moved in each if moved is not None]
        return torch.stack(known).amax(0).cpu() / self._variance(targets) if known else None

    def maps(
        self, targets: Int[Tensor, " chosen"], choice: Choice
    ) -> list[tuple[Float[Tensor, "source chosen"], Float[Tensor, "strata chosen"]]]:
        """Return every part's weights W, at the grid points nearest to the chosen penalties, and centres c of strata.

        About the moments' shift, the prediction of a row x of a stratum is x W + c: what the weights make of the
        fit's means is in c already.
        """

        def weights(part: tuple[ridge.Ridge, penalty_path.Optimum]) -> Tensor:
            fit, optimum = part
            return fit.weights(self._nodes[optimum.node], targets)

        each = self._at_once(weights, list(zip(self.fits, choice.optima, strict=True)))
        means = [f.means for f in self.fits]
        return [(W, m[:, self._target[targets]] - m[:, self._source] @ W) for W, m in zip(each, means, strict=True)]

    def block_sums(
        self, targets: Int[Tensor, " chosen"], choice: Choice
    ) -> tuple[Float[Tensor, "blocks chosen"], Float[Tensor, "blocks chosen"]]:
        """Return sums of squared error, and of squares about the mean, of every block of scored rows.

        One prediction pass, at the grid points nearest to the chosen penalties.
        """
        if not self.options.per_target:
            return self._block_sums(targets, choice)
        errors, totals = self._each_block
        return errors[:, targets], totals[:, targets]

    @cached_property
    def _degree_curves(self) -> list[Float[Tensor, " penalties"]]:
        """The effective degrees of freedom of every part's fit at every penalty: no target changes them."""
        own = {id(fit): fit for fit in self.fits}
        degrees = self._at_once(lambda fit: fit.degrees(self.penalties), list(own.values()))
        made = dict(zip(own, degrees, strict=True))
        return [made[id(fit)] for fit in self.fits]

    def _degrees(self, degrees: Float[Tensor, " penalties"], chosen: penalty_path.Optimum) -> Float[Tensor, " targets"]:
        """Return the degrees of freedom at chosen penalties, off a spline through those of the grid."""
        each = degrees[:, None].expand(-1, len(chosen.node))
        return penalty_path.error_at(each, torch.zeros_like(each[0]), self.penalties, chosen, self.options.interpolate)

    def _moments(self, cells: Sequence[int]) -> Moments:
        return self.joint.moments(cells, self._columns, crossed=len(self._columns) - len(self._target))

    @cached_property
    def _scored(self) -> tuple[centring.Strata, Float[Tensor, " targets"]]:
        """The strata of all scored rows, and every target's squares about their means."""
        columns, cells = self._columns, self.joint.split.score_cells
        moments = self._moments(cells) if self._labels is not None else self.joint.moments(cells, columns, crossed=0)
        own = centring.strata(moments, self._labels)
        squares = centring.squares_about(moments, own, own.means, self._target)
        varies = centring.varying(moments, squares, self._target, self._labels)
        return own, torch.where(varies, squares, 0.0).cpu()

    def _held_out(self, k: int, penalties: int) -> ridge.HeldOut:
        moments = self._moments(self.joint.split.parts[k].score)
        return ridge.held_out(self.fits[k], moments, self._source, self._target, self._labels, penalties=penalties)

    @cached_property
    def _curves(self) -> tuple[Float[Tensor, "parts penalties targets"], Float[Tensor, "parts targets"]]:
        """Errors relative to `squares`: at every penalty, and at an infinite one."""
        errors: dict[int, Tensor] = {}
        means: dict[int, Tensor] = {}

        def score(own: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
            held = self._at_once(partial(self._held_out, penalties=len(self.penalties)), own)
            return ridge.errors(held, self.penalties).cpu(), [part.squares.cpu() for part in held]

        assert self.fits, "a split without parts"  # made here, on a thread each, and not within one of them
        groups = list(self.joint.split.by_fit(self.size).values())
        for own, (found, squares) in zip(groups, self._at_once(score, groups), strict=True):
            errors.update(zip(own, found, strict=True))
            means.update(zip(own, squares, strict=True))
        if self.size != "fit":
            del self.fits  # Of nested fits only the errors are asked for.
        curves, at_infinity = (torch.stack([found[k] for k in sorted(found)]) for found in (errors, means))
        return curves / self._scale, at_infinity / self._scale

    def _at_once(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Return what work makes of every item: on a thread each, or one by one where what it takes is large."""
        return threads.each(work, items, threads.count(self.joint.cells[0].device, len(self.source)))

    @property
    def _nodes(self) -> Float[Tensor, " nodes"]:
        """The grid's penalties and, where the mean is best, infinity: what `Optimum.node` counts."""
        return torch.cat([self.penalties, self.penalties.new_tensor([torch.inf])])

    @property
    def _scale(self) -> Float[Tensor, " targets"]:
        return torch.where(self.squares > 0, self.squares, 1.0)

    def _variance(self, targets: Int[Tensor, " chosen"]) -> Float[Tensor, " chosen"]:
        return self._scale[targets] / int((self.joint.split.block >= 0).sum())

    @cached_property
    def _each(self) -> Choice:
        return self._choose(torch.arange(len(self.target)))

    @cached_property
    def _each_block(self) -> tuple[Tensor, Tensor]:
        return self._block_sums(torch.arange(len(self.target)), self._each)

    def _choose(self, targets: Int[Tensor, " chosen"]) -> Choice:
        def exactly(k: int, penalty: float) -> Tensor:
            at = self._held_out(k, 1).errors(torch.tensor([penalty], dtype=torch.float64))[0]
            return (at.cpu() / self._scale)[targets]

        curves, means = self._curves[0][:, :, targets], self._curves[1][:, targets]
        return choose(curves, means, self.squares[targets], self.penalties, self.options, exactly)

    def _block_sums(self, targets: Int[Tensor, " chosen"], choice: Choice) -> tuple[Tensor, Tensor]:
        labels = self.joint.labels if self._labels is not None else None
        means = self._scored[0].means[:, self._target[targets]]
        sides = (self.sources, self.targets, targets)
        return block_sums(self.joint, sides, self.maps(targets, choice), means, labels)


def block_sums(
    joint: Joint,
    sides: tuple[Sequence[str], Sequence[str], Int[Tensor, " chosen"]],
    maps: Sequence[tuple[Float[Tensor, "source chosen"], Float[Tensor, "strata chosen"]]],
    means: Float[Tensor, "strata chosen"],
    labels: Int[Tensor, " rows"] | None = None,
) -> tuple[Float[Tensor, "blocks chosen"], Float[Tensor, "blocks chosen"]]:
    """Return sums of squared error, and of squares about the mean, of every block of scored rows: one pass over them.

    Args:
        sides: the names of the source's groups and of the targets', and which of the targets' columns.
        maps: of every part of the split, weights and centres, as `Regression.maps` gives them.
        means: of the chosen targets over all scored rows, about the moments' shift.
        labels: the stratum of each row; without it there is one.
    """
    split, (source, target, chosen) = joint.split, sides
    part_of = torch.full((split.cells,), -1)
    for k, part in enumerate(split.parts):
        part_of[list(part.score)] = k
    errors = torch.zeros(split.blocks, len(chosen), dtype=torch.float64, device=means.device)
    totals = torch.zeros_like(errors)

    def beside(pieces: dict[str, Tensor], names: Sequence[str]) -> Float[Tensor, "rows columns"]:
        found = intake.joined([intake.plain(pieces[name].to(errors.device)) for name in names])
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def add(x: Tensor, y: Tensor, start: int, share: Tensor, k: int) -> None:
        """Add the rows of share k, whose blocks no other share has."""
        own = (share == k).nonzero()[:, 0]
        block = split.block[start + own]
        stratum = None if labels is None else labels[start + own].to(errors.device)
        told = own.to(errors.device), block.to(errors.device), stratum
        residuals.add_blocks(x, y, weights[k // shares], abouts[k // shares], *told, errors, totals)

    shift = joint.cells[0].shift
    assert shift is not None
    of, at = (shift[torch.cat([joint.columns[name] for name in names])] for names in (source, target))
    at = at[chosen]
    weights = [residuals.pack(W, len(chosen)) for W, _ in maps]
    abouts = [residuals.About(of, centre + at, means + at) for _, centre in maps]
    run = half_square.consecutive(chosen)
    picked = chosen if run is None else run  # of a run of columns without a copy
    count = threads.count(errors.device)
    shares = 1 if len(maps) % count == 0 else count  # of a part, so that no thread is without work
    for pieces, start in _scored_rows(joint, {*source, *target}):
        x, y = beside(pieces, source), beside(pieces, target)[:, picked]
        kind = torch.promote_types(x.dtype, y.dtype)
        here = slice(start, start + len(x))
        share = part_of[split.cell[here]] * shares + split.block[here] % shares
        threads.each(partial(add, x.to(kind), y.to(kind), start, share), range(len(maps) * shares), count)
    return errors.cpu(), totals.cpu()


def _scored_rows(joint: Joint, wanted: set[str]) -> Iterator[tuple[dict[str, Tensor], int]]:
    """Yield rows of some groups, some of them scored, and the first one's number."""
    names = [name for name in joint.order if name in wanted]
    for pieces, start in joint.batches(names, joint.split.block >= 0):
        yield dict(zip(names, pieces, strict=True)), start
        joint.tell("scores", start + len(pieces[0]), len(joint.split.cell))
