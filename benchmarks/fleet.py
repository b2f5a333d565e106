"""How many networks a second train as a fleet, against plain PyTorch loops that train one at a time.

    python benchmarks/fleet.py --network resnet18 --channels 4 --json
    python benchmarks/fleet.py --network mlp --channels 20           # four hidden layers of that width
    python benchmarks/fleet.py --network transformer --channels 16   # of that hidden size; texts as long as MNLI's
    python benchmarks/fleet.py --network vgg16 --channels 4 --shared-batches --size 8 --device cuda

Net-images a second: networks times samples times steps. A step gathers a batch from bytes, crops and flips it
(images), normalises it, goes forward and back, and updates by SGD with momentum and weight decay. One thread. All
contenders take turns in every round, so that a drift of the machine hits them alike; the median round counts.

    serial_default  the loop that everybody writes: contiguous, float32, torch.optim.SGD
    serial_best     the fastest of contiguous and channels-last, float32 and bfloat16, fused SGD, compiled if asked for
    vmap            torch.func.vmap of grad over as many networks as the fleet has
    fleet           Widthwise's training loop
    processes       the same in --processes at once, one thread each, as a study trains; their rates added
    matrix_rate_share   the fleet's floating point operations over those of a float32 matrix product beside it

Results: docs/log/*-fleet*.txt, read in docs/fleets.md.
"""

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import cache
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from widthwise import family, fleet, machine, seeds
from widthwise.config import Data, Network, Run, Training
from widthwise.images import crop_and_flip
from widthwise.recorded import WARM
from widthwise.training import Events, begin, train

BATCH, RATE, MOMENTUM, DECAY = 128, 0.05, 0.9, 5e-4
HOPELESS = 2.0  # times slower than the default in its first step: not asked again
KINDS = {  # data, textbook width
    "resnet18": ("cifar10", 64),
    "vgg16": ("cifar10", 64),
    "mlp": ("digits", 256),
    "transformer": ("mnli", 128),
}


# Networks as anyone would write them ---------------------------------------------------------------------


class Every(nn.Module):
    """Every second pixel, before a 1x1 convolution: oneDNN crashes in one that is strided, channels-last and thin."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride]


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.downsample = nn.Sequential(Every(stride), shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x), inplace=True)


def resnet18(channels: int) -> nn.Module:
    widths = [channels * k for k in (1, 1, 2, 4, 8)]
    stem = [nn.Conv2d(3, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    pairs = list(zip(widths, widths[1:], (1, 2, 2, 2), strict=False))
    blocks = [block for a, b, stride in pairs for block in (Block(a, b, stride), Block(b, b, 1))]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def vgg16(channels: int) -> nn.Module:
    layers: list[nn.Module] = []
    before = 3
    for width, count in zip((1, 2, 4, 8, 8), (2, 2, 3, 3, 3), strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(before, channels * width, 3, 1, 1), nn.ReLU(inplace=True)]
            before = channels * width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1), nn.Linear(before, 10))


def mlp(units: int) -> nn.Module:
    sizes = (64, units, units, units, units)
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU(inplace=True))]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(units, 10))


class Transformer(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.project = nn.Linear(384, hidden)
        layers = [nn.TransformerEncoderLayer(hidden, 4, 8 * hidden, dropout=0.0, batch_first=True) for _ in range(4)]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        padding = x[..., -1] <= 0
        h = self.project(x[..., :-1])
        for layer in self.layers:
            h = layer(h, src_key_padding_mask=padding)
        return self.head(h.masked_fill(padding[..., None], 0).sum(1) / (~padding).sum(1, keepdim=True))


PLAIN = {"resnet18": resnet18, "vgg16": vgg16, "mlp": mlp, "transformer": Transformer}


# Contenders: each yields how many network steps a second it took -----------------------------------------


class Bench:
    """One network at one width on one machine."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.device = args, args.device
        kind, textbook = KINDS[args.network]
        options = {"hidden": textbook, "depth": 4} if args.network == "mlp" else {}
        network = Network.model_validate({"kind": args.network, **options})
        shared = {"shared_batches": True} if args.shared_batches else {}
        how = {"epochs": 1, "batch_size": BATCH, "rate": RATE, "momentum": MOMENTUM, "weight_decay": DECAY}
        training = Training.model_validate({**how, **shared, "precision": args.precision})
        data, width = Data.model_validate({"kind": kind}), Fraction(args.channels, textbook)
        self.run = Run(data, "none", network, training, width, 0)
        self.form = fleet.form(self.run, self.device)
        self.size = args.size or self.form.size
        shape = tuple(family.member("data", kind).SHAPE)
        self.warm = 1 + (WARM + 1 if self.device.startswith("cuda") else 0)  # steps that are not counted
        self.samples = machine.random_samples(self.run, shape, BATCH * (self.warm + args.steps))
        self.rows = self.samples.train.to(self.device)
        self.labels = self.samples.labels.to(self.device)

    def contenders(self) -> dict[str, Callable[[], float]]:
        formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
        if self.args.network == "transformer":
            del formats["channels-last"]
        types = {"float32": None, "bfloat16": torch.bfloat16}
        found = {"serial_default": self.serial(None, None, fused=False)}
        for (layout, memory), (name, dtype) in product(formats.items(), types.items()):
            found[f"serial {layout} {name}"] = self.serial(memory, dtype, fused=True)
        if self.args.compile:
            found["serial compiled"] = self.serial(torch.contiguous_format, None, fused=True, compiled=True)
        found |= {"vmap": self.vmapped(), "fleet": self.fleet, "matrix": matrix_rate(self.device)}
        return found | ({"processes": self.at_once()} if self.args.processes > 1 else {})

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return one network's next batch: bytes gathered, moved and mirrored, normalised; or tokens padded."""
        rows = torch.randint(len(self.rows), (BATCH,), generator=generator).to(self.device)
        samples = self.rows[rows]
        if self.samples.augment:
            samples = crop_and_flip(samples, generator)
        return self.samples.inputs(samples), self.labels[rows]

    def serial(
        self, memory: torch.memory_format | None, dtype: torch.dtype | None, *, fused: bool, compiled: bool = False
    ) -> Callable[[], float]:
        model = PLAIN[self.args.network](self.args.channels).to(self.device)
        model = model if memory is None else model.to(memory_format=memory)
        optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM, weight_decay=DECAY, fused=fused)
        forward = torch.compile(model) if compiled else model
        generator = seeds.stream(0, "serial")

        def step() -> None:
            x, y = self.batch(generator)
            x = x if memory is None else x.contiguous(memory_format=memory)
            with torch.autocast(torch.device(self.device).type, dtype or torch.bfloat16, enabled=dtype is not None):
                logits = forward(x)
            loss = F.cross_entropy(logits.float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return lambda: self.timed(step, 1)

    def vmapped(self) -> Callable[[], float]:
        models = [PLAIN[self.args.network](self.args.channels).to(self.device) for _ in range(self.size)]
        weights, buffers = stack_module_state(models)
        velocity = {name: torch.zeros_like(w) for name, w in weights.items()}
        generators = [seeds.stream(k, "vmap") for k in range(self.size)]

        def loss(weights: dict, buffers: dict, x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(models[0], (weights, buffers), (x,)), y)

        gradients = vmap(grad(loss), in_dims=(0, 0, 0, 0), randomness="different")

        def step() -> None:
            batches = [self.batch(generators[0])] * self.size if self.args.shared_batches else None
            batches = batches or [self.batch(g) for g in generators]
            x, y = (torch.stack(part) for part in zip(*batches, strict=True))
            with torch.no_grad():
                for name, g in gradients(weights, buffers, x, y).items():
                    velocity[name].mul_(MOMENTUM).add_(g).add_(weights[name], alpha=DECAY)
                    weights[name].sub_(velocity[name], alpha=RATE)

        return lambda: self.timed(step, self.size)

    def fleet(self) -> float:
        runs = [self.run] * self.size
        network = fleet.build(runs, self.samples, self.device)
        marks: list[float] = []
        events = Events(progress=lambda step, steps: marks.append(self.now()) if step in (self.warm, steps) else None)
        state = begin(network)
        member_seeds = range(network.members)
        train(network, member_seeds, self.samples, self.run.training, state, events, autocast=self.form.autocast)
        return self.size * self.args.steps / (marks[1] - marks[0])

    def at_once(self) -> Callable[[], float]:
        """Return the measurement of several processes that train a fleet each at the same time."""
        count = self.args.processes
        pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"))
        return lambda: sum(pool.map(one_fleet, [self.args] * count))

    def timed(self, step: Callable[[], None], networks: int) -> float:
        start = self.now()
        for _ in range(self.args.steps):
            step()
        return networks * self.args.steps / (self.now() - start)

    def now(self) -> float:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()


@cache
def bench_of(arguments: str) -> "Bench":
    """Return a process's own bench, made once."""
    torch.set_num_threads(1)
    return Bench(argparse.Namespace(**json.loads(arguments)))


def one_fleet(args: argparse.Namespace) -> float:
    """Return the rate of a fleet in this process."""
    return bench_of(json.dumps(vars(args))).fleet()


def matrix_rate(device: str) -> Callable[[], float]:
    """Return the measurement of floating point operations a second in a large float32 matrix product."""
    A = torch.randn(1024, 1024, generator=seeds.stream(0, "matrix")).to(device)

    def rate() -> float:
        start = time.perf_counter()
        float((A @ A)[0, 0])
        return 2 * 1024**3 / (time.perf_counter() - start)

    return lambda: max(rate() for _ in range(3))


# The table -----------------------------------------------------------------------------------------------


def rounds(bench: Bench) -> dict[str, list[float]]:
    """Return every contender's rates of all rounds; those that are hopeless in the first take no further part."""
    contenders = bench.contenders()
    for name, once in first_rates(contenders):
        if name.startswith("serial") and once[name] * HOPELESS < once["serial_default"]:
            del contenders[name]
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(bench.args.rounds):
        for name, contender in contenders.items():
            rates[name].append(contender())
    return rates


def first_rates(contenders: dict[str, Callable[[], float]]) -> Iterator[tuple[str, dict[str, float]]]:
    once: dict[str, float] = {}
    for name, contender in list(contenders.items()):
        once[name] = contender()
        yield name, once


def summary(bench: Bench) -> dict:
    rates = {name: statistics.median(found) for name, found in rounds(bench).items()}
    matrix = rates.pop("matrix")
    images = {name: BATCH * rate for name, rate in rates.items()}
    serial = {name: rate for name, rate in images.items() if name.startswith("serial")}
    best = max(serial, key=lambda name: serial[name])
    flops = 3 * machine.forward(bench.run).flops
    args = bench.args
    return {
        "network": args.network,
        "channels": args.channels,
        "batches": "shared" if args.shared_batches else "own",
        **({"precision": args.precision} if args.precision else {}),
        "serial_default": round(images["serial_default"], 1),
        "serial_best": round(serial[best], 1),
        "serial_best_form": best.removeprefix("serial "),
        "vmap": round(images["vmap"], 1),
        "fleet": round(images["fleet"], 1),
        **({"processes": round(images["processes"], 1)} if "processes" in images else {}),
        **({"over_one_process": round(images["processes"] / images["fleet"], 2)} if "processes" in images else {}),
        "form": bench.form.kind,
        "size": bench.size,
        "matrix_rate_share": round(images["fleet"] * flops / matrix, 3),
        "over_default": round(images["fleet"] / images["serial_default"], 2),
        "over_best": round(images["fleet"] / serial[best], 2),
        "serial": {name.removeprefix("serial "): round(rate, 1) for name, rate in serial.items()},
        "matrix_rate": round(matrix / 1e9, 1),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}",
        "device": torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else args.device,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(PLAIN), default="resnet18")
    parser.add_argument(
        "--channels", type=int, default=4, help="of the narrowest layer; of mlp and transformer, the hidden"
    )
    parser.add_argument("--shared-batches", action="store_true")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="of the fleet; the table's if left out")
    parser.add_argument("--size", type=int, help="members of the fleet; the table's if left out")
    parser.add_argument("--processes", type=int, default=1, help="that train a fleet each at once, beside one alone")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="let torch.compile take part in serial_best")
    parser.add_argument("--steps", type=int, default=2, help="of each contender in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32, for all
    found = summary(Bench(args))
    print(json.dumps(found) if args.json else "\n".join(f"{name:20s} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
