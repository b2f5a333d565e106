"""Steps of the toy that touch active neurons only against steps of everything: seconds of each, and their ratio.

    python benchmarks/active.py [neurons] [steps]

Both train one threshold_mlp on the same fresh samples, in turn, on one thread. The dense step is automatic
differentiation of all parameters on patches as they are.
"""

import sys
import time
from fractions import Fraction

import torch

from widthwise import seeds
from widthwise.active import Active
from widthwise.config import Training
from widthwise.data import signals
from widthwise.data.base import Endless
from widthwise.layers import initialise
from widthwise.networks import base
from widthwise.samples import Samples
from widthwise.training import Events, begin, train

RATE, DECAY, BATCH = 0.006, 0.003, 64


def network(neurons):
    made = base.build("threshold_mlp", signals.SHAPE, 2, Fraction(neurons), 1, threshold=0.5, ratio=3.1)
    initialise(made, [seeds.stream(0, "init")])
    return made


def samples():
    ids, rows = torch.arange(10), torch.zeros(10, *signals.SHAPE)
    rows[:, range(5), range(5)] = 1.0
    rows[:, 5, 5] = 1.0
    labels = torch.zeros(10, dtype=torch.int64)
    endless = Endless(signals, {})
    facts = {"classes": 2, "shape": signals.SHAPE, "mean": (0.0,), "std": (1.0,), "augment": False, "endless": endless}
    trained = torch.ones(10, dtype=torch.bool)
    return Samples("none", rows, labels, ids, trained, rows, labels, ids, **facts)


def ours(neurons, steps):
    made = network(neurons)
    training = Training(
        optimiser="normalised_sgd",
        schedule="constant",
        rate=RATE,
        weight_decay=DECAY,
        batch_size=BATCH,
        fresh=steps,
        epochs=1,
    )
    start = time.perf_counter()
    train(made, [0], samples(), training, begin(made, training.optimiser), Events(), loop=Active)
    return time.perf_counter() - start


def dense(neurons, steps):
    made = network(neurons)
    parameters = list(made.parameters())
    start = time.perf_counter()
    signs, noise = signals.draw(seeds.stream(0, "fresh", 0), steps, BATCH)
    for s, z in zip(signs, noise, strict=True):
        rows = torch.zeros(BATCH, *signals.SHAPE)
        rows[:, :5, :5], rows[:, 5:, 5:] = torch.diag_embed(s), z
        logits = made(rows[None])[0]
        gradients = torch.autograd.grad(
            torch.nn.functional.cross_entropy(logits, (signals.label(s) > 0).long()), parameters
        )
        with torch.no_grad():
            norm = sum(g.square().sum() for g in gradients).sqrt()
            for p, g in zip(parameters, gradients, strict=True):
                p.mul_(1 - RATE * DECAY).sub_(g, alpha=float(RATE / norm))
    return time.perf_counter() - start


if __name__ == "__main__":
    neurons, steps = (int(value) for value in [*sys.argv[1:], "30000", "100"][:2])
    torch.set_num_threads(1)
    ours(neurons, 5), dense(neurons, 5)
    for _ in range(3):
        a, b = ours(neurons, steps), dense(neurons, steps)
        print(f"{neurons} neurons, {steps} steps: active {a:.2f} s, dense {b:.2f} s, ratio {b / a:.1f}", flush=True)
