"""Sums of squares of columns, compiled and by PyTorch, against numpy."""

import numpy as np
import pytest
import torch

from widthwise.linalg.squares import column_squares


@pytest.mark.parametrize(
    ("runs", "rows", "repeats", "targets"), [(1, 1, 1, 1), (1, 130, 3, 7), (2, 64, 1, 20), (3, 5, 2, 4)]
)
@pytest.mark.parametrize("less", [False, True])
def test_they_are_those_of_every_run_of_rows_and_of_what_is_left(runs, rows, repeats, targets, less, by, seed):
    random = np.random.default_rng(seed)
    given = random.normal(size=(runs * rows, repeats * targets + 3)) + 5
    x, other = given[:, 1 : 1 + repeats * targets], random.normal(size=(rows, targets))
    found = column_squares(
        torch.from_numpy(given)[:, 1 : 1 + repeats * targets], torch.from_numpy(other) if less else None, runs
    )
    left = x - np.tile(other, (runs, repeats)) if less else x
    truth = (left.reshape(runs, rows, -1) ** 2).sum(1)
    assert np.allclose(found, truth, rtol=1e-13)


def test_what_is_taken_off_loses_no_digits(by, seed):
    random = np.random.default_rng(seed)
    other = torch.from_numpy(random.normal(size=(100, 4)))
    off = torch.from_numpy(random.normal(size=(100, 4))) * 1e-6
    exactly = (other + off) - other
    assert torch.allclose(column_squares(other + off, other)[0], exactly.square().sum(0), rtol=1e-13, atol=0)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_of_nothing_they_are_zero(shape, by):
    assert torch.equal(
        column_squares(torch.ones(shape, dtype=torch.float64)), torch.zeros(1, shape[1], dtype=torch.float64)
    )
