"""A matrix in band form against numpy: rotations, solves at many shifts, degrees of freedom."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from widthwise.linalg import banded

SHIFTS = torch.tensor([1e-6, 1e-2, 3.0], dtype=torch.float64)
SIZES = [(1, 4), (4, 4), (5, 4), (8, 4), (30, 4), (31, 7), (200, 64), (129, 64), (600, 64), (530, 7)]


@pytest.fixture
def random(seed):
    return np.random.default_rng(seed)


def matrix(random, size, rank=None) -> torch.Tensor:
    X = torch.from_numpy(random.normal(size=(rank or 2 * size, size)))
    return X.T @ X / size


def dense(form: banded.Banded) -> torch.Tensor:
    B = torch.block_diag(*form.diagonal)
    b = form.diagonal.shape[1]
    for k, E in enumerate(form.below):
        B[(k + 1) * b : (k + 2) * b, k * b : (k + 1) * b] = E
        B[k * b : (k + 1) * b, (k + 1) * b : (k + 2) * b] = E.T
    return B


@pytest.mark.parametrize(("size", "block"), SIZES)
def test_it_is_a_rotation_of_the_matrix(size, block, random):
    S = matrix(random, size)
    form = banded.reduce(S.clone(), block)
    Q = form.rotate(torch.eye(size, dtype=torch.float64)).T  # (size, padded)
    assert torch.allclose(Q @ Q.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-13)
    assert torch.allclose(Q @ dense(form) @ Q.T, S, rtol=0, atol=1e-12)
    M = torch.from_numpy(random.normal(size=(size, 3)))
    assert torch.allclose(form.back(form.rotate(M)), M, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("size", "block"), SIZES)
@pytest.mark.parametrize("rank", [None, 3])
def test_another_matrix_is_turned_with_it(size, block, rank, random):
    form, H = banded.reduce(matrix(random, size), block), matrix(random, size)
    if rank:
        basis = torch.from_numpy(np.linalg.qr(random.normal(size=(size + rank, size)))[0])
        form, H = replace(form, basis=basis), matrix(random, size + rank)
    truth = form.rotate(form.rotate(H).T)  # Q'HQ, H symmetric
    turned = form.turned(H.clone())
    assert torch.allclose(turned.tril(), truth.tril(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "block"), SIZES)
@pytest.mark.parametrize("columns", [1, 3, 32, 75])
def test_it_solves_for_every_shift(size, block, columns, by, random):
    S, C = matrix(random, size), torch.from_numpy(random.normal(size=(size, columns)))
    form = banded.reduce(S, block)
    rotated = form.rotate(C)
    apart = torch.full((len(rotated), 3, columns + 5), torch.nan, dtype=torch.float64)[:, :, 2 : 2 + columns]
    assert form.solve(rotated, SHIFTS, apart) is apart
    solved = form.solve(rotated, SHIFTS)
    each = form.solve_each(rotated, SHIFTS[torch.arange(columns) % 3])
    for k, shift in enumerate(SHIFTS):
        truth = torch.linalg.solve(S + shift * torch.eye(size, dtype=torch.float64), C)
        near = {"rtol": 0, "atol": 1e-9 * float(truth.abs().max())}
        assert torch.allclose(form.back(solved[:, k]), truth, **near)
        assert torch.allclose(form.back(apart[:, k]), truth, **near)
        assert torch.allclose(form.back(each)[:, k::3], truth[:, k::3], **near)


@pytest.mark.parametrize(("size", "block"), SIZES)
def test_degrees_of_freedom_are_those_of_the_eigenvalues(size, block, random):
    S = matrix(random, size)
    values = torch.linalg.eigvalsh(S)[:, None]
    assert torch.allclose(banded.reduce(S, block).degrees(SHIFTS), (values / (values + SHIFTS)).sum(0), rtol=1e-9)


def test_a_singular_matrix_and_one_of_zeros_have_a_form(random):
    S = matrix(random, 40, rank=9)
    form = banded.reduce(S, 8)
    assert torch.allclose(form.rotate(torch.eye(40).double()).T @ dense(form) @ form.rotate(torch.eye(40).double()), S)
    assert form.positive(1e-3)
    nothing = banded.reduce(torch.zeros(20, 20).double(), 8)
    solved = nothing.solve(nothing.rotate(torch.ones(20, 1).double()), SHIFTS)
    assert torch.allclose(solved[:20, 2], torch.full((20, 1), 1 / 3).double(), rtol=1e-15)


def test_a_matrix_that_is_not_positive_is_told(random):
    assert not banded.reduce(matrix(random, 40) - 5 * torch.eye(40).double(), 8).positive(1e-3)


def test_columns_of_falling_size_keep_their_digits(random):
    sizes = torch.logspace(0, -8, 200, dtype=torch.float64)
    X = torch.from_numpy(np.linalg.qr(random.normal(size=(400, 200)))[0])
    S = (X * sizes).T @ (X * sizes)
    C = torch.from_numpy(random.normal(size=(200, 2))) * sizes[:, None]
    form = banded.reduce(S)
    solved = form.back(form.solve(form.rotate(C), torch.tensor([1e-12]).double())[:, 0]) * sizes[:, None]
    truth = C / sizes[:, None] / (1 + 1e-12 / sizes[:, None] ** 2)
    assert torch.allclose(solved, truth, rtol=0, atol=1e-6)
