"""What does not fit in memory is refused before it is made."""

import numpy as np
import pytest
import torch

from widthwise.columns import Concatenation
from widthwise.errors import UsageError
from widthwise.linalg import memory
from widthwise.pairs import Joint
from widthwise.splits import held_out

CPU = torch.device("cpu")


def test_moments_of_few_features_fit():
    memory.check(1000, 1500, 15, CPU)
    memory.check(0, 0, 1, CPU)


def test_this_machine_has_some_memory():
    assert memory.physical() > 1e8


def test_moments_that_do_not_fit_are_refused_with_what_takes_less(monkeypatch):
    monkeypatch.setattr(memory, "physical", lambda: 16e9)
    memory.check(16_384, 16_896, 3, CPU)  # 4 half squares of 1.1 GB, and products with the targets
    with pytest.raises(UsageError, match=r'32768 features in 3 parts, and a fit of them, take 17\.7 GB.*split="test"'):
        memory.check(32_768, 33_280, 3, CPU)


def test_a_joint_asks_before_it_makes_them(monkeypatch):
    groups = {"x": Concatenation([np.ones((6, 3))])}
    monkeypatch.setattr(memory, "physical", lambda: 10.0)
    with pytest.raises(UsageError, match=r"second moments of 3 features in 3 parts"):
        _ = Joint(groups, held_out("test", torch.arange(3), 3 + torch.arange(3), nested=False)).cells
