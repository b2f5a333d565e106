import pytest
import torch

from widthwise.linalg import banded, half_square, intake, nested, packed, residuals

COMPILED = (banded, half_square, intake, nested, packed, residuals)
THERE = all(module.compiled() is not None for module in COMPILED)


@pytest.fixture(
    params=[pytest.param("ours", marks=pytest.mark.skipif(not THERE, reason="no C++ compiler (CXX, c++)")), "pytorch"]
)
def by(request, monkeypatch):
    """Let it be done by our own libraries, or by PyTorch as where there is no compiler."""
    if request.param == "pytorch":
        for module in COMPILED:
            monkeypatch.setattr(module, "compiled", lambda: None)
    return request.param


@pytest.fixture(params=[1, 2, 3, 5])
def count(request):
    """Let PyTorch, and what is compiled, have so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
