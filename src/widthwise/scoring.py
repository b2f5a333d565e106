"""Comparisons of networks in a store: their rows, their joint moments, their scores under keys."""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from widthwise import family, features, moment_blocks
from widthwise.columns import Concatenation
from widthwise.config import Run, digest
from widthwise.design import Comparison, Net
from widthwise.measures.base import Score, Trained
from widthwise.moment_blocks import Bundle
from widthwise.pairs import Joint, Pair
from widthwise.samples import Samples
from widthwise.splits import Part, Split, held_out, k_fold
from widthwise.store import Store, save_tensors
from widthwise.training import Interrupted

SPLITS_VERSION = 1
CELLS = {"validation": 15, "unseen": 15, "shuffled": 15, "test": 5, "probe": 6, "readout": 3}  # of each split
TRUTHS = "truths"  # the group of a joint that no network makes
Name = Callable[[Net, str], str]  # of a network's "features" or "logits" among the groups of a joint


def keys(
    comparisons: Iterable[Comparison], runs: Mapping[Net, Run], samples: Samples, store: Store
) -> dict[Comparison, str]:
    """Return every comparison's key: of its features' checksums, rows, measure, options and version."""
    known: dict[tuple[Net, str], list[str]] = {}

    def checksums(net: Net, snapshot: str) -> list[str]:
        if (net, snapshot) not in known:
            entries = features.find(store, runs[net], snapshot)
            assert entries is not None, f"no features of {runs[net].key}"
            known[net, snapshot] = [next(iter(e.files.values())) for e in entries.values()]
        return known[net, snapshot]

    rows = [samples.checksum, digest(samples.ids.tolist()), digest(samples.trained.tolist()), SPLITS_VERSION]
    rows.append(digest(samples.labels.tolist()))
    made = {}
    for c in comparisons:
        if reads_networks(c):
            made[c] = _key_of_networks(c, runs)
            continue
        identity = {
            "measure": c.measure,
            "version": family.member("measures", c.measure).VERSION,
            "options": dict(c.options),
            "source": [checksums(net, c.snapshot) for net in c.source],
            "target": [checksums(net, c.snapshot) for net in c.target],
            "of": c.of,
            "rows": [c.split, *rows],
            **({"truths": True} if c.truths else {}),
        }
        made[c] = f"{c.measure}-{c.split}-{digest(identity, 24)}"
    return made


def reads_networks(c: Comparison) -> bool:
    """Return whether a comparison is of networks themselves: their weights and how they trained."""
    return "networks" in family.member("measures", c.measure).NEEDS


def _key_of_networks(c: Comparison, runs: Mapping[Net, Run]) -> str:
    version = family.member("measures", c.measure).VERSION
    identity = {"version": version, "options": dict(c.options), "source": [runs[net].key for net in c.source]}
    return f"{c.measure}-{digest(identity, 24)}"


def read(store: Store, key: str) -> Score:
    """Return a stored score."""
    entry = store.get("scores", key)
    assert entry is not None, f"no score {key}"
    facts = entry.json("score")
    arrays = entry.tensors("arrays") if "arrays.safetensors" in entry.files else {}
    value = facts["value"]
    return Score(float("nan") if value is None else value, facts["values"], arrays)


def compute(
    comparisons: Sequence[Comparison],
    runs: Mapping[Net, Run],
    samples: Samples,
    store: Store,
    tell: Callable[[float], None] = lambda share: None,
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Compute comparisons of one split that share one pass over the rows, into the store."""
    named = keys(comparisons, runs, samples, store)
    lacking = [c for c in comparisons if store.get("scores", named[c]) is None]
    if not lacking:
        return
    if reads_networks(comparisons[0]):
        for k, c in enumerate(lacking):
            networks = [trained(runs[net], store) for net in c.source]
            _write(store, named[c], c, family.member("measures", c.measure).measure(networks, **dict(c.options)))
            tell((k + 1) / len(lacking))
        return
    joint = _joint(comparisons, runs, samples, store)
    beside = neighbours(comparisons)  # of all, though some are there
    for k, c in enumerate(sorted(lacking, key=fit)):
        if stopping():
            raise Interrupted
        _write(store, named[c], c, score(c, joint, beside))
        tell((k + 1) / len(lacking))


def trained(run: Run, store: Store) -> Trained:
    """Return a network of the store as measures of networks take it."""
    entry = store.get("runs", run.key)
    assert entry is not None, f"{run.key} is not trained"
    return Trained(run, entry.tensors, entry.json("history"))


def fit(c: Comparison) -> tuple[Any, ...]:
    """Return what comparisons share that are fitted at once: to be sorted by, so that these come in turn."""
    return (
        c.measure,
        c.source,
        *(dict(c.options).get(name, False) for name in ("standardize", "within_class")),
    )


def group(net: Net, of: str) -> str:
    """Return what a network's features, or logits, are called among the groups of a joint."""
    return f"{net.width} seed {net.seed} {of}"


def neighbours(comparisons: Iterable[Comparison], name: Name = group) -> dict[tuple, tuple[str, ...]]:
    """Return the targets that are fitted at once, by `fit`: a fit's last digits depend on all of them."""
    found: dict[tuple, dict[str, None]] = {}
    for c in comparisons:
        found.setdefault(fit(c), {}).update(dict.fromkeys(_targets(c, name)))
    return {key: tuple(names) for key, names in found.items()}


def score(c: Comparison, joint: Joint, beside: Mapping[tuple, tuple[str, ...]], name: Name = group) -> Score:
    """Return the score of one comparison of a joint, whose groups have the names that `name` gives."""
    member = family.member("measures", c.measure)
    pair = Pair(
        joint,
        tuple(name(net, "features") for net in c.source),
        _targets(c, name),
        tuple(name(net, "logits") for net in c.source) if "logits" in member.NEEDS else (),
        beside[fit(c)],
    )
    return member.measure(pair, **dict(c.options))


def _targets(c: Comparison, name: Name) -> tuple[str, ...]:
    return tuple(name(net, c.of) for net in c.target) + ((TRUTHS,) if c.truths else ())


def split_rows(name: str, samples: Samples) -> tuple[Tensor, Split]:
    """Return the rows of a split, as positions in [training rows, test rows], and the split of them.

    Raises:
        UsageError: if the split is none of those of DEFINITIONS 2.
    """
    ids, groups = torch.cat([samples.ids, samples.test_ids]), _grouped(samples)
    n = len(samples.ids)
    trained, reserve = samples.trained.nonzero()[:, 0], (~samples.trained).nonzero()[:, 0]
    test = n + torch.arange(len(samples.test_ids))
    if name == "validation":
        return trained, k_fold(name, ids[trained], groups=groups(trained))
    if name in ("unseen", "shuffled"):
        rows = torch.cat([reserve if name == "unseen" else trained, test])
        return rows, k_fold(name, ids[rows], groups=groups(rows))
    if name == "test":
        rows = torch.cat([trained, test])
        return rows, held_out(name, ids[trained], ids[test], groups(test))
    if name == "readout":
        rows = torch.cat([trained, test])
        return rows, held_out(name, ids[trained], ids[test], groups(test), nested=False)
    if name == "probe":
        return _probe_rows(trained, reserve, test, ids, groups)
    raise AssertionError(f"no split {name}")


def _grouped(samples: Samples) -> Callable[[Tensor], Tensor | None]:
    """Return a function from some of [training rows, test rows] to their groups, or to None where there are none."""
    if samples.groups is None or samples.test_groups is None:
        return lambda rows: None
    whole = torch.cat([samples.groups, samples.test_groups])
    return lambda rows: whole[rows]


def _probe_rows(
    trained: Tensor, reserve: Tensor, test: Tensor, ids: Tensor, groups: Callable[[Tensor], Tensor | None]
) -> tuple[Tensor, Split]:
    """Return all rows, for probes: cell 0 trained networks, cells 1 to 5 are folds of unseen rows.

    Only test rows have a block: they are what is scored.
    """
    unseen = torch.cat([reserve, test])
    folds = k_fold("unseen", ids[unseen], groups=groups(unseen))
    cell = torch.cat([torch.zeros_like(trained), 1 + folds.cell // 3])
    block = torch.cat(
        [torch.full_like(trained, -1), torch.where(torch.arange(len(unseen)) < len(reserve), -1, folds.block)]
    )
    parts = tuple(Part(fit=tuple(c for c in range(1, 6) if c != k), score=(k,)) for k in range(1, 6))
    return torch.cat([trained, unseen]), Split("probe", cell, block, parts)


def _joint(comparisons: Sequence[Comparison], runs: Mapping[Net, Run], samples: Samples, store: Store) -> Joint:
    rows, split = split_rows(comparisons[0].split, samples)
    groups: dict[str, Concatenation] = {}
    content: dict[str, tuple[str, ...]] = {}
    for net, of in _groups(comparisons):
        entries = features.find(store, runs[net], comparisons[0].snapshot)
        assert entries is not None
        parts = [entries[part].tensors("features")[of] for part in features.PARTS]
        groups[group(net, of)] = Concatenation([torch.cat(parts)[rows]])
        content[group(net, of)] = (of, *(next(iter(entries[part].files.values())) for part in features.PARTS))
    if any(c.truths for c in comparisons):
        assert samples.endless is not None, "nothing but labels is known of these samples"
        known = torch.cat([samples.endless.truths(part) for part in (samples.train, samples.test)])
        groups[TRUTHS] = Concatenation([known[rows].float()])
    joint = Joint(groups, split, torch.cat([samples.labels, samples.test_labels])[rows])
    if moment_blocks.kept(len(rows), sum(map(len, joint.columns.values())) + joint.classes, split.cells):
        together = bundles(comparisons, lambda net, of: groups[group(net, of)].columns)
        names = [tuple(group(*member) for member in members) for members in together]
        stored = [Bundle(own, tuple(content[name] for name in own)) for own in names]
        stored += [Bundle((TRUTHS,), ((TRUTHS, samples.checksum),))] if TRUTHS in groups else []
        joint.collect = partial(moment_blocks.collect, bundles=stored, rows=digest(rows.tolist(), 24), store=store)
    return joint


def bundles(comparisons: Iterable[Comparison], columns: Callable[[Net, str], int]) -> list[list[tuple[Net, str]]]:
    """Return networks and "features" or "logits" whose moments lie in the same blocks, in the order of a joint."""
    found: dict[Any, list[tuple[Net, str]]] = {}
    for net, of in _groups(comparisons):
        place = moment_blocks.place((of, net.width), net.seed, columns(net, of))
        found.setdefault(place, []).append((net, of))
    return list(found.values())


def blocks(
    comparisons: Sequence[Comparison], columns: Callable[[Net, str], int], rows: int, classes: int
) -> dict[Hashable, int]:
    """Return the bytes of every moment block that is kept of one pass over so many rows, by what it is of."""
    split, snapshot, cells = comparisons[0].split, comparisons[0].snapshot, CELLS[comparisons[0].split]
    found = [
        (", ".join(group(*member) for member in members), sum(columns(*member) for member in members))
        for members in bundles(comparisons, columns)
    ]
    if not moment_blocks.kept(rows, sum(p for _, p in found) + classes, cells):
        return {}
    pairs = combinations_with_replacement([*found, ("labels", classes)], 2)
    return {(split, snapshot, a, b): moment_blocks.size(p, q, cells) // (1 + (a == b)) for (a, p), (b, q) in pairs}


def _groups(comparisons: Iterable[Comparison]) -> list[tuple[Net, str]]:
    """Return the networks whose features, or logits, take part: in one order, whatever is compared."""
    wanted: set[tuple[Net, str]] = set()
    for measure, source, target, of in {(c.measure, c.source, c.target, c.of) for c in comparisons}:
        wanted |= {(net, "features") for net in source} | {(net, of) for net in target}
        if "logits" in family.member("measures", measure).NEEDS:
            wanted |= {(net, "logits") for net in source}
    return sorted(wanted, key=lambda found: (found[1], -found[0].width, found[0].seed))


def _write(store: Store, key: str, c: Comparison, made: Score) -> None:
    def write(folder: Path) -> None:
        value = _kept(made.value) if made.value == made.value else None
        (folder / "score.json").write_text(json.dumps({"value": value, "values": _kept(dict(made.values))}, indent=1))
        if made.arrays:
            save_tensors(folder / "arrays.safetensors", {name: _kept(t) for name, t in made.arrays.items()})

    facts = {
        "measure": c.measure,
        "source": [f"{net.width} seed {net.seed}" for net in c.source],
        "target": [f"{net.width} seed {net.seed}" for net in c.target],
        "of": c.of,
        "split": c.split,
        "snapshot": c.snapshot,
        "options": dict(c.options),
    }
    store.make("scores", key, write, facts)


def _kept(value: Any) -> Any:
    """Return numbers to 12 significant digits: what lies beyond is rounding, which depends on memory addresses."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return value
        scale = 10.0 ** (11 - value.abs().clamp_min(1e-290).log10().floor())
        return (value * scale).round() / scale
    if isinstance(value, float):
        return float(f"{value:.12g}")
    return {k: _kept(v) for k, v in value.items()} if isinstance(value, dict) else value
