"""MultiNLI: pairs of a premise and a hypothesis, which follows from it, may be true, or contradicts it.

The columns are those of `nyu-mll/multi_nli`: `premise`, `hypothesis`, `label` (0 entailment, 1 neutral, 2
contradiction). They come from a folder (`train.parquet`, `validation_matched.parquet`, or the hub's shards), or from
the hub itself when no folder is given. Test rows are the validation pairs. Pairs of one premise are a group: no fold
and no reserve parts them. A network takes not the texts but the hidden states that a frozen encoder has of them.
Williams, Nangia, Bowman, A broad-coverage challenge corpus for sentence understanding through inference (2018).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from widthwise import encoder as encoders
from widthwise import hub
from widthwise.data.base import Dataset
from widthwise.errors import DataError, UsageError

VERSION = 1
SHAPE = (64, encoders.HIDDEN + 1)
CLASSES = 3
MEAN, STD = (), ()
AUGMENT = False
NAMES = ("entailment", "neutral", "contradiction")
NOTE = (
    "Networks take the hidden states of a frozen encoder. The default one, all-MiniLM-L6-v2, has seen MNLI in its own "
    "training: features may be compared with one another, but accuracies say nothing about generalisation."
)
BATCH = 4096  # rows read at a time
TOKENS = (16, 21, 26, 30, 35, 39, 44, 49, 57, 72)  # of pairs, by the default encoder: quantiles .05, .15, ... .95


def _wrong(columns: dict[str, Any]) -> bool:
    """Return whether columns are not two texts and integers."""
    from pyarrow import types

    texts = [columns.get(name) for name in ("premise", "hypothesis")]
    whole = all(kind is not None and (types.is_string(kind) or types.is_large_string(kind)) for kind in texts)
    return not (whole and columns.get("label") is not None and types.is_integer(columns["label"]))


SOURCE = hub.Source(
    name="mnli",
    hub="nyu-mll/multi_nli",
    inside="data",
    columns=("premise", "hypothesis", "label"),
    wrong=_wrong,
    needs="premise and hypothesis, strings, and label, integers",
    files="mnli/train.parquet and mnli/validation_matched.parquet",
)


def read(
    root: Path | None = None,
    *,
    test: Literal["matched", "mismatched"] = "matched",
    encoder: str = encoders.DEFAULT,
    longest: int = SHAPE[0],
    hidden: int = encoders.HIDDEN,
) -> Dataset:
    """Return the tokens of all pairs, from the folder `root` or `root/mnli`, or from the hub if `root` is None.

    Args:
        test: which validation pairs are the test rows: of the genres that were trained on, or of others.
        encoder: a folder with an encoder of `transformers`, or its name on the hub.
        longest: how many tokens a pair may have; longer pairs are cut, counted and said.
        hidden: the encoder's hidden size, told so that a study can be planned without it.

    Raises:
        DataError: if a file is missing, damaged or has other columns, or a row has no text or no label.
        UsageError: if a package is not installed, the encoder cannot be used, or its sizes are others.
    """
    _require_packages()
    found = encoders.find(encoder)
    _check_sizes(found, longest, hidden)
    splits = ("train", f"validation_{test}")
    rows = [
        _rows(split, batches) for split, batches in zip(splits, hub.tables(SOURCE, root, splits, BATCH), strict=True)
    ]
    pairs = [pair for split in rows for pair, _ in split]
    tokens, cut_short = encoders.cut(found, pairs, longest)
    groups, labels = _numbered([premise for premise, _ in pairs]), torch.tensor([n for split in rows for _, n in split])
    n = len(rows[0])
    return Dataset(
        train=tokens[:n],
        train_labels=labels[:n],
        test=tokens[n:],
        test_labels=labels[n:],
        classes=NAMES,
        train_groups=groups[:n],
        test_groups=groups[n:],
        encoder=found.checksum,
        notes=_notes(cut_short, len(pairs), longest),
    )


def shape(*, longest: int = SHAPE[0], hidden: int = encoders.HIDDEN, **others: Any) -> tuple[int, ...]:
    """Return the largest shape of what a network takes: tokens, and numbers of a token with the mask behind them."""
    return (longest, hidden + 1)


def encode(samples: Tensor, checksum: str, *, encoder: str = encoders.DEFAULT, **others: Any) -> tuple[Tensor, Tensor]:
    """Return hidden states (tokens, hidden) of float16 of some samples, end to end, and how many each has.

    Raises:
        UsageError: if the encoder is not the one of that checksum, with which the data set was read.
    """
    found = encoders.find(encoder)
    if found.checksum != checksum:
        raise UsageError(
            f"data.encoder: {encoder} (hidden size {found.hidden}, {found.checksum[:8]}) is not the encoder that the "
            f"store's texts were cut for ({checksum[:8]}): its files have changed. Put them back, or use another store."
        )
    return encoders.encode(found, samples)


def _require_packages() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UsageError(f"mnli needs pyarrow ({error}): pip install 'widthwise[data,text]'.") from error


def _check_sizes(found: encoders.Encoder, longest: int, hidden: int) -> None:
    if not 8 <= longest <= found.longest:
        raise UsageError(f"data.longest must be from 8 to the {found.longest} tokens of {found.name}, not {longest}.")
    if found.hidden != hidden:
        raise UsageError(
            f"data.hidden is {hidden}, but the encoder {found.name} has a hidden size of {found.hidden}: set "
            f"data.hidden to {found.hidden}, or name another encoder."
        )


def _rows(split: str, batches: Iterator[tuple[Any, str, int]]) -> list[tuple[tuple[str, str], int]]:
    """Return ((premise, hypothesis), label) of every row."""
    found = []
    for batch, where, first in batches:
        columns = [batch.column(name).to_pylist() for name in SOURCE.columns]
        _check_labels(columns[2], where, first)
        for row, (premise, hypothesis, label) in enumerate(zip(*columns, strict=True), first):
            if not premise or not hypothesis:
                raise DataError(f"{where}, row {row}: a premise or hypothesis without text. Drop the row.")
            found.append(((premise, hypothesis), label))
    if not found:
        raise DataError(f"the split {split} of mnli has no rows. {SOURCE.remedy}")
    return found


def _check_labels(labels: Sequence[Any], where: str, first: int) -> None:
    wrong = [row for row, label in enumerate(labels, first) if label not in range(CLASSES)]
    if wrong:
        more = f", as are {len(wrong) - 1} more of the {len(labels)} rows read with it" if len(wrong) > 1 else ""
        told = " (the hub marks pairs without a gold label -1)" if labels[wrong[0] - first] == -1 else ""
        raise DataError(
            f"{where}, row {wrong[0]}: label {labels[wrong[0] - first]} is not in 0..2{told}{more}. "
            "Drop such rows from the file."
        )


def _numbered(texts: Sequence[str]) -> Tensor:
    """Return a number for every text, the same for the same, in the order of their first."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts])


def _notes(cut_short: int, pairs: int, longest: int) -> tuple[str, ...]:
    if not cut_short:
        return ()
    return (f"{cut_short:,} of {pairs:,} pairs are longer than {longest} tokens and were cut; data.longest sets that.",)
