"""The one training loop: of a fleet, of which one network is the smallest. No disk, no printing."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise import seeds
from widthwise.config import Training
from widthwise.data.base import crop_and_flip, normalise
from widthwise.layers import give_streams, unstack
from widthwise.networks.base import Network
from widthwise.samples import Samples

SNAPSHOTS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # training accuracies
WATCHED = 1000  # test rows whose accuracy is taken every epoch; all of them at the end
WARM_UP = 0.3  # share of one_cycle's steps in which the rate rises


class Interrupted(Exception):
    """Training was asked to stop; what it had done has been saved."""


@dataclass
class State:
    """Where a training is: everything that the next step depends on but the seeds.

    Tensors have the member dimension first, so that a member's state is a slice.
    """

    weights: dict[str, Tensor]
    momentum: dict[str, Tensor]
    loss: Float[Tensor, " members"]  # sums over the epoch so far
    hits: Float[Tensor, " members"]
    step: int = 0
    seconds: float = 0.0
    histories: list[list[dict[str, float]]] = field(default_factory=list)  # of each member, an entry an epoch


@dataclass(frozen=True)
class Events:
    """What the caller does about a training's progress; everything by default is nothing."""

    save: Callable[[State], None] = lambda state: None
    snapshot: Callable[[int, str, Mapping[str, Tensor]], None] = lambda member, name, weights: None
    progress: Callable[[int, int], None] = lambda step, steps: None
    stopping: Callable[[], bool] = lambda: False
    save_every: float = 60.0  # seconds


def steps_of(training: Training, rows: int) -> tuple[int, int]:
    """Return (steps an epoch, steps in all); the rows that fill no batch wait for the next epoch's order."""
    per_epoch = max(1, rows // training.batch_size)
    return per_epoch, per_epoch * training.epochs


def rate_at(training: Training, step: int, steps: int) -> float:
    """Return the learning rate of a step (counted from 0)."""
    if training.schedule == "constant":
        return training.rate
    if training.schedule == "steps":
        return training.rate * 0.1 ** sum(step >= share * steps for share in (0.5, 0.75))
    rising = max(1, round(WARM_UP * steps))
    if step < rising:
        return training.rate * (step + 1) / rising
    return training.rate * 0.5 * (1 + math.cos(math.pi * (step - rising + 1) / (steps - rising + 1)))


def begin(network: Network) -> State:
    """Return the state before the first step."""
    parameters = dict(network.named_parameters())
    return State(
        weights={name: t.detach().clone() for name, t in network.state_dict().items()},
        momentum={name: torch.zeros_like(p) for name, p in parameters.items()},
        loss=torch.zeros(network.members, dtype=torch.float64),
        hits=torch.zeros(network.members, dtype=torch.float64),
        histories=[[] for _ in range(network.members)],
    )


def train(
    network: Network,
    member_seeds: Sequence[int],
    samples: Samples,
    training: Training,
    state: State,
    events: Events = Events(),
    *,
    autocast: torch.dtype | None = None,
) -> State:
    """Train a fleet from a state to the end and return its last state.

    Member k's order, augmentation and dropout come from streams named by its seed, the epoch and the step: a
    training that is resumed at any step goes on as if it had never stopped.

    Raises:
        Interrupted: if `events.stopping()`; the state has been saved.
    """
    return _Loop(network, member_seeds, samples, training, state, events, autocast).run()


class _Loop:
    """A training under way."""

    def __init__(
        self,
        network: Network,
        member_seeds: Sequence[int],
        samples: Samples,
        training: Training,
        state: State,
        events: Events,
        autocast: torch.dtype | None,
    ):
        network.load_state_dict(state.weights)
        self.network, self.member_seeds, self.samples = network, member_seeds, samples
        self.training, self.state, self.events, self.autocast = training, state, events, autocast
        self.device = next(network.parameters()).device
        self.momentum = {name: t.to(self.device).clone() for name, t in state.momentum.items()}
        self.rows = samples.training_rows.to(self.device)
        self.labels = samples.training_labels.to(self.device)
        self.augment = samples.augment if training.augment is None else training.augment
        self.batch_size = min(training.batch_size, len(self.rows))
        self.per_epoch, self.steps = steps_of(training, len(self.rows))
        self.before, self.start, self.saved = state.seconds, time.monotonic(), time.monotonic()

    def run(self) -> State:
        """Train to the end."""
        while self.state.step < self.steps:
            for batch in self.batches():
                self.step(batch)
                self.events.progress(self.state.step, self.steps)
                if self.state.step % self.per_epoch == 0:
                    self.end_epoch()
                self.save_at_times()
        return self.current()

    def batches(self) -> Iterator[Int[Tensor, "members batch"]]:
        """Yield the row numbers of what is left of an epoch, each member's in its own order."""
        epoch, done = divmod(self.state.step, self.per_epoch)
        streams = [seeds.stream(seed, "order", epoch) for seed in self.member_seeds]
        order = torch.stack([torch.randperm(len(self.rows), generator=g) for g in streams])
        for k in range(done, self.per_epoch):
            yield order[:, k * self.batch_size : (k + 1) * self.batch_size].to(self.device)

    def step(self, batch: Int[Tensor, "members batch"]) -> None:
        """Take one step of stochastic gradient descent in every member."""
        self.network.train()
        inputs, targets = self.inputs(batch), self.labels[batch]
        give_streams(self.network, [seeds.stream(s, "dropout", self.state.step) for s in self.member_seeds])
        half = self.autocast or torch.bfloat16
        with torch.autocast(self.device.type, dtype=half, enabled=self.autocast is not None):
            logits = self.network(inputs)  # (members, batch, classes)
        loss = _loss(logits, targets)  # (members,)
        self.network.zero_grad(set_to_none=True)
        loss.sum().backward()  # Each member's gradient is that of its own mean loss.
        rate = rate_at(self.training, self.state.step, self.steps)
        _descend(self.network, self.momentum, self.training, rate)
        self.state.loss += loss.detach().cpu().to(torch.float64)
        self.state.hits += (logits.detach().argmax(2) == targets).sum(1).cpu()
        self.state.step += 1

    def inputs(self, batch: Int[Tensor, "members batch"]) -> Float[Tensor, "members batch ..."]:
        """Return every member's samples, cropped and flipped from its own stream of the step."""
        images = self.rows[batch]
        if self.augment:
            streams = [seeds.stream(s, "augment", self.state.step) for s in self.member_seeds]
            images = torch.stack([crop_and_flip(own, g) for own, g in zip(images, streams, strict=True)])
        return normalise(images, self.samples.mean, self.samples.std)

    def end_epoch(self) -> None:
        """Write down the epoch of every member; take the snapshots that its training accuracy calls for."""
        state, tested = self.state, len(self.samples.test)
        if state.step < self.steps:
            tested = min(WATCHED, tested)
        accuracy = accuracies(self.network, self.samples, self.samples.test[:tested], self.samples.test_labels[:tested])
        for k, history in enumerate(state.histories):
            reached = max((epoch["train_accuracy"] for epoch in history), default=0.0)
            history.append(
                {
                    "epoch": len(history) + 1,
                    "rate": rate_at(self.training, state.step - 1, self.steps),
                    "train_loss": float(state.loss[k]) / self.per_epoch,
                    "train_accuracy": float(state.hits[k]) / (self.per_epoch * self.batch_size),
                    "test_accuracy": float(accuracy[k]),
                    "seconds": round(self.seconds, 3),
                }
            )
            for share in SNAPSHOTS:
                if reached < share <= history[-1]["train_accuracy"]:
                    self.events.snapshot(k, f"at_{share}", unstack(self.network.state_dict(), k))
        state.loss.zero_()
        state.hits.zero_()

    def save_at_times(self) -> None:
        """Save the state every so often, and before stopping."""
        stopping = self.events.stopping()
        if stopping or time.monotonic() - self.saved > self.events.save_every:
            self.events.save(self.current())
            self.saved = time.monotonic()
        if stopping:
            raise Interrupted

    def current(self) -> State:
        """Return the state as it is now, with weights and momentum copied out."""
        self.state.weights = {name: t.detach().clone() for name, t in self.network.state_dict().items()}
        self.state.momentum = {name: t.clone() for name, t in self.momentum.items()}
        self.state.seconds = self.seconds
        return self.state

    @property
    def seconds(self) -> float:
        """Seconds of this training, those before a restart among them."""
        return self.before + time.monotonic() - self.start


def _loss(logits: Float[Tensor, "members batch classes"], targets: Int[Tensor, "members batch"]) -> Tensor:
    flat = logits.flatten(0, 1)
    if flat.dtype == torch.bfloat16:
        flat = flat.float()
    each = torch.nn.functional.cross_entropy(flat, targets.flatten(), reduction="none")
    return each.view(targets.shape).mean(1)


@torch.no_grad()
def accuracies(
    network: Network, samples: Samples, rows: Tensor, labels: Int[Tensor, " rows"], size: int = 500
) -> Float[Tensor, " members"]:
    """Return every member's accuracy on the same rows, in evaluation mode and un-augmented."""
    network.eval()
    device = next(network.parameters()).device
    hits = torch.zeros(network.members, dtype=torch.float64)
    for start in range(0, len(rows), size):
        images = normalise(rows[start : start + size].to(device), samples.mean, samples.std)
        logits = network(images.expand(network.members, *images.shape))
        hits += (logits.argmax(2).cpu() == labels[start : start + size]).sum(1)
    return hits / max(len(rows), 1)


def _descend(network: Network, momentum: Mapping[str, Tensor], training: Training, rate: float) -> None:
    """V <- momentum v + gradient + decay w, w <- w - rate v.

    Every operation rounds by itself. A fused one rounds the end of a tensor, which does not fill a vector,
    unlike the rest, and where a member ends depends on its companions.
    """
    with torch.no_grad():
        for name, weight in network.named_parameters():
            assert weight.grad is not None
            velocity = momentum[name]
            velocity.mul_(training.momentum).add_(weight.grad).add_(weight * training.weight_decay)
            weight.sub_(velocity * rate)
