"""What a design of networks that differ in their number of neurons says: which are narrow, which signals there are."""

from itertools import pairwise
from math import erfc, sqrt
from typing import Any

from widthwise import family
from widthwise.design import Design


def widths(design: Design) -> list[int]:
    """Return all numbers of neurons, wide to narrow."""
    return sorted(design.study.neurons, reverse=True)


def wide(design: Design) -> int:
    """Return the number of neurons of the wide network that others are compared with: the least that is not narrow."""
    return next((n for n in reversed(widths(design)) if design.study.neurons[n] <= _few(design)), widths(design)[0])


def _few(design: Design) -> int:
    return max(1, max(design.study.neurons.values()) // 10)


def narrow(design: Design) -> list[int]:
    """Return the numbers of neurons of the narrow networks: of which there are many."""
    least = wide(design)
    return [n for n in widths(design) if n < least]


def signals(design: Design) -> list[tuple[int, int]]:
    """Return the first and last of the signals in every term of the sum: of each added one, then of each product."""
    given = options(design)
    ends = list(range(given["added"] + 1))
    for order in given["products"]:
        ends.append(ends[-1] + order)
    return list(pairwise(ends))


def options(design: Design) -> dict[str, Any]:
    """Return the options of the data, those left out with their defaults."""
    member = family.member("data", design.study.data.kind)
    return family.options(member.read) | design.study.data.options


def multiplied(design: Design) -> list[int]:
    """Return the numbers, from 0, of the signals that are in products."""
    return [k for a, b in signals(design) if b - a > 1 for k in range(a, b)]


def tail(design: Design) -> float:
    """Return Q(threshold / deviation): the share of neurons that one signal of one sign activates at the start."""
    member = family.member("networks", design.study.network.kind)
    ratio = (family.options(member.build) | design.study.network.options)["ratio"]
    return erfc(ratio / sqrt(2)) / 2


def names(design: Design) -> list[str]:
    """Return what the truths of the samples are called."""
    member = family.member("data", design.study.data.kind)
    return member.names(**design.study.data.options)
