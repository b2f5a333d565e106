import pytest
import torch

from small import run, samples
from widthwise import features, fleet
from widthwise.errors import DataError, UsageError
from widthwise.images import normalise
from widthwise.store import Store, save_tensors


@pytest.fixture
def trained(tmp_path):
    store, runs = Store(tmp_path), [run(seed) for seed in range(3)]
    fleet.train_fleet(runs, samples(), store)
    return store, runs


def test_features_are_what_enters_the_head_of_the_network_that_load_returns(trained):
    store, runs = trained
    features.extract(runs, "final", samples(), store)
    for r in runs:
        network = store.load(r.key)
        for part, rows in (("train", samples().train), ("test", samples().test)):
            stored = features.find(store, r, "final")[part].tensors("features")
            inputs = normalise(rows, samples().mean, samples().std)
            torch.testing.assert_close(stored["features"], network.features(inputs).detach(), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(stored["logits"], network(inputs).detach(), rtol=1e-4, atol=1e-5)
            assert stored["features"].dtype == torch.float32
        assert stored["ids"].tolist() == list(range(200, 300))


def test_features_are_the_same_bits_however_the_networks_were_grouped(trained, tmp_path):
    store, runs = trained
    features.extract(runs, "final", samples(), store)
    other = Store(tmp_path / "other")
    fleet.train_fleet(runs, samples(), other)
    features.extract(runs[1:2], "final", samples(), other)
    a, b = (features.find(s, runs[1], "final")["test"].files for s in (store, other))
    assert a == b


def test_features_at_initialisation_need_no_training(tmp_path):
    store = Store(tmp_path)
    features.extract([run(0), run(1)], "initial", samples(), store)
    assert features.find(store, run(0), "initial") is not None
    assert store.keys("runs") == []


def test_a_diverged_network_is_named(tmp_path):
    store, r = Store(tmp_path), run(epochs=0)
    fleet.train_fleet([r], samples(), store)
    entry = store.get("runs", r.key)
    weights = entry.tensors("final")
    broken = {name: t * float("nan") for name, t in weights.items()}
    save_tensors(entry.path / "final.safetensors", broken)
    with pytest.raises(DataError, match=rf"{r.key} are not finite .* diverged"):
        features.extract([r], "final", samples(), store)


def test_an_unknown_run_is_refused_with_those_there_are(trained):
    store, runs = trained
    with pytest.raises(UsageError, match=f'no run "mlp-w9"; it has .*{runs[0].key}'):
        store.load("mlp-w9")
