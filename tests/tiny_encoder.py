"""A random text encoder small enough to be made in a test, and pairs of texts in the hub's layout."""

from pathlib import Path

import pytest

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "bird",
    "sat",
    "ran",
    "flew",
    "on",
    "under",
    "mat",
    "tree",
    "not",
    "never",
    "is",
    "big",
]


def encoder(folder: Path, hidden: int = 32, seed: int = 0) -> Path:
    """Write a random BERT of two layers and its tokenizer, with padding and truncation baked in, or skip."""
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'widthwise[text]'")
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    tokenizer.backend_tokenizer.enable_padding(length=24)
    tokenizer.backend_tokenizer.enable_truncation(24)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_attention_heads": 2, "num_hidden_layers": 2}
    config = transformers.BertConfig(vocab_size=32, max_position_embeddings=48, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def columns(rows: int, first: int = 0) -> dict[str, list]:
    """Return premises of two rows each, hypotheses whose third word says the class, and labels: the hub's table.

    Every second premise is one word.
    """
    numbers = range(first, first + rows)
    long = "the {} sat on the mat number {}"
    premises = [f"cat{k // 2}" if k // 2 % 2 else long.format(WORDS[2 + k // 2 % 3], k // 2) for k in numbers]
    hypotheses = [f"a cat {('is', 'not', 'never')[k % 3]}" + " big" * (k % 2) for k in numbers]
    return {"premise": premises, "hypothesis": hypotheses, "label": [k % 3 for k in numbers]}


def write(root: Path, train: int = 60, test: int = 24, **changed) -> Path:
    """Write both splits; `train_split={...}` or `test_split={...}` replaces columns of one, None leaves one out."""
    import pyarrow as pa
    from pyarrow import parquet

    folder = root / "mnli"
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows, first, key in (
        ("train", train, 0, "train_split"),
        ("validation_matched", test, 1000, "test_split"),
    ):
        table = {**columns(rows, first), **changed.get(key, {})}
        table = {name: column for name, column in table.items() if column is not None}
        parquet.write_table(pa.table(table), folder / f"{split}.parquet")
    return root
