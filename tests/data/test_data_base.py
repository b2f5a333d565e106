"""Images become inputs as written down; data sets that do not hang together are refused."""

from dataclasses import replace

import pytest
import torch

from widthwise import seeds
from widthwise.data.base import Dataset, checksum, crop_and_flip, normalise, validate
from widthwise.errors import DataError


def images(seed, n=64, channels=3, h=6, w=5):
    return torch.randint(1, 256, (n, channels, h, w), generator=seeds.stream(seed, "images"), dtype=torch.uint8)


def dataset(seed):
    labels = torch.arange(64) % 4
    return Dataset(images(seed), labels, images(seed + 1)[:8], labels[:8], ("a", "b", "c", "d"))


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_and_flip_is_the_plain_loop_over_documented_draws(padding, seed):
    x = images(seed)
    generator = seeds.stream(seed, "crop")
    down = torch.randint(2 * padding + 1, (64, 1), generator=generator).flatten().tolist()
    across = torch.randint(2 * padding + 1, (64, 1), generator=generator).flatten().tolist()
    mirror = torch.randint(2, (64, 1), generator=generator).flatten().tolist()
    padded = torch.zeros(64, 3, 6 + 2 * padding, 5 + 2 * padding, dtype=torch.uint8)
    padded[:, :, padding : padding + 6, padding : padding + 5] = x
    ours = crop_and_flip(x, seeds.stream(seed, "crop"), padding)
    for n in range(64):
        one = padded[n, :, down[n] : down[n] + 6, across[n] : across[n] + 5]
        assert torch.equal(ours[n], one.flip(2) if mirror[n] else one)


def test_crop_and_flip_draws_every_offset_and_side_alike(seed):
    n, padding = 20_000, 2
    x = torch.zeros(n, 1, 7, 7, dtype=torch.uint8)
    x[:, 0, 3, 3] = 1
    place = crop_and_flip(x, seeds.stream(seed, "crop"), padding).flatten(2).argmax(2).flatten()
    share = torch.bincount(place, minlength=49).view(7, 7)[1:6, 1:6] / n
    assert (share - 1 / 25).abs().max() < 5 * (1 / 25 / n) ** 0.5
    x = torch.tensor([[[[1, 2]]]], dtype=torch.uint8).expand(n, 1, 1, 2)
    mirrored = crop_and_flip(x, seeds.stream(seed, "flip"), 0)[:, 0, 0, 0] == 2
    assert abs(mirrored.float().mean() - 0.5) < 5 * (0.25 / n) ** 0.5


def test_crop_and_flip_leaves_its_input_and_the_global_stream_alone(seed):
    x, before = images(seed), torch.random.get_rng_state()
    kept = x.clone()
    once, again = (crop_and_flip(x, seeds.stream(seed, "crop")) for _ in range(2))
    assert torch.equal(once, again)
    assert once.dtype == torch.uint8
    assert torch.equal(x, kept)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_normalise_scales_to_one_centres_and_divides_by_channel(seed):
    x = images(seed)
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    exact = torch.stack([(x[:, c].double() / 255 - mean[c]) / std[c] for c in range(3)], 1)
    ours = normalise(x, mean, std)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-6)
    assert torch.equal(normalise(x.view(4, 16, 3, 6, 5), mean, std).view_as(ours), ours)


def test_the_checksum_tells_every_part_shape_and_type_apart(seed):
    whole = dataset(seed)
    train = whole.train.clone()
    train[5, 1, 2, 3] += 1
    others = [
        replace(whole, train=train),
        replace(whole, train=whole.train.view(64, 3, 5, 6)),
        replace(whole, train=whole.train.view(torch.int8)),
        replace(whole, train_labels=whole.train_labels.flip(0)),
        replace(whole, test=whole.test.flip(0)),
        replace(whole, test_labels=whole.test_labels.flip(0)),
    ]
    assert len({checksum(other) for other in (whole, *others)}) == 7
    assert checksum(whole) == checksum(dataset(seed))
    turned = whole.train.contiguous(memory_format=torch.channels_last)
    assert checksum(replace(whole, train=turned)) == checksum(whole)


def test_a_sound_data_set_is_let_through(seed):
    validate(dataset(seed), "mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"train_labels": d.train_labels + 1}, r"mine, train, row 3: label 4 is not in 0\.\.3; 16 rows"),
        (lambda d: {"test_labels": d.test_labels - 1}, r"mine, test, row 0: label -1 is not in 0\.\.3; 2 rows"),
        (lambda d: {"train_labels": d.train_labels.float()}, r"mine, train: labels are torch.float32 .* int64"),
        (lambda d: {"test_labels": d.test_labels[:, None]}, r"mine, test: labels are .* \(8, 1\).* int64"),
        (lambda d: {"train_labels": d.train_labels[1:]}, "mine, train: 64 samples and 63 labels"),
        (lambda d: {"test": d.test[:0], "test_labels": d.test_labels[:0]}, "mine, test: 0 samples"),
        (lambda d: {"train": d.train.double()}, "mine, train: samples are torch.float64"),
        (lambda d: {"test": d.test[:, :1]}, r"mine: training samples are \(3, 6, 5\), test samples \(1, 6, 5\)"),
    ],
)
def test_a_data_set_that_does_not_hang_together_is_refused(change, message, seed):
    whole = dataset(seed)
    with pytest.raises(DataError, match=message):
        validate(replace(whole, **change(whole)), "mine")
