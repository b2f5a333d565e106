import pytest
import torch

from widthwise.config import Data
from widthwise.errors import UsageError
from widthwise.samples import load
from widthwise.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


def test_all_rows_train_but_the_reserve(store):
    found = load(Data(reserve=0.1), store)
    assert len(found.train) == 1437
    assert int((~found.trained).sum()) == 144
    assert len(found.training_rows) == len(found.training_labels) == 1293
    assert found.train.dtype == torch.uint8


def test_fewer_rows_are_among_more_rows(store):
    small, large = load(Data(rows=100), store), load(Data(rows=500), store)
    assert set(small.ids.tolist()) < set(large.ids.tolist())
    assert len(small.ids) == 100


def test_label_noise_is_an_exact_share_of_the_rows_that_train_and_always_another_class(store):
    clean, noisy = load(Data(reserve=0.2), store), load(Data(reserve=0.2, label_noise=0.3), store)
    wrong = clean.labels != noisy.labels
    assert int(wrong.sum()) == int(0.3 * int(clean.trained.sum()))
    assert not wrong[~clean.trained].any()
    assert torch.equal(load(Data(reserve=0.2, label_noise=0.3), store).labels, noisy.labels)


def test_a_data_set_is_decoded_once(store):
    load(Data(rows=10), store)
    load(Data(rows=20, label_noise=0.1), store)
    assert len(store.keys("data")) == 1


def test_more_rows_than_there_are_is_refused(store):
    with pytest.raises(UsageError, match=r'digits has 1437 training rows, not 2000; "all" takes them all'):
        load(Data(rows=2000), store)


def test_test_rows_are_chosen_too_and_keep_their_numbers(store):
    found, whole = load(Data(test_rows=50), store), load(Data(), store)
    assert len(found.test) == len(found.test_labels) == 50
    places = found.test_ids - 1437
    assert torch.equal(found.test, whole.test[places])
    with pytest.raises(UsageError, match=r"data\.test_rows: digits has 360 test rows, not 400"):
        load(Data(test_rows=400), store)
