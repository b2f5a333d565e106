"""Names of devices; and the span engine where WIDTHWISE_TEST_DEVICE says, against the processor's."""

import numpy as np
import pytest
import torch

from small import DEVICE
from widthwise import devices, growth_curve, span_error, span_gap
from widthwise.errors import UsageError
from widthwise.linalg import krylov, ridge
from widthwise.linalg.moments import Moments

PENALTIES = torch.logspace(-9, 1, 11, dtype=torch.float64)


@pytest.fixture
def random(seed):
    return np.random.default_rng(seed)


def features(random, n, p):
    """Return rows whose columns shrink, with a dead one and two that are equal."""
    X = random.normal(size=(n, p)) @ random.normal(size=(p, p)) * np.logspace(0, -3, p)
    X[:, 0], X[:, 1] = 3.0, X[:, 2]
    return torch.from_numpy(X)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:one", "CPU", "meta", ""])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(UsageError, match=f'device must be cpu, cuda or a card such as cuda:1, not "{name}"'):
        devices.named(name)


def test_a_card_that_is_not_there_is_refused_wherever_it_is_named(random):
    X = features(random, 100, 5)
    for door in (lambda: devices.named("cuda:99"), lambda: span_error(X, X, device="cuda:99")):
        with pytest.raises(UsageError, match=r"device cuda:99: torch .* sees"):
            door()


def test_the_processor_may_be_named(random):
    X = features(random, 100, 5)
    assert devices.named("cpu") == devices.named(torch.device("cpu")) == torch.device("cpu")
    assert str(span_error(X, X, device="cpu")) == str(span_error(X, X))


FORMS = {
    "band": ({"smallest": 1e-9}, 400, 150),
    "band, standardized": ({"smallest": 1e-9, "standardize": True}, 400, 150),
    "band, fewer rows than columns": ({"smallest": 1e-9}, 90, 150),
    "principal directions": ({"smallest": 0.0}, 400, 60),
    "principal directions, fewer rows": ({"smallest": 0.0}, 50, 150),
    "Krylov": ({"smallest": 1e-9}, 400, 150),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("precision", ["float64", "float32_chunks"])
def test_a_fit_on_a_card_is_the_processors(name, precision, random, monkeypatch):
    options, n, p = FORMS[name]
    if name == "Krylov":
        monkeypatch.setattr(krylov, "FROM", 100)
    Z, held = torch.cat([features(random, n, p), features(random, n, 8)], 1), features(random, 70, p + 8)
    source, target, found = torch.arange(p), p + torch.arange(8), []
    for device in ("cpu", DEVICE):
        fitted, scored = (Moments(p + 8, Z[0], precision=precision, device=device) for _ in range(2))
        fitted.update(Z)
        scored.update(held.to(device))
        fit = ridge.fit(fitted, source, target, **options)
        part = ridge.held_out(fit, scored, source, target, penalties=11)
        each = torch.logspace(-8, 0, 8, dtype=torch.float64)
        assert fit.weights(each, torch.arange(8)).device.type == torch.device(device).type
        found.append([part.errors(PENALTIES), fit.degrees(PENALTIES), part.squares])
        found[-1] += [fitted.second, fitted.effective_rows]
        if name == "Krylov":
            found[-1].pop(1)  # degrees are estimated there, and rounding moves the estimate
        predicted = held.to(device)[:, :p] @ fit.weights(each, torch.arange(8))
        found[-1].append(predicted)
        if precision != "float64":
            assert fit.rounding(each, torch.arange(8)).isfinite().all()
    tolerance = 1e-8 if precision == "float64" else 1e-3
    for ours, theirs in zip(*found, strict=True):
        scale = float(ours[ours.isfinite()].abs().max())
        torch.testing.assert_close(theirs.cpu(), ours, rtol=0, atol=tolerance * scale, equal_nan=True)


@pytest.mark.parametrize("options", [{}, {"extrapolate": True}, {"per_target": False}, {"standardize": True}], ids=str)
def test_span_errors_of_a_card_are_the_processors(options, random):
    X, Y = features(random, 600, 40), features(random, 600, 8)
    Y[:, :4] += X[:, 2:6]
    labels = random.integers(3, size=600)
    ours = span_error(X, Y, labels=labels, **options)
    for theirs in (
        span_error(X, Y, labels=labels, device=DEVICE, **options),
        span_error(X.to(DEVICE), Y.to(DEVICE), labels=labels, **options),
        span_error(X.numpy(), Y.numpy(), labels=labels, device=DEVICE, **options),
    ):
        assert np.allclose(theirs.per_feature, ours.per_feature, rtol=1e-6, atol=1e-9, equal_nan=True)
        assert (theirs.low, theirs.high) == pytest.approx((ours.low, ours.high), rel=1e-6)
        assert theirs.within_class == pytest.approx(ours.within_class, rel=1e-6)
        assert theirs.constant_features == ours.constant_features
        assert all(not t.is_cuda for t in theirs.blocks)


def test_tests_on_other_rows_growth_curves_and_gaps_of_a_card_are_the_processors(random):
    known = features(random, 900, 24)
    networks = [known[:, k : k + 6] + 0.1 * torch.from_numpy(random.normal(size=(900, 6))) for k in (2, 8, 14)]
    wide = [torch.cat([known[:, 3:12], x], 1) for x in networks]
    fits, tests = ([x[some] for x in networks] for some in (slice(600), slice(600, 900)))
    told = {"split": "test", "networks_test": tests, "target_test": known[600:]}
    found = []
    for device in ("cpu", DEVICE):
        curve = growth_curve(fits, known[:600], device=device, **told)
        gap = span_gap(wide, networks, matching="features", device=device)
        found.append([curve.mean[-1], curve.low[-1], curve.high[-1], gap.value, gap.low, gap.high, gap.row_low])
    assert found[0] == pytest.approx(found[1], rel=1e-6, abs=1e-9)
