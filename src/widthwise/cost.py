"""What a study will take: networks, FLOPs, time, memory and disk, and what of it is there already.

Times are scaled from what `machine` measures here and now: good to about half as much again either way.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod

from widthwise import calibration, config, family, features, fleet, machine, samples, scoring, tuning
from widthwise.design import Comparison, Design, Net
from widthwise.plans import Plan, WidthPlan
from widthwise.store import Entry, Store
from widthwise.studies import base as studies
from widthwise.training import SNAPSHOTS, WATCHED, steps_of

PROCESS = 350e6  # bytes of a process that has loaded torch
PENALTIES = 21
COMPARISON = 0.04  # seconds of one comparison beside its matrix products: splines, bootstrap, writing
PROBE = 1200  # products with the Hessian that one probe takes
ENCODED = 5.0  # seconds in which a process encodes a chunk of texts
REFITS = 3.0  # times what a study of residuals asks for first that its refits take
START = 3.0  # seconds until a stage's processes have loaded what they need
GPU = 1e13  # FLOPs a second on one GPU; an H200 does half of it with 4 channels, ten times it with 64
UNREAD = "unread"  # in the place of the checksum of data that are not decoded: no run in a store has it


def plan(
    study: config.Study, store: Store, *, device: str = "cpu", jobs: int | None = None, fleet_size: int | None = None
) -> Plan:
    """Return what a study will take on this machine, and what of it is in the store.

    The data need not be here: unless they are decoded in the store, nothing can be there already.

    `jobs` is the number of processes; if left out one a core, and one for a GPU's networks. `fleet_size` is how many
    networks train as one, where their form is a fleet; found by a measurement of seconds if left out.
    """
    return _Planner(study, store, device, jobs, fleet_size).plan()


def missing(study: config.Study, store: Store) -> list[str]:
    """Return the keys of the networks that a study trains and that are not whole in the store."""
    design, entry = _design(study), _decoded(study.data, store)
    checksum = entry.facts["checksum"] if entry else UNREAD
    design, lacking = _tuned(design, checksum, store)
    if lacking:
        return [run.key for run in lacking]
    runs = [design.run(net, checksum) for net in _nets(studies.comparisons(design, {}), trained=True)]
    return [run.key for run in runs if not entry or store.get("runs", run.key) is None]


def rows_of(study: config.Study, store: Store) -> int:
    """Return how many training rows a study's data have, the reserve among them."""
    whole = _lengths(study.data, _decoded(study.data, store))[0]
    return whole if study.data.rows == "all" else study.data.rows


def work_units(run: config.Run) -> float:
    """Return the FLOPs of one network's training, forward and backward."""
    rows = _trained(run.data, _lengths(run.data)[0])
    batch = min(run.training.batch_size, rows)
    return max(1.0, 3.0 * machine.forward(run).flops * batch * steps_of(run.training, rows)[1])


class _Planner:
    """One plan in the making."""

    def __init__(self, study: config.Study, store: Store, device: str, jobs: int | None, fleet_size: int | None):
        self.study, self.device = study, device
        self.processes, self.comparing = (jobs or machine.processes(where) for where in (device, "cpu"))
        self.design = _design(study)
        self.shape = self.design.shape
        self.comparisons = studies.comparisons(self.design, {})
        entry = _decoded(study.data, store)
        self.store, self.decoded = store, entry is not None
        self.declared = hasattr(family.member("data", study.data.kind), "ROWS")
        whole, self.test_rows = _lengths(study.data, entry)
        self.all_rows = whole if study.data.rows == "all" else study.data.rows
        self.rows = _trained(study.data, whole)
        self.per_epoch, self.steps = steps_of(study.training, self.rows)
        self.batch = min(study.training.batch_size, self.rows)
        self._timed: dict[Fraction, float] = {}
        checksum = entry.facts["checksum"] if entry else UNREAD
        nets = {net: None for net in [*_nets(self.comparisons, True), *_nets(self.comparisons, False)]}
        self.design, trials = _tuned(self.design, checksum, store)
        self.runs = {net: self.design.run(net, checksum) for net in nets}
        self.there = set(store.keys("runs"))
        trained = set(_nets(self.comparisons, True))
        self.lacking = [run for net, run in self.runs.items() if net in trained and run.key not in self.there]
        self.lacking += trials
        self.begun = {run.key: 0 for run in self.lacking}
        self.begun |= {key: at.step for key, at in fleet.checkpoints(store).items() if key in self.begun}
        self.unscored = self.share_unscored()
        self.size_of = calibration.sizes(self.shape, self.rows, device, self.processes, fleet_size)

    def plan(self) -> Plan:
        fleets = fleet.groups(self.lacking, self.begun, self.device, self.processes, self.size_of)
        left = [self.training_seconds(runs) for runs in fleets]
        by_width: dict[Fraction, float] = {}
        for runs, seconds in zip(fleets, left, strict=True):
            by_width[runs[0].width] = by_width.get(runs[0].width, 0.0) + seconds
        scores, memory = self.scores()
        seconds = {
            "encoding": self.chunks() * ENCODED / self.comparing,
            "training": _makespan(left, self.processes),
            "features": self.features_seconds(fleets) / self.processes,
            "comparing": scores * self.unscored / self.comparing,
        }
        seconds = {stage: s + START if s else 0.0 for stage, s in seconds.items() if s or stage != "encoding"}
        widths = sorted({net.width for net in self.runs}, reverse=True)
        return Plan(
            title=self.study.title,
            widths=tuple(self.width(width, by_width.get(width, 0.0)) for width in widths),
            rows=self.rows,
            steps=self.steps,
            comparisons=len(self.comparisons),
            processes=self.processes,
            comparing=self.comparing,
            device=self.device,
            seconds=seconds,
            memory=max(
                self.processes * (PROCESS + max([0.0, *map(self.training_bytes, fleets)])),
                self.comparing * (PROCESS + memory),
            ),
            disk=self.disk() + self.blocks(),
            blocks=self.blocks(),
            fresh=bool(self.study.training.fresh),
            fleets={str(width): most for width, most in _largest(fleets).items() if most > 1},
            guessed=not self.decoded and self.study.data.rows == "all" and not self.declared,
            gpu_seconds=sum(map(self.flops, self.lacking)) / GPU + seconds["comparing"],
        )

    def share_unscored(self) -> float:
        """Return the share of the comparisons that have no score in the store: all, where features are missing."""
        wanted = {(net, c.snapshot) for c in self.comparisons if not scoring.reads_networks(c) for net in c.networks}
        if self.lacking or any(features.find(self.store, self.runs[net], at) is None for net, at in wanted):
            return 1.0
        keys = scoring.keys(self.comparisons, self.runs, samples.load(self.study.data, self.store), self.store)
        return sum(self.store.get("scores", key) is None for key in keys.values()) / max(1, len(keys))

    def chunks(self) -> int:
        """Return how many chunks of texts are to be encoded: of data that are not decoded, all."""
        data = self.study.data
        if not samples.takes_states(data):
            return 0
        if self.decoded:
            return len(samples.unencoded(data, self.store))
        return sum(-(-rows // samples.CHUNK) for rows in (self.all_rows, self.test_rows))

    def flops(self, run: config.Run) -> float:
        """Return the FLOPs of one network's training."""
        return 3.0 * machine.forward(run).flops * self.steps * self.batch

    def width(self, width: Fraction, seconds: float) -> WidthPlan:
        """Return the networks of one width."""
        runs = [run for net, run in self.runs.items() if net.width == width]
        member = family.member("networks", self.study.network.kind)
        return WidthPlan(
            width=str(width),
            widths=tuple(member.widths(runs[0].scale, **self.study.network.options)),
            parameters=machine.forward(runs[0]).parameters,
            features=self.design.features(width),
            match_parameters=0 if self.study.by_neurons else self.design.matching(width, "parameters"),
            match_features=0 if self.study.by_neurons else self.design.matching(width, "features"),
            concatenations=None if width == 1 or self.study.by_neurons else self.design.repeats(width),
            networks=len(runs),
            trained=sum(run.key in self.there for run in runs),
            begun=sum(self.begun.get(run.key, 0) > 0 for run in runs),
            flops=self.flops(runs[0]),
            seconds=seconds,
        )

    def training_seconds(self, runs: Sequence[config.Run]) -> float:
        """Return what is left of a fleet's training: its steps, and the test rows looked at every epoch."""
        steps = self.steps - self.begun[runs[0].key]
        watched = min(WATCHED, self.test_rows) * steps / self.per_epoch
        return self.step_seconds(runs) * steps + self.reading_seconds(runs) * watched

    def features_seconds(self, fleets: Iterable[Sequence[config.Run]]) -> float:
        """Return what reading the features of fleets takes, at their start too if that is asked for."""
        snapshots = len({c.snapshot for c in self.comparisons})
        rows = (self.all_rows + self.test_rows) * snapshots
        return sum(self.reading_seconds(runs) * rows for runs in fleets)

    def reading_seconds(self, runs: Sequence[config.Run]) -> float:
        """Return the seconds a row of a forward pass of a fleet: a third of a step's."""
        return self.step_seconds(runs) / self.batch / 3

    def step_seconds(self, runs: Sequence[config.Run]) -> float:
        """Return the seconds of one step of a fleet, in proportion to the first of its width."""
        width = runs[0].width
        if width not in self._timed:
            self._timed[width] = machine.step_seconds(runs, self.shape, self.batch, self.device) / len(runs)
        return self._timed[width] * len(runs)

    def training_bytes(self, runs: Sequence[config.Run]) -> float:
        """Return the memory of a fleet's training: samples, weights five times over, activations."""
        samples = 2 * prod(self.shape) * self.all_rows
        return samples + len(runs) * machine.forward(runs[0]).training_bytes(self.batch)

    def scores(self) -> tuple[float, float]:
        """Return the seconds of all comparisons on one process, and the bytes of the largest joint."""
        product, eigen = machine.rates()
        seconds, largest = 0.0, 0.0
        for group in _together(c for c in self.comparisons if not scoring.reads_networks(c)):
            rows = self.split_rows(group[0].split)
            sides = {(net, c.of) for c in group for net in c.target}
            sides |= {(net, "features") for c in group for net in c.source}
            columns = sum(self.columns(*side) for side in sides) + self.design.classes
            seconds += 2 * rows * columns**2 / product
            cells = 1 + scoring.CELLS[group[0].split]  # and one at work
            largest = max(largest, 8.0 * cells * columns**2 + 4.0 * rows * columns)
            parts = 2 if group[0].split in ("test", "readout") else 5
            grown = [c for c in group if c.measure == "growth_curve"]
            for (source, _), (shares, of) in _fits(c for c in group if c.target and c not in grown).items():
                p = min(rows, sum(self.columns(net) for net in source))
                own = 4 * p**3 + (2 * PENALTIES + 2) * p**2 * sum(self.columns(*target) for target in of)
                seconds += parts * shares * (p**3 / eigen + own / product)
            for c in grown:
                p = sum(self.columns(net) for net in c.source)
                held = min(p, self.test_rows)
                seconds += len(dict(c.options).get("penalties", range(PENALTIES))) * (p**3 / 3 + p**2 * held) / product
                largest = max(largest, 8.0 * (cells * columns**2 + (2 * p + 2 * held) * p) + 4.0 * rows * columns)
            for source in (c.source for c in group if c.measure == "probe_accuracy"):
                p = sum(self.columns(net) for net in source)
                seconds += self.probe_flops(rows, p) / product
            for c in (c for c in group if c.measure == "residual_accuracy"):
                p = sum(self.columns(net) for net in c.networks)
                seconds += REFITS * 5 * self.probe_flops(rows, p) / product
        return seconds + COMPARISON * len(self.comparisons), largest

    def probe_flops(self, rows: int, p: int) -> float:
        """Return the FLOPs of one linear probe of p features, all its penalties."""
        return PROBE * (4 * rows * p + 2 * p**2) * self.design.classes

    def columns(self, net: Net, of: str = "features") -> int:
        """Return how many columns a network's features or logits have."""
        return self.design.features(net.width) if of == "features" else self.design.classes

    def split_rows(self, split: str) -> int:
        """Return the rows of a split."""
        reserve = self.all_rows - self.rows
        return {"validation": self.rows, "unseen": reserve + self.test_rows}.get(split, self.rows + self.test_rows)

    def disk(self) -> float:
        """Return the bytes of samples, weights with all their snapshots, and features, at most."""
        per_row = self.design.classes + 2
        total = (self.all_rows + self.test_rows) * float(prod(self.shape))
        for snapshot, weights in ((True, 2 + len(SNAPSHOTS)), (False, 0)):
            for net in _nets(self.comparisons, snapshot):
                total += 4.0 * weights * machine.forward(self.runs[net]).parameters
                total += 4.0 * (self.all_rows + self.test_rows) * (self.design.features(net.width) + per_row)
        return total

    def blocks(self) -> float:
        """Return the bytes of the moment blocks that are kept, each counted once."""
        sizes: dict[Hashable, int] = {}
        measures = {c.measure: family.member("measures", c.measure).NEEDS for c in self.comparisons}
        for group in _together(c for c in self.comparisons if "moments" in measures[c.measure]):
            sizes |= scoring.blocks(group, self.columns, self.split_rows(group[0].split), self.design.classes)
        return float(sum(sizes.values()))


# What a study asks for ----------------------------------------------------------------------------------


def _design(study: config.Study) -> Design:
    member = family.member("data", study.data.kind)
    return Design(study, family.shape(member, study.data.options), member.CLASSES)


def _tuned(design: Design, checksum: str, store: Store) -> tuple[Design, list[config.Run]]:
    """Return a design with the rates and weight decays that its trials chose, or the trials that are missing."""
    trials = tuning.trials(design, checksum)
    lacking = [run for grid in trials.values() for run in grid if store.get("runs", run.key) is None]
    if lacking or not trials:
        return design, lacking
    losses = tuning.losses(trials, samples.load(design.study.data, store), store)
    return (replace(design, tuned=tuning.chosen(trials, losses)) if losses else design), []


def _nets(comparisons: Iterable[Comparison], trained: bool) -> list[Net]:
    nets = {net for c in comparisons if c.trained is trained for net in c.networks}
    return sorted(nets, key=lambda net: (-net.width, net.seed))


def _together(comparisons: Iterable[Comparison]) -> list[list[Comparison]]:
    """Return comparisons in the groups that share one pass over the rows."""
    groups: dict[tuple, list[Comparison]] = {}
    for c in comparisons:
        groups.setdefault((c.together or c.measure, c.split, c.snapshot), []).append(c)
    return list(groups.values())


def _fits(group: Iterable[Comparison]) -> dict[tuple, tuple[int, set[tuple[Net, str]]]]:
    """Return the sources of a group, by their fits' options, each with how many nested fits it has, and its targets."""
    fits: dict[tuple, tuple[int, set[tuple[Net, str]]]] = {}
    for c in group:
        options = dict(c.options)
        key = (c.source, (options.get("standardize", False), options.get("within_class", False)))
        shares, targets = fits.get(key, (1, set()))
        fits[key] = max(shares, 3 if options.get("extrapolate") else 1), targets | {(net, c.of) for net in c.target}
    return fits


def _decoded(data: config.Data, store: Store) -> Entry | None:
    """Return the store's entry of a data set, if it has been decoded."""
    identity = {"kind": data.kind, "version": family.member("data", data.kind).VERSION, **data.options}
    entries = (store.get("data", key) for key in store.keys("data"))
    return next((entry for entry in entries if entry and entry.facts["data"] == identity), None)


def _lengths(data: config.Data, entry: Entry | None = None) -> tuple[int, int]:
    """Return the numbers of training and test rows of a data set: as decoded, as declared, or a guess.

    Raises:
        UsageError: if a study takes more of them.
    """
    guess = 50_000 if data.rows == "all" else data.rows
    declared = getattr(family.member("data", data.kind), "ROWS", None)
    train, test = declared or (guess, guess // 5)
    if entry is not None:
        whole = entry.tensors("data")
        train, test = len(whole["train_labels"]), len(whole["test_labels"])
    if declared or entry is not None:
        samples.checked_rows(data, "train", train)
        samples.checked_rows(data, "test", test)
    return train, test if data.test_rows == "all" else data.test_rows


def _trained(data: config.Data, whole: int) -> int:
    """Return how many rows networks train on."""
    n = whole if data.rows == "all" else data.rows
    return n - round(data.reserve * n)


def _largest(fleets: Iterable[Sequence[config.Run]]) -> dict[Fraction, int]:
    """Return the members of the largest fleet of every width."""
    found: dict[Fraction, int] = {}
    for runs in fleets:
        found[runs[0].width] = max(len(runs), found.get(runs[0].width, 0))
    return found


def _makespan(seconds: Iterable[float], processes: int) -> float:
    """Return when the last of some jobs ends, the longest first, on so many processes."""
    ends = [0.0] * processes
    for job in sorted(seconds, reverse=True):
        ends[ends.index(min(ends))] += job
    return max(ends)
