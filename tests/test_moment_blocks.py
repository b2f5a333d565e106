"""Sums in blocks are the sums of one pass, wherever they are cut; what is in the store is not made again."""

import logging
import shutil

import numpy as np
import pytest
import torch

from widthwise import moment_blocks
from widthwise.columns import Concatenation
from widthwise.errors import DataError
from widthwise.moment_blocks import Bundle, collect, kept, place
from widthwise.pairs import Joint
from widthwise.splits import held_out, k_fold
from widthwise.store import Store

N = 700
SPLITS = {
    "validation": k_fold("validation", torch.arange(N)),
    "test": held_out("test", torch.arange(500), 500 + torch.arange(N - 500)),
}


@pytest.fixture
def read(monkeypatch) -> dict[tuple[str, ...], list[int]]:
    """Return the rows that are read from here on, by bundle."""
    rows, values = {}, moment_blocks._values

    def counted(joint, bundle, of):
        rows.setdefault(bundle.names, []).extend(of.tolist())
        return values(joint, bundle, of)

    monkeypatch.setattr(moment_blocks, "_values", counted)
    return rows


def networks(seed: int, widths=(7, 7, 3, 40), n: int = N) -> dict[str, torch.Tensor]:
    """Return features with large means, of scales far apart, one of them constant and one rarely active."""
    random = np.random.default_rng(seed)
    made = {}
    for k, width in enumerate(widths):
        X = random.normal(size=(n, width)) * np.logspace(-3, 3, width) + 1e3 * random.normal(size=width)
        X[:, 0], X[:, -1] = 0.1, np.arange(n) % 50 == 3
        made[f"net {k}"] = torch.from_numpy(X).to(torch.float32)
    return made


def joint(nets: dict, split: str = "validation", labels: int | None = 0) -> Joint:
    y = None if labels is None else torch.from_numpy(np.random.default_rng(labels).integers(3, size=N))
    return Joint({name: Concatenation([x]) for name, x in nets.items()}, SPLITS[split], y)


def bundles(*together: tuple[str, ...]) -> list[Bundle]:
    return [Bundle(names, tuple((f"checksum of {name}",) for name in names)) for names in together]


SINGLE = bundles(("net 0",), ("net 1",), ("net 2",), ("net 3",))
CUTS = [SINGLE, bundles(("net 0", "net 1"), ("net 2",), ("net 3",)), bundles(("net 0", "net 1", "net 2", "net 3"))]


def stored(store: Store) -> dict[str, bytes]:
    return {key: (store.root / "moments" / key / "moments.safetensors").read_bytes() for key in store.keys("moments")}


def same(ours, theirs, exactly: bool = False) -> None:
    """Check that two lists of moments are equal to 1e-12 of the columns' deviations, or exactly."""
    for a, b in zip(ours, theirs, strict=True):
        size = (b.squares + 1e-300).sqrt()
        bound = 0.0 if exactly else 1e-12 * torch.outer(size, size)
        assert a.n == b.n
        assert torch.equal(a.shift, b.shift)
        assert torch.equal(a.low, b.low)
        assert torch.equal(a.high, b.high)
        assert bool(((a.second - b.second).abs() <= bound).all())
        assert torch.allclose(a.total, b.total, rtol=1e-12, atol=0 if exactly else float(1e-12 * size.max()))
        assert torch.equal(a.constant, b.constant)
        assert torch.allclose(a.effective_rows, b.effective_rows, rtol=1e-9, equal_nan=True)  # of no rows: NaN


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("labels", [None, 1])
@pytest.mark.parametrize("cut", CUTS)
def test_sums_are_those_of_one_pass_however_they_are_cut(split, labels, cut, seed, tmp_path):
    made = joint(networks(seed), split, labels)
    for _ in range(2):  # made, then read
        same(collect(made, cut, "rows", Store(tmp_path)), made.cells)


def test_a_bundle_wider_than_what_is_multiplied_at_once_has_every_product(seed, tmp_path):
    made = joint(networks(seed, (300, 5)))
    same(collect(made, bundles(("net 0",), ("net 1",)), "rows", Store(tmp_path)), made.cells)


def test_cells_without_rows_have_the_sums_of_none(seed, tmp_path):
    split = k_fold("validation", torch.arange(8), 4)
    nets = networks(seed, (3, 2), n=8)
    made = Joint({name: Concatenation([x]) for name, x in nets.items()}, split)
    assert 0 in {cell.n for cell in made.cells}
    same(collect(made, bundles(("net 0",), ("net 1",)), "rows", Store(tmp_path)), made.cells)


def test_what_is_stored_gives_the_same_bits_and_no_row_is_read_again(seed, tmp_path, read):
    first = collect(joint(networks(seed)), SINGLE, "rows", Store(tmp_path))
    read.clear()
    same(collect(joint(networks(seed)), SINGLE, "rows", Store(tmp_path)), first, exactly=True)
    assert not read


def test_one_network_more_costs_its_own_blocks_and_one_pass_over_the_rows(seed, tmp_path, read):
    nets, store = networks(seed), Store(tmp_path)
    collect(joint({name: nets[name] for name in ("net 0", "net 1", "net 2")}), SINGLE[:3], "rows", store)
    before = stored(store)
    assert len(before) == 4 * 5 / 2  # three networks and the labels
    read.clear()
    ours = collect(joint(nets), SINGLE, "rows", store)
    after = stored(store)
    assert len(after) - len(before) == 5  # with itself, with three others and with the labels
    assert after.items() >= before.items()
    assert list(read) == [("net 0",), ("net 1",), ("net 2",), ("net 3",), ()]
    for rows in read.values():
        assert sorted(rows) == sorted(2 * list(range(N)))  # once for the mean of the first 2,048, once for the sums
    same(ours, joint(nets).cells)


def test_rows_of_networks_that_lack_no_block_are_not_read(seed, tmp_path, read):
    collect(joint(networks(seed)), SINGLE, "rows", Store(tmp_path))
    for key in Store(tmp_path).keys("moments"):
        entry = Store(tmp_path).get("moments", key)
        if entry.facts["groups"] == [["net 0"], ["net 3"]]:
            shutil.rmtree(entry.path)
    read.clear()
    same(collect(joint(networks(seed)), SINGLE, "rows", Store(tmp_path)), joint(networks(seed)).cells)
    assert list(read) == [("net 0",), ("net 3",)]


def test_a_block_is_the_same_bytes_whatever_stands_beside_it(seed, tmp_path):
    nets = networks(seed)
    few, many = Store(tmp_path / "few"), Store(tmp_path / "many")
    collect(joint({name: nets[name] for name in ("net 1", "net 3")}), [SINGLE[1], SINGLE[3]], "rows", few)
    collect(joint(nets), SINGLE, "rows", many)
    assert stored(many).items() >= stored(few).items()


@pytest.mark.parametrize("what", ["content", "rows", "cells", "labels"])
def test_blocks_of_other_content_rows_cells_or_labels_are_others(what, seed, tmp_path):
    nets, store = networks(seed, (4,)), Store(tmp_path)
    one = bundles(("net 0",))
    collect(joint(nets), one, "rows", store)
    assert len(store.keys("moments")) == 3
    other = [Bundle(("net 0",), (("another checksum",),))] if what == "content" else one
    made = joint(nets, "test" if what == "cells" else "validation", 1 if what == "labels" else 0)
    collect(made, other, "others" if what == "rows" else "rows", store)
    assert len(store.keys("moments")) == {"content": 5, "labels": 5}.get(what, 6)


def test_a_run_that_ends_while_blocks_are_written_goes_on_with_the_others(seed, tmp_path, monkeypatch):
    nets, save, written = networks(seed), Store.save, []

    def killed(self, kind, key, tensors, facts):
        if len(written) == 6:
            raise KeyboardInterrupt
        written.append(key)
        return save(self, kind, key, tensors, facts)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(joint(nets), SINGLE, "rows", Store(tmp_path))
    before = stored(Store(tmp_path))
    assert set(before) == set(written)
    ours = collect(joint(nets), SINGLE, "rows", Store(tmp_path))
    assert len(stored(Store(tmp_path))) == 15
    assert stored(Store(tmp_path)).items() >= before.items()
    collect(joint(nets), SINGLE, "rows", Store(tmp_path / "whole"))
    assert stored(Store(tmp_path)) == stored(Store(tmp_path / "whole"))
    same(ours, joint(nets).cells)


def test_a_damaged_block_is_said_and_made_again(seed, tmp_path, caplog):
    nets = networks(seed)
    collect(joint(nets), SINGLE, "rows", Store(tmp_path))
    before = stored(Store(tmp_path))
    path = tmp_path / "moments" / sorted(before)[4] / "moments.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    with caplog.at_level(logging.WARNING):
        same(collect(joint(nets), SINGLE, "rows", Store(tmp_path)), joint(nets).cells)
    assert f"{path.parent} is damaged (moments.safetensors is not what was written)" in caplog.text
    assert stored(Store(tmp_path)) == before


def test_a_value_that_is_not_finite_is_named_and_nothing_is_stored(seed, tmp_path):
    nets = networks(seed)
    nets["net 2"][77, 1] = torch.inf
    with pytest.raises(DataError, match="net 2: row 77, column 1 is inf; features must be finite numbers"):
        collect(joint(nets), SINGLE, "rows", Store(tmp_path))
    assert not Store(tmp_path).keys("moments")


def test_a_joint_asks_its_collector_once(seed, tmp_path):
    made, asked = joint(networks(seed)), []

    def collector(of: Joint):
        asked.append(of)
        return collect(of, SINGLE, "rows", Store(tmp_path))

    made.collect = collector
    same(made.cells, joint(networks(seed)).cells)
    assert made.cells is made.cells
    assert asked == [made]


@pytest.mark.parametrize("columns", [1, 10, 16, 32, 64, 128, 512, 1000])
def test_bundles_are_consecutive_networks_and_those_added_later_leave_them_alone(columns):
    of = [place("narrow", number, columns) for number in range(300)]
    sizes = [of.count(bundle) for bundle in dict.fromkeys(of)]
    assert of == sorted(of)
    assert set(sizes[:-1]) <= {max(1, 128 // columns)}
    assert {place("wide", 0, columns), place("narrow", 0, columns)} == {("wide", 0), ("narrow", 0)}


def test_blocks_are_kept_where_reading_pays_and_the_disk_allows():
    assert kept(rows=15 * 256, columns=100, cells=15)
    assert not kept(rows=15 * 256 - 1, columns=100, cells=15)
    assert kept(rows=50_000, columns=16 * 128 + 4 * 512, cells=15)  # the paper's networks of 1/4 against its wide ones
    assert not kept(rows=50_000, columns=251 * 32 + 4 * 512, cells=15)
