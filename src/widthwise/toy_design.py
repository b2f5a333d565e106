"""A study of networks that differ in their number of neurons: which are narrow, its signals, what is asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import erfc, sqrt
from typing import Any

from widthwise import family
from widthwise.design import Comparison, Design, Net, snapshot

STUDY = "toy"
DECADES = tuple(10.0 ** (k - 9) for k in range(11))
NARROW = 10  # times fewer neurons than a wide network has


@dataclass(frozen=True)
class Toy:
    """What a study of them asks.

    Attributes:
        cosine: above it an activated neuron has learned its signal.
        together: networks of a width that are put together, at most.
        untrained: whether features are compared at the start too.
        wide: neurons of the wide networks that others are compared with; the most there are if left out.
    """

    design: Design
    cosine: float
    together: int
    untrained: bool
    wide: int | None

    @property
    def widths(self) -> list[int]:
        """All numbers of neurons, wide to narrow."""
        return sorted(self.design.study.neurons, reverse=True)

    @property
    def wides(self) -> tuple[Net, ...]:
        """The wide networks: the first is the target, the others are read out beside it."""
        return self.design.by_neurons(self.wide or self.widths[0])

    @property
    def narrow(self) -> list[int]:
        """The numbers of neurons of narrow networks: at most a tenth of a wide one's."""
        return [n for n in self.widths if n * NARROW <= self.wides[0].width]

    @property
    def stages(self) -> tuple[bool, ...]:
        """Whether networks are trained, of all comparisons of features."""
        return (True, False) if self.untrained else (True,)

    # Signals ------------------------------------------------------------------------------------------------

    @cached_property
    def terms(self) -> list[tuple[int, int]]:
        """The first signal, and the one behind the last, of every term of the sum: each added one, each product."""
        given = _options("data", "read", self.design.study.data)
        ends = list(range(given["added"] + 1))
        for order in given["products"]:
            ends.append(ends[-1] + order)
        return list(pairwise(ends))

    @property
    def signals(self) -> int:
        """How many signals there are."""
        return self.terms[-1][1]

    @property
    def multiplied(self) -> list[int]:
        """The numbers, from 0, of the signals that are in products."""
        return [k for a, b in self.terms if b - a > 1 for k in range(a, b)]

    @property
    def added(self) -> list[str]:
        """What the signs that are added are called."""
        return [f"s{a + 1}" for a, b in self.terms if b - a == 1]

    @property
    def products(self) -> list[str]:
        """What the products of signs are called."""
        return [name for name in self.truths if name.count("s") > 1]

    @cached_property
    def truths(self) -> list[str]:
        """What is known of samples: signs, and products of signs."""
        data = self.design.study.data
        return family.member("data", data.kind).names(**data.options)

    @property
    def tail(self) -> float:
        """Q(threshold / deviation): the share of neurons that one signal of one sign activates at the start."""
        return erfc(_options("networks", "build", self.design.study.network)["ratio"] / sqrt(2)) / 2

    # Comparisons --------------------------------------------------------------------------------------------

    def learned(self, neurons: int) -> Comparison:
        """Return what the networks of a width have learned."""
        options = () if self.cosine == 0.9 else (("cosine", self.cosine),)
        nets = self.design.by_neurons(neurons)
        return Comparison("signals_learned", nets, options=options, together=f"{STUDY} {neurons} networks")

    def from_many(self, neurons: int, trained: bool) -> Comparison:
        """Return what is read out of narrow networks put together: a wide one's features, and the truths."""
        options = (("leave_out", False), ("penalties", DECADES), ("row_blocks", True))
        return self._readout("growth_curve", self._many(neurons), neurons, trained, options)

    def from_each_wide(self, trained: bool) -> list[Comparison]:
        """Return what is read out of every wide network by itself: the first one's features, and the truths."""
        if not self.narrow:
            return []
        return [self._readout("span_error", (net,), self.narrow[0], trained) for net in self.wides]

    def of_each_narrow(self, neurons: int, trained: bool) -> Iterator[Comparison]:
        """Yield the span errors of one wide network to every narrow one."""
        where = ("readout", snapshot(trained), "features")
        for net in self._many(neurons):
            yield Comparison("span_error", self.wides[:1], (net,), *where, together=_pass(neurons, trained))

    def features(self, c: Comparison) -> int:
        """Return how many columns of a comparison's target are features; the truths are behind them."""
        return sum(self.design.features(net.width) for net in c.target)

    def _many(self, neurons: int) -> tuple[Net, ...]:
        return self.design.by_neurons(neurons)[: self.together]

    def _readout(
        self, measure: str, source: tuple[Net, ...], neurons: int, trained: bool, options: tuple[Any, ...] = ()
    ) -> Comparison:
        target = tuple(net for net in self.wides[:1] if net not in source)
        where = ("readout", snapshot(trained), "features")
        return Comparison(measure, source, target, *where, options, _pass(neurons, trained), truths=True)


def _pass(neurons: int, trained: bool) -> str:
    return f"{STUDY} {neurons} {snapshot(trained)}"


def _options(folder: str, declared: str, part: Any) -> dict[str, Any]:
    return family.options(getattr(family.member(folder, part.kind), declared)) | part.options
