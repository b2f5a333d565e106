"""What a data set is: samples and labels, trained on and held out; and how its images become inputs.

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
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F

from widthwise.devices import moved
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


def checksum(dataset: Dataset) -> str:
    """Return the SHA-256 of the tensors that there are: dtypes, shapes, bytes, in order; with that of the encoder."""
    digest = hashlib.sha256(dataset.encoder.encode())
    tensors = (dataset.train, dataset.train_labels, dataset.test, dataset.test_labels)
    groups = (dataset.train_groups, dataset.test_groups)
    for tensor in (*tensors, *(tensor for tensor in groups if tensor is not None)):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def crop_and_flip(
    images: UInt8[Tensor, "batch channels h w"], generators: Generator | Sequence[Generator], padding: int = 4
) -> UInt8[Tensor, "batch channels h w"]:
    """Return every image moved by up to `padding` pixels each way, black coming in, and half mirrored.

    Drawn from the generators alone, which have equal shares of the images, in their order; each draws for all its
    images at a time: row offsets, column offsets, flips.
    """
    batch, channels, h, w = images.shape
    generators = [generators] if isinstance(generators, Generator) else generators
    drawn = [_offsets(batch // len(generators), padding, generator) for generator in generators]
    down, right, flip = moved(torch.cat(drawn, 1), images.device)[..., None]  # (batch, 1) each
    rows = down + torch.arange(h, device=images.device)  # (batch, h)
    columns = right + torch.arange(w, device=images.device)  # (batch, w)
    columns = torch.where(flip.bool(), columns.flip(1), columns)
    pixels = rows[:, :, None] * (w + 2 * padding) + columns[:, None, :]  # (batch, h, w), in the padded image
    pixels = pixels.view(batch, 1, -1).expand(-1, channels, -1)
    return F.pad(images, (padding,) * 4).flatten(2).gather(2, pixels).view(images.shape)


def _offsets(batch: int, padding: int, generator: Generator) -> Int[Tensor, "3 batch"]:
    """Return row offsets, column offsets and flips of one generator's images."""
    return torch.stack([torch.randint(end, (batch,), generator=generator) for end in (2 * padding + 1,) * 2 + (2,)])


def normalise(
    images: UInt8[Tensor, "*batch channels h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "*batch channels h w"]:
    """Return float32 inputs (images / 255 - mean) / std, channel by channel."""
    centre, spread = _levels(tuple(mean), tuple(std), images.device)
    return images.float().sub_(centre).div_(spread)


@cache
def _levels(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Float[Tensor, "channels 1 1"], Float[Tensor, "channels 1 1"]]:
    """Return means and deviations as bytes have them, where they are needed again and again."""
    centre, spread = (255 * torch.tensor(x, device=device)[:, None, None] for x in (mean, std))
    return centre, spread


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
