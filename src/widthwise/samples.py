"""The rows of a study: which of a data set's train, which are reserved, which test; decoded once in the store.

Texts lie there twice: as tokens, and as a frozen encoder's hidden states of them, in chunks of rows. A chunk is a piece
of one seeded order of the whole data set, of which a study takes the first rows: what is encoded for a few rows serves
for more.
"""

import logging
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from widthwise import config, family, seeds
from widthwise.data.base import Dataset, Endless, agree, checksum, validate
from widthwise.errors import UsageError
from widthwise.images import normalise
from widthwise.ragged import Ragged, joined
from widthwise.store import Entry, Store, save_tensors

log = logging.getLogger("widthwise")
PARTS = ("train", "test")
CHUNK = 512  # rows that are encoded at a time
ENCODED_VERSION = 1


@dataclass(frozen=True)
class Samples:
    """Training rows (those that train and the reserve) and test rows of one data set.

    Attributes:
        train, test: (rows, ...) samples as stored: uint8 images, or tokens' hidden states.
        labels, test_labels: (rows,) classes, label noise applied to the rows that train.
        ids: (rows,) numbers of the training rows in the whole data set; test rows follow behind.
        trained: (rows,) whether a network trains on the row; the others are the reserve.
        groups, test_groups: (rows,) numbers of what is never parted, such as the pairs of one premise, if anything.
        endless: where such samples come from, if they can be drawn without end.
    """

    checksum: str
    train: Tensor | Ragged
    labels: Int[Tensor, " rows"]
    ids: Int[Tensor, " rows"]
    trained: Bool[Tensor, " rows"]
    test: Tensor | Ragged
    test_labels: Int[Tensor, " rows"]
    test_ids: Int[Tensor, " rows"]
    classes: int
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: bool
    groups: Int[Tensor, " rows"] | None = None
    test_groups: Int[Tensor, " rows"] | None = None
    endless: Endless | None = None

    def inputs(
        self, rows: Tensor | Ragged, longest: int = 0, *, images_last: bool = False
    ) -> Float[Tensor, "rows ..."]:
        """Return what a network takes of some rows: normalised images, or tokens padded to the longest, or further.

        Samples that are numbers already are taken as they are.

        Args:
            images_last: whether a network wants images last in memory.
        """
        if isinstance(rows, Ragged):
            return rows.padded(longest)
        return rows if rows.is_floating_point() else normalise(rows, self.mean, self.std, last=images_last)

    @cached_property
    def longest(self) -> int:
        """The tokens of the longest row that networks train on. Each batch is as long, whosesoever rows it has."""
        rows = self.training_rows
        return int(rows.lengths.max()) if isinstance(rows, Ragged) else 0

    @cached_property
    def training_rows(self) -> Tensor | Ragged:
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
    ids, test = (_chosen(data, part, whole) for part in PARTS)
    groups = {
        part: whole[f"{part}_groups"][rows]
        for part, rows in (("train", ids), ("test", test))
        if "train_groups" in whole
    }
    trained = _trained(len(ids), data.reserve, groups.get("train"))
    labels = _noisy(whole["train_labels"][ids], trained, data.label_noise, member.CLASSES)
    return Samples(
        checksum=entry.facts["checksum"],
        train=_rows(data, store, "train", whole, ids),
        labels=labels,
        ids=ids,
        trained=trained,
        test=_rows(data, store, "test", whole, test),
        test_labels=whole["test_labels"][test],
        test_ids=n + test,
        classes=member.CLASSES,
        shape=family.shape(member, data.options),
        mean=tuple(member.MEAN),
        std=tuple(member.STD),
        augment=member.AUGMENT,
        groups=groups.get("train"),
        test_groups=groups.get("test"),
        endless=Endless(member, data.options) if hasattr(member, "draw") else None,
    )


def decode(data: config.Data, store: Store) -> Entry:
    """Return the store's entry of a data set, decoding it if it is not there; its facts hold the checksum."""
    member = family.member("data", data.kind)
    identity = {"kind": data.kind, "version": member.VERSION, **data.options}
    key = f"{data.kind.rpartition('.')[2]}-{config.digest(identity)}"
    facts: dict = {"data": identity}

    def write(folder: Path) -> None:
        dataset: Dataset = member.read(data.root, **data.options)
        validate(dataset, data.kind)
        agree(dataset, data.kind, family.shape(member, data.options), member)
        for note in dataset.notes:
            log.warning("%s: %s", data.kind, note)
        facts["checksum"], facts["folder"] = checksum(dataset), _folder(data)
        facts.update({"encoder": dataset.encoder, "notes": list(dataset.notes)} if dataset.encoder else {})
        names = [f"{part}{what}" for part in PARTS for what in ("", "_labels", "_groups")]
        tensors = {name: getattr(dataset, name) for name in names}
        save_tensors(folder / "data.safetensors", {name: t for name, t in tensors.items() if t is not None})

    return store.make("data", key, write, lambda: facts)


def confirm(data: config.Data, entry: Entry) -> None:
    """Check that the folder which is named holds the store's data; they are read again only from another folder.

    Raises:
        UsageError: if it holds others.
        DataError: if it holds none.
    """
    facts = entry.facts
    if data.root is None or facts.get("folder", "") in ("", _folder(data)):
        return
    found = checksum(family.member("data", data.kind).read(data.root, **data.options))
    if found != facts["checksum"]:
        raise UsageError(
            f"the store has {data.kind} as it was read from {facts['folder'] or 'the hub'}; "
            f"{data.root} holds other data of that name. Name another --store for them, or the folder that the store's "
            "are from."
        )


def _folder(data: config.Data) -> str | None:
    return None if data.root is None else str(data.root.resolve())


# Texts --------------------------------------------------------------------------------------------------


def unencoded(data: config.Data, store: Store) -> list[tuple[str, int]]:
    """Return (part, number) of every chunk that a study takes and whose hidden states are not in the store."""
    if not takes_states(data):
        return []
    entry = decode(data, store)
    whole = entry.tensors("data")
    wanted = [(part, k) for part in PARTS for k in range(-(-len(_chosen(data, part, whole)) // CHUNK))]
    return [(part, k) for part, k in wanted if store.get("encoded", _key(data, entry, part, k)) is None]


def encode(data: config.Data, store: Store, part: str, number: int) -> Entry:
    """Return the store's entry of one chunk of rows, encoding it if it is not there.

    Raises:
        UsageError: if the encoder is not there, or not the one that the data set was read with.
    """
    entry = decode(data, store)

    def write(folder: Path) -> None:
        texts = entry.tensors("data")[part]
        rows = _order(len(texts))[number * CHUNK : (number + 1) * CHUNK]
        member = family.member("data", data.kind)
        states, lengths = member.encode(texts[rows], entry.facts["encoder"], **data.options)
        save_tensors(folder / "states.safetensors", {"states": states, "lengths": lengths})

    facts = {"data": entry.facts["data"], "encoder": entry.facts["encoder"], "part": part, "chunk": number}
    return store.make("encoded", _key(data, entry, part, number), write, facts)


def _key(data: config.Data, entry: Entry, part: str, number: int) -> str:
    name = f"{data.kind.rpartition('.')[2]}-{entry.facts['checksum'][:16]}"
    return f"{name}-{part}-{number}of{CHUNK}-v{ENCODED_VERSION}"


def takes_states(data: config.Data) -> bool:
    """Return whether networks take a frozen encoder's hidden states of the data."""
    return hasattr(family.member("data", data.kind), "encode")


def _rows(
    data: config.Data, store: Store, part: str, whole: dict[str, Tensor], ids: Int[Tensor, " rows"]
) -> Tensor | Ragged:
    """Return some rows of a part of a data set: as decoded, or as its encoder's hidden states, mapped from disk."""
    if not takes_states(data):
        return whole[part][ids]
    chunks = [encode(data, store, part, k).tensors("states") for k in range(-(-len(ids) // CHUNK))]
    place = torch.empty(len(whole[part]), dtype=torch.int64)
    place[_order(len(place))] = torch.arange(len(place))
    return joined([(chunk["states"], chunk["lengths"]) for chunk in chunks])[place[ids]]


# Which rows ---------------------------------------------------------------------------------------------


def _order(n: int) -> Int[Tensor, " n"]:
    """Return the one seeded order of a data set's rows, of which a study takes the first: fewer are among more."""
    return torch.randperm(n, generator=seeds.stream(0, "rows of a data set"))


def checked_rows(data: config.Data, part: str, there: int) -> int:
    """Return how many rows a study takes of a part of its data set, "train" or "test", of those that are there.

    Raises:
        UsageError: if it takes more.
    """
    name, what = ("rows", "training") if part == "train" else ("test_rows", "test")
    wanted = getattr(data, name)
    if not isinstance(wanted, str) and wanted > there:
        raise UsageError(f'data.{name}: {data.kind} has {there} {what} rows, not {wanted}; "all" takes them all.')
    return there if isinstance(wanted, str) else wanted


def _chosen(data: config.Data, part: str, whole: dict[str, Tensor]) -> Int[Tensor, " rows"]:
    """Return the numbers of the rows that a study takes of a part of its data set."""
    n = len(whole[f"{part}_labels"])
    wanted = checked_rows(data, part, n)
    if wanted == n:
        return torch.arange(n)
    return _order(n)[:wanted].sort().values


def _trained(n: int, reserve: float, groups: Int[Tensor, " rows"] | None) -> Bool[Tensor, " rows"]:
    """Return which rows train: all but the last of a seeded order, or of one of groups, as far as whole ones fit in."""
    left = round(reserve * n)
    trained = torch.ones(n, dtype=torch.bool)
    if groups is None:
        order = torch.randperm(n, generator=seeds.stream(0, "reserve"))
        trained[order[n - left :]] = False
        return trained
    _, own, sizes = groups.unique(return_inverse=True, return_counts=True)
    reserved = torch.zeros(len(sizes), dtype=torch.bool)
    for unit in torch.randperm(len(sizes), generator=seeds.stream(0, "reserve")).flip(0).tolist():
        if int(sizes[unit]) <= left:
            reserved[unit] = True
            left -= int(sizes[unit])
    return ~reserved[own]


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
