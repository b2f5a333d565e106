"""Features side by side, however they come: the same rows as the arrays put together by hand."""

from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from widthwise.columns import Concatenation, concatenate, distinct, lockstep, reader, stacked
from widthwise.errors import DataError, UsageError

A = np.arange(24.0).reshape(8, 3)
B = torch.arange(16).reshape(8, 2)
AB = torch.cat([torch.from_numpy(A), B], 1)


def all_of(group: Concatenation, size: int = 3) -> torch.Tensor:
    return torch.cat(list(group.batches(size)))


class Batches:
    def __init__(self, rows, cuts):
        self.rows, self.cuts = rows, cuts

    def __iter__(self):
        yield from np.split(self.rows, self.cuts)


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_a_concatenation_reads_as_its_parts_side_by_side(size):
    group = concatenate(A, B)
    assert torch.equal(all_of(group, size), AB)
    assert (len(group), group.columns) == (8, 5)


def test_it_is_a_view_and_never_a_copy():
    own = A.copy()
    group = concatenate(own, concatenate(B))
    own[0, 0] = 99
    assert float(all_of(group)[0, 0]) == 99


@given(
    rows=st.lists(st.integers(0, 7), min_size=1, max_size=12),
    again=st.lists(st.integers(0, 7), min_size=1, max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_rows_are_picked_in_the_order_given_through_any_nesting(rows, again):
    rows, again = torch.tensor(rows), torch.tensor(again) % len(rows)
    inner = Concatenation([A, concatenate(B, A)], rows)
    expected = torch.cat([AB, torch.from_numpy(A)], 1)[rows]
    assert torch.equal(all_of(inner), expected)
    assert torch.equal(all_of(Concatenation([inner], again)), expected[again])
    assert torch.equal(inner[2:4], expected[2:4])
    assert len(inner) == len(rows)


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_one_stacked_on_another_reads_as_the_rows_of_both(cut):
    both = stacked(reader(A[:cut]), reader(A[cut:]))
    assert torch.equal(all_of(both), torch.from_numpy(A))
    assert torch.equal(both[torch.tensor([7, 0, 5, 5])], torch.from_numpy(A[[7, 0, 5, 5]]))
    assert torch.equal(all_of(concatenate(both, B)), AB)
    streamed = stacked(reader(list(np.split(A[:cut], [1]))), reader(A[cut:]))
    assert torch.equal(all_of(streamed), torch.from_numpy(A))
    assert (len(streamed), streamed.columns) == (8, 3)


def test_a_row_is_named_by_its_place_in_what_the_user_gave():
    assert reader(A).place(5) == "row 5"
    assert Concatenation([A], torch.tensor([3, 7])).place(1) == "row 7"
    assert stacked(reader(A[:6]), reader(A[6:])).place(5) == "row 5"
    assert stacked(reader(A[:6]), reader(A[6:])).place(7) == "row 1 of the test rows"


def test_arrays_follow_the_batches_of_iterables():
    groups = {"a": reader(Batches(A, [2, 3])), "b": reader(B), "c": reader(Batches(A, [2, 3]))}
    read = list(lockstep(groups))
    assert [len(a) for a, _, _ in read] == [2, 1, 5]
    assert torch.equal(torch.cat([torch.cat([a, b], 1) for a, b, _ in read]), AB)


def test_empty_batches_are_none():
    assert torch.equal(all_of(reader([A[:3], A[:0], A[3:], B[:0]])), torch.from_numpy(A))


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([1, 2, 3], r"labels have shape \(3,\); there must be one for each of the 4 rows"),
        ("labels.npy", "labels: labels.npy is a path; give what is in it"),
        ([1.0, 2.0, np.nan, 1.0], "labels: row 2 is nan; give every row one of the labels"),
        ([None, "a", "b", "a"], "labels: row 0 is None"),
        (["a", " ", "b", "a"], "labels: row 1 is empty"),
        (np.array(["a", "b", np.nan, "a"]), "labels: row 2 is nan"),
        (np.array([b"a", b"", b"b", b"a"]), "labels: row 1 is"),
        (np.array(["2020", "NaT", "2021", "2022"], "M8[Y]"), "labels: row 1 is NaT"),
        (pandas.Series([1, 2, 3, None], dtype="Int64"), "labels: row 3 is"),
        (np.ma.masked_equal([1, 2, 3, 2], 3), "labels have masked values"),
        (np.array([1, "a", 2, "b"], object), "labels are of several types, int and str; make them all of one"),
    ],
)
def test_labels_that_are_none_are_refused_by_name(labels, told):
    with pytest.raises(DataError, match=told):
        distinct("labels", labels, 4)


def test_labels_are_told_apart_whatever_their_type():
    text = ["c", "a", "c", "b"]
    many = [np.array(text, object), torch.tensor([3, 1, 3, 2]), np.array([b"\xc3\xa9", b"a", b"\xc3\xa9", b"b"])]
    for labels in ([3, 1, 3, 2], text, ["Nan", "Bob", "Nan", "Lea"], *many):
        units, own = distinct("labels", labels, 4)
        assert (len(units), own.tolist()) == (3, [2, 0, 2, 1])


def test_iterables_out_of_step_are_refused():
    groups = {"a": reader(Batches(A, [2])), "b": reader(Batches(A, [2, 3]))}
    with pytest.raises(DataError, match="from row 2 on the next batch has 6 of a, 1 of b; both must yield equally"):
        list(lockstep(groups))


@pytest.mark.parametrize(
    ("parts", "error", "told"),
    [
        ([], UsageError, "nothing to concatenate"),
        ([A, A[:5]], DataError, "the arrays have 8, 5 rows; features of one concatenation must be of the same"),
        ([A[:, 0]], DataError, r"must be a matrix \(rows, columns\), not of shape \(8,\)"),
        ([A[None]], DataError, r"not of shape \(1, 8, 3\)"),
        ([None], DataError, r"not of shape \(\)"),
        (["file.npy"], UsageError, "file.npy is a path"),
        ([Path("file.npy")], UsageError, "file.npy is a path"),
        ([{"a": A}], DataError, "this is a mapping of arrays; give one of them"),
        ([csr_matrix(A)], DataError, r"this is sparse; give x.toarray\(\)"),
        ([np.ma.masked_greater(A, 20)], DataError, "features have masked values"),
        ([(x for x in [A])], UsageError, "a generator can be read only once"),
        ([[A, A], A], UsageError, "an iterable of batches cannot be concatenated with other features; pass arrays"),
    ],
)
def test_what_is_no_features_is_refused(parts, error, told):
    with pytest.raises(error, match=told):
        Concatenation(parts)


@pytest.mark.parametrize("batch", [A[:, 0], A.astype(complex), A.astype(str), "text"])
def test_a_batch_that_is_no_matrix_of_numbers_is_refused(batch):
    with pytest.raises(DataError, match="features must be"):
        all_of(reader([A, batch]))
