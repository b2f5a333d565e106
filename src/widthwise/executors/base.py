"""Who does what a study still lacks: the jobs, in what order, and the one door, `run`.

A member of this family is a file with

    perform(jobs, worker, *, count, listener) -> None
        do independent jobs, each `job.perform(worker, progress)`, with `count` workers, telling `listener`

Every job is "make it if it is not there", so doing one twice is harmless, and whoever is interrupted loses at
most the work since the last checkpoint.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from widthwise import calibration, config, family, features, fleet, machine, samples, scoring, tuning
from widthwise.cost import work_units
from widthwise.design import FINAL, Comparison, Design, Net
from widthwise.errors import UsageError
from widthwise.measures.base import Score
from widthwise.results import Results, TrainedNetwork
from widthwise.store import Entry, Store, environment
from widthwise.studies import base as studies

FEWEST_TESTED = 50  # blocks of rows that intervals need
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far one stage is, in its own units of work."""

    stage: str  # "data", "train", "features" or "scores"
    done: float
    total: float
    message: str = ""


Listener = Callable[[Progress], None]
Tell = Callable[[float], None]  # the share of a job that is done


def never() -> bool:
    """Return False: nobody asks to stop."""
    return False


@dataclass
class Worker:
    """What a job needs of the process that does it."""

    root: str
    data: config.Data
    device: str = "cpu"
    save_every: float = 30.0  # seconds between checkpoints
    stopping: Callable[[], bool] = never

    @cached_property
    def store(self) -> Store:
        """The store."""
        return Store(self.root)

    @cached_property
    def samples(self) -> samples.Samples:
        """The rows, read once a process."""
        return samples.load(self.data, self.store)


@dataclass(frozen=True)
class Encode:
    """Read a frozen encoder's hidden states of one chunk of texts."""

    part: str
    number: int
    stage = "data"
    units = 1.0

    def perform(self, worker: Worker, tell: Tell) -> None:
        """Encode what is not in the store."""
        samples.encode(worker.data, worker.store, self.part, self.number)

    def __str__(self) -> str:
        return f"{self.part} texts, chunk {self.number + 1}"


@dataclass(frozen=True)
class Train:
    """Train one fleet."""

    runs: tuple[config.Run, ...]
    stage = "train"

    @property
    def units(self) -> float:
        """Its share of the stage's work."""
        return sum(work_units(run) for run in self.runs)

    def perform(self, worker: Worker, tell: Tell) -> None:
        """Train what is not in the store."""
        fleet.train_fleet(
            self.runs,
            worker.samples,
            worker.store,
            device=worker.device,
            progress=lambda step, steps: tell(step / max(steps, 1)),
            stopping=worker.stopping,
            save_every=worker.save_every,
        )

    def __str__(self) -> str:
        return f"{len(self.runs)} x {self.runs[0].network.kind} at {self.runs[0].width}"


@dataclass(frozen=True)
class Extract:
    """Read the features of one fleet."""

    runs: tuple[config.Run, ...]
    snapshot: str
    stage = "features"

    @property
    def units(self) -> float:
        """Its share of the stage's work."""
        return sum(work_units(run) for run in self.runs)

    def perform(self, worker: Worker, tell: Tell) -> None:
        """Read what is not in the store."""
        features.extract(
            self.runs,
            self.snapshot,
            worker.samples,
            worker.store,
            device=worker.device,
            progress=lambda done, of: tell(done / of),
            stopping=worker.stopping,
        )

    def __str__(self) -> str:
        return f"{len(self.runs)} x {self.runs[0].network.kind} at {self.runs[0].width}, {self.snapshot}"


@dataclass(frozen=True)
class Compare:
    """Compute comparisons that share one pass over the rows."""

    comparisons: tuple[Comparison, ...]
    runs: tuple[tuple[Net, config.Run], ...]
    stage = "scores"

    @property
    def units(self) -> float:
        """Its share of the stage's work."""
        return float(sum(getattr(family.member("measures", c.measure), "COST", 1) for c in self.comparisons))

    def perform(self, worker: Worker, tell: Tell) -> None:
        """Compute what is not in the store."""
        scoring.compute(self.comparisons, dict(self.runs), worker.samples, worker.store, tell, stopping=worker.stopping)

    def __str__(self) -> str:
        return self.comparisons[0].together or self.comparisons[0].measure


Job = Encode | Train | Extract | Compare


def run(
    study: config.Study,
    store: Store,
    *,
    device: str = "cpu",
    jobs: int | None = None,
    fleet_size: int | None = None,
    on: str = "local",
    listener: Listener | None = None,
    save_every: float = 30.0,
) -> Results:
    """Do all that a study still lacks in a store, and return its results.

    Args:
        study: see `load_study`.
        store: where networks, features and scores live; what is there is used, nothing is made twice.
        device: "cpu" or "cuda".
        jobs: processes on this machine; if left out one a core, and one for a GPU's networks.
        fleet_size: networks that train as one, where their form is a fleet; found by a measurement if left out.
        on: who does the work, a name in `executors/`.
        listener: told of the progress.
        save_every: seconds between the checkpoints of a training: what a kill can cost.

    Raises:
        UsageError: if the study cannot be run.
        DataError: if its data are missing or damaged.
        StorageError: if the disk is full or cannot be written.
        KeyboardInterrupt: after all workers have saved what they had.
    """
    worker = Worker(str(store.root), study.data, device, save_every)
    return _Session(study, store, worker, jobs, fleet_size, on, listener or (lambda progress: None)).results()


class _Session:
    """One call of `run`."""

    def __init__(
        self,
        study: config.Study,
        store: Store,
        worker: Worker,
        jobs: int | None,
        fleet_size: int | None,
        on: str,
        listener: Listener,
    ):
        self.study, self.store, self.worker, self.listener = study, store, worker, listener
        self.executor = family.member("executors", on)
        self.training, self.comparing = (jobs or machine.processes(where) for where in (worker.device, "cpu"))
        self.fleet_size = fleet_size
        member = family.member("data", study.data.kind)
        self.design = Design(study, family.shape(member, study.data.options), member.CLASSES)

    def results(self) -> Results:
        self.listener(Progress("data", 0, 1, self.study.data.kind))
        entry = samples.decode(self.study.data, self.store)
        samples.confirm(self.study.data, entry)
        self.listener(Progress("data", 1, 1, self.study.data.kind))
        self.checksum = entry.facts["checksum"]
        self.perform([Encode(part, number) for part, number in samples.unencoded(self.study.data, self.store)])
        tested = len(self.worker.samples.test_labels)
        if tested < FEWEST_TESTED:
            raise UsageError(
                f"data.test_rows: {tested} test rows are too few to score features on; take {FEWEST_TESTED} or more."
            )
        trained = len(self.worker.samples.training_labels)
        for sentence in self.design.crowded(trained, len(self.worker.samples.labels) - trained + tested):
            log.warning(sentence)
        self.tune()
        scores: dict[Comparison, Score] = {}
        while missing := studies.missing(self.design, scores):
            self.train(missing)
            self.extract(missing)
            scores |= self.compare(missing)
            self.look(missing)
        return self.collect(scores)

    def runs(self, comparisons: Iterable[Comparison]) -> dict[Net, config.Run]:
        nets = sorted({net for c in comparisons for net in c.networks}, key=lambda net: (-net.width, net.seed))
        return {net: self.design.run(net, self.checksum) for net in nets}

    def tune(self) -> None:
        """Choose every width's rate and weight decay, if the study asks for it."""
        trials = tuning.trials(self.design, self.checksum)
        every = [run for grid in trials.values() for run in grid]
        self.train_runs(every)
        whole = [run for run in every if not self.entry(run).facts["diverged"]]
        self.extract_runs(whole, FINAL)
        losses = tuning.losses(trials, self.worker.samples, self.store) if trials else {}
        assert losses is not None, "a trial is missing"
        self.tuned = tuning.rows(trials, losses)
        self.design = replace(self.design, tuned=tuning.chosen(trials, losses))

    def train(self, comparisons: Sequence[Comparison]) -> None:
        self.train_runs(self.runs(c for c in comparisons if c.trained).values())

    def train_runs(self, wanted: Iterable[config.Run]) -> None:
        """Train what is not in the store."""
        wanted = list(wanted)
        stored = [self.store.get("runs", run.key) is not None for run in wanted]
        lacking = [run for run, there in zip(wanted, stored, strict=True) if not there]
        before = sum(work_units(run) for run, there in zip(wanted, stored, strict=True) if there and lacking)
        steps = {key: found.step for key, found in fleet.checkpoints(self.store).items()}
        rows, device = len(self.worker.samples.training_labels), self.worker.device
        size_of = calibration.sizes(self.design.shape, rows, device, self.training, self.fleet_size)
        groups = fleet.groups(lacking, steps, device, self.training, size_of)
        self.perform([Train(tuple(runs)) for runs in groups], before)

    def look(self, comparisons: Iterable[Comparison]) -> None:
        """Tell the design which training accuracies the networks of some comparisons have snapshots of."""
        reached = dict(self.design.reached)
        for net, run in self.runs(c for c in comparisons if c.trained).items():
            names = (Path(name).name.removesuffix(".safetensors") for name in self.entry(run).files)
            reached[net] = frozenset(name for name in names if name.startswith("at_"))
        self.design = replace(self.design, reached=reached)

    def extract(self, comparisons: Sequence[Comparison]) -> None:
        read = [c for c in comparisons if not scoring.reads_networks(c)]
        for snapshot in dict.fromkeys(c.snapshot for c in read):
            self.extract_runs(self.runs(c for c in read if c.snapshot == snapshot).values(), snapshot)

    def extract_runs(self, wanted: Iterable[config.Run], snapshot: str) -> None:
        """Read the features that are not in the store."""
        lacking = [run for run in wanted if features.find(self.store, run, snapshot) is None]
        self.perform([Extract(tuple(runs), snapshot) for runs in fleet.groups(lacking, device=self.worker.device)])

    def entry(self, run: config.Run) -> Entry:
        """Return what the store has of a trained network."""
        entry = self.store.get("runs", run.key)
        assert entry is not None, f"{run.key} is not trained"
        return entry

    def compare(self, comparisons: Sequence[Comparison]) -> dict[Comparison, Score]:
        runs = self.runs(comparisons)
        keys = scoring.keys(comparisons, runs, self.worker.samples, self.store)
        shared: dict[tuple, list[Comparison]] = {}
        for c in comparisons:
            shared.setdefault((c.together or c.measure, c.split, c.snapshot), []).append(c)
        self.perform(
            [
                Compare(tuple(group), tuple((net, runs[net]) for net in {n: 0 for c in group for n in c.networks}))
                for group in shared.values()  # whole, so that what is left after a kill has the same companions
                if any(self.store.get("scores", keys[c]) is None for c in group)
            ]
        )
        return {c: scoring.read(self.store, keys[c]) for c in comparisons}

    def perform(self, jobs: Sequence[Job], before: float = 0.0) -> None:
        """Do jobs, behind so many units of the stage's work that were done before."""

        def listener(told: Progress) -> None:
            self.listener(replace(told, done=told.done + before, total=told.total + before))

        if jobs:
            longest_first = sorted(jobs, key=lambda job: -job.units)
            networks = isinstance(jobs[0], Train | Extract)  # they are where the device is, all else on processors
            count = self.training if networks else self.comparing
            self.executor.perform(longest_first, self.worker, count=count, listener=listener)

    def collect(self, scores: dict[Comparison, Score]) -> Results:
        networks = tuple(self.trained(run) for run in self.runs(c for c in scores if c.trained).values())
        facts = {**environment(), "data": self.study.data.kind, "data_checksum": self.checksum}
        member, decoded = family.member("data", self.study.data.kind), samples.decode(self.study.data, self.store)
        notes = [getattr(member, "NOTE", ""), *decoded.facts.get("notes", ())]
        facts |= {"about_the_data": " ".join(notes).strip()} if any(notes) else {}
        return Results(
            title=self.study.title,
            study=self.study.plain(),
            rows=(*self.tuned, *studies.rows(self.design, scores)),
            findings=tuple(studies.findings(self.design, scores)),
            feature_errors=tuple(studies.errors(self.design, scores)),
            networks=networks,
            provenance={**facts, "training_seconds": round(sum(n.seconds for n in networks), 1)},
        )

    def trained(self, run: config.Run) -> TrainedNetwork:
        entry = self.entry(run)
        history = entry.json("history")
        last = history[-1] if history else {}
        nan = float("nan")
        return TrainedNetwork(
            key=run.key,
            kind=run.network.kind,
            width=str(Fraction(run.width)),
            seed=run.seed,
            parameters=entry.facts["parameters"],
            features=entry.facts["features"],
            train_loss=last.get("train_loss", nan),
            train_accuracy=last.get("train_accuracy", nan),
            test_accuracy=last.get("test_accuracy", nan),
            seconds=last.get("seconds", 0.0),
            history=tuple(history),
        )
