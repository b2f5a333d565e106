"""Joint moments are those of the rows put together; support is what the definition says."""

import numpy as np
import pytest
import torch

import reference_span as reference
from widthwise.columns import Concatenation
from widthwise.errors import DataError
from widthwise.pairs import Joint, Pair
from widthwise.splits import held_out, k_fold


def joint(seed: int, n: int = 120, **options) -> tuple[Joint, np.ndarray]:
    random = np.random.default_rng(seed)
    arrays = {"a": random.normal(size=(n, 3)) + 1e4, "b": random.normal(size=(n, 2))}
    labels = random.integers(3, size=n)
    made = Joint(
        {name: Concatenation([x]) for name, x in arrays.items()},
        options.get("split", k_fold("validation", torch.arange(n))),
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
    for split in (k_fold("validation", torch.arange(n)), held_out("test", torch.arange(200), 200 + torch.arange(100))):
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
    short, long = (Joint(made.groups, k_fold("validation", torch.arange(n))) for n in (110, 130))
    for other, n in ((short, 110), (long, 130)):
        with pytest.raises(DataError, match=f"120 rows of features for {n} rows of the split"):
            other.cells  # noqa: B018
    with pytest.raises(DataError, match="there are 119 labels for 120 rows"):
        Joint(made.groups, made.split, torch.zeros(119).long())
