"""The digits are scikit-learn's, and the test images the same on every machine."""

import torch
from sklearn.datasets import load_digits

from widthwise.data import digits
from widthwise.data.base import checksum

WHOLE = digits.read()


def test_every_image_of_scikit_learn_is_there_once_with_its_label():
    grey, labels = load_digits(return_X_y=True)
    theirs = torch.cat([torch.from_numpy(grey), torch.from_numpy(labels)[:, None]], 1)
    pixels = torch.cat([WHOLE.train, WHOLE.test]).flatten(1).double().mul(16 / 255).round()
    ours = torch.cat([pixels, torch.cat([WHOLE.train_labels, WHOLE.test_labels])[:, None]], 1)
    assert sorted(ours.tolist()) == sorted(theirs.tolist())
    assert WHOLE.train.max() == 255


def test_the_test_images_are_36_of_each_digit():
    assert WHOLE.test_labels.bincount().tolist() == [36] * 10
    assert len(WHOLE.train) == 1437


def test_the_rows_are_those_of_the_first_release():
    assert checksum(WHOLE)[:16] == "93aa5a26b5ca3824"
