"""What a short one-cycle recipe reaches against a long step recipe: ResNet-18, base 1/8, 10,000 rows of CIFAR-10.

Run it with a folder of data sets and a store, which it resumes; the result is in docs/reproduction.md:

    python benchmarks/recipes.py DATA STORE
"""

import sys
from fractions import Fraction
from pathlib import Path

import torch

from widthwise import fleet, samples
from widthwise.config import Data, Network, Run, Training
from widthwise.store import Store

RECIPES = {
    "one-cycle, 6 epochs": Training(epochs=6, rate=0.2, schedule="one_cycle"),
    "steps, 24 epochs": Training(epochs=24, rate=0.1, schedule="steps"),
}


def main(root: Path, store: Store) -> None:
    torch.set_num_threads(1)
    data = Data(kind="cifar10", rows=10000, root=root)
    found = samples.load(data, store)
    network = Network(kind="resnet18", base=Fraction(1, 8))
    print("recipe                train loss  train accuracy  test accuracy  seconds")
    for name, training in RECIPES.items():
        run = Run(data, found.checksum, network, training, Fraction(1), 0)
        fleet.train_fleet([run], found, store)
        entry = store.get("runs", run.key)
        assert entry is not None
        last = entry.json("history")[-1]
        numbers = f"{last['train_loss']:10.4f}  {last['train_accuracy']:14.4f}  {last['test_accuracy']:13.4f}"
        print(f"{name:20s}  {numbers}  {last['seconds']:7.0f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Store(sys.argv[2]))
