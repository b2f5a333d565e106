import pytest

from widthwise.linalg import banded, intake, squares

COMPILED = (banded, intake, squares)
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
