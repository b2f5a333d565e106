"""Normalised descent of threshold networks that touches only the neurons that a batch activates.

    w <- (1 - rate decay) w - rate g / |g|         decay outside of the norm
    w <- w - rate (g + decay w) / |g + decay w|    inside

g is a network's gradient, |.| the norm over all its parameters. A neuron that no patch of the batch activates has no
gradient: it only shrinks, by the same factor as all others. So the first two layers are kept as scale * weights, with
one scale a network, and a step costs what the active neurons cost: the rest is exact. Duzgun, Jelassi and Li (2024),
appendix C, train by normalised descent.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from widthwise.errors import UsageError
from widthwise.layers import LANES
from widthwise.training import Loop, State, ended, rate_at

AT_ONCE = 250  # test rows
FALLS = 0.99  # of a loss, within the epochs that it may be flat
SMALLEST = 1e-18  # norm of a gradient; below it, where float32 has no squares any more, there is none


@dataclass(frozen=True)
class Batch:
    """Samples of every member, or one view of those that all share."""

    signs: Float[Tensor, "members batch signals"]
    noise: Float[Tensor, "members batch patches dimension"]
    targets: Float[Tensor, "members batch"]  # 0 or 1


@dataclass(frozen=True)
class Pass:
    """What a forward pass leaves for the way back. Weights of neurons are true ones, of those that are active."""

    active: Bool[Tensor, "members neurons"]
    number: Int[Tensor, "members active"]  # of each active neuron; those that only fill up are 0, with weights of 0
    weights: Float[Tensor, "members active dimension"]
    second: Float[Tensor, "members active hidden"]
    shown: Float[Tensor, "members batch both"]  # which signals are in a sample, with + and then with -
    reached: Float[Tensor, "members active both"]
    noisy: Float[Tensor, "members batch*patches active"]
    layers: tuple[Float[Tensor, "members batch _"], ...]  # outputs of the neurons and of the three layers
    logits: Float[Tensor, "members batch"]


class Active(Loop):
    """A training under way of a fleet of `threshold_mlp` on `signals`, or on data with the same parts.

    Raises:
        UsageError: if it is no fleet of `threshold_mlp`, or its samples are not signs and noise.
    """

    def gather(self, momentum: Mapping[str, Tensor]) -> None:
        """Lay the fleet's parameters out: neurons as rows of both layers that they are in."""
        network: Any = self.network
        if not hasattr(network, "neurons") or self.samples.endless is None:
            raise UsageError("training.optimiser: normalised_sgd trains threshold_mlp, on signals; take sgd or adamw.")
        members = len(self.places)
        first = network.neurons.weight.detach()  # (members, neurons, dimension)
        self.dimension = first.shape[2]
        self.first = F.pad(first, (0, -self.dimension % LANES))
        self.second = network.second.weight.detach().mT.contiguous()  # (members, neurons, hidden)
        self.threshold, self.neurons = network.neurons.threshold, first.shape[1]
        rest = (network.second.bias, *network.third.parameters(), *network.fourth.parameters())
        self.rest = [p.detach() for p in (*rest, *network.head.parameters())]
        self.scale = momentum["scale"].to(self.device, torch.float64).clone()
        self.draws, self.data = False, self.samples.endless
        self.decay = self.first.new_tensor([self.trainings[k].weight_decay for k in self.places])
        self.start_of_rows = self.neurons * torch.arange(members, device=self.device)[:, None]
        self.square()
        self.loss, self.hits = (t[self.places].to(self.device) for t in (self.state.loss, self.state.hits))

    def momentum(self) -> dict[str, Tensor]:
        """Return the scales of the neurons' weights."""
        return {"scale": self.scale.clone()}

    def current(self) -> State:
        """Return the state as it is now; the neurons' weights are yet to be multiplied by their scale."""
        network: Any = self.network
        with torch.no_grad():
            network.neurons.weight.copy_(self.first[..., : self.dimension])
            network.second.weight.copy_(self.second.mT)
        return super().current()

    @torch.no_grad()
    def batches(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yield what is left of an epoch: fresh samples, or the training rows in each member's own order."""
        epoch, done = divmod(self.state.step, self.per_epoch)
        signs, noise = self.fresh(epoch) if self.training.fresh else self.ordered(epoch)
        targets = (self.data.label(signs) > 0).to(self.first.dtype)
        for k in range(done, self.per_epoch):
            yield Batch(signs[:, k], noise[:, k], targets[:, k])

    def fresh(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return an epoch of samples that nothing else has seen: signs and noise, (members, steps, batch, ...)."""
        size = (self.per_epoch, self.training.batch_size)
        drawn = [self.data.draw(stream, *size) for stream in self.streams("fresh", epoch)]
        return self.on_device(torch.stack(part) for part in zip(*drawn, strict=True))

    def ordered(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return an epoch of the training rows."""
        rows = self.per_epoch * self.batch_size
        order = [torch.randperm(len(self.rows), generator=stream)[:rows] for stream in self.streams("order", epoch)]
        parts = self.data.parts(self.samples.training_rows)
        cut = (len(order), self.per_epoch, self.batch_size)
        return self.on_device(part[torch.stack(order)].view(*cut, *part.shape[1:]) for part in parts)

    def on_device(self, parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Return parts as the network computes, each for every member; noise in all dimensions of space."""
        members, dtype = len(self.places), self.first.dtype
        signs, noise = (part.to(self.device, dtype) for part in parts)
        noise = F.pad(noise, (signs.shape[-1], self.first.shape[2] - self.dimension))
        return signs.expand(members, *signs.shape[1:]), noise.expand(members, *noise.shape[1:])

    @torch.no_grad()
    def step(self, batch: Batch) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step of the descent in every member."""
        rate = self.decay.new_tensor([self.rate_of(k) for k in self.places])
        own = self.forward(batch.signs, batch.noise, self.active(batch.signs, batch.noise))
        loss = (F.softplus(own.logits) - batch.targets * own.logits).mean(1)
        self.descend(own, self.gradients(own, batch), rate)
        self.loss += loss
        self.hits += ((own.logits > 0) == (batch.targets > 0)).sum(1)
        self.state.step += 1

    def rate_of(self, k: int) -> float:
        """Return a member's rate: 0 once it has ended, though it keeps others company."""
        if ended(self.state.histories[k]):
            return 0.0
        return rate_at(self.trainings[k], self.state.step, self.steps)

    # Forward ------------------------------------------------------------------------------------------------

    def active(self, signs: Tensor, noise: Tensor) -> Bool[Tensor, "members neurons"]:
        """Return the neurons that any signal, or any of some noise patches, activates."""
        signals, threshold = signs.shape[2], (self.threshold / self.scale).to(self.first.dtype)[:, None]
        found = self.first[..., :signals].abs().amax(2) > threshold
        if noise.shape[2]:
            found |= torch.bmm(noise.flatten(1, 2), self.first.mT).amax(1) > threshold
        return found

    def forward(self, signs: Tensor, noise: Tensor, active: Bool[Tensor, "members neurons"]) -> Pass:
        """Return the logits of samples, and all that leads to them; the neurons that are not active have no part."""
        signals, (members, batch) = signs.shape[2], signs.shape[:2]
        number, there = _listed(active)
        scale = self.scale.to(self.first.dtype)[:, None, None] * there[..., None]
        weights, second = (self.rows_of(layer, number) * scale for layer in (self.first, self.second))
        shown = torch.cat([signs > 0, signs < 0], 2).to(self.first.dtype)
        shown, known = _filled(shown), weights[..., :signals]
        reached = (_filled(torch.cat([known, -known], 2)) - self.threshold).relu_()
        output = torch.bmm(shown, reached.mT)  # (members, batch, active)
        noisy = torch.bmm(noise.flatten(1, 2), weights.mT).sub_(self.threshold).relu_()
        if noise.shape[2]:
            output += noisy.view(members, batch, -1, noisy.shape[2]).sum(2)
        layers, maps = [output], [second.mT, self.rest[1], self.rest[3]]
        for weight, bias in zip(maps, self.rest[0:5:2], strict=True):
            layers.append(torch.baddbmm(bias[:, None], layers[-1], weight.mT).relu_())
        logits = (layers[-1] * self.rest[5]).sum(2) + self.rest[6]
        return Pass(active, number, weights, second, shown, reached, noisy, tuple(layers), logits)

    def rows_of(self, weights: Tensor, number: Int[Tensor, "members active"]) -> Float[Tensor, "members active _"]:
        """Return the rows of some neurons."""
        rows = (number + self.start_of_rows).flatten()
        return weights.view(-1, weights.shape[2]).index_select(0, rows).view(*number.shape, -1)

    # Backward -----------------------------------------------------------------------------------------------

    def gradients(self, own: Pass, batch: Batch) -> list[Tensor]:
        """Return the gradients of the active neurons' rows of both layers, then of the rest of the parameters."""
        neurons, *hidden = own.layers
        error = ((own.logits.sigmoid() - batch.targets) / own.logits.shape[1])[..., None]
        rest = [(error * hidden[2]).sum(1, keepdim=True), error.sum(1)]
        back = error * self.rest[5] * (hidden[2] > 0)
        for k, weight in ((1, self.rest[3]), (0, self.rest[1])):
            rest = [torch.bmm(back.mT, hidden[k]), back.sum(1), *rest]
            back = torch.bmm(back, weight) * (hidden[k] > 0)
        rest = [back.sum(1), *rest]
        second = torch.bmm(neurons.mT, back)
        back = torch.bmm(back, own.second.mT)  # (members, batch, active)
        signals = batch.signs.shape[2]
        known = torch.bmm(back.mT, own.shown) * (own.reached > 0)
        patches = own.noisy.shape[1] // max(back.shape[1], 1)
        noisy = back.repeat_interleave(patches, 1) if patches != 1 else back
        first = torch.bmm((noisy * (own.noisy > 0)).mT, batch.noise.flatten(1, 2))
        first[..., :signals] += known[..., :signals] - known[..., signals : 2 * signals]
        return [first, second, *rest]

    def descend(self, own: Pass, gradients: list[Tensor], rate: Float[Tensor, " members"]) -> None:
        """Update all parameters: the active neurons' rows, every scale, the rest."""
        inside = self.training.decay == "inside"
        parts = [*gradients]  # of what is divided by its norm
        if inside:
            whole = (own.weights, own.second, *self.rest)
            parts = [g + p * _wide(self.decay, p) for g, p in zip(gradients, whole, strict=True)]
        squares = self.sum_of(own.number, parts[0].square().sum(2) + parts[1].square().sum(2))
        for part in parts[2:]:
            squares = squares + part.flatten(1).square().sum(1)
        if inside:
            still = (self.squares * ~own.active).sum(1)
            squares = squares + (self.decay * self.scale).square().to(squares.dtype) * still.to(squares.dtype)
        pace = torch.where(squares > SMALLEST**2, rate / squares.sqrt(), 0.0)
        left = 1 - self.decay * (pace if inside else rate)
        for p, g in zip(self.rest, gradients[2:], strict=True):
            p.mul_(_wide(left, p)).sub_(g * _wide(pace, p))
        self.scale *= left.to(torch.float64)
        rows = (own.number + self.start_of_rows).flatten()
        own_pace = _wide(pace / self.scale.to(pace.dtype), own.weights)
        for weights, g in ((self.first, gradients[0]), (self.second, gradients[1])):
            weights.view(-1, weights.shape[2]).index_add_(0, rows, (g * -own_pace).flatten(0, 1))
        if inside:
            changed = (self.rows_of(weights, own.number) for weights in (self.first, self.second))
            self.squares.scatter_(1, own.number, sum(_squares(weights) for weights in changed))

    def sum_of(self, number: Int[Tensor, "members active"], values: Tensor) -> Float[Tensor, " members"]:
        """Return sums over neurons in one order, whoever else is listed: a sum rounds by how long it is."""
        whole = values.new_zeros(len(number), self.neurons)
        return whole.scatter_add_(1, number, values).sum(1)

    # Ends of epochs -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Multiply the scales into the weights; write the epoch down."""
        for weights in (self.first, self.second):
            weights.mul_(self.scale.to(weights.dtype)[:, None, None])
        self.scale.fill_(1.0)
        self.square()
        super().end_epoch()

    def square(self) -> None:
        """Sum the squares of every neuron, before its scale, where the norm has the decay inside."""
        if self.training.decay == "inside":
            self.squares = _squares(self.first) + _squares(self.second)

    def finite(self) -> Bool[Tensor, " members"]:
        """Return whose weights are finite."""
        parts = (self.first, self.second, *self.rest)
        return torch.stack([p.flatten(1).isfinite().all(1) for p in parts]).all(0)

    def tested(self, rows: int) -> Float[Tensor, " members"]:
        """Return every member's accuracy on so many test rows; count what activates its neurons."""
        accuracy, noisy = self.looked(rows)
        signals = self.data.parts(self.samples.test[:1])[0].shape[1]
        known = self.first[..., :signals].abs()
        reached = known > self.threshold  # (members, neurons, signals)
        alike = torch.where(reached, known / self.first.norm(dim=2, keepdim=True), 0.0)
        self.told = [
            {f"activated_v{k + 1}": n for k, n in enumerate(counts)}
            | {"activated_noise": each}
            | {f"cosine_v{k + 1}": cosine for k, cosine in enumerate(best)}
            for counts, each, best in zip(reached.sum(1).tolist(), noisy.tolist(), alike.amax(1).tolist(), strict=True)
        ]
        self.whole = None
        return accuracy

    def looked(self, rows: int) -> tuple[Float[Tensor, " members"], Float[Tensor, " members"]]:
        """Return every member's accuracy on so many test rows, and the neurons that a noise patch of them activates."""
        signs_of, noise_of = self.data.parts(self.samples.test[:rows])
        hits, noisy = self.loss.new_zeros(len(self.places)), self.loss.new_zeros(len(self.places))
        for start in range(0, rows, AT_ONCE):
            signs, noise = self.on_device(part[None, start : start + AT_ONCE] for part in (signs_of, noise_of))
            own = self.forward(signs, noise, self.active(signs, noise))
            labels = self.samples.test_labels[start : start + AT_ONCE].to(self.device)
            hits += ((own.logits > 0) == labels).sum(1)
            noisy += (own.noisy > 0).sum((1, 2))
        return hits.cpu() / max(rows, 1), noisy.cpu() / max(noise_of.shape[0] * noise_of.shape[1], 1)

    def write(self, n: int, k: int, loss: float, accuracy: float, test_accuracy: float, finite: bool) -> None:
        """Write down the epoch of member k, what activates its neurons, and whether it stops."""
        super().write(n, k, loss, accuracy, test_accuracy, finite)
        history = self.state.histories[k]
        history[-1] |= {name: round(value, 6) for name, value in self.told[n].items()}
        if stopped := self.stops([epoch["train_loss"] for epoch in history]):
            self.whole = self.looked(len(self.samples.test))[0] if self.whole is None else self.whole
            history[-1] |= {"stopped": stopped, "test_accuracy": float(self.whole[n])}

    def snapshots(self, n: int, k: int, before: float, now: float) -> None:
        """Take none."""

    def stops(self, losses: list[float]) -> str:
        """Return why a network with these losses stops: "small", "flat", or nothing."""
        flat = self.training.stop_flat
        if losses[-1] < self.training.stop_below:
            return "small"
        if flat and len(losses) > flat and min(losses[-flat:]) > FALLS * min(losses[:-flat]):
            return "flat"
        return ""


def _listed(
    active: Bool[Tensor, "members neurons"],
) -> tuple[Int[Tensor, "members most"], Bool[Tensor, "members most"]]:
    """Return the numbers of every member's active neurons, and which entries are such; 0 fills up the others."""
    member, neuron = active.nonzero(as_tuple=True)
    counts = active.sum(1)
    place = torch.arange(len(neuron), device=active.device) - (counts.cumsum(0) - counts)[member]
    most = -(-max(int(counts.amax()), 1) // LANES) * LANES
    number = neuron.new_zeros(len(active), most)
    there = torch.zeros_like(number, dtype=torch.bool)
    number[member, place], there[member, place] = neuron, True
    return number, there


def _filled(values: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows filled"]:
    """Return values with zeros behind them up to whole vectors, which round alike in every fleet (see `layers`)."""
    return F.pad(values, (0, -values.shape[-1] % LANES))


def _squares(weights: Float[Tensor, "members neurons _"]) -> Float[Tensor, "members neurons"]:
    return weights.double().square().sum(2)


def _wide(of_members: Float[Tensor, " members"], like: Tensor) -> Tensor:
    return of_members.view(-1, *[1] * (like.ndim - 1))
