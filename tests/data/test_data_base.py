"""Data sets that do not hang together are refused."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch

from widthwise import seeds
from widthwise.data.base import Dataset, agree, checksum, validate
from widthwise.errors import DataError


def images(seed, n=64, channels=3, h=6, w=5):
    return torch.randint(1, 256, (n, channels, h, w), generator=seeds.stream(seed, "images"), dtype=torch.uint8)


def dataset(seed):
    labels = torch.arange(64) % 4
    return Dataset(images(seed), labels, images(seed + 1)[:8], labels[:8], ("a", "b", "c", "d"))


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SHAPE": (3, 5, 6)}, r"mine: samples are \(3, 6, 5\), SHAPE is \(3, 5, 6\); correct SHAPE"),
        ({"SHAPE": (1, 6, 5)}, r"samples are \(3, 6, 5\), SHAPE is \(1, 6, 5\)"),
        ({"CLASSES": 5}, "mine: 4 classes have names, CLASSES is 5"),
        ({"MEAN": 0.5}, "MEAN is 0.5; it must be 3 numbers, one a channel"),
        ({"STD": (1.0, 1.0)}, r"STD is \(1.0, 1.0\); it must be 3 numbers"),
        ({"STD": (1.0, 0.0, 1.0)}, "STD is .* each must be above 0"),
    ],
)
def test_a_data_set_that_is_not_what_its_member_says_is_refused(change, message, seed):
    said = {"SHAPE": (3, 6, 5), "CLASSES": 4, "MEAN": (0.5,) * 3, "STD": (0.2,) * 3}
    member = ModuleType("mine")
    vars(member).update(said)
    agree(dataset(seed), "mine", said["SHAPE"], member)
    vars(member).update(change)
    with pytest.raises(DataError, match=message):
        agree(dataset(seed), "mine", member.SHAPE, member)
