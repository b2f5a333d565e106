"""Steps that are recorded and replayed against the same steps taken one by one, where WIDTHWISE_TEST_DEVICE says."""

import logging
from fractions import Fraction

import pytest
import torch

from small import DEVICE
from small import samples as images
from widthwise import dropout, fleet, recorded, seeds
from widthwise.config import Data, Network, Run, Training
from widthwise.dropout import Dropout
from widthwise.recorded import WARM, Recorded
from widthwise.training import begin, train

NETWORKS = {
    "mlp": {"kind": "mlp", "hidden": 16, "depth": 2},
    "resnet18": {"kind": "resnet18", "base": "1/16"},
}
FAR = 0.05  # rounding, of bfloat16 too, after ten steps
TRAININGS = {
    "own batches": {},
    "shared batches": {"shared_batches": True},
    "bfloat16": {"precision": "bfloat16"},
    "adamw": {"optimiser": "adamw", "rate": 0.01},
    "augmented": {"augment": True},
}


def trained(network, members, training):
    """Return the state in which a fleet's training on the small samples ends."""
    told = {"epochs": 2, "rate": 0.02, "batch_size": 32} | training
    network = Network.model_validate(network)
    runs = [Run(Data(), "small-0", network, Training.model_validate(told), Fraction(1), s) for s in range(members)]
    made = fleet.build(runs, images(), DEVICE)
    form = fleet.form(runs[0], DEVICE)
    state = begin(made, runs[0].training.optimiser)
    return train(made, range(made.members), images(), runs[0].training, state, autocast=form.autocast)


@pytest.mark.parametrize("members", [2, 5])
@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
@pytest.mark.parametrize("kind", ["mlp", "resnet18"])
def test_a_training_is_the_same_recorded_or_not(kind, training, members, monkeypatch):
    """On a processor nothing is recorded; a card may take other kernels for one of them, which round otherwise."""
    ours = trained(NETWORKS[kind], members, training)
    monkeypatch.setattr(recorded, "WARM", 10**9)
    theirs = trained(NETWORKS[kind], members, training)
    assert theirs.step > 3 * WARM
    for kept in ("weights", "momentum"):
        for name, own in getattr(ours, kept).items():
            other = getattr(theirs, kept)[name]
            if DEVICE == "cpu" or not own.is_floating_point():
                assert torch.equal(own, other)
            else:
                assert bool((own - other).norm() <= FAR * other.norm())


def test_masks_that_are_held_and_drawn_anew_are_those_that_are_drawn_in_passing(seed):
    network = torch.nn.Sequential(Dropout(0.5), Dropout(0.25), Dropout(0.0))
    x, found = torch.ones(2, 3, 5, device=DEVICE), []
    for held in (False, True):
        dropout.let_go(network)
        for step in range(4):
            dropout.give_streams(network, [seeds.stream(seed + k, "masks", step) for k in range(2)])
            if held and step == 1:
                dropout.hold(network, x.device)
            if held and step > 1:
                dropout.draw(network)
            found.append(network(x))
    assert all(torch.equal(a, b) for a, b in zip(found[:4], found[4:], strict=True))
    assert not torch.equal(found[0], found[1])


def test_what_cannot_be_recorded_is_done_step_by_step(caplog):
    network = torch.nn.Linear(3, 3).to(DEVICE)

    def asks(inputs, targets):
        return (inputs * float(inputs.sum()) + targets,)

    steps = Recorded(asks, network)
    with caplog.at_level(logging.INFO, "widthwise"):
        for k in range(WARM + 3):
            x = torch.full((2, 2), float(k), device=DEVICE)
            assert torch.equal(steps(x, x)[0], 4 * k * x + x)
    assert ("cannot be recorded" in caplog.text) == (DEVICE != "cpu")
