"""Splits keep their promises for any rows, groups and folds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_span as reference
from widthwise.errors import DataError, UsageError
from widthwise.splits import Split, held_out, k_fold


def ids(n: int) -> torch.Tensor:
    return torch.arange(n)


def rows(split: Split, cells) -> set[int]:
    return set(reference.rows_of(split, cells).tolist())


def check(split: Split, fit: set[int], scored: set[int]) -> None:
    """Check what every split promises, for rows to fit and rows to score."""
    parts = split.parts
    scores = [row for part in parts for row in rows(split, part.score)]
    assert sorted(scores) == sorted(scored)  # each row once
    assert set().union(*(rows(split, part.fit) for part in parts)) == fit
    for part in parts:
        assert not rows(split, part.fit) & rows(split, part.score)
        assert rows(split, part.quarter) <= rows(split, part.half) <= rows(split, part.fit)
        assert rows(split, part.quarter)
    assert set((split.block >= 0).nonzero()[:, 0].tolist()) == scored
    assert int(split.block.max()) < split.blocks
    assert split.blocks >= 50


# Folds ---------------------------------------------------------------------------------------------------


@given(n=st.integers(2, 400), folds=st.integers(2, 60))
@settings(max_examples=60, deadline=None)
def test_folds_are_balanced_and_score_every_row_once(n, folds):
    folds = min(folds, n)
    split = k_fold("validation", ids(n), folds)
    check(split, set(range(n)), set(range(n)))
    sizes = [len(rows(split, part.score)) for part in split.parts]
    assert max(sizes) - min(sizes) <= 1
    assert len(split.parts) == folds


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(20, 300), folds=st.integers(2, 7))
@settings(max_examples=60, deadline=None)
def test_groups_are_never_split(seed, n, folds):
    random = np.random.default_rng(seed)
    groups = random.integers(max(n // 3, folds), size=n)
    groups[:folds] = range(folds)
    split = k_fold("validation", ids(n), folds, groups)
    check(split, set(range(n)), set(range(n)))
    for what in (split.cell, split.block):
        assert all(len(what[groups == group].unique()) == 1 for group in np.unique(groups))
    sizes = [len(rows(split, part.score)) for part in split.parts]
    assert max(sizes) - min(sizes) <= np.bincount(groups).max()


def test_a_quarter_and_a_half_are_that_and_blocks_are_at_least_fifty():
    split = k_fold("validation", ids(2000))
    for part in split.parts:
        sizes = [len(rows(split, cells)) for cells in (part.quarter, part.half, part.fit)]
        assert sizes == [400, 800, 1600]
    assert split.block.bincount().tolist() == [40] * 50
    for folds in (2, 3, 7, 60):
        assert len(k_fold("validation", ids(2000), folds).block.unique()) >= 50


def test_a_block_lies_in_one_fold():
    split = k_fold("validation", ids(500), 7)
    fold = split.cell // 3
    assert all(len(fold[split.block == block].unique()) == 1 for block in split.block.unique())


def test_folds_go_by_id_and_are_the_same_again_in_any_order(seed):
    order = torch.randperm(300, generator=torch.Generator().manual_seed(seed))
    names = 7 * ids(300) + 3
    first, again, other = (k_fold("unseen", x) for x in (names, names, names[order]))
    assert torch.equal(first.cell, again.cell)
    assert torch.equal(first.cell[order], other.cell)
    assert torch.equal(first.block[order], other.block)
    assert first.parts == other.parts


def test_folds_are_a_permutation_and_not_the_order_of_rows():
    fold = k_fold("validation", ids(1000)).cell // 3
    assert abs(np.corrcoef(fold, np.arange(1000))[0, 1]) < 4 / 1000**0.5
    assert not torch.equal(fold, ids(1000) % 5)


# Test rows -----------------------------------------------------------------------------------------------


@given(n=st.integers(1, 300), m=st.integers(2, 300))
@settings(max_examples=40, deadline=None)
def test_one_fit_is_scored_on_two_halves(n, m):
    split = held_out("test", ids(n), n + ids(m))
    check(split, set(range(n)), set(range(n, n + m)))
    first, second = split.parts
    assert rows(split, first.fit) == rows(split, second.fit) == set(range(n))
    assert abs(len(rows(split, first.score)) - len(rows(split, second.score))) <= 1


def test_groups_of_test_rows_are_never_split():
    groups = np.arange(200) % 60
    split = held_out("test", ids(100), 100 + ids(200), groups)
    check(split, set(range(100)), set(range(100, 300)))
    assert all(len(split.block[100:][groups == group].unique()) == 1 for group in range(60))


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: k_fold("validation", ids(10), 1), UsageError, "from 2 to the number of rows, 10; not 1"),
        (lambda: k_fold("validation", ids(10), 11), UsageError, "from 2 to the number of rows, 10; not 11"),
        (lambda: k_fold("validation", ids(10), True), UsageError, "a whole number from 2 to .*; not True"),
        (lambda: k_fold("validation", ids(0)), UsageError, "folds take 2 rows or more, .*; not 0"),
        (lambda: k_fold("validation", ids(9), 5, [1] * 9), UsageError, "folds take 2 groups or more, .*; not 1"),
        (lambda: k_fold("validation", ids(10), 5, ["a", "b"] * 5), UsageError, "number of groups, 2; not 5"),
        (lambda: k_fold("validation", ids(10), 5, range(9)), DataError, r"groups have shape \(9,\).*of the 10 rows"),
        (lambda: k_fold("validation", torch.zeros(10).long()), DataError, "row ids must be unique"),
        (lambda: held_out("test", ids(10), ids(1)), UsageError, "scores at least 2 rows"),
        (lambda: held_out("test", ids(10), ids(9), [1] * 9), UsageError, "scores at least 2 groups"),
    ],
)
def test_a_split_that_cannot_be_is_refused(make, error, told):
    with pytest.raises(error, match=told):
        make()
