"""What every data set promises, whichever file it is: a new file in the folder is tested with no edit here."""

import os
from functools import cache
from pathlib import Path

import pytest
import torch

from widthwise import family
from widthwise.data.base import checksum, validate
from widthwise.errors import DataError, UsageError

NAMES = family.names("data")
FEW = 10_000  # rows that are quickly read again


@cache
def read(kind):
    """Return a data set, or the reason why it is not there; read once for all tests."""
    try:
        return family.member("data", kind).read(folder())
    except (DataError, UsageError) as reason:
        return str(reason)


def folder():
    """Return the folder of data sets, or one that is not there, so that no test asks a hub."""
    return Path(os.environ.get("WIDTHWISE_DATA") or "WIDTHWISE_DATA-is-not-set")


@pytest.fixture(params=NAMES)
def kind(request):
    return request.param


@pytest.fixture
def whole(kind):
    found = read(kind)
    if isinstance(found, str):
        pytest.skip(found)
    return found


def test_the_file_says_what_it_is(kind):
    module = family.member("data", kind)
    assert module.__doc__
    assert isinstance(module.VERSION, int)
    assert isinstance(module.AUGMENT, bool)
    assert module.CLASSES > 1
    assert all(isinstance(size, int) and size > 0 for size in module.SHAPE)
    assert len(module.MEAN) == len(module.STD)
    assert family.shape(module, {}) == module.SHAPE


def test_samples_and_labels_are_of_the_declared_shape_and_types(kind, whole):
    module = family.member("data", kind)
    validate(whole, kind)
    assert whole.train.shape[1:] == whole.test.shape[1:]
    assert hasattr(module, "encode") or whole.train.shape[1:] == module.SHAPE
    assert len(whole.classes) == len(set(whole.classes)) == module.CLASSES
    assert whole.train.dtype == whole.test.dtype
    assert whole.train.is_contiguous()


def test_every_class_is_in_both_parts(kind, whole):
    for labels in (whole.train_labels, whole.test_labels):
        assert (labels.bincount(minlength=len(whole.classes)) > 0).all()


def test_hardly_any_test_sample_is_a_training_sample(kind, whole):
    train = {sample.numpy().tobytes() for sample in whole.train}
    again = sum(sample.numpy().tobytes() in train for sample in whole.test)
    assert again <= 0.01 * len(whole.test)


def test_mean_and_deviation_are_those_of_the_training_samples(kind, whole):
    if whole.train.dtype != torch.uint8:
        pytest.skip(f"{kind} has no images; nothing is normalised")
    module = family.member("data", kind)
    values = torch.arange(256) / 255
    for channel, mean, std in zip(whole.train.unbind(1), module.MEAN, module.STD, strict=True):
        share = channel.flatten().bincount(minlength=256) / channel.numel()
        ours = share @ values
        assert float(ours) == pytest.approx(mean, abs=0.005)
        assert float((share @ (values - ours).square()).sqrt()) == pytest.approx(std, abs=0.005)


def test_reading_again_gives_the_same_bytes(kind, whole):
    if len(whole.train) > FEW:
        pytest.skip(f"{kind} has {len(whole.train)} rows, slow to read twice; its own tests read small files")
    assert checksum(family.member("data", kind).read(folder())) == checksum(whole)
