from dataclasses import replace

import pytest
import torch

import tiny_encoder
from widthwise import samples, scoring, seeds
from widthwise.config import Data
from widthwise.data import digits, mnli
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


def test_a_folder_that_holds_other_data_than_the_store_is_refused(tmp_path, monkeypatch):
    def read(root):
        found = digits_read(root)
        return replace(found, train=found.train + (root is not None and root.name == "other"))

    digits_read = digits.read
    monkeypatch.setattr(digits, "read", read)
    store, folders = Store(tmp_path / "store"), [tmp_path / name for name in ("one", "moved", "other")]
    first, moved, other = (Data(root=folder) for folder in folders)
    entry = samples.decode(first, store)
    for same in (first, moved, Data()):
        samples.confirm(same, entry)
    with pytest.raises(UsageError, match=r"has digits as it was read from .*one; .*other holds other data"):
        samples.confirm(other, entry)


# Texts --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    return str(tiny_encoder.encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def texts(tmp_path, encoder_folder, monkeypatch):
    """Return a function that gives the `data` of small texts, encoded in chunks of 16."""
    monkeypatch.setattr(samples, "CHUNK", 16)
    tiny_encoder.write(tmp_path / "data")
    options = {"encoder": encoder_folder, "longest": 16, "hidden": 32}
    return lambda **given: Data.model_validate({"kind": "mnli", "root": tmp_path / "data", **options, **given})


def test_rows_of_texts_are_the_hidden_states_of_their_own_tokens(texts, tmp_path, encoder_folder):
    store = Store(tmp_path / "store")
    found = load(texts(rows=50), store)
    whole = mnli.read(tmp_path / "data", encoder=encoder_folder, longest=16, hidden=32)
    assert found.shape == (16, 33)
    for part, tokens, ids in (("train", whole.train, found.ids), ("test", whole.test, found.test_ids - 60)):
        rows = getattr(found, part)
        for k in (0, 7, len(ids) - 1):
            states, (length,) = mnli.encode(tokens[ids[k]][None], whole.encoder, encoder=encoder_folder)
            (own,) = found.inputs(rows[torch.tensor([k])])
            torch.testing.assert_close(own[:length, :32], states.float(), rtol=1e-2, atol=2e-3)
            assert own[:, 32].sum() == length
    assert torch.equal(found.labels, whole.train_labels[found.ids])


def test_texts_are_encoded_once_and_for_a_larger_study_only_what_is_new(texts, tmp_path, monkeypatch):
    store, encoded, real = Store(tmp_path / "store"), [], mnli.encode
    monkeypatch.setattr(
        mnli, "encode", lambda rows, *args, **told: encoded.append(len(rows)) or real(rows, *args, **told)
    )
    assert samples.unencoded(texts(rows=20, test_rows=10), store) == [("train", 0), ("train", 1), ("test", 0)]
    few = load(texts(rows=20, test_rows=10), store)
    assert encoded == [16, 16, 16]
    many = load(texts(rows=60, test_rows=10), store)
    assert encoded == [16, 16, 16, 16, 12]
    assert samples.unencoded(texts(rows=60, test_rows=10), store) == []
    place = torch.tensor([many.ids.tolist().index(k) for k in few.ids.tolist()])
    assert torch.equal(many.train[place].padded(), few.train.padded())
    assert few.checksum == many.checksum


def test_what_was_encoded_before_an_interruption_stays(texts, tmp_path, monkeypatch):
    store, real, calls = Store(tmp_path / "store"), mnli.encode, []

    def encode(rows, *args, **told):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(rows, *args, **told)

    monkeypatch.setattr(mnli, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        load(texts(), store)
    assert len(store.keys("encoded")) == 2
    assert not list((store.root / "partial").iterdir())
    load(texts(), Store(store.root))
    assert len(calls) == 3 + 4


def test_an_encoder_that_has_changed_is_refused_until_it_is_put_back(texts, tmp_path):
    store, folder = Store(tmp_path / "store"), tiny_encoder.encoder(tmp_path / "own")
    load(texts(rows=10, test_rows=5, encoder=str(folder)), store)
    tiny_encoder.encoder(folder, seed=1)
    load(texts(rows=10, test_rows=5, encoder=str(folder)), store)  # all of it is there
    with pytest.raises(UsageError, match="not the encoder that the store's texts were cut for"):
        load(texts(rows=40, test_rows=5, encoder=str(folder)), store)
    tiny_encoder.encoder(folder)
    load(texts(rows=40, test_rows=5, encoder=str(folder)), store)


def test_cut_texts_are_said_once_and_told_in_the_store(texts, tmp_path, caplog):
    store = Store(tmp_path / "store")
    for _ in range(2):
        load(texts(longest=10, rows=10, test_rows=5), store)
    assert caplog.text.count("are longer than 10 tokens and were cut") == 1
    (note,) = samples.decode(texts(longest=10), store).facts["notes"]
    assert note.startswith("42 of 84 pairs")


@pytest.mark.parametrize("reserve", [0.1, 0.25])
def test_no_premise_is_both_trained_on_and_reserved(texts, tmp_path, reserve):
    found = load(texts(reserve=reserve), Store(tmp_path / "store"))
    assert set(found.groups[found.trained].tolist()).isdisjoint(found.groups[~found.trained].tolist())
    assert int((~found.trained).sum()) == round(60 * reserve) // 2 * 2  # premises have two rows each


def test_rows_without_groups_are_reserved_as_they_always_were():
    trained = samples._trained(20, 0.25, None)
    order = torch.randperm(20, generator=seeds.stream(0, "reserve"))
    assert sorted((~trained).nonzero()[:, 0].tolist()) == sorted(order[15:].tolist())


@pytest.mark.parametrize("split", ["validation", "unseen", "shuffled", "test", "probe"])
def test_no_split_parts_a_premise(split, texts, tmp_path):
    found = load(texts(reserve=0.2), Store(tmp_path / "store"))
    rows, made = scoring.split_rows(split, found)
    groups = torch.cat([found.groups, found.test_groups])[rows]
    folds = made.cell if split in ("test", "probe") else made.cell // 3
    kept = (made.block >= 0) | (split != "test")
    for group in groups[kept].unique():
        assert len(folds[kept & (groups == group)].unique()) == 1
