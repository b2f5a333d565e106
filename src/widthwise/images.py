"""Bytes of images on their way to a network: cropped and flipped, normalised.

A thin network's step takes milliseconds, and these would be a tenth of it in a dozen passes of PyTorch's. `images.cpp`
takes one for each; without a compiler, and on a GPU, PyTorch does it, to the same bits.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F

from widthwise import native
from widthwise.devices import moved
from widthwise.native import NUMBER, POINTER

SOURCE = Path(__file__).with_suffix(".cpp")
CROP = (POINTER, *[NUMBER] * 4, POINTER, NUMBER, POINTER)
NORMALISE = (POINTER, *[NUMBER] * 3, *[POINTER] * 2, NUMBER, POINTER)


def crop_and_flip(
    images: UInt8[Tensor, "batch channels h w"], generators: Generator | Sequence[Generator], padding: int = 4
) -> UInt8[Tensor, "batch channels h w"]:
    """Return every image moved by up to `padding` pixels each way, black coming in, and half mirrored.

    Drawn from the generators alone, which have equal shares of the images, in their order; each draws for all its
    images at a time: row offsets, column offsets, flips.
    """
    batch, channels, h, w = images.shape
    generators = [generators] if isinstance(generators, Generator) else generators
    drawn = torch.cat([_offsets(batch // len(generators), padding, generator) for generator in generators], 1)
    if not _compiled(images):
        return _gathered(images, moved(drawn, images.device), padding)
    assert drawn.shape[1] == batch, f"{batch} images, {len(generators)} streams"
    images = images.contiguous()
    found, crop = torch.empty_like(images), native.function(SOURCE, "crop", None, CROP)
    crop(images.data_ptr(), batch, channels, h, w, drawn.data_ptr(), padding, found.data_ptr())
    return found


def _offsets(batch: int, padding: int, generator: Generator) -> Int[Tensor, "3 batch"]:
    """Return row offsets, column offsets and flips of one generator's images."""
    return torch.stack([torch.randint(end, (batch,), generator=generator) for end in (2 * padding + 1,) * 2 + (2,)])


def _gathered(
    images: UInt8[Tensor, "batch channels h w"], drawn: Int[Tensor, "3 batch"], padding: int
) -> UInt8[Tensor, "batch channels h w"]:
    """Return every image moved and mirrored as told."""
    batch, channels, h, w = images.shape
    down, right, flip = drawn[..., None]  # (batch, 1) each
    rows = down + torch.arange(h, device=images.device)  # (batch, h)
    columns = right + torch.arange(w, device=images.device)  # (batch, w)
    columns = torch.where(flip.bool(), columns.flip(1), columns)
    pixels = rows[:, :, None] * (w + 2 * padding) + columns[:, None, :]  # (batch, h, w), in the padded image
    pixels = pixels.view(batch, 1, -1).expand(-1, channels, -1)
    return F.pad(images, (padding,) * 4).flatten(2).gather(2, pixels).view(images.shape)


def normalise(
    images: UInt8[Tensor, "*batch channels h w"], mean: Sequence[float], std: Sequence[float], *, last: bool = False
) -> Float[Tensor, "*batch channels h w"]:
    """Return float32 inputs (images / 255 - mean) / std, channel by channel.

    Args:
        last: whether the images of one batch should be last in memory, as `lanes` has them, if the compiled library is
            there.
    """
    centre, spread = _levels(tuple(mean), tuple(std), images.device)
    if not _compiled(images) or images.ndim < 4 or not len(mean) == len(std) == images.shape[-3]:
        return images.float().sub_(centre).div_(spread)
    images, (*_, channels, h, w) = images.contiguous(), images.shape
    last = last and images.ndim == 4
    shape = (channels, h, w, len(images)) if last else images.shape
    found = torch.empty(shape, dtype=torch.float32, device=images.device)
    found = found.permute(3, 0, 1, 2) if last else found
    sizes = (images.numel() // (channels * h * w), channels, h * w)
    normalised = native.function(SOURCE, "normalise", None, NORMALISE)
    normalised(images.data_ptr(), *sizes, centre.data_ptr(), spread.data_ptr(), last, found.data_ptr())
    return found


@cache
def _levels(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Float[Tensor, "channels 1 1"], Float[Tensor, "channels 1 1"]]:
    """Return means and deviations as bytes have them, where they are needed again and again."""
    given = (torch.tensor(x, dtype=torch.float32, device=device) for x in (mean, std))
    centre, spread = (255 * x[:, None, None] for x in given)
    return centre, spread


def _compiled(images: Tensor) -> bool:
    return images.device.type == "cpu" and images.dtype == torch.uint8 and native.load(SOURCE) is not None
