"""The toy of the paper's section 4: the label is the sign of a sum of signs and of products of signs.

A sample has patches. Each of the first directions v_1, v_2, ... of space, the signals, is in one patch, as v_k or as
-v_k; the other patches are Gaussian noise orthogonal to all signals. With signs s_k and the defaults the label is
sign(s_1 + s_2 + s_3 s_4 s_5): v_1 and v_2 are added, v_3 to v_5 multiplied. Duzgun, Jelassi and Li (2024), section 4.

Samples can also be drawn without end, as signs and noise, by whoever trains on each only once.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from widthwise.data.base import Dataset
from widthwise.errors import UsageError
from widthwise.seeds import stream

VERSION = 1
SHAPE = (6, 16)
CLASSES = 2
MEAN, STD = (0.0,), (1.0,)
AUGMENT = False
ROWS = (50_000, 10_000)
MOST_BALANCED = 12  # signals


def shape(
    *,
    dimension: int = 16,
    patches: int = 6,
    added: int = 2,
    products: tuple[int, ...] = (3,),
    noise: float = 1.1,
    balanced: bool = True,
) -> tuple[int, ...]:
    """Return one sample's shape: its patches, and the dimension of each; options as in `read`.

    Raises:
        UsageError: if there are no such samples.
    """
    signals, terms = added + sum(products), added + len(products)
    if added < 0 or any(order < 2 for order in products) or not signals:
        told = f"added: {added}, products: {list(products)}"
        raise UsageError(f"a sum takes 0 or more added signs and products of 2 or more, not {told}.")
    if terms % 2 == 0:
        raise UsageError(
            f"{terms} signs and products can add up to 0, which is neither label; take an odd number, such as "
            f"added: {added + 1}."
        )
    if patches < signals:
        raise UsageError(f"{signals} signals need a patch each; patches must be {signals} or more.")
    if dimension <= signals:
        raise UsageError(
            f"{signals} orthogonal signals in {dimension} dimensions leave none for noise; dimension must be "
            f"{signals + 1} or more."
        )
    if balanced and signals > MOST_BALANCED:
        raise UsageError(f"balanced: {signals} signals have 2^{signals} patterns of signs; set it to false.")
    if not 0 <= noise < float("inf"):
        raise UsageError(f"noise is the norm of a patch, 0 or above, not {noise}.")
    return (patches, dimension)


def read(
    root: Path | None = None,
    *,
    dimension: int = 16,
    patches: int = 6,
    added: int = 2,
    products: tuple[int, ...] = (3,),
    noise: float = 1.1,
    balanced: bool = True,
) -> Dataset:
    """Return 50,000 training and 10,000 test samples, (patches, dimension) each, the patches in random order.

    Args:
        dimension: of a patch; the signals are its first directions.
        patches: of a sample; those that no signal is in are noise.
        added: signals whose signs are added.
        products: how many signs each product has, which is added too.
        noise: the root mean square of a noise patch's norm; that of a signal is 1.
        balanced: every pattern of signs equally often, as far as the number of samples allows (of 12 signals at most);
            otherwise each sign by a coin of its own.

    Raises:
        UsageError: if the patches are fewer than the signals, the dimension leaves no room for noise, or signs can
            add up to 0, which is no label.
    """
    shape(dimension=dimension, patches=patches, added=added, products=products, noise=noise, balanced=balanced)
    generator, parts = stream(0, "signals"), []
    given = {"dimension": dimension, "patches": patches, "added": added, "products": products}
    for rows in ROWS:
        signs, noises = draw(generator, 1, rows, noise=noise, balanced=balanced, **given)
        order = torch.rand(rows, generator=generator).argsort()
        samples = _placed(signs[0][order], noises[0], dimension, generator)
        parts += [samples, (label(signs[0][order], added=added, products=products) > 0).to(torch.int64)]
    return Dataset(*parts, classes=("minus", "plus"))


def draw(
    generator: Generator,
    steps: int,
    batch: int,
    *,
    dimension: int = 16,
    patches: int = 6,
    added: int = 2,
    products: tuple[int, ...] = (3,),
    noise: float = 1.1,
    balanced: bool = True,
) -> tuple[Float[Tensor, "steps batch signals"], Float[Tensor, "steps batch patches noise"]]:
    """Return the signs and the noise patches of some batches; options as in `read`.

    A balanced batch has every pattern of signs as often as all fit in, and for the rest different ones that are drawn.
    """
    signals = added + sum(products)
    rest = dimension - signals
    if balanced:
        patterns = torch.cartesian_prod(*[torch.tensor([1.0, -1.0])] * signals).view(-1, signals)
        copies, left = divmod(batch, len(patterns))
        signs = patterns.repeat(copies, 1).expand(steps, -1, -1)
        if left:
            drawn = torch.rand(steps, len(patterns), generator=generator).argsort(1)[:, :left]
            signs = torch.cat([signs, patterns[drawn]], 1)
    else:
        signs = 2.0 * torch.randint(2, (steps, batch, signals), generator=generator) - 1
    noises = torch.randn(steps, batch, patches - signals, rest, generator=generator) * (noise / sqrt(rest))
    return signs, noises


def parts(
    samples: Float[Tensor, "rows patches dimension"],
    *,
    added: int = 2,
    products: tuple[int, ...] = (3,),
    **_: object,
) -> tuple[Float[Tensor, "rows signals"], Float[Tensor, "rows patches noise"]]:
    """Return the signs and the noise patches of samples."""
    signals = added + sum(products)
    noisy = (samples[..., :signals] == 0).all(2)
    return _signs(samples, signals), samples[noisy][:, signals:].view(len(samples), -1, samples.shape[2] - signals)


def label(
    signs: Float[Tensor, "*batch signals"],
    *,
    added: int = 2,
    products: tuple[int, ...] = (3,),
    **_: object,
) -> Float[Tensor, "*batch"]:
    """Return the sum whose sign is the label."""
    return torch.cat([signs[..., :added], _products(signs, added, products)], -1).sum(-1)


def truths(
    samples: Float[Tensor, "rows patches dimension"],
    *,
    added: int = 2,
    products: tuple[int, ...] = (3,),
    **_: object,
) -> Float[Tensor, "rows truths"]:
    """Return what is known of samples: the sign of every signal, and every product of signs."""
    signs = _signs(samples, added + sum(products))
    return torch.cat([signs, _products(signs, added, products)], 1)


def names(*, added: int = 2, products: tuple[int, ...] = (3,), **_: object) -> list[str]:
    """Return what the truths are called: s1, s2, ... and, of products, s3s4s5."""
    signs = [f"s{k + 1}" for k in range(added + sum(products))]
    return signs + ["".join(signs[a:b]) for a, b in _runs(added, products)]


def _signs(samples: Float[Tensor, "rows patches dimension"], signals: int) -> Float[Tensor, "rows signals"]:
    return samples[..., :signals].sum(1)


def _products(
    signs: Float[Tensor, "*batch signals"], added: int, products: Sequence[int]
) -> Float[Tensor, "*batch products"]:
    found = [signs[..., a:b].prod(-1) for a, b in _runs(added, products)]
    return torch.stack(found, -1) if found else signs[..., :0]


def _runs(added: int, products: Sequence[int]) -> list[tuple[int, int]]:
    ends = torch.tensor([added, *products]).cumsum(0).tolist()
    return list(pairwise(ends))


def _placed(
    signs: Float[Tensor, "rows signals"],
    noises: Float[Tensor, "rows patches noise"],
    dimension: int,
    generator: Generator,
) -> Float[Tensor, "rows patches dimension"]:
    """Return samples whose patches lie in a random order."""
    rows, signals = signs.shape
    patches = torch.zeros(rows, signals + noises.shape[1], dimension)
    patches[:, :signals, :signals] = torch.diag_embed(signs)
    patches[:, signals:, signals:] = noises
    order = torch.rand(rows, patches.shape[1], generator=generator).argsort(1)
    return patches.gather(1, order[..., None].expand_as(patches))
