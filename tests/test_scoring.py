"""Comparisons share their moments: those of a second study are all there, and a network more brings its own alone."""

from fractions import Fraction

import pytest
import torch

import small
from widthwise import features, moment_blocks, scoring
from widthwise.config import Run
from widthwise.design import Comparison, Net
from widthwise.store import Store

SAMPLES = small.samples()
WIDE = [Net(Fraction(1), seed) for seed in range(4)]
NARROW = [Net(Fraction(1, 2), seed) for seed in range(4)]


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Keep blocks of few rows too, one for each network."""
    monkeypatch.setattr(moment_blocks, "CELL", 0)
    monkeypatch.setattr(moment_blocks, "COLUMNS", 8)


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """Return how many blocks every pass over rows makes, from here on."""
    made, real = [], moment_blocks._made

    def counted(joint, bundles, blocks):
        if blocks:
            made.append(len(blocks))
        return real(joint, bundles, blocks)

    monkeypatch.setattr(moment_blocks, "_made", counted)
    return made


@pytest.fixture
def store(tmp_path, seed) -> Store:
    """Return a store with features of four wide networks and four narrow ones, correlated with the classes."""
    store, generator = Store(tmp_path), torch.Generator().manual_seed(seed)
    for net, run in runs(WIDE + NARROW).items():
        for part, labels in (("train", SAMPLES.labels), ("test", SAMPLES.test_labels)):
            X = torch.randn(len(labels), 16 if net.width == 1 else 8, generator=generator)
            X += torch.nn.functional.one_hot(labels, X.shape[1])
            tensors = {"features": X, "logits": X[:, :4].clone()}
            store.save("features", features.key_of(run, "final", part), tensors, {})
    return store


def runs(nets: list[Net]) -> dict[Net, Run]:
    return {net: small.run(net.seed, net.width) for net in nets}


def gap(wide: list[Net], split: str = "validation", measure: str = "span_error") -> list[Comparison]:
    """Return the comparisons of a gap, in one pass over the rows."""
    options = (("row_blocks", False),) if measure == "span_error" else ()
    sources = [(tuple(NARROW), target) for target in wide]
    sources += [((source,), target) for source in wide for target in wide if source != target]
    return [Comparison(measure, s, (t,), split, options=options, together=split) for s, t in sources]


def scores(store: Store, comparisons: list[Comparison], of: Store | None = None) -> dict[str, float]:
    """Return the scores of comparisons, computed as far as they are not there."""
    nets = runs(WIDE + NARROW)
    scoring.compute(comparisons, nets, SAMPLES, store)
    return {key: scoring.read(store, key).value for key in scoring.keys(comparisons, nets, SAMPLES, store).values()}


@pytest.mark.parametrize("split", ["validation", "unseen", "test"])
def test_scores_with_stored_blocks_are_those_without_as_far_as_they_are_rounded(split, store, monkeypatch):
    ours = scores(store, gap(WIDE, split))
    blocks = store.keys("moments")
    assert len(blocks) == 9 * 10 / 2  # eight networks and the labels
    store.clear("scores")
    monkeypatch.setattr(moment_blocks, "CELL", 10**6)
    theirs = scores(store, gap(WIDE, split))
    assert ours.keys() == theirs.keys()
    assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=2e-11)  # 12 digits, the last one rounded


def test_a_study_over_the_same_networks_makes_no_block_and_passes_over_no_row(store, passes):
    scores(store, gap(WIDE))
    assert passes == [45]
    before = store.keys("moments")
    reverse = [Comparison("span_error", (w,), (n,), together="reverse") for w in WIDE for n in NARROW]
    scores(Store(store.root), [*reverse, Comparison("span_error", tuple(NARROW[:2]), (NARROW[2],))])
    assert passes == [45]
    assert store.keys("moments") == before


def test_a_network_more_makes_only_the_blocks_that_it_is_in(store, passes):
    scores(store, gap(WIDE[:3]))
    before = set(store.keys("moments"))
    scores(store, gap(WIDE))
    assert passes == [36, 9]  # its own, those with seven others and with the labels
    new = [store.get("moments", key).facts["groups"] for key in set(store.keys("moments")) - before]
    assert all(["1 seed 3 features"] in block for block in new)


def test_a_network_more_leaves_full_bundles_alone(store, passes, monkeypatch):
    monkeypatch.setattr(moment_blocks, "COLUMNS", 32)  # two wide networks, or four narrow ones
    scores(store, gap(WIDE[:3]))
    scores(store, gap(WIDE))
    assert passes == [10, 4]  # of seeds 2 and 3: with themselves, seeds 0 and 1, the narrow ones, the labels


def test_the_same_store_gives_the_same_bytes_again_and_so_does_one_whose_blocks_were_deleted(store):
    first = scores(store, gap(WIDE))
    files = {path: path.read_bytes() for path in store.root.glob("scores/*/score.json")}
    for kinds in (("scores",), ("scores", "moments")):
        for kind in kinds:
            store.clear(kind)
        assert scores(Store(store.root), gap(WIDE)) == first
        assert {path: path.read_bytes() for path in store.root.glob("scores/*/score.json")} == files


def test_a_damaged_block_is_said_and_the_scores_are_the_same(store, caplog):
    first = scores(store, gap(WIDE))
    store.clear("scores")
    path = next(store.root.glob("moments/*/moments.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert scores(Store(store.root), gap(WIDE)) == first
    assert f"{path.parent} is damaged" in caplog.text


def test_measures_that_need_no_moments_make_no_block(store, passes):
    scores(store, [Comparison("ensemble_accuracy", (net,), (), "probe") for net in WIDE])
    assert not passes
    assert not store.keys("moments")


@pytest.mark.parametrize("split", ["validation", "unseen", "test", "probe"])
def test_every_split_has_the_cells_that_are_planned_for(split):
    _, made = scoring.split_rows(split, SAMPLES)
    assert made.cells == scoring.CELLS[split]


def test_planned_bytes_are_those_on_the_disk_less_what_each_file_says_of_itself(store):
    counted = scoring.blocks(gap(WIDE), lambda net, of: 16 if net.width == 1 else 8, 160, 4)
    scores(store, gap(WIDE))
    files = list(store.root.glob("moments/*/moments.safetensors"))
    assert len(files) == len(counted)
    assert 0 <= sum(path.stat().st_size for path in files) - sum(counted.values()) < 2500 * len(files)
