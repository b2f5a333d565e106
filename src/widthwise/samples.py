"""The rows of a study: which of a data set's train, which are reserved, which test; decoded once in the store."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from widthwise import config, family, seeds
from widthwise.data.base import Dataset, checksum, validate
from widthwise.errors import UsageError
from widthwise.store import Store, save_tensors


@dataclass(frozen=True)
class Samples:
    """Training rows (those that train and the reserve) and test rows of one data set.

    Attributes:
        train, test: (rows, ...) samples as stored: uint8 images.
        labels, test_labels: (rows,) classes, label noise applied to the rows that train.
        ids: (rows,) numbers of the training rows in the whole data set; test rows follow behind.
        trained: (rows,) whether a network trains on the row; the others are the reserve.
    """

    checksum: str
    train: Tensor
    labels: Int[Tensor, " rows"]
    ids: Int[Tensor, " rows"]
    trained: Bool[Tensor, " rows"]
    test: Tensor
    test_labels: Int[Tensor, " rows"]
    test_ids: Int[Tensor, " rows"]
    classes: int
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: bool

    @cached_property
    def training_rows(self) -> Tensor:
        """The samples that networks train on."""
        return self.train[self.trained]

    @cached_property
    def training_labels(self) -> Int[Tensor, " rows"]:
        """Their classes."""
        return self.labels[self.trained]


def load(data: config.Data, store: Store) -> Samples:
    """Return the rows that a study's `data` asks for; the data set is decoded once, into the store.

    Raises:
        DataError: if the data set is missing or damaged.
        UsageError: if it has fewer rows than asked for.
    """
    member = family.member("data", data.kind)
    entry = decode(data, store)
    whole = entry.tensors("data")
    n = len(whole["train_labels"])
    ids = _chosen(f"{data.kind} has {{}} training rows", "data.rows", data.rows, n)
    test = _chosen(f"{data.kind} has {{}} test rows", "data.test_rows", data.test_rows, len(whole["test_labels"]))
    order = torch.randperm(len(ids), generator=seeds.stream(0, "reserve"))
    trained = torch.ones(len(ids), dtype=torch.bool)
    trained[order[len(ids) - round(data.reserve * len(ids)) :]] = False
    labels = _noisy(whole["train_labels"][ids], trained, data.label_noise, member.CLASSES)
    return Samples(
        checksum=entry.facts["checksum"],
        train=whole["train"][ids],
        labels=labels,
        ids=ids,
        trained=trained,
        test=whole["test"][test],
        test_labels=whole["test_labels"][test],
        test_ids=n + test,
        classes=member.CLASSES,
        shape=tuple(member.SHAPE),
        mean=tuple(member.MEAN),
        std=tuple(member.STD),
        augment=member.AUGMENT,
    )


def decode(data: config.Data, store: Store):
    """Return the store's entry of a data set, decoding it if it is not there; its facts hold the checksum."""
    member = family.member("data", data.kind)
    identity = {"kind": data.kind, "version": member.VERSION, **data.options}
    key = f"{data.kind.rpartition('.')[2]}-{config.digest(identity)}"
    facts: dict = {"data": identity}

    def write(folder: Path) -> None:
        dataset: Dataset = member.read(data.root, **data.options)
        validate(dataset, data.kind)
        facts["checksum"] = checksum(dataset)
        names = ("train", "train_labels", "test", "test_labels")
        save_tensors(folder / "data.safetensors", {name: getattr(dataset, name) for name in names})

    return store.make("data", key, write, lambda: facts)


def _chosen(has: str, name: str, wanted: int | str, n: int) -> Int[Tensor, " rows"]:
    """Return which rows are taken: the first so many of one seeded order, so that fewer are among more."""
    if isinstance(wanted, str):
        return torch.arange(n)
    if wanted > n:
        raise UsageError(f'{name}: {has.format(n)}, not {wanted}; "all" takes them all.')
    order = torch.randperm(n, generator=seeds.stream(0, "rows of a data set"))
    return order[:wanted].sort().values


def _noisy(
    labels: Int[Tensor, " rows"], trained: Bool[Tensor, " rows"], share: float, classes: int
) -> Int[Tensor, " rows"]:
    """Return labels of which exactly a share of the rows that train names another class, drawn uniformly."""
    labels = labels.clone()
    rows = trained.nonzero()[:, 0]
    generator = seeds.stream(0, "label noise")
    wrong = rows[torch.randperm(len(rows), generator=generator)[: int(Fraction(str(share)) * len(rows))]]
    shift = torch.randint(1, classes, (len(wrong),), generator=generator)
    labels[wrong] = (labels[wrong] + shift) % classes
    return labels
