"""A study of texts from end to end, on a small random encoder: encoded, trained, compared, and not a second time."""

from fractions import Fraction

import pytest
import torch

import tiny_encoder
from widthwise import features, fleet, samples
from widthwise.config import Run, Training, load_study
from widthwise.errors import UsageError
from widthwise.executors import base
from widthwise.store import Store

STUDY = {
    "network": {"kind": "transformer", "hidden": 16, "units": 32, "heads": 2, "depth": 1},
    "training": {"epochs": 4, "batch_size": 32, "optimiser": "adamw", "schedule": "cosine", "rate": 0.01},
    "widths": ["1", "1/2"],
    "wide": 2,
    "concatenations": {"1/2": 1},
    "studies": ["width_gap"],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return a store in which a study was run, the study, its results, and what it told of its progress."""
    folder, told = tmp_path_factory.mktemp("texts"), []
    root = tiny_encoder.write(folder / "data", train=240, test=120)
    encoder = str(tiny_encoder.encoder(folder / "encoder"))
    data = {"kind": "mnli", "root": str(root), "encoder": encoder, "hidden": 32, "longest": 16, "reserve": 0.2}
    study, store = load_study({"data": data, **STUDY}), Store(folder / "store")
    return store, study, base.run(study, store, jobs=1, listener=told.append), told


def test_a_study_of_texts_runs_and_a_second_time_finds_everything(done):
    store, study, found, told = done
    assert {p.stage for p in told} == {"data", "train", "features", "scores"}
    assert any("texts, chunk 1" in p.message for p in told)
    assert all(row.value is not None for row in found.rows if row.measure == "span_error")
    assert {network.kind for network in found.networks} == {"transformer"}
    again: list = []
    assert base.run(study, store, jobs=1, listener=again.append).to_json() == found.to_json()
    assert {p.stage for p in again} == {"data"}


def test_features_are_those_of_the_network_that_load_returns_however_rows_are_padded(done):
    store, study, found, _ = done
    data = samples.load(study.data, store)
    key = found.networks[0].key
    network = store.load(key)
    stored = store.get("features", f"{key}-final-test-v{features.VERSION}").tensors("features")["features"]
    with torch.no_grad():
        one_by_one = torch.cat([network.features(data.inputs(data.test[k : k + 1])) for k in range(20)])
        far = network.features(data.test[:20].padded(40))
    torch.testing.assert_close(one_by_one, stored[:20], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(far, stored[:20], rtol=1e-5, atol=1e-6)


def test_no_bit_of_a_training_depends_on_companions_whose_rows_are_longer(done, tmp_path):
    store, study, _, _ = done
    data = samples.load(study.data, store)
    network, training = study.network, study.training.model_copy(update={"batch_size": 2, "epochs": 1})
    runs = [Run(study.data, data.checksum, network, training, Fraction(1, 2), seed) for seed in range(4)]
    for name, members in (("pair", runs[:2]), ("four", [runs[3], runs[0], runs[2], runs[1]])):
        fleet.train_fleet(members, data, Store(tmp_path / name))
    for run in runs[:2]:
        one, other = (Store(tmp_path / name).get("runs", run.key).tensors("final") for name in ("pair", "four"))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_texts_are_not_augmented(done, tmp_path):
    store, study, _, _ = done
    data = samples.load(study.data, store)
    run = Run(study.data, data.checksum, study.network, Training(augment=True, batch_size=8), Fraction(1), 0)
    with pytest.raises(UsageError, match=r"training\.augment: texts are not cropped"):
        fleet.train_fleet([run], data, Store(tmp_path))


def test_networks_learn_what_the_texts_say(done):
    _, _, found, _ = done
    assert all(network.train_accuracy > 0.6 for network in found.networks if network.width == "1")
