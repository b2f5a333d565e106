"""A study small enough to run in a test, and what it is made of."""

import os
from fractions import Fraction

import pytest
import torch

from widthwise.config import Data, Network, Run, Training, load_study
from widthwise.samples import Samples

DEVICE = os.environ.get("WIDTHWISE_TEST_DEVICE", "cpu")  # where fleets are tested

on_a_processor = pytest.mark.skipif(DEVICE != "cpu", reason="on a card a member's bits depend on the fleet's size")


def samples(seed: int = 0, n: int = 200, reserve: int = 40, test: int = 100) -> Samples:
    """Return images whose class is the brightest quarter: learnt in a few epochs."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n + test,), generator=generator)
    images = torch.randint(100, (n + test, 1, 4, 4), generator=generator)
    for k in range(len(images)):
        images[k, 0, labels[k]] += 120
    trained = torch.ones(n, dtype=torch.bool)
    trained[n - reserve :] = False
    return Samples(
        checksum=f"small-{seed}",
        train=images[:n].to(torch.uint8),
        labels=labels[:n],
        ids=torch.arange(n),
        trained=trained,
        test=images[n:].to(torch.uint8),
        test_labels=labels[n:],
        test_ids=torch.arange(n, n + test),
        classes=4,
        shape=(1, 4, 4),
        mean=(0.4,),
        std=(0.25,),
        augment=False,
    )


def run(seed: int = 0, width: Fraction = Fraction(1), epochs: int = 3, **network) -> Run:
    """Return the run of a small perceptron on the small samples."""
    options = {"hidden": 16, "depth": 2} | network
    training = Training(epochs=epochs, rate=0.1, batch_size=32)
    return Run(Data(), "small-0", Network(kind="mlp", **options), training, width, seed)


def study(**over):
    """Return a study of handwritten digits that runs in seconds."""
    raw = {
        "title": "small",
        "data": {"kind": "digits", "rows": 400, "reserve": 0.2},
        "network": {"kind": "mlp", "hidden": 16, "depth": 1},
        "training": {"epochs": 3, "rate": 0.1},
        "widths": ["1", "1/2"],
        "wide": 3,
        "concatenations": {"1/2": 2},
        "studies": ["width_gap"],
    }
    return load_study(raw | over)
