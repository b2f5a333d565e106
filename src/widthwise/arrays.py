"""Arrays that a caller gives: checked against each other, and made the joint of one split of their rows."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from widthwise.columns import Concatenation, distinct, reader, stacked
from widthwise.errors import DataError, UsageError
from widthwise.pairs import Joint
from widthwise.splits import held_out, k_fold

HEAD = 64  # rows in which no two networks are alike


def joint(given: Mapping[str, Any], tests: Mapping[str, Any], split: str, *, folds: int = 5, **kept: Any) -> Joint:
    """Return features by name as the joint of a split: "validation", or "test", which needs `tests` of all.

    Raises:
        UsageError: for another split, or test rows that it does not need or that it lacks.
        DataError: as `folded` and `with_tests` do.
    """
    names = " and ".join(map(named_test, given))
    there = {name: features for name, features in tests.items() if features is not None}
    if split == "validation":
        if there:
            raise UsageError(f'{names} belong to split="test".')
        return folded(given, folds=folds, **kept)
    if split == "test":
        if there.keys() != given.keys():
            raise UsageError(f'split="test" needs {names}.')
        found = with_tests(given, there, **kept)
        _fresh(given, there)
        return found
    raise UsageError(f'split must be "validation" or "test", not {split!r}.')


def folded(
    given: Mapping[str, Any],
    split: str = "validation",
    *,
    folds: int = 5,
    groups: Any = None,
    nested: bool = False,
    labels: Any = None,
    **kept: Any,
) -> Joint:
    """Return features by name, on the same rows, as a joint of K folds; `kept` goes to the `Joint`.

    Raises:
        UsageError: for folds that cannot be.
        DataError: if their rows do not match, or there is not one group or label a row.
    """
    sides = {name: reader(features, name) for name, features in given.items()}
    n = _rows(sides)
    rows = k_fold(split, torch.arange(n), folds, groups, nested=nested)
    return Joint(sides, rows, _classes(labels, n), **kept)


def with_tests(
    given: Mapping[str, Any],
    tests: Mapping[str, Any],
    *,
    groups: Any = None,
    nested: bool = False,
    labels: Any = None,
    **kept: Any,
) -> Joint:
    """Return features by name as a joint that fits on all their rows and scores those of `tests`.

    `groups` are those of the test rows, `labels` those of the rows followed by those of the test rows.

    Raises:
        DataError: if rows or numbers of features do not match, or there is not one group or label a row.
    """
    sides = {name: reader(features, name) for name, features in given.items()}
    others = {name: reader(features, named_test(name)) for name, features in tests.items()}
    n, m = _rows(sides), _rows({named_test(name): side for name, side in others.items()})
    for name, side in sides.items():
        if side.columns != others[name].columns:
            raise DataError(
                f"{name} has {side.columns} features, {named_test(name)} {others[name].columns}; they must agree."
            )
    rows = held_out("test", torch.arange(n), torch.arange(n, n + m), groups, nested=nested)
    both = {name: stacked(side, others[name]) for name, side in sides.items()}
    return Joint(both, rows, _classes(labels, n + m), **kept)


def networks(**sides: Sequence[Any]) -> dict[str, Concatenation]:
    """Return the networks of each side, "wide" or "narrow", by name: "wide[0]" is the first; a side's of one width.

    Raises:
        UsageError: if they are not lists, or one is empty, or one array is two networks.
        DataError: if their widths differ.
    """
    given = {side: listed(side, some) for side, some in sides.items()}
    found = {name: read for side, some in given.items() for name, read in _of_one_width(side, some).items()}
    heads = {name: features[:HEAD].cpu() for name, features in found.items() if features.indexed}
    for (other, before), (name, own) in itertools.combinations(heads.items(), 2):
        if torch.equal(before, own) and bool((own != own[:1]).any()):
            raise UsageError(f"{name} is {other} again; every network is to be another.")
    return found


def _of_one_width(side: str, given: Mapping[str, Any]) -> dict[str, Concatenation]:
    found = {name: reader(features, name) for name, features in given.items()}
    if not found:
        raise UsageError(f"{side} is empty; a span gap needs 2 or more wide networks, and narrow ones.")
    first = found[f"{side}[0]"].columns
    if not first:
        raise DataError(f"{side}[0] has no features; there must be some.")
    for name, features in found.items():
        if features.columns != first:
            raise DataError(
                f"{name} has {features.columns} features and {side}[0] has {first}; all {side} networks must be of "
                "one width. Take another width's gap by itself."
            )
    return found


def listed(argument: str, given: Any, side: str = "") -> dict[str, Any]:
    """Return the features of a list of networks by name: "wide[0]" is the first of the argument `wide`, or of `side`.

    Raises:
        UsageError: if they are not a list.
    """
    # An array of three dimensions is as good as a list of matrices.
    one = isinstance(given, Concatenation | str) or getattr(given, "ndim", 3) != 3
    if one or not isinstance(given, Iterable):
        what = "one array" if one else type(given).__name__
        raise UsageError(f"{argument} must be a list of feature arrays, one a network; not {what}.")
    return {f"{side or argument}[{k}]": features for k, features in enumerate(given)}


def networks_tests(
    wide: Sequence[Any] | None, narrow: Sequence[Any] | None, sides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the test rows of the networks of `sides` by their names; nothing where there are none.

    Raises:
        UsageError: if they are not given of every network.
    """
    if wide is None and narrow is None:
        return {}
    if wide is None or narrow is None:
        raise UsageError("wide_test and narrow_test are given together, or neither.")
    found = listed("wide_test", wide, "wide") | listed("narrow_test", narrow, "narrow")
    if found.keys() != sides.keys():
        raise UsageError(
            f"there are {len(wide)} networks in wide_test and {len(narrow)} in narrow_test, and {len(sides)} in wide "
            "and narrow; give the test rows of every network, in the same order."
        )
    _fresh(sides, found)
    return found


def _fresh(fitted: Mapping[str, Any], tests: Mapping[str, Any]) -> None:
    """Refuse rows as test rows that maps are fitted on."""
    for name, features in tests.items():
        own = fitted.get(name)
        if own is features or (isinstance(own, Concatenation) and len(own.parts) == 1 and own.parts[0] is features):
            raise UsageError(f"{named_test(name)} is {name} again; test rows are others than those that fit.")


def named_test(name: str) -> str:
    """Return what the test rows of "source" or "wide[0]" are called: "source_test", "wide_test[0]"."""
    argument, bracket, place = name.partition("[")
    return f"{argument}_test{bracket}{place}"


def _rows(sides: Mapping[str, Concatenation]) -> int:
    (first, n), *others = ((name, len(side)) for name, side in sides.items())
    for name, m in others:
        if m != n:
            raise DataError(
                f"{first} has {n} rows and {name} has {m} rows; both must be features of the same samples, in the "
                "same order."
            )
    for name, side in sides.items():
        if not len(side) or not side.columns:
            raise DataError(f"{name} has {len(side)} rows and {side.columns} features; there must be some of each.")
    return n


def _classes(labels: Any, n: int) -> Int[Tensor, " rows"] | None:
    if labels is None:
        return None
    return torch.from_numpy(distinct("labels", labels, n)[1].astype(np.int64))
