"""The toy from its study file to its report, small: what it says is what its networks' weights say."""

import math

import pytest
import torch

from widthwise import budget, cost, fleet, samples
from widthwise.config import load_study
from widthwise.design import Design
from widthwise.errors import UsageError
from widthwise.executors.base import run
from widthwise.report import page
from widthwise.store import Store
from widthwise.training import Interrupted

TRAINING = {
    "optimiser": "normalised_sgd",
    "schedule": "constant",
    "rate": 0.006,
    "weight_decay": 0.003,
    "batch_size": 64,
    "fresh": 20,
    "epochs": 3,
}


def study(**over):
    """Return a study of three wide networks and some narrow ones."""
    raw = {
        "data": {"kind": "signals", "rows": 1200, "test_rows": 600, "reserve": 0},
        "network": {"kind": "threshold_mlp", "threshold": 0.45, "ratio": 2.5, "hidden": 16},
        "training": TRAINING,
        "neurons": {60: 14, 1500: 3},
        "studies": [{"kind": "toy", "together": 6}],
    }
    return load_study(raw | over)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    return store, run(study(), store, jobs=1)


def test_what_it_says_of_networks_is_what_their_weights_say(done):
    store, results = done
    design = Design(study(), (6, 16), 2)
    checksum = results.provenance["data_checksum"]
    for neurons, networks in ((60, 14), (1500, 3)):
        runs = [design.run(net, checksum) for net in design.by_neurons(neurons)]
        learned, counts = torch.zeros(5), torch.zeros(2, 5)
        for one in runs:
            entry = store.get("runs", one.key)
            weight = entry.tensors("final")["neurons.weight"]
            for k, at in enumerate(("initial", "final")):
                counts[k] += (entry.tensors(at)["neurons.weight"][:, :5].abs() > 0.45).sum(0)
            on = weight[:, :5].abs() > 0.45
            learned += (on & (weight[:, :5].abs() / weight.norm(dim=1, keepdim=True) > 0.9)).any(0)
        rows = [row for row in results.rows if row.width == str(neurons)]
        told = {r.statistic: r.value for r in rows if r.measure == "signal_learned"}
        assert [told[f"v{k}"] for k in range(1, 6)] == pytest.approx((learned / networks).tolist())
        for k, trained in enumerate((False, True)):
            told = {r.statistic: r.value for r in rows if r.measure == "activated_neurons" and r.trained is trained}
            assert [told[f"v{k}"] for k in range(1, 6)] == pytest.approx((counts[k] / networks).tolist())
        expected = next(r.value for r in rows if r.measure == "activated_neurons" and r.statistic == "expected")
        assert expected == pytest.approx(neurons * math.erfc(2.5 / math.sqrt(2)))


def test_signs_and_features_are_read_out_of_networks_put_together(done):
    _, results = done
    for trained in (True, False):
        rows = [r for r in results.rows if r.measure == "span_error" and r.trained is trained and r.width == "60"]
        read = {r.statistic: r for r in rows if r.source == "6 x 60"}
        assert set(read) >= {"s1", "s2", "s3", "s4", "s5", "s3s4s5", "mean"}
        assert all(r.low <= r.value <= r.high for r in read.values() if r.interval_over)
        grown = [r for r in rows if r.statistic == "s1_growth"]
        assert [r.source for r in grown] == ["60", "2 x 60", "4 x 60", "6 x 60"]
        assert grown[-1].value == pytest.approx(read["s1"].value, rel=1e-3)


def test_a_second_run_trains_nothing_and_says_the_same(done):
    store, results = done
    before = {path: path.stat().st_mtime_ns for path in (store.root / "runs").rglob("*")}
    assert run(study(), store, jobs=1).to_json() == results.to_json()
    assert {path: path.stat().st_mtime_ns for path in (store.root / "runs").rglob("*")} == before


def test_its_page_has_the_papers_table_and_figures(done):
    files = page.files(done[1])
    assert {f"figures/toy_{name}.svg" for name in ("cosines", "activated", "readouts", "growth")} <= set(files)
    assert {"paper_toy.csv", "paper_toy_why.csv", "paper_toy_neurons.csv"} <= set(files)


def test_a_wide_network_is_read_out_in_each_of_them_and_the_verdict_is_one_of_four_words(done):
    _, results = done
    wide = {r.statistic: r for r in results.rows if r.measure == "span_error" and r.trained and r.width == "1500"}
    assert wide["s3s4s5"].interval_over == "networks"
    assert wide["mean"].target == "1500"
    assert len(results.findings) == 2
    assert "which are too few" not in " ".join(results.findings[1].decided_by)


def test_other_terms_and_a_wide_network_of_ones_choice_go_through(tmp_path):
    sums = {"kind": "signals", "rows": 400, "test_rows": 300, "reserve": 0, "added": 3, "products": [], "patches": 4}
    results = run(study(data=sums, neurons={40: 3, 400: 1}), Store(tmp_path), jobs=1)
    drawn = page.files(results)["figures/toy_readouts.svg"]
    assert "one network of 400" in (drawn if isinstance(drawn, str) else drawn.decode())
    assert not results.findings
    assert {r.statistic for r in results.rows if r.measure == "signal_learned"} == {"v1", "v2", "v3", "all"}
    two = sums | {"added": 0, "products": [2, 2, 2], "patches": 6}
    asked = [{"kind": "toy", "together": 3, "wide": 400, "untrained": False}]
    results = run(study(data=two, neurons={40: 3, 400: 2, 900: 1}, studies=asked), Store(tmp_path), jobs=1)
    assert [f.verdict for f in results.findings][1] == "below resolution"  # two wide networks
    read = {r.statistic for r in results.rows if r.measure == "span_error" and r.source == "3 x 40"}
    assert {"s1s2", "s3s4", "s5s6"} <= read
    assert {r.width for r in results.rows if r.measure == "span_error"} == {"40", "400"}


def test_it_can_be_planned_and_a_budget_says_what_to_set_instead(tmp_path):
    told = str(cost.plan(study(), Store(tmp_path)))
    assert "1500" in told
    with pytest.raises(UsageError, match="of fresh samples set training"):
        budget.fitted(study(), Store(tmp_path), 60.0)


def test_interrupted_and_going_on_gives_the_same_bits(done, tmp_path):
    store, results = done
    design, of = Design(study(), (6, 16), 2), samples.load(study().data, Store(tmp_path))
    asked = []

    def stopping():
        asked.append(True)
        return len(asked) == 47

    for neurons in (60, 1500):
        runs = [design.run(net, results.provenance["data_checksum"]) for net in design.by_neurons(neurons)[:4]]
        asked.clear()
        with pytest.raises(Interrupted):
            fleet.train_fleet(runs, of, Store(tmp_path), stopping=stopping)
        assert {found.step for found in fleet.checkpoints(Store(tmp_path)).values()} == {47}
        fleet.train_fleet(runs, of, Store(tmp_path))
        for one in runs:
            again, whole = (where.get("runs", one.key).tensors("final") for where in (Store(tmp_path), store))
            assert all(torch.equal(again[name], whole[name]) for name in whole)
