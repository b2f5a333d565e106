"""Half of a symmetric matrix gives back any of its rows and columns, in any order."""

import pytest
import torch

from widthwise.linalg import half_square


def _blocks(whole: torch.Tensor, rows: int) -> list[torch.Tensor]:
    return [whole[start:stop, start:].clone() for start, stop in half_square.cuts(rows)]


def _whole(size: int, seed: int) -> torch.Tensor:
    made = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made + made.T


@pytest.mark.parametrize("rows", [1, 128, 300, 400])
@pytest.mark.parametrize("order", ["sorted", "shuffled", "repeated", "run"])
def test_any_rows_and_columns_are_those_of_the_matrix(rows, order, by, seed):
    generator = torch.Generator().manual_seed(seed)
    whole = _whole(400, seed)
    made = {
        "sorted": lambda n: torch.randperm(n, generator=generator)[: n // 2 + 1].sort().values,
        "shuffled": lambda n: torch.randperm(n, generator=generator),
        "repeated": lambda n: torch.randint(n, (7,), generator=generator),
        "run": lambda n: torch.arange(n // 3, n),
    }[order]
    a, b = made(rows), made(400)
    out = torch.full((len(a), len(b)), torch.nan, dtype=torch.float64)
    assert torch.equal(half_square.taken(_blocks(whole, rows), a, b, out), whole[a[:, None], b])


def test_no_rows_are_an_empty_matrix(by):
    out = torch.empty(0, 3, dtype=torch.float64)
    assert half_square.taken([], torch.arange(0), torch.arange(3), out).shape == (0, 3)


def test_blocks_are_mirrored_within_themselves(seed):
    whole = _whole(300, seed)
    blocks = _blocks(whole, 300)
    for block in blocks:
        block[:, : len(block)].triu_()
    half_square.mirror(blocks)
    for ours, theirs in zip(blocks, _blocks(whole, 300), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("columns", "run"), [([], (0, 0)), ([4], (4, 5)), ([2, 3, 4], (2, 5)), ([2, 4], None)])
def test_columns_that_follow_each_other_are_a_slice(columns, run):
    found = half_square.consecutive(torch.tensor(columns, dtype=torch.long))
    assert found == (None if run is None else slice(*run))
