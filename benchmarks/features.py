"""Features of real trained networks, for the other benchmarks: 128 narrow MLPs (width 64) and one wide (width 512).

    python benchmarks/features.py DATA OUT [SEED]        # 0 if left out; other networks with another

Three hidden ReLU layers on CIFAR-10 shrunk to 8 x 8 (192 inputs), a few epochs of Adam, all narrow ones in batched
products. Writes OUT/narrow.npy (60,000 x 8,192 float32) and OUT/wide.npy (60,000 x 512): the 50,000 training rows,
then the 10,000 test rows. Minutes on two cores.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from widthwise.data import cifar10
from widthwise.images import normalise

EPOCHS, BATCH, RATE = 4, 250, 2e-3


def main(root: Path, out: Path, seed: int = 0) -> None:
    data = cifar10.read(root)
    train, test = (shrunk(images) for images in (data.train, data.test))
    out.mkdir(parents=True, exist_ok=True)
    for name, members, width in (("wide", 1, 512), ("narrow", 128, 64)):
        weights = fitted(train, data.train_labels, members, width, seed)
        rows = [hidden(weights, x)[-1].transpose(0, 1).flatten(1) for x in torch.cat([train, test]).split(2000)]
        features = torch.cat(rows)
        right = torch.cat([logits(weights, x).argmax(2) for x in test.split(2000)], 1) == data.test_labels
        dead = int((features[:50000].amax(0) == 0).sum())
        accuracy = float(right.double().mean())
        print(f"{name}: test accuracy {accuracy:.3f}, {dead} of {features.shape[1]} features dead", flush=True)
        np.save(out / f"{name}.npy", features.numpy())


def shrunk(images: Tensor) -> Tensor:
    inputs = [F.avg_pool2d(normalise(some, cifar10.MEAN, cifar10.STD), 4) for some in images.split(5000)]
    return torch.cat(inputs).flatten(1)


def fitted(X: Tensor, y: Tensor, members: int, width: int, seed: int) -> list[Tensor]:
    """Return weights and biases of all members, layer by layer."""
    random = torch.Generator().manual_seed(width + 1000 * seed)
    sizes = [X.shape[1], width, width, width, 10]
    weights = []
    for fan_in, fan_out in pairwise(sizes):
        weights.append(torch.randn(members, fan_in, fan_out, generator=random) * (2 / fan_in) ** 0.5)
        weights.append(torch.zeros(members, 1, fan_out))
    for w in weights:
        w.requires_grad_()
    optimizer = torch.optim.Adam(weights, RATE)
    steps = EPOCHS * len(X) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(X), generator=random).split(BATCH):
            out = logits(weights, X[rows])
            loss = F.cross_entropy(out.flatten(0, 1), y[rows].repeat(members)) * members
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return [w.detach() for w in weights]


def hidden(weights: list[Tensor], X: Tensor) -> list[Tensor]:
    layers, x = [], X.expand(len(weights[0]), *X.shape)
    for W, b in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = torch.relu(torch.baddbmm(b, x, W))
        layers.append(x)
    return layers


def logits(weights: list[Tensor], X: Tensor) -> Tensor:
    return torch.baddbmm(weights[-1], hidden(weights, X)[-1], weights[-2])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
