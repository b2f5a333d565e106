"""Which networks a study trains, and which stand against which: the paper's design in seeds and widths."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

from widthwise import config
from widthwise.linalg import intervals
from widthwise.measures.base import Score
from widthwise.networks import base as networks

Matching = Literal["parameters", "features"]
MATCHINGS: tuple[Matching, ...] = ("parameters", "features")
INITIAL, FINAL = "initial", "final"  # snapshots
MOST_GROUPS = 16  # of narrow networks, left out in turn


@dataclass(frozen=True, order=True)
class Net:
    """One network of a study: its width and its seed."""

    width: Fraction
    seed: int


@dataclass(frozen=True)
class Comparison:
    """One measure of one pair: the source's networks side by side, and the target's.

    Attributes:
        snapshot: of every network: "initial", "final", or "at_0.9" for the first epoch at a training accuracy.
        of: what of the target is spanned: its "features" or its "logits".
        together: comparisons of one name are computed in one pass over the rows.
        truths: whether what is known of the samples is spanned too, behind the target's networks.
    """

    measure: str
    source: tuple[Net, ...]
    target: tuple[Net, ...] = ()
    split: str = "validation"
    snapshot: str = "final"
    of: Literal["features", "logits"] = "features"
    options: tuple[tuple[str, Any], ...] = ()
    together: str = field(default="", compare=False)
    truths: bool = False

    @property
    def networks(self) -> tuple[Net, ...]:
        """All networks that take part."""
        return self.source + self.target

    @property
    def trained(self) -> bool:
        """Whether its networks have to be trained first."""
        return self.snapshot != INITIAL


Scores = Mapping[Comparison, Score]


@dataclass(frozen=True)
class Design:
    """The fleets of a study file: how many networks of which width, in which concatenations.

    Args:
        shape, classes: one sample's shape and the number of classes of its data.
        tuned: how each width is trained, where that was chosen.
        reached: the snapshots that networks have of training accuracies, such as "at_0.9", once they are trained.
    """

    study: config.Study
    shape: tuple[int, ...]
    classes: int
    tuned: Mapping[Fraction, config.Training] = field(default_factory=dict, compare=False, repr=False)
    reached: Mapping[Net, frozenset[str]] = field(default_factory=dict, compare=False, repr=False)
    _counts: dict = field(default_factory=dict, compare=False, repr=False)

    @property
    def widths(self) -> tuple[Fraction, ...]:
        """The narrow widths, widest first."""
        return self.study.narrow_widths

    @property
    def level(self) -> float:
        """The level of a verdict's interval at one width."""
        return intervals.verdict_level(max(1, len(self.widths)))

    @cached_property
    def wide(self) -> tuple[Net, ...]:
        """The wide networks: seeds 0 .. S-1."""
        return tuple(Net(Fraction(1), seed) for seed in range(self.study.wide))

    def by_neurons(self, neurons: int) -> tuple[Net, ...]:
        """Return all networks of so many neurons, where those are what networks differ in."""
        return tuple(Net(Fraction(neurons), seed) for seed in range(self.study.neurons[neurons]))

    def features(self, width: Fraction) -> int:
        """Return the number of features of one network."""
        return self._count("features", width)

    def matching(self, width: Fraction, by: Matching) -> int:
        """Return m, how many networks of a width stand against one wide network."""
        key = ("matching", width, by)
        if key not in self._counts:
            network = self.study.network
            self._counts[key] = networks.count_matching(
                network.kind,
                width,
                by=by,
                base=network.base,
                shape=self.shape,
                classes=self.classes,
                **network.options,
            )
        return self._counts[key]

    def repeats(self, width: Fraction) -> int:
        """Return R, the number of disjoint concatenations: as told, or min(4, max(1, 128 // m))."""
        m = self.matching(width, "parameters")
        return self.study.concatenations.get(width, min(4, max(1, 128 // m)))

    def narrow(self, width: Fraction) -> tuple[Net, ...]:
        """Return all networks of a width: seeds 0 .. N-1."""
        return tuple(Net(width, seed) for seed in range(self.repeats(width) * self._stride(width)))

    def concatenations(self, width: Fraction, by: Matching) -> list[tuple[Net, ...]]:
        """Return R disjoint concatenations; the one matched by features is the first of the other's networks."""
        nets, stride, m = self.narrow(width), self._stride(width), self.matching(width, by)
        return [nets[c * stride : c * stride + m] for c in range(self.repeats(width))]

    def crowded(self, rows: int, unseen: int) -> list[str]:
        """Return a sentence for every width whose networks together have more features than a fit has rows.

        Args:
            rows: that networks train on, of which a fold's fit has four fifths.
            unseen: rows that none trains on, reserve and test, of which it has as many.
        """
        found = []
        for width in self.widths:
            p, fits = self.matching(width, "parameters") * self.features(width), (rows * 4 // 5, unseen * 4 // 5)
            kinds = zip(("training", "unseen"), ("data.rows", "data.test_rows, data.reserve"), fits, strict=True)
            found += [
                f"width {width}: {p:,} features of networks together for {fit:,} {kind} rows of a fit. Errors then "
                f"tell of the number of rows as much as of networks; use more ({more}), or a narrower network.base."
                for kind, more, fit in kinds
                if p > fit
            ]
        return found

    def equal_accuracy(self, nets: Iterable[Net]) -> str | None:
        """Return the snapshot of the highest training accuracy that all networks have one of; None if none."""
        common = [self.reached.get(net, frozenset()) for net in nets]
        return max(frozenset.intersection(*common), default=None) if common else None

    def wide_together(self, width: Fraction) -> int | None:
        """Return how many wide networks, 2 or more, have as many features as the narrow ones put together."""
        k, rest = divmod(self.matching(width, "parameters") * self.features(width), self.features(Fraction(1)))
        return k if k > 1 and not rest else None

    def run(self, net: Net, checksum: str) -> config.Run:
        """Return how a network is trained."""
        study = self.study
        training = self.tuned.get(net.width, study.training)
        return config.Run(study.data, checksum, study.network, training, net.width, net.seed)

    def others(self, width: Fraction, c: int) -> tuple[Net, ...]:
        """Return as many narrow networks as have a wide one's features, none of them in concatenation c.

        They are the first of the next concatenation, or, where there is one only, networks beyond it.
        """
        R, stride, m = self.repeats(width), self._stride(width), self.matching(width, "features")
        first = (c + 1) % R * stride if R > 1 else stride
        return tuple(Net(width, seed) for seed in range(first, first + m))

    def _stride(self, width: Fraction) -> int:
        return max(self.matching(width, by) for by in MATCHINGS)

    def _count(self, what: str, width: Fraction) -> int:
        key = (what, width)
        if key not in self._counts:
            network = self.study.network
            scale = network.base * width
            self._counts[key] = networks.feature_count(network.kind, self.shape, self.classes, scale, **network.options)
        return self._counts[key]


def snapshot(trained: bool) -> str:
    """Return which snapshot trained or untrained networks are compared at."""
    return FINAL if trained else INITIAL


def left_out(nets: Sequence[Net], most: int = MOST_GROUPS) -> Iterator[tuple[Net, ...]]:
    """Yield the networks without each of at most so many groups of them, in turn; nothing for a single one."""
    g = min(len(nets), most)
    if g < 2:
        return
    for j in range(g):
        first, last = j * len(nets) // g, (j + 1) * len(nets) // g
        yield tuple(nets[:first]) + tuple(nets[last:])


def described(nets: Sequence[Net]) -> str:
    """Return networks in words: "16 x 1/4", or "1" for one wide network."""
    width = str(nets[0].width)
    return width if len(nets) == 1 else f"{len(nets)} x {width}"
