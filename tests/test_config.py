"""A study file is right as a whole, or every problem of it is said at once; keys mean what they say."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from widthwise import config  # noqa: F401  (for KEY)
from widthwise.config import Run, Study, load_study
from widthwise.errors import UsageError

RECIPES = Path(__file__).parents[1] / "recipes"
DEMO = Path(__file__).parents[1] / "src" / "widthwise" / "demo.yaml"
CHECKSUM = "0" * 64


def problems(raw, **laid_over) -> list[str]:
    with pytest.raises(UsageError) as caught:
        load_study(raw, **laid_over)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def problem(raw, **laid_over) -> str:
    (only,) = problems(raw, **laid_over)
    return only


def run(network=None, training=None, data=None, width="1/4", seed=3) -> Run:
    study = load_study({"network": network or {"kind": "resnet18"}, "training": training or {}, "data": data or {}})
    return Run(study.data, CHECKSUM, study.network, study.training, Fraction(width), seed)


# Files --------------------------------------------------------------------------------------------------


def test_an_empty_study_is_the_default_one():
    study = load_study({})
    assert (study.data.kind, study.network.kind, study.wide) == ("digits", "mlp", 4)
    assert study.widths == (1, Fraction(1, 2), Fraction(1, 4), Fraction(1, 8))
    assert [choice.kind for choice in study.studies] == ["width_gap", "reverse_gap"]


@pytest.mark.parametrize("path", [DEMO, *sorted(RECIPES.glob("*.yaml"))], ids=lambda path: path.name)
def test_every_study_file_that_comes_along_is_right_with_all_its_presets(path):
    study = load_study(path)
    for preset in study.presets:
        load_study(path, preset=preset)


def test_every_problem_is_said_at_once_with_its_path_what_is_allowed_and_the_nearest_name():
    found = problems(
        {
            "tittle": "x",
            "data": {"kind": "digit", "reserve": 1.5},
            "network": {"kind": "mlp", "hiden": 8},
            "training": {"epocs": 3, "schedule": "stepz", "rate": 0},
            "widths": [1, "a/b"],
            "studies": ["width_gp", {"kind": "reverse_gap", "traned": False}],
            "margins": {"span_gap": -1},
        }
    )
    expected = (
        ("tittle: unknown key; allowed are title, data, network", "Did you mean title?"),
        ("data.kind: no data", 'no data "digit"; there are cifar10, digits, mnli, planted', "Did you mean digits?"),
        ("data.reserve: should be less than 1, not 1.5",),
        ("network: mlp has no option", "its options: hidden=256, depth=2. Did you mean hidden?"),
        ("training.epocs: unknown key; allowed are epochs", "Did you mean epochs?"),
        ("training.schedule:", "'one_cycle', 'steps', 'cosine' or 'constant', not 'stepz'. Did you mean steps?"),
        ("training.rate: should be greater than 0, not 0",),
        ("widths.1: a width is a fraction such as 1/4, not 'a/b'",),
        ("studies.0.kind: no study", "there are", "Did you mean width_gap?"),
        ("studies.1: reverse_gap has no option", "Did you mean trained?"),
        ("margins.span_gap: should be greater than or equal to 0, not -1",),
    )
    for start, *parts in expected:
        lines = [line for line in found if line.startswith(start) and all(part in line for part in parts)]
        assert len(lines) == 1, (start, found)
    assert len(found) == len(expected)
    assert "pydantic" not in " ".join(found)


def toy(**over):
    """Return the plain values of a study of networks that differ in their number of neurons."""
    raw = {"data": {"kind": "signals"}, "network": {"kind": "threshold_mlp"}, "neurons": {100: 100}, "studies": ["toy"]}
    return raw | {"training": {"optimiser": "normalised_sgd", "fresh": 9}} | over


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"widths": ["1/2"]}, "widths: 1 must be among them"),
        ({"widths": [1, 0]}, "widths.1: a width is above 0, not 0."),
        ({"widths": [1, "1/0"]}, "widths.1: a width is a fraction"),
        ({"widths": [2, 1]}, "widths: a width is in (0, 1], not 2; make the base network wider with network.base."),
        ({"widths": []}, "widths: needs at least 1, not 0."),
        ({"widths": [1, "1/3"]}, "widths: 1/3 of base 1: a layer of 256 at scale 1/3 would have 256/3 channels"),
        (
            {"network": {"kind": "mlp"}, "data": {"kind": "mnli"}},
            "network: mlp takes samples of one shape, not the texts",
        ),
        ({"network": {"kind": "transformer"}, "data": {"kind": "digits"}}, "network: transformer takes texts of shape"),
        (
            {"network": {"kind": "transformer"}, "data": {"kind": "mnli"}, "widths": [1, "1/64"]},
            "widths: 1/64 of base 1: ",
        ),
        (
            {"network": {"kind": "transformer"}, "data": {"kind": "mnli", "longest": "long"}},
            "data.longest: should be a",
        ),
        ({"network": {"kind": "resnet18", "base": "1/3"}, "widths": [1], "data": {"kind": "cifar10"}}, "base 1/3"),
        ({"network": {"kind": "mlp", "depth": 0}, "widths": [1]}, "widths: 1 of base 1: mlp needs depth"),
        ({"concatenations": {"1/3": 2}}, "concatenations.1/3: not one of the narrow widths: 1/2, 1/4, 1/8."),
        ({"concatenations": {"1": 2}}, "concatenations.1: not one of the narrow widths"),
        ({"concatenations": {"1/2": 0}}, "concatenations.1/2: should be greater than or equal to 1, not 0."),
        ({"data": {"rows": 0}}, "data.rows: should be greater than or equal to 1 or should be 'all', not 0."),
        ({"data": {"rows": "some"}}, "data.rows:"),
        ({"data": {"option": 1}}, 'data: digits has no option "option"; its options: none.'),
        ({"network": {"kind": "mlp", "hidden": "wide"}}, "network.hidden: should be a valid integer"),
        ({"network": {"kind": "mlp", "hidden": 2.5}}, "network.hidden: should be a valid integer"),
        ({"network": {"kind": "my_nets.small"}}, 'network.kind: cannot import "my_nets.small"'),
        ({"network": "mlp"}, "network: should be a valid dictionary"),
        ({"network": {"kind": "vgg16"}}, "network: vgg16 halves images five times to one pixel: it takes 32x32"),
        ({"studies": []}, "studies: needs at least 1, not 0."),
        ({"studies": ["width_gap"], "primary": {"study": "reverse_gap"}}, "primary.study: reverse_gap is not among"),
        ({"training": {"rate": float("nan")}}, "training.rate: should be a finite number"),
        ({"training": {"rate": float("inf")}}, "training.rate: should be a finite number"),
        ({"training": {"epochs": -1}}, "training.epochs: should be greater than or equal to 0, not -1."),
        ({"training": {"batch_size": 0}}, "training.batch_size:"),
        ({"wide": 0}, "wide: should be greater than or equal to 1, not 0."),
        (toy(neurons={}), "neurons: threshold_mlp has a number of them; say how many networks of each, as {100: 300,"),
        (toy(neurons={0: 3}), "neurons.0: should be greater than or equal to 1, not 0."),
        (toy(neurons={100: 0}), "neurons.100: should be greater than or equal to 1, not 0."),
        (toy(network={"kind": "mlp"}), "neurons: the width of mlp is a fraction; give widths, or take the network"),
        (toy(studies=["width_gap"]), "studies: width_gap compares fractions of a width; with neurons: there is toy"),
        ({"studies": ["toy"]}, "studies: toy compares networks by their number of neurons"),
        (toy(data={"kind": "signals", "patches": 4}), "data: signals: 5 signals need a patch each; patches must be 5"),
        (toy(data={"kind": "signals", "dimension": 5}), "data: signals: 5 orthogonal signals in 5 dimensions leave"),
        (toy(data={"kind": "signals", "added": 1}), "data: signals: 2 signs and products can add up to 0, which is"),
        (toy(network={"kind": "threshold_mlp", "threshold": 0}), "network: threshold_mlp: threshold is above 0, not 0"),
        (
            toy(network={"kind": "threshold_mlp", "ratio": 9}),
            "network.ratio: at a threshold of 9 deviations 2.3e-15 of the 10,000 neurons of all networks are expected",
        ),
        (toy(training={}), "training.optimiser: neurons are followed by normalised_sgd; set it."),
        (toy(network={"kind": "threshold_mlp", "base": 2}), "network.base: the width is a number of neurons"),
        (toy(widths=[1, "1/2"]), "widths: networks differ in their number of neurons here; leave it out."),
        (toy(data={"kind": "signals", "label_noise": 0.1}), "data.label_noise: normalised_sgd takes labels from the"),
        (
            toy(studies=[{"kind": "toy", "wide": 7}]),
            "studies: wide: there are no networks of 7 neurons; there are 100.",
        ),
        (
            toy(data={"kind": "signals", "rows": 6000}),
            "studies: 100 networks together have 6,400 features for 6,000 rows of a fit; set together: 93 or less",
        ),
        ({"training": {"init": "shared_neurons"}}, "training.init: mlp has no neurons to share; threshold_mlp has."),
        ({"training": {"fresh": 9}}, "training.fresh: only normalised_sgd knows it; leave it out."),
        (
            {"training": {"optimiser": "normalised_sgd"}},
            "training.optimiser: normalised_sgd trains threshold_mlp on signals; take sgd or adamw.",
        ),
        (
            {"training": {"optimiser": "normalised_sgd", "fresh": 9}},
            "training.fresh: digits has the samples it has; leave it out, or take the data signals.",
        ),
        (
            toy(training={"optimiser": "normalised_sgd", "precision": "bfloat16"}),
            "training.precision: normalised_sgd computes in float32; leave it out.",
        ),
        (
            toy(training={"optimiser": "normalised_sgd", "momentum": 0.5}),
            "training.momentum: normalised_sgd has none; leave it out.",
        ),
        ({"presets": {"paper": 3}}, "presets.paper: should be a valid dictionary"),
        ({"presets": {"paper": {"training": {"epoch": 3}}}}, "presets.paper.training.epoch: unknown key"),
    ],
)
def test_one_problem_gets_one_sentence(raw, message):
    assert message in problem(raw)


def test_a_file_that_is_not_there_is_named_with_the_nearest(tmp_path):
    (tmp_path / "study.yaml").write_text("wide: 3")
    with pytest.raises(UsageError, match=r"there is no study file .*studdy.yaml. Did you mean study.yaml\?"):
        load_study(tmp_path / "studdy.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: [", "study.yaml is not YAML: while parsing"),
        ("- a\n- b", "must hold keys such as data: and network:, not one list"),
        ("", "must hold keys such as data: and network:, not nothing"),
        ("wide: 3\nwide: 4", '"wide" is given twice'),
        ("wide: !!python/object/apply:os.getcwd []", "is not YAML: could not determine a constructor"),
        (b"\xff\xfe\x00", "cannot read the study file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, text, message):
    path = tmp_path / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=message):
        load_study(path)


def test_numbers_are_numbers_however_yaml_1_1_reads_them(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(
        "data: {kind: cifar10}\nnetwork: {kind: vgg16, dropout: 5e-2}\ntraining: {weight_decay: 5e-4, epochs: 1e1}\n"
        "widths: [1, 1/2, 0.25]\nconcatenations: {1/2: 2, 0.25: 1}"
    )
    study = load_study(path)
    assert study.network.options == {"dropout": 0.05}
    assert (study.training.weight_decay, study.training.epochs) == (5e-4, 10)
    assert study.concatenations == {Fraction(1, 2): 2, Fraction(1, 4): 1}
    assert study.narrow_widths == (Fraction(1, 2), Fraction(1, 4))


def test_overrides_win_over_the_preset_which_wins_over_the_file():
    raw = {
        "training": {"epochs": 1, "rate": 0.1, "batch_size": 64},
        "presets": {"long": {"training": {"epochs": 100, "rate": 0.2}}},
    }
    study = load_study(raw, preset="long", overrides={"training.epochs": 5, "network.hidden": 64, "wide": 2})
    assert (study.training.epochs, study.training.rate, study.training.batch_size) == (5, 0.2, 64)
    assert (study.network.options, study.wide) == ({"hidden": 64}, 2)
    assert raw["training"]["epochs"] == 1, "what was given is not changed"


def test_a_preset_says_as_a_whole_how_many_networks_there_are_of_which_size():
    file = toy(neurons={100: 300, 30000: 2}, presets={"small": {"neurons": {100: 60}}})
    assert load_study(file, preset="small").neurons == {100: 60}
    assert load_study(file, overrides={"neurons.100": 50}).neurons == {100: 50, 30000: 2}


def test_a_preset_that_is_not_there_is_refused_with_those_there_are():
    raw = {"presets": {"paper": {}, "quick": {}}}
    with pytest.raises(UsageError, match=r'has no preset "papr"; there are: paper, quick. Did you mean paper\?'):
        load_study(raw, preset="papr")
    with pytest.raises(UsageError, match="there are: none"):
        load_study({}, preset="papr")


def test_a_wrong_override_is_a_problem_like_any_other():
    assert "training.epocs: unknown key" in problem({}, overrides={"training.epocs": 5})
    assert "trainin: unknown key" in problem({}, overrides={"trainin.epochs": 5})


def test_a_preset_is_checked_against_the_file_not_against_what_is_laid_over_it():
    raw = {"presets": {"more": {"concatenations": {"1/8": 2}}}}
    assert load_study(raw, overrides={"widths": [1, "1/2"]}).narrow_widths == (Fraction(1, 2),)


def test_options_are_read_in_the_types_that_members_declare():
    vgg = {"kind": "vgg16", "dropout": 0, "batch_norm": True}
    study = load_study(
        {"data": {"kind": "cifar10"}, "network": vgg, "studies": [{"kind": "width_gap", "trained": False}]}
    )
    assert isinstance(study.network.options["dropout"], float)
    assert study.studies[0].options == {"trained": False}


def test_the_folder_of_data_is_the_files_or_else_the_environments(monkeypatch):
    monkeypatch.setenv("WIDTHWISE_DATA", "/somewhere")
    assert load_study({}).data.root == Path("/somewhere")
    assert load_study({"data": {"root": "/mine"}}).data.root == Path("/mine")
    monkeypatch.delenv("WIDTHWISE_DATA")
    assert load_study({}).data.root is None


def test_a_study_in_plain_values_is_the_same_study_and_tells_no_folder(monkeypatch):
    monkeypatch.delenv("WIDTHWISE_DATA", raising=False)
    study = load_study(
        {"data": {"root": "/mine"}, "network": {"hidden": 64}, "concatenations": {"1/2": 3}, "presets": {"a": {}}}
    )
    plain = json.loads(json.dumps(study.plain()))
    assert "/mine" not in json.dumps(plain)
    again = load_study(plain)
    assert again.plain() == study.plain()
    assert again.network == study.network


def test_the_schema_is_json_and_knows_every_key():
    schema = json.loads(json.dumps(Study.model_json_schema()))
    assert set(schema["properties"]) == set(Study.model_fields)
    assert schema["$defs"]["Training"]["properties"]["schedule"]["enum"] == ["one_cycle", "steps", "cosine", "constant"]
    assert schema["additionalProperties"] is False


# Keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({}, "resnet18-w1_4-s3-266c43ed"),
        ({"network": {"kind": "mlp", "hidden": 64}, "width": "1", "seed": 0}, "mlp-w1-s0-a349dee9"),
        (
            {"network": {"kind": "vgg16", "dropout": 0.2}, "width": "1/16", "data": {"kind": "cifar10"}},
            "vgg16-w1_16-s3-fdd13404",
        ),
        (
            {"training": {"epochs": 300, "schedule": "steps"}, "data": {"rows": 1000, "label_noise": 0.2}},
            "resnet18-w1_4-s3-59110712",
        ),
        (
            {
                "network": {"kind": "transformer", "base": "1/2"},
                "training": {"optimiser": "adamw", "schedule": "cosine", "rate": 0.001},
                "data": {"kind": "mnli", "encoder": "/elsewhere", "rows": 6000},
            },
            "transformer-w1_8-s3-f5f665ae",
        ),
    ],
)
def test_keys_stay_what_they_were(given, key):
    """Golden: who changes one of these makes every store train again, and raises a VERSION to mean it."""
    assert run(**given).key == key


def test_a_base_of_4_at_width_1_4_is_the_textbook_network():
    wide = run({"kind": "resnet18", "base": 4}, width="1/4")
    textbook = run({"kind": "resnet18"}, width="1")
    assert wide.key == textbook.key


@pytest.mark.parametrize(
    "same",
    [
        {"network": {"kind": "mlp", "hidden": 256, "depth": 2}},
        {"data": {"reserve": 0.1, "root": "/elsewhere"}},
        {"training": {"epochs": 30, "momentum": 0.9}},
        {"training": {"shared_batches": False, "init": "independent"}},
        {"training": {"init_scale": "kept"}},
        {"training": {"optimiser": "sgd", "precision": None}},
        {"data": {"kind": "digits"}},
    ],
)
def test_what_changes_no_number_changes_no_key(same):
    assert run(**{"network": {"kind": "mlp"}, **same}).key == run({"kind": "mlp"}).key


@pytest.mark.parametrize(
    "other",
    [
        {"network": {"kind": "mlp", "hidden": 512}},
        {"network": {"kind": "mlp", "depth": 3}},
        {"training": {"epochs": 31}},
        {"training": {"augment": False}},
        {"training": {"shared_batches": True}},
        {"training": {"optimiser": "adamw"}},
        {"training": {"schedule": "cosine"}},
        {"training": {"precision": "bfloat16"}},
        {"data": {"rows": 1437}},
        {"data": {"reserve": 0}},
        {"data": {"label_noise": 0.1}},
        {"seed": 4},
        {"width": "1/2"},
    ],
)
def test_what_changes_a_number_changes_the_key(other):
    assert run(**{"network": {"kind": "mlp"}, **other}).key != run({"kind": "mlp"}).key


def test_a_key_is_the_same_in_another_process():
    code = f"from fractions import Fraction; from widthwise import config; print({KEY})"
    environment = {"PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == eval(KEY)


KEY = f"""config.Run(
    config.Data(), {CHECKSUM!r}, config.Network(kind="vgg16", dropout=0.2), config.Training(), Fraction(1, 2), 0
).key"""


def test_other_widths_drop_the_concatenations_of_those_that_go():
    file = {"widths": ["1", "1/2", "1/4"], "concatenations": {"1/2": 2, "1/4": 1}}
    study = load_study(file, overrides={"widths": ["1", "1/2"]})
    assert study.concatenations == {Fraction(1, 2): 2}
    with pytest.raises(UsageError, match=r"concatenations.1/4: not one of the narrow widths: 1/2"):
        load_study(file, overrides={"widths": ["1", "1/2"], "concatenations.1/4": 3})


def test_a_primary_endpoint_makes_a_claim():
    with pytest.raises(UsageError, match=r"primary.study: training makes no claim that gets a verdict"):
        load_study({"studies": ["training"], "primary": {"study": "training"}})
