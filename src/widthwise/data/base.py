"""What a data set is: samples and labels, trained on and held out.

A member of this family is a file with

    VERSION = 1                                     rises when the data set's numbers change
    SHAPE, CLASSES = (3, 32, 32), 10                one sample's shape, how many labels
    MEAN, STD = (...), (...)                        per channel, of values in [0, 1]
    AUGMENT = True                                  whether training crops and flips unless told otherwise
    ROWS = (50_000, 10_000)                         training and test rows, where every copy has as many
    def read(root, *, <options with defaults>) -> Dataset

`root` is the folder of data sets, or None. Where samples are not yet what a network takes, but a frozen encoder's
hidden states of them are, a member has also

    NOTE = "..."                                    what a reader must know of the encoder
    TOKENS = (16, 39, 72)                           quantiles of a sample's tokens, for `plan`; if they are known
    def shape(*, <options>) -> tuple[int, ...]      instead of SHAPE, which is that of the defaults
    def encode(samples, checksum, *, <options>) -> (tokens (n, hidden) float16, how many each sample has)

Where samples are signs and noise that can be drawn without end, it has the functions of `Endless`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from widthwise.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """Samples (n, ...), uint8 (n, channels, height, width) for images, and labels (n,) int64 from 0.

    Attributes:
        train_groups, test_groups: (n,) int64, numbered jointly: rows of one group belong together, and no fold and no
            reserve parts them.
        encoder: the checksum of the encoder, where there is one; samples are then int32 tokens (n, ...).
        notes: what was done to the data that a user should know, in sentences.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    train_groups: Tensor | None = None
    test_groups: Tensor | None = None
    encoder: str = ""
    notes: tuple[str, ...] = ()


class Endless:
    """Samples that are signs and noise, with a data set's options.

    draw(generator, steps, batch) -> signs (steps, batch, signals), noise (steps, batch, patches, dimensions)
    parts(samples)                -> signs and noise of samples
    label(signs)                  -> numbers above 0 where the class is 1
    truths(samples)               -> what is known of samples, (rows, truths)

    The member's `names` says what the truths are called.
    """

    def __init__(self, member: ModuleType, options: Mapping[str, Any]):
        self.draw, self.parts = partial(member.draw, **options), partial(member.parts, **options)
        self.label, self.truths = partial(member.label, **options), partial(member.truths, **options)


def validate(dataset: Dataset, name: str) -> None:
    """Check that samples and labels are of the types they must be and belong together.

    Raises:
        DataError: naming the data set, the part and, for a label, its row.
    """
    if dataset.train.shape[1:] != dataset.test.shape[1:]:
        raise DataError(
            f"{name}: training samples are {tuple(dataset.train.shape[1:])}, test samples "
            f"{tuple(dataset.test.shape[1:])}; they must have one shape."
        )
    kinds = (torch.int32,) if dataset.encoder else (torch.uint8, torch.float32)
    for part, samples, labels, groups in (
        ("train", dataset.train, dataset.train_labels, dataset.train_groups),
        ("test", dataset.test, dataset.test_labels, dataset.test_groups),
    ):
        _validate_part(f"{name}, {part}", samples, labels, len(dataset.classes), kinds)
        if groups is not None and (groups.dtype != torch.int64 or groups.shape != labels.shape):
            told = f"{groups.dtype} of shape {tuple(groups.shape)}"
            raise DataError(f"{name}, {part}: groups are {told}; they must be int64 ({len(labels)},).")


def agree(dataset: Dataset, name: str, shape: tuple[int, ...], member: ModuleType) -> None:
    """Check that samples and classes are what a member says: networks are built for that.

    Args:
        shape: of what a network takes of one sample.

    Raises:
        DataError: naming the data set and what is to be corrected.
    """
    found = tuple(dataset.train.shape[1:])
    if not dataset.encoder and found != shape:
        raise DataError(f"{name}: samples are {found}, SHAPE is {shape}; correct SHAPE, or what read() returns.")
    if len(dataset.classes) != member.CLASSES:
        raise DataError(
            f"{name}: {len(dataset.classes)} classes have names, CLASSES is {member.CLASSES}; correct one of them."
        )
    levels = {"MEAN": member.MEAN, "STD": member.STD} if dataset.train.dtype == torch.uint8 else {}
    for what, numbers in levels.items():
        if not isinstance(numbers, Sequence) or len(numbers) not in {1, found[0]}:
            raise DataError(f"{name}: {what} is {numbers!r}; it must be {found[0]} numbers, one a channel.")
        if what == "STD" and not all(number > 0 for number in numbers):
            raise DataError(f"{name}: STD is {numbers!r}; inputs are divided by it, so each must be above 0.")


def checksum(dataset: Dataset) -> str:
    """Return the SHA-256 of the tensors that there are: dtypes, shapes, bytes, in order; with that of the encoder."""
    digest = hashlib.sha256(dataset.encoder.encode())
    tensors = (dataset.train, dataset.train_labels, dataset.test, dataset.test_labels)
    groups = (dataset.train_groups, dataset.test_groups)
    for tensor in (*tensors, *(tensor for tensor in groups if tensor is not None)):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _validate_part(name: str, samples: Tensor, labels: Tensor, classes: int, kinds: Sequence[torch.dtype]) -> None:
    if samples.dtype not in kinds:
        raise DataError(f"{name}: samples are {samples.dtype}; they must be {' or '.join(map(str, kinds))}.")
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise DataError(f"{name}: labels are {labels.dtype} of shape {tuple(labels.shape)}; they must be int64 (n,).")
    if len(samples) != len(labels) or not len(samples):
        raise DataError(f"{name}: {len(samples)} samples and {len(labels)} labels; it needs one label each.")
    outside = torch.nonzero((labels < 0) | (labels >= classes))
    if len(outside):
        row = int(outside[0])
        raise DataError(
            f"{name}, row {row}: label {int(labels[row])} is not in 0..{classes - 1}; {len(outside)} rows "
            "have such labels. Correct or drop them."
        )
