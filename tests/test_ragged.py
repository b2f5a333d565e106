"""Rows of unequal length: selections are views, and what is padded is what was there."""

import pytest
import torch

from small import DEVICE
from widthwise.ragged import LANES, MULTIPLE, _spread, joined

LENGTHS = (torch.tensor([3, 1, 9]), torch.tensor([2, 5]))


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    parts = [(torch.randn(int(n.sum()), 5, generator=generator).half(), n) for n in LENGTHS]
    return joined(parts), [row for states, n in parts for row in states.split(n.tolist())]


def test_padded_rows_are_the_tokens_with_a_mask_behind_them(rows):
    ragged, plain = rows
    padded = ragged.padded()
    assert padded.shape == (5, 16, 6)
    for own, row in zip(padded, plain, strict=True):
        assert torch.equal(own[: len(row), :5], row.float())
        assert own[:, 5].tolist() == [1.0] * len(row) + [0.0] * (16 - len(row))
        assert not own[len(row) :].any()


def test_rows_are_spread_all_at_once_as_one_by_one(rows):
    ragged, plain = rows
    tokens, lengths = torch.cat(plain), ragged.lengths
    room = torch.zeros(5, 16, LANES)
    _spread(tokens, torch.stack([lengths.cumsum(0) - lengths, lengths]), room)
    assert torch.equal(room[..., :6], ragged.padded())


def test_rows_on_a_device_are_those_rows(rows):
    chosen = rows[0][torch.tensor([4, 0, 2])].to(DEVICE)
    padded = chosen.index_select(0, torch.tensor([2, 0], device=DEVICE)).padded()
    assert padded.device.type == DEVICE
    assert torch.equal(padded.cpu(), rows[0][torch.tensor([2, 4])].padded())


def test_every_token_begins_where_a_vector_does(rows):
    padded = rows[0].padded()
    assert all(stride % LANES == 0 for stride in padded.stride()[:2])
    assert padded.shape[1] % MULTIPLE == 0


def test_selections_are_views_of_the_same_tokens(rows):
    ragged, plain = rows
    chosen = ragged[torch.tensor([4, 0, 4])]
    assert [int(n) for n in chosen.lengths] == [5, 3, 5]
    assert torch.equal(chosen.padded()[2, :5, :5], plain[4].float())
    assert chosen.parts[1].data_ptr() == ragged.parts[1].data_ptr()
    assert len(ragged[torch.tensor([True, False, True, False, False])]) == 2
    assert torch.equal(ragged[1:3].padded(), ragged.index_select(0, torch.tensor([1, 2])).padded())


def test_rows_may_be_padded_further(rows):
    ragged = rows[0][:1]
    assert ragged.padded().shape == (1, 8, 6)
    assert torch.equal(ragged.padded(20)[:, :8], ragged.padded())
    assert ragged.padded(20).shape == (1, 24, 6)
