"""The one training loop: of a fleet, of which one network is the smallest. No disk, no printing."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from widthwise import seeds
from widthwise.config import Training
from widthwise.descent import Descent, Optimiser, at_rest
from widthwise.devices import as_told, moved
from widthwise.dropout import draws, give_streams
from widthwise.errors import DataError, UsageError
from widthwise.images import crop_and_flip
from widthwise.layers import keep, unstack
from widthwise.networks.base import Network
from widthwise.ragged import Ragged
from widthwise.recorded import Recorded
from widthwise.samples import Samples

SNAPSHOTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # training accuracies
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
    histories: list[list[dict[str, Any]]] = field(default_factory=list)  # of each member, an entry an epoch


@dataclass(frozen=True)
class Events:
    """What the caller does about a training's progress; everything by default is nothing."""

    save: Callable[[State], None] = lambda state: None
    snapshot: Callable[[int, str, Mapping[str, Tensor]], None] = lambda member, name, weights: None
    progress: Callable[[int, int], None] = lambda step, steps: None
    stopping: Callable[[], bool] = lambda: False
    save_every: float = 60.0  # seconds


def steps_of(training: Training, rows: int) -> tuple[int, int]:
    """Return (steps an epoch, steps in all); the rows that fill no batch wait for the next epoch's order.

    Of fresh samples an epoch has as many batches as the training says.
    """
    per_epoch = training.fresh or max(1, rows // training.batch_size)
    return per_epoch, per_epoch * training.epochs


def rate_at(training: Training, step: int, steps: int) -> float:
    """Return the learning rate of a step (counted from 0)."""
    if training.schedule == "constant":
        return training.rate
    if training.schedule == "steps":
        return training.rate * 0.1 ** sum(step >= share * steps for share in (0.5, 0.75))
    if training.schedule == "cosine":
        return training.rate * 0.5 * (1 + math.cos(math.pi * step / steps))
    rising = max(1, round(WARM_UP * steps))
    if step < rising:
        return training.rate * (step + 1) / rising
    return training.rate * 0.5 * (1 + math.cos(math.pi * (step - rising + 1) / (steps - rising + 1)))


def diverged(history: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a member's training ended early, its loss or weights no longer finite."""
    return bool(history) and bool(history[-1].get("diverged", False))


def ended(history: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a member's training ended before its last epoch: diverged, or stopped by its loss."""
    return diverged(history) or bool(history and history[-1].get("stopped"))


def begin(network: Network, optimiser: Optimiser = "sgd") -> State:
    """Return the state before the first step."""
    return State(
        weights={name: t.detach().clone() for name, t in network.state_dict().items()},
        momentum=at_rest(network, optimiser),
        loss=torch.zeros(network.members, dtype=torch.float64),
        hits=torch.zeros(network.members, dtype=torch.float64),
        histories=[[] for _ in range(network.members)],
    )


def train(
    network: Network,
    member_seeds: Sequence[int],
    samples: Samples,
    training: Training | Sequence[Training],
    state: State,
    events: Events = Events(),
    *,
    autocast: torch.dtype | None = None,
    loop: "type[Loop] | None" = None,
) -> State:
    """Train a fleet from a state to the end and return its last state.

    Member k's order, augmentation and dropout come from streams named by its seed, the epoch and the step: a
    training that is resumed at any step goes on as if it had never stopped. A member whose loss is not finite at an
    epoch's end has diverged: it leaves the fleet with the weights it has, its history ends there and says so.

    Args:
        training: of all members, or one for each; they may differ in rate and weight decay only.
        loop: what takes its steps; `Loop` if left out.

    Raises:
        Interrupted: if `events.stopping()`; the state has been saved.
    """
    trainings = [training] * network.members if isinstance(training, Training) else training
    with as_told():
        return (loop or Loop)(network, member_seeds, samples, trainings, state, events, autocast).run()


class Loop:
    """A training under way."""

    def __init__(
        self,
        network: Network,
        member_seeds: Sequence[int],
        samples: Samples,
        trainings: Sequence[Training],
        state: State,
        events: Events,
        autocast: torch.dtype | None,
    ):
        network.load_state_dict(state.weights)
        self.network, self.samples, self.state = network, samples, state
        self.events, self.autocast = events, autocast
        self.training, self.trainings, self.member_seeds = trainings[0], list(trainings), list(member_seeds)
        self.device = next(network.parameters()).device
        self.rows = samples.training_rows.to(self.device)
        self.labels = samples.training_labels.to(self.device)
        self.augment = samples.augment if self.training.augment is None else self.training.augment
        size = self.training.batch_size
        self.batch_size = size if self.training.fresh else min(size, len(self.rows))
        self.per_epoch, self.steps = steps_of(self.training, len(self.rows))
        self.before, self.start, self.saved = state.seconds, time.monotonic(), time.monotonic()
        self.places = list(range(network.members))  # whose networks the fleet has, of those it began with
        self.gather(state.momentum)
        self.leave()

    def run(self) -> State:
        """Train to the end."""
        while self.state.step < self.steps:
            for batch in self.batches():
                self.step(batch)
                self.events.progress(self.state.step, self.steps)
                if self.state.step % self.per_epoch == 0:
                    self.end_epoch()
                self.save_at_times()
                if all(map(ended, self.state.histories)):
                    return self.current()
        return self.current()

    def batches(self) -> Iterator[Int[Tensor, "members batch"]]:
        """Yield the row numbers of what is left of an epoch, each member's in its own order or all in one."""
        epoch, done = divmod(self.state.step, self.per_epoch)
        streams = self.streams("order", epoch)
        order = moved(torch.stack([torch.randperm(len(self.rows), generator=g) for g in streams]), self.device)
        for k in range(done, self.per_epoch):
            yield order[:, k * self.batch_size : (k + 1) * self.batch_size]

    def streams(self, name: str, number: int) -> list[torch.Generator]:
        """Return the streams of samples: one for each member, or a single one for all."""
        if self.training.shared_batches:
            return [seeds.stream(0, "shared", name, number)]
        return [seeds.stream(self.member_seeds[k], name, number) for k in self.places]

    def step(self, batch: Int[Tensor, "members batch"]) -> None:
        """Take one step of the descent in every member."""
        if not self.network.training:  # a walk through all modules
            self.network.train()
        inputs, targets = self.inputs(batch), self.labels[batch].expand(len(self.places), -1)
        if self.draws:
            own = [self.member_seeds[k] for k in self.places]
            give_streams(self.network, [seeds.stream(seed, "dropout", self.state.step) for seed in own])
        loss, hits = self.learn(inputs.expand(len(self.places), *inputs.shape[1:]), targets)
        rates = [rate_at(self.trainings[k], self.state.step, self.steps) for k in self.places]
        rate = moved(torch.tensor(rates, dtype=self.decay.dtype), self.device)
        self.descent.step(rate, self.training.momentum, self.decay, self.state.step)
        self.loss += loss
        self.hits += hits
        self.state.step += 1

    def there_and_back(
        self, inputs: Float[Tensor, "members batch ..."], targets: Int[Tensor, "members batch"]
    ) -> tuple[Float[Tensor, " members"], Int[Tensor, " members"]]:
        """Leave every member's gradient to the descent; return losses and how many samples each has right."""
        half = self.autocast or torch.bfloat16
        with torch.autocast(self.device.type, dtype=half, enabled=self.autocast is not None):
            logits = self.network(inputs)  # (members, batch, classes)
        loss = _loss(logits, targets)  # (members,)
        self.descent.begin()
        loss.sum().backward()  # Each member's gradient is that of its own mean loss.
        self.descent.gather()
        return loss.detach(), (logits.detach().argmax(2) == targets).sum(1)

    def inputs(self, batch: Int[Tensor, "members batch"]) -> Float[Tensor, "members batch ..."]:
        """Return every member's samples, cropped and flipped from its own stream of the step; or one for all."""
        rows = self.rows.index_select(0, batch.flatten())
        if self.augment:
            if isinstance(rows, Ragged):
                raise UsageError(
                    "training.augment: texts are not cropped and flipped; leave it out, or set it to false."
                )
            rows = crop_and_flip(rows, self.streams("augment", self.state.step))
        inputs = self.samples.inputs(rows, self.samples.longest, images_last=self.images_last)
        return inputs.unflatten(0, batch.shape)

    def gather(self, momentum: Mapping[str, Tensor]) -> None:
        """Lay the fleet's parameters out for the descent, and choose how steps are taken until they move again.

        `momentum` is that of its members.
        """
        top, classes = int(self.labels.max()), self.network.classes
        if top >= classes:
            raise DataError(f"CLASSES of the data set: {classes} are too few, a training row has label {top}.")
        self.descent = Descent(self.network, momentum, self.training.optimiser)
        shape = (self.batch_size, *self.rows.shape[1:]) if isinstance(self.rows, Tensor) else ()
        exact = self.autocast is None
        own = self.network.learner(self.descent.parts, shape) if exact else None
        self.learn = own or Recorded(self.there_and_back, self.network)
        self.images_last = self.network.images_last and exact
        self.draws = draws(self.network)
        self.decay = self.descent.weights.new_tensor([self.trainings[k].weight_decay for k in self.places])
        self.loss, self.hits = (t[self.places].to(self.device) for t in (self.state.loss, self.state.hits))

    def leave(self) -> None:
        """Let members that have ended leave the fleet; two stay, since one by itself uses other kernels."""
        done = [k for k in self.places if ended(self.state.histories[k])]
        company = done[: max(0, 2 - len(self.places) + len(done))]
        stay = [k for k in self.places if k not in done or k in company]
        if len(stay) < len(self.places):
            state = self.current()
            keep(self.network, [self.places.index(k) for k in stay])
            self.places = stay
            self.gather({name: t[stay] for name, t in state.momentum.items()})

    def end_epoch(self) -> None:
        """Write down the epoch of every member; take the snapshots that its training accuracy calls for."""
        tested = len(self.samples.test)
        if self.state.step < self.steps:
            tested = min(WATCHED, tested)
        accuracy, finite = self.tested(tested), (self.loss.isfinite() & self.finite()).tolist()
        means = zip((self.loss / self.per_epoch).tolist(), (self.hits / self.per_epoch).tolist(), strict=True)
        for n, (k, (loss, hits)) in enumerate(zip(self.places, means, strict=True)):
            if not ended(self.state.histories[k]):
                self.write(n, k, loss, hits / self.batch_size, float(accuracy[n]), finite[n])
        for sums in (self.loss, self.hits, self.state.loss, self.state.hits):
            sums.zero_()
        self.leave()

    def tested(self, rows: int) -> Float[Tensor, " members"]:
        """Return every member's accuracy on so many test rows."""
        return accuracies(self.network, self.samples, self.samples.test[:rows], self.samples.test_labels[:rows])

    def finite(self) -> Bool[Tensor, " members"]:
        """Return whose weights are finite."""
        return self.descent.weights.isfinite().all(1)

    def write(self, n: int, k: int, loss: float, accuracy: float, test_accuracy: float, finite: bool) -> None:
        """Write down the epoch of member k, the n-th in the fleet now, and take its snapshots."""
        history = self.state.histories[k]
        reached = max((epoch["train_accuracy"] for epoch in history), default=0.0)
        history.append(
            {
                "epoch": len(history) + 1,
                "rate": rate_at(self.trainings[k], self.state.step - 1, self.steps),
                "train_loss": loss,
                "train_accuracy": accuracy,
                "test_accuracy": test_accuracy,
                "seconds": round(self.seconds, 3),
                **({} if finite else {"diverged": True}),
            }
        )
        if finite:
            self.snapshots(n, k, reached, accuracy)

    def snapshots(self, n: int, k: int, before: float, now: float) -> None:
        """Take the snapshots of training accuracies that a member has reached now."""
        for share in SNAPSHOTS:
            if before < share <= now:
                self.events.snapshot(k, f"at_{share}", unstack(self.network.state_dict(), n))

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
        state, places = self.state, self.places
        state.weights = _laid_into(state.weights, self.network.state_dict(), places)
        state.momentum = _laid_into(state.momentum, self.momentum(), places)
        state.loss[places], state.hits[places] = self.loss.cpu(), self.hits.cpu()
        state.seconds = self.seconds
        return state

    def momentum(self) -> dict[str, Tensor]:
        """Return what the descent keeps beside the weights."""
        return self.descent.momentum()

    @property
    def seconds(self) -> float:
        """Seconds of this training, those before a restart among them."""
        return self.before + time.monotonic() - self.start


def _laid_into(whole: Mapping[str, Tensor], parts: Mapping[str, Tensor], places: list[int]) -> dict[str, Tensor]:
    """Return copies of tensors of all members, with the parts of some in their places."""
    copies = {}
    for name, part in parts.items():
        copies[name] = whole[name].to(part.device, copy=True)
        copies[name][places] = part.detach()
    return copies


def _loss(logits: Float[Tensor, "members batch classes"], targets: Int[Tensor, "members batch"]) -> Tensor:
    flat = logits.flatten(0, 1)
    if flat.dtype == torch.bfloat16:
        flat = flat.float()
    each = torch.nn.functional.cross_entropy(flat, targets.flatten(), reduction="none")
    return each.view(targets.shape).mean(1)


@torch.no_grad()
def accuracies(
    network: Network, samples: Samples, rows: Tensor | Ragged, labels: Int[Tensor, " rows"], size: int = 500
) -> Float[Tensor, " members"]:
    """Return every member's accuracy on the same rows, in evaluation mode and un-augmented."""
    network.eval()
    device = next(network.parameters()).device
    hits = torch.zeros(network.members, dtype=torch.float64)
    for start in range(0, len(rows), size):
        inputs = samples.inputs(rows[start : start + size].to(device))
        logits = network(inputs.expand(network.members, *inputs.shape))
        hits += (logits.argmax(2).cpu() == labels[start : start + size]).sum(1)
    return hits / max(len(rows), 1)
