"""What a study will take is counted by hand where it can be, and knows what is there already."""

from fractions import Fraction

import pytest

from widthwise import cost, fleet, machine, moment_blocks, samples, words
from widthwise.config import Data, Network, Run, Training, load_study
from widthwise.design import Design
from widthwise.errors import UsageError
from widthwise.networks import base as networks
from widthwise.store import Store
from widthwise.training import Interrupted

STUDY = {
    "title": "planned",
    "data": {"kind": "digits", "rows": 400, "reserve": 0.2},
    "network": {"kind": "mlp", "hidden": 16, "depth": 1},
    "training": {"epochs": 3, "batch_size": 64},
    "widths": ["1", "1/2"],
    "wide": 2,
    "concatenations": {"1/2": 3},
    "studies": ["width_gap"],
}


@pytest.fixture
def quick(monkeypatch):
    """Let a step of a network take a millisecond and machines do 1e9 FLOPs a second, without timing them."""
    monkeypatch.setattr(machine, "step_seconds", lambda runs, shape, batch, device: 1e-3 * len(runs))
    monkeypatch.setattr(machine, "rates", lambda: (1e9, 1e9))


def run_of(kind="mlp", width="1", **options) -> Run:
    data = Data(kind="digits" if kind == "mlp" else "cifar10")
    network = Network.model_validate({"kind": kind, **options})
    return Run(data, "c", network, Training(), Fraction(width), 0)


def test_a_plan_counts_networks_and_their_sizes(quick, tmp_path):
    plan = cost.plan(load_study(STUDY), Store(tmp_path / "none"), jobs=2)
    wide, narrow = plan.widths
    assert (wide.width, narrow.width) == ("1", "1/2")
    assert (wide.widths, narrow.widths) == ((16,), (8,))
    assert wide.parameters == 64 * 16 + 16 + 16 * 10 + 10
    assert narrow.parameters == 64 * 8 + 8 + 8 * 10 + 10
    assert (narrow.match_parameters, narrow.match_features) == (2, 2)  # 1210 / 610, 16 / 8
    assert (wide.networks, narrow.networks, narrow.concatenations) == (2, 6, 3)
    assert (wide.trained, narrow.trained, plan.rows, plan.steps) == (0, 0, 320, 15)
    assert wide.flops == 3 * 2 * (64 * 16 + 16 * 10) * 64 * 15
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("part", "there"), [("rows", "1437 training"), ("test_rows", "360 test")])
def test_more_rows_than_there_are_are_refused_before_anything_is_read(quick, tmp_path, part, there):
    study = load_study(STUDY | {"data": {"kind": "digits", part: 5000}})
    with pytest.raises(UsageError, match=rf"data\.{part}: digits has {there} rows, not 5000"):
        cost.plan(study, Store(tmp_path))


def test_the_seconds_of_a_plan_are_those_of_its_steps_shared_by_processes(quick, tmp_path):
    study = load_study(STUDY)
    one, two = (cost.plan(study, Store(tmp_path), jobs=jobs) for jobs in (1, 2))
    watched = 3 * 360 / 64 / 3  # the test rows of three epochs, forward only, in steps
    assert sum(width.seconds for width in one.widths) == pytest.approx(8e-3 * (15 + watched))
    assert one.seconds["training"] == pytest.approx(8e-3 * (15 + watched) + cost.START)
    assert two.seconds["training"] < one.seconds["training"]
    assert two.seconds["comparing"] - cost.START == pytest.approx((one.seconds["comparing"] - cost.START) / 2)
    assert (one.processes, two.processes) == (1, 2)
    assert two.memory > one.memory > cost.PROCESS


def test_a_plan_knows_what_is_trained_begun_and_left(quick, tmp_path, caplog):
    study, store = load_study(STUDY), Store(tmp_path)
    assert len(cost.missing(study, store)) == 8
    rows = samples.load(study.data, store)
    design = Design(study, rows.shape, rows.classes)
    runs = [design.run(net, rows.checksum) for net in design.wide + design.narrow(Fraction(1, 2))]
    fleet.train_fleet(runs[:2], rows, store)
    with pytest.raises(Interrupted):
        fleet.train_fleet(runs[2:5], rows, store, stopping=lambda: True)

    plan = cost.plan(study, store, jobs=1)
    assert [(width.trained, width.begun) for width in plan.widths] == [(2, 0), (0, 3)]
    assert cost.missing(study, store) == [run.key for run in runs[2:]]
    left = 6 * 15 - 3  # steps: three networks have done one
    watched = left / 5 * 360 / 64 / 3
    assert sum(width.seconds for width in plan.widths) == pytest.approx(1e-3 * (left + watched))
    assert "2 of 8 networks are trained" in str(plan)
    assert "3 begun" in str(plan)

    (store.root / "runs" / runs[0].key / "final.safetensors").write_bytes(b"")
    assert cost.missing(study, Store(tmp_path)) == [run.key for run in runs if run is not runs[1]]
    assert f"{runs[0].key} is damaged" in caplog.text


def test_a_study_of_data_that_are_not_here_can_be_planned(quick, tmp_path):
    raw = {
        "data": {"kind": "cifar10", "root": str(tmp_path / "nowhere")},
        "network": {"kind": "resnet18", "base": "1/8"},
    }
    plan = cost.plan(load_study(raw | {"widths": [1, "1/2"]}), Store(tmp_path / "store"))
    assert plan.rows == 45_000
    assert "Nothing is trained yet" in str(plan)


def test_a_study_of_texts_can_be_planned_without_an_encoder_and_its_steps_timed(tmp_path):
    raw = {
        "data": {"kind": "mnli", "root": str(tmp_path), "encoder": "/nowhere", "rows": 200, "longest": 8, "hidden": 16},
        "network": {"kind": "transformer", "hidden": 16, "units": 16, "heads": 2, "depth": 1},
    }
    study = load_study(raw | {"widths": [1, "1/2"], "wide": 2})
    plan = cost.plan(study, Store(tmp_path / "store"))
    assert plan.rows == 180
    assert plan.seconds["training"] > 0
    assert [w.features for w in plan.widths] == [16, 8]
    assert plan.widths[0].parameters == (16 + 1) * 16 + 4 * (16 + 1) * 16 + 2 * (16 + 1) * 16 + 4 * 16 + (16 + 1) * 3


def test_a_study_that_compares_nothing_says_what_it_needs(quick, tmp_path):
    plan = cost.plan(load_study(STUDY | {"widths": [1], "concatenations": {}, "wide": 1}), Store(tmp_path))
    assert "compare nothing: they need a width below 1, and two wide networks for a gap" in str(plan)


def test_a_plan_prints_as_a_table_and_gives_plain_values(quick, tmp_path):
    plan = cost.plan(load_study(STUDY), Store(tmp_path), jobs=2)
    lines = str(plan).splitlines()
    assert lines[0] == "planned"
    assert len({len(line) for line in lines[2:5]}) == 1, "columns stand below each other"
    assert "6 (3 x 2)" in lines[4]
    assert "+-50 %" in str(plan)
    assert plan.to_dict()["widths"][1]["networks"] == 6


def test_more_of_everything_takes_more(quick, tmp_path):
    def total(**over) -> cost.Plan:
        return cost.plan(load_study(STUDY | over), Store(tmp_path), jobs=1)

    base = total()
    for more in ({"wide": 3}, {"training": {"epochs": 6, "batch_size": 64}}, {"concatenations": {"1/2": 4}}):
        assert sum(total(**more).seconds.values()) > sum(base.seconds.values())
    assert total(wide=3).disk > base.disk
    assert total(network={"kind": "mlp", "hidden": 512}).memory > base.memory


def test_moment_blocks_are_counted_once_and_told(quick, tmp_path, monkeypatch):
    study = load_study(STUDY | {"concatenations": {"1/2": 1}})
    few = cost.plan(study, Store(tmp_path), jobs=1)
    assert few.blocks == 0, "of few rows none is kept"
    assert "moment blocks" not in str(few)
    monkeypatch.setattr(moment_blocks, "CELL", 0)
    plan = cost.plan(study, Store(tmp_path), jobs=1)
    assert plan.disk - few.disk == plan.blocks
    assert f"{words.size(plan.blocks)} of it moment blocks, which `clean` deletes" in str(plan)
    # Half of each square of wide features 32, narrow ones 16, labels 10, and on validation the wide logits 20;
    # the pass that has only the wide networks finds its blocks among those.
    assert plan.blocks == 8 / 2 * (15 * 78**2 + 15 * 58**2 + 5 * 58**2)


def test_work_is_the_flops_of_a_training():
    one = run_of(hidden=32)
    rows, batch, steps = 1293, 128, 10 * 30
    assert cost.work_units(one) == 3 * 2 * (64 * 32 + 32 * 32 + 32 * 10) * batch * steps
    assert steps == rows // batch * 30
    half = run_of(hidden=32, width="1/2")
    assert 2 < cost.work_units(one) / cost.work_units(half) < 4


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        # CIFAR ResNet-18: 0.5558e9 multiply-adds (Kuangliu's pytorch-cifar prints 0.56 GMACs); VGG-16: 0.3136e9.
        ("resnet18", 2 * 0.5558e9),
        ("vgg16", 2 * 0.3132e9),
    ],
)
def test_flops_are_the_known_ones(kind, flops):
    assert machine.forward(run_of(kind)).flops == pytest.approx(flops, rel=2e-3)


def test_activations_are_what_the_way_back_needs():
    """By hand: inputs (64) and the hidden layer after ReLU (16), each once, in float32."""
    assert machine.forward(run_of(hidden=16, depth=1)).activations == 4 * (64 + 16)


def test_a_step_that_is_timed_is_a_real_one():
    one = run_of(hidden=64)
    small, large = (machine.step_seconds([one], (1, 8, 8), batch, "cpu") for batch in (32, 64))
    assert 1e-5 < small < 1
    assert large < 20 * small
    product, eigen = machine.rates()
    assert product > 1e8
    assert eigen > 1e6


def test_sizes_leave_out_widths_that_do_not_divide():
    counts = networks.sizes("vgg16", base=Fraction(1, 16))
    assert list(counts["features"].items()) == [("1", 32), ("1/2", 16), ("1/4", 8)]
    assert counts["parameters"]["1"] == networks.parameter_count("vgg16", (3, 32, 32), 10, Fraction(1, 16))


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (75, "75 s"), (600, "10 min"), (9000, "2.5 h"), (1e6, "12 days")]
)
def test_times_are_told_in_a_fitting_unit(seconds, told):
    assert words.duration(seconds) == told
