"""Splits keep their promises for any rows, groups and folds; joint moments are those of the rows put together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_span as reference
from widthwise.columns import Concatenation
from widthwise.errors import DataError, UsageError
from widthwise.pairs import Joint, Pair, Split, held_out, k_fold


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
        (lambda: k_fold("validation", ids(0)), UsageError, "from 2 to the number of rows, 0; not 5"),
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


# Joints --------------------------------------------------------------------------------------------------


def joint(seed: int, n: int = 120, **options) -> tuple[Joint, np.ndarray]:
    random = np.random.default_rng(seed)
    arrays = {"a": random.normal(size=(n, 3)) + 1e4, "b": random.normal(size=(n, 2))}
    labels = random.integers(3, size=n)
    made = Joint(
        {name: Concatenation([x]) for name, x in arrays.items()},
        options.get("split", k_fold("validation", ids(n))),
        torch.from_numpy(labels) if options.get("labelled", True) else None,
    )
    return made, np.hstack([*arrays.values(), np.eye(3)[labels]])


def test_columns_lie_in_the_order_of_the_groups_and_labels_behind(seed):
    made, _ = joint(seed)
    assert {name: columns.tolist() for name, columns in made.columns.items()} == {"a": [0, 1, 2], "b": [3, 4]}
    assert made.label_columns.tolist() == [5, 6, 7]
    assert joint(seed, labelled=False)[0].label_columns is None
    pair = Pair(made, ("b", "a"), ("a",))
    assert (pair.source_columns.tolist(), pair.target_columns.tolist()) == ([3, 4, 0, 1, 2], [0, 1, 2])
    assert torch.equal(pair.rows_of(("b",)), torch.cat(list(made.groups["b"].batches())))


def test_joint_moments_are_those_of_the_rows_of_the_cells_together(seed):
    made, together = joint(seed)
    for part in made.split.parts:
        moments = made.moments(part.fit)
        own = together[reference.rows_of(made.split, part.fit)]
        centred = own - own.mean(0)
        ours = moments.second - torch.outer(moments.total, moments.total) / moments.n
        assert np.allclose(ours, centred.T @ centred, rtol=0, atol=1e-10)
        assert np.allclose(moments.mean, own.mean(0), rtol=1e-14, atol=1e-14)
        columns = torch.tensor([6, 0, 4])
        some = made.moments(part.fit, columns, crossed=2)
        assert torch.allclose(some.second, moments.second[columns[:2]][:, columns], rtol=1e-12, atol=1e-10)


def test_sums_of_classes_are_read_off_as_they_are(seed):
    made, together = joint(seed)
    moments, labels = made.moments(made.split.fit_cells), made.label_columns
    assert torch.equal(moments.second[labels][:, labels].diagonal(), torch.from_numpy(together[:, 5:].sum(0)))


def test_rows_are_read_of_the_groups_asked_for(seed):
    made, together = joint(seed)
    (((some,), start),) = made.batches(["b"])
    assert np.array_equal(some, together[:, 3:5])
    assert start == 0


def test_support_is_what_the_definition_says(seed):
    random = np.random.default_rng(seed)
    n = 300
    Y = random.normal(size=(n, 12)) * 10.0 ** random.integers(-3, 3, 12)
    Y[:, 0], Y[:, 1], Y[:, 2] = 1e9 / 3, np.arange(n) < 19, np.arange(n) < 21
    Y[:, 3], Y[:, 4] = 1e-9 * np.median(Y.std(0)) * random.normal(size=n), np.arange(n) == 5
    Y[:200, 5], Y[200:, 6] = 2.5, -1e5 / 3
    for split in (k_fold("validation", ids(n)), held_out("test", ids(200), 200 + ids(100))):
        made = Joint({"y": Concatenation([Y])}, split)
        constant, supported = reference.support(Y, split)
        ours = made.support(made.columns["y"])
        assert [x.tolist() for x in ours] == [constant.tolist(), supported.tolist()]
        assert not (ours[0] & ours[1]).any()


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_value_that_is_not_finite_is_named_by_group_row_and_column(name, seed):
    made, _ = joint(seed)
    made.groups[name].parts[0][77, 1] = np.nan
    with pytest.raises(DataError, match=f"{name}: row 77, column 1 is nan; features must be finite numbers"):
        made.cells  # noqa: B018


def test_rows_that_are_not_those_of_the_split_are_refused(seed):
    made, _ = joint(seed, n=120)
    short, long = (Joint(made.groups, k_fold("validation", ids(n))) for n in (110, 130))
    for other, n in ((short, 110), (long, 130)):
        with pytest.raises(DataError, match=f"120 rows of features for {n} rows of the split"):
            other.cells  # noqa: B018
    with pytest.raises(DataError, match="there are 119 labels for 120 rows"):
        Joint(made.groups, made.split, torch.zeros(119).long())
