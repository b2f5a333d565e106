"""A frozen encoder's hidden states are those of transformers itself, and folders that are none are refused."""

import pytest
import torch

import tiny_encoder
from widthwise import encoder
from widthwise.errors import DataError, UsageError

PAIRS = [("the cat sat on the mat", "a bird flew"), ("the dog", "not a cat"), ("a tree", "is big"), ("never", "a mat")]


@pytest.fixture
def found(tmp_path):
    return encoder.find(str(tiny_encoder.encoder(tmp_path / "encoder")))


def read(name):
    found = encoder.find(name)
    return encoder.encode(found, encoder.cut(found, PAIRS, 20)[0])


def test_hidden_states_are_those_of_one_text_at_a_time(found, monkeypatch):
    from transformers import AutoModel, BertTokenizer

    monkeypatch.setattr(encoder, "TOKENS", 16)
    tokens, _ = encoder.cut(found, PAIRS, 20)
    states, lengths = encoder.encode(found, tokens)
    model, tokenizer = AutoModel.from_pretrained(found.folder).eval(), BertTokenizer.from_pretrained(found.folder)
    for own, pair in zip(states.split(lengths.tolist()), PAIRS, strict=True):
        told = tokenizer(*pair, return_tensors="pt", return_token_type_ids=True, padding=False, truncation=False)
        with torch.no_grad():
            plain = model(**told).last_hidden_state[0]
        torch.testing.assert_close(own.float(), plain, rtol=1e-3, atol=1e-3)


def test_a_pair_that_is_too_long_loses_the_longer_texts_end(found):
    tokens, cut_short = encoder.cut(found, PAIRS, 10)
    assert cut_short == 1
    whole, none = encoder.cut(found, PAIRS, 20)
    assert none == 0
    assert tokens[0, 0, :5].tolist() == whole[0, 0, :5].tolist()
    assert tokens[0, 0, 5:].tolist() == whole[0, 0, 7:12].tolist()
    assert torch.equal(tokens[1:], whole[1:, :, :10])


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("config.json", r"no configuration \(config\.json\)"),
        ("model.safetensors", r"no weights \(\*\.safetensors\)"),
        ("tokenizer", r"no tokenizer \(tokenizer\.json or vocab\.txt\)"),
    ],
)
def test_a_folder_that_lacks_something_is_refused_with_what(lost, message, found):
    for path in found.folder.iterdir():
        if path.name.startswith((lost, "vocab") if lost == "tokenizer" else lost):
            path.unlink()
    with pytest.raises(UsageError, match=rf"the folder {found.folder} has {message}"):
        encoder.find(str(found.folder))


@pytest.mark.parametrize("name", ["/nowhere/encoder", "./encoder", "~/no/encoder", "a/b/c"])
def test_a_folder_that_is_not_there_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("transformers", reason="needs transformers")
    with pytest.raises(UsageError, match=rf"there is no folder {name}"):
        encoder.find(name)


def test_a_name_that_the_hub_does_not_give_is_told(monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="needs transformers")

    def snapshot_download(name, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    with pytest.raises(DataError, match=r"some/encoder is no folder here, .* from the hub \(no route to host\)"):
        encoder.find("some/encoder")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_file_is_told(name, found):
    (found.folder / name).write_text("{")
    with pytest.raises(UsageError, match=rf"data\.encoder: the .* {found.folder}.* cannot be (loaded|read)"):
        read(str(found.folder))


def test_states_that_float16_cannot_hold_are_refused(found):
    from safetensors.torch import load_file, save_file

    path = found.folder / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("layer.1.output.LayerNorm.bias"))
    weights[name] += 1e6
    save_file(weights, path, {"format": "pt"})
    changed = encoder.find(str(found.folder))
    assert changed.checksum != found.checksum
    with pytest.raises(DataError, match="float16 cannot hold"):
        encoder.encode(changed, encoder.cut(changed, PAIRS, 20)[0])
