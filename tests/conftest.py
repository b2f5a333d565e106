"""What every test shares: seeds, real data, and shapes that are checked as they are declared.

WIDTHWISE_TEST_SEEDS   "3", "0-9" or "all" (0-99): every test that asks for `seed` runs once for each
WIDTHWISE_TEST_DEVICE  "cuda": where fleets are tested, and what the span engine finds is compared with the CPU's
WIDTHWISE_DATA         the folder of data sets; without it the tests on real images skip and say so
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

# As in training: bits are promised on one thread, and two threads on a busy core stall each other.
torch.set_num_threads(1)

# Shapes and dtypes in signatures are promises here and documentation elsewhere. The tower: an int is a float.
install_import_hook(
    ["widthwise.linalg", "widthwise.measures", "widthwise.pairs"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", seeds(os.environ.get("WIDTHWISE_TEST_SEEDS", "0")))


def seeds(text: str) -> range:
    """Return the seeds that "3", "0-9" or "all" stand for."""
    if text == "all":
        return range(100)
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


@pytest.fixture(autouse=True)
def no_measurement_is_kept(tmp_path_factory, monkeypatch):
    """Let what is measured of a machine under test be forgotten, and nothing that it knows enter a test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("widthwise.calibration.cache_folder", lambda: folder)


@pytest.fixture(autouse=True)
def a_card_computes_as_in_training():
    """Let float32 be float32 there, and the same kernels be taken every time."""
    if os.environ.get("WIDTHWISE_TEST_DEVICE", "cpu") == "cpu":
        yield
        return
    from widthwise import devices

    with devices.as_told():
        yield


@pytest.fixture
def data_root() -> Callable[[str], Path]:
    """Return the folder of data sets that holds the one asked for, or skip: `data_root("cifar10")`."""

    def root(name: str) -> Path:
        folder = os.environ.get("WIDTHWISE_DATA")
        if not folder:
            pytest.skip(f"WIDTHWISE_DATA is not set; this test needs its folder {name}")
        if not Path(folder, name).is_dir():
            pytest.skip(f"WIDTHWISE_DATA is {folder}, which has no folder {name}")
        return Path(folder)

    return root
