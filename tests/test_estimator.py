"""A scikit-learn estimator in every convention, and the ridge regression that it says it is."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from widthwise.errors import DataError, NumericsWarning, UsageError
from widthwise.estimator import SpanRegressor
from widthwise.linalg import krylov
from widthwise.measures import span_error
from widthwise.pairs import Joint, Pair, concatenate
from widthwise.refit import dealt
from widthwise.regression import Options
from widthwise.splits import Part, Split

LEVELS = np.geomspace(0.01, 3, 6)  # of noise: targets want penalties orders of magnitude apart


@parametrize_with_checks([SpanRegressor(), SpanRegressor(per_target=False, folds=3, standardize=True)])
@pytest.mark.filterwarnings("ignore::widthwise.errors.NumericsWarning")  # targets of the checks are made as they come
def test_it_keeps_the_conventions_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture
def random(seed):
    return np.random.default_rng(seed)


def linear(random, n=400, p=12, levels=LEVELS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, their targets with noise, and the map that made them."""
    X = random.normal(size=(n, p)) * np.geomspace(1, 0.1, p) + 100
    W = random.normal(size=(len(levels), p))
    return X, X @ W.T + 7 + levels * random.normal(size=(n, len(levels))), W


# Truths --------------------------------------------------------------------------------------------------


def test_more_features_than_are_fitted_exactly_are_fitted_as_far_as_it_says(random, monkeypatch):
    X, Y, _ = linear(random, p=40)
    exact = SpanRegressor(penalties=[1e-2]).fit(X, Y)
    monkeypatch.setattr(krylov, "FROM", 30)
    monkeypatch.setattr(krylov, "space", lambda size, targets, rank: size)
    whole = SpanRegressor(penalties=[1e-2]).fit(X, Y)
    assert np.allclose(whole.coef_, exact.coef_, rtol=1e-9, atol=1e-9)
    monkeypatch.setattr(krylov, "space", lambda size, targets, rank: targets)
    with pytest.warns(NumericsWarning, match="40 features are more than 30, so their fits are approximate"):
        SpanRegressor(penalties=[1e-2]).fit(X, Y)


def test_a_planted_map_is_found(random):
    X, Y, W = linear(random, levels=np.zeros(5))
    model = SpanRegressor(penalties=[1e-12], interpolate=False).fit(X, Y)
    assert np.allclose(model.coef_, W, atol=1e-8)
    assert np.allclose(model.intercept_, 7, atol=1e-6)
    assert np.allclose(model.predict(X), Y, atol=1e-8)
    assert model.error_.max() < 1e-12
    assert model.score(X, Y) == pytest.approx(1)


def test_a_target_of_noise_has_its_mean_and_one_that_is_constant_no_error(random):
    X, Y, _ = linear(random)
    Y[:, 0], Y[:, 1] = 3.5, random.normal(size=len(X))
    alone = np.hstack([X[:, :1] * 0 + 1, X[:, :1] * 0 + 2])  # no feature varies: nothing but the mean is left
    model = SpanRegressor().fit(alone, Y)
    assert np.isinf(model.penalty_).all()
    assert np.abs(model.coef_).max() == 0
    assert np.allclose(model.intercept_, Y.mean(0), rtol=1e-12)
    assert np.isnan(model.error_[0])
    assert model.error_[1] == pytest.approx(1, abs=0.05)


def test_noise_that_grows_asks_for_penalties_that_grow(random):
    X, Y, _ = linear(random, n=2000)
    penalty = SpanRegressor().fit(X, Y).penalty_
    assert penalty[-1] > 10 * penalty[0]


# Peers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"per_target": False}, {"interpolate": False, "folds": 3}])
def test_coefficients_are_those_of_scikit_learn_at_the_absolute_penalty(options, random):
    X, Y, _ = linear(random)
    model = SpanRegressor(**options).fit(X, Y)
    peer = Ridge(alpha=model.absolute_penalty_, solver="svd").fit(X, Y)
    assert np.allclose(model.coef_, peer.coef_, rtol=1e-8, atol=1e-10)
    assert np.allclose(model.intercept_, peer.intercept_, rtol=1e-8, atol=1e-8)
    assert np.allclose(model.predict(X), peer.predict(X), rtol=1e-9, atol=1e-9)
    assert model.score(X, Y) == pytest.approx(peer.score(X, Y), rel=1e-9)


def test_standardised_features_are_those_of_a_pipeline_with_a_scaler(random):
    X, Y, _ = linear(random)
    model = SpanRegressor(standardize=True).fit(X, Y)
    peer = make_pipeline(StandardScaler(), Ridge(alpha=model.absolute_penalty_, solver="svd")).fit(X, Y)
    assert np.allclose(model.predict(X), peer.predict(X), rtol=1e-8, atol=1e-8)


def test_with_fewer_rows_than_features_too(random):
    X, Y, _ = linear(random, n=30, p=80)
    model = SpanRegressor(penalties=[1e-3]).fit(X, Y)
    peer = Ridge(alpha=model.absolute_penalty_, solver="svd").fit(X, Y)
    assert np.allclose(model.coef_, peer.coef_, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"per_target": False}, {"standardize": True}])
def test_the_error_is_the_span_error_on_the_same_folds(options, random):
    X, Y, _ = linear(random)
    parts = tuple(Part(tuple(j for j in range(5) if j != k), (k,)) for k in range(5))
    split = Split("validation", dealt(0, len(X), 5), torch.arange(len(X)) % 50, parts)
    joint = Joint({"source": concatenate(X), "target": concatenate(Y)}, split)
    peer = span_error._spanned(Pair(joint, ("source",), ("target",)), Options(**options), row_blocks=False)
    assert np.allclose(SpanRegressor(**options).fit(X, Y).error_, peer.per_feature, rtol=1e-8)


def test_the_refit_keeps_the_absolute_penalty_of_the_folds(random):
    X, Y, _ = linear(random)
    model, fold = SpanRegressor(penalties=[1e-2]).fit(X, Y[:, :3]), dealt(0, len(X), 5).numpy()
    scales = [np.square(X[fold != k] - X[fold != k].mean(0)).sum() / X.shape[1] for k in range(5)]
    assert np.allclose(model.penalty_, 1e-2)
    assert np.allclose(model.absolute_penalty_, 1e-2 * np.mean(scales), rtol=1e-12)


# Streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[400], [1] * 7 + [393], [100] * 4, [3, 390, 7]])
def test_batches_are_as_good_as_all_rows_at_once(sizes, random):
    X, Y, _ = linear(random)
    whole, streamed = SpanRegressor().fit(X, Y), SpanRegressor()
    for rows in np.split(np.arange(len(X)), np.cumsum(sizes)[:-1]):
        streamed.partial_fit(X[rows], Y[rows])
    assert np.allclose(streamed.coef_, whole.coef_, rtol=1e-7, atol=1e-9)
    assert np.allclose(streamed.error_, whole.error_, rtol=1e-7)


def test_a_fit_goes_on_with_partial_fit_and_a_new_fit_forgets(random):
    X, Y, _ = linear(random)
    model = SpanRegressor().fit(X[:150], Y[:150])
    early = model.coef_
    assert not np.allclose(model.partial_fit(X[150:], Y[150:]).coef_, early)
    assert np.allclose(model.coef_, SpanRegressor().fit(X, Y).coef_, rtol=1e-7, atol=1e-9)
    assert np.array_equal(model.fit(X[:150], Y[:150]).coef_, early)


def test_folds_are_balanced_wherever_a_stream_stops_and_do_not_depend_on_its_batches():
    whole = dealt(0, 12_000, 5)
    for stop in (1, 4, 5, 7, 1023, 5120, 5121, 12_000):
        counts = whole[:stop].bincount(minlength=5)
        assert counts.max() - counts.min() <= 1
    assert torch.equal(torch.cat([dealt(0, 5119, 5), dealt(5119, 2, 5), dealt(5121, 6879, 5)]), whole)
    assert len({tuple(some.tolist()) for some in whole.view(-1, 5)}) == 120  # every order comes up


def test_a_model_that_was_stored_goes_on(random):
    X, Y, _ = linear(random)
    model = pickle.loads(pickle.dumps(SpanRegressor().partial_fit(X[:200], Y[:200])))
    again = model.partial_fit(X[200:], Y[200:])
    assert np.allclose(again.coef_, SpanRegressor().fit(X, Y).coef_, rtol=1e-7, atol=1e-9)


# numpy and torch -----------------------------------------------------------------------------------------

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_torch_gives_what_numpy_does_where_the_rows_are(device, dtype, random):
    X, Y, _ = linear(random)
    X, Y = X.astype(str(dtype)[6:]), Y.astype(str(dtype)[6:])
    there = torch.from_numpy(X).to(device), torch.from_numpy(Y).to(device)
    model, peer = SpanRegressor().fit(*there), SpanRegressor().fit(X, Y)
    predicted = model.predict(there[0])
    assert (predicted.dtype, predicted.device) == (dtype, there[0].device)
    assert (model.coef_.dtype, model.coef_.device) == (torch.float64, there[0].device)
    assert np.allclose(model.coef_.cpu(), peer.coef_, rtol=1e-7, atol=1e-9)
    assert np.allclose(predicted.cpu(), peer.predict(X), rtol=1e-6)
    assert model.score(*there) == pytest.approx(peer.score(X, Y), rel=1e-6)
    assert peer.predict(X).dtype == X.dtype


def test_a_model_of_one_kind_predicts_rows_of_the_other(random):
    X, Y, _ = linear(random)
    of_numpy, of_torch = SpanRegressor().fit(X, Y), SpanRegressor().fit(torch.from_numpy(X), Y)
    assert np.allclose(of_numpy.predict(torch.from_numpy(X)).numpy(), of_torch.predict(X), rtol=1e-9)
    assert of_numpy.predict(torch.from_numpy(X.astype(int))).dtype == torch.float64


def test_a_vector_gives_vectors_and_numbers_and_a_column_keeps_its_axis(random):
    X, Y, _ = linear(random)
    vector, column = SpanRegressor().fit(X, Y[:, 2]), SpanRegressor().fit(X, Y[:, 2:3])
    assert (vector.coef_.shape, column.coef_.shape) == ((12,), (1, 12))
    assert (vector.predict(X).shape, column.predict(X).shape) == ((400,), (400, 1))
    for name in ("intercept_", "penalty_", "absolute_penalty_", "error_"):
        assert isinstance(getattr(vector, name), float)
        assert getattr(column, name).shape == (1,)
    assert SpanRegressor().fit(torch.from_numpy(X), torch.from_numpy(Y[:, 2])).coef_.shape == (12,)


# Invariances ---------------------------------------------------------------------------------------------


def test_predictions_do_not_mind_how_features_are_turned_scaled_and_moved(random):
    X, Y, _ = linear(random)
    turn = np.linalg.qr(random.normal(size=(12, 12)))[0]
    once, moved = SpanRegressor().fit(X, Y), SpanRegressor().fit(1e-3 * X @ turn - 5, Y)
    assert np.allclose(once.predict(X), moved.predict(1e-3 * X @ turn - 5), rtol=1e-6)
    assert np.allclose(once.error_, moved.error_, rtol=1e-6)


def test_a_target_does_not_mind_the_others_nor_its_own_scale(random):
    X, Y, _ = linear(random)
    together, alone = SpanRegressor().fit(X, Y), SpanRegressor().fit(X, 1e4 * Y[:, 3] - 9)
    assert np.allclose(together.coef_[3], alone.coef_ / 1e4, rtol=1e-6, atol=1e-9)
    assert together.error_[3] == pytest.approx(alone.error_, rel=1e-6)


def test_a_shared_penalty_minds_the_scale_but_not_the_rotation_of_targets(random):
    X, Y, _ = linear(random)
    turn = np.linalg.qr(random.normal(size=(6, 6)))[0]
    once, turned = (SpanRegressor(per_target=False).fit(X, y) for y in (Y, Y @ turn))
    assert isinstance(once.penalty_, float)
    assert once.penalty_ == pytest.approx(turned.penalty_, rel=1e-6)
    assert np.allclose(once.predict(X) @ turn, turned.predict(X), rtol=1e-6, atol=1e-6)
    loud = SpanRegressor(per_target=False).fit(X, Y * [1e6, 1, 1, 1, 1, 1])
    assert loud.penalty_ == pytest.approx(SpanRegressor().fit(X, Y).penalty_[0], rel=1e-3)


def test_standardised_features_do_not_mind_the_scale_of_each(random):
    X, Y, _ = linear(random)
    scales = np.geomspace(1, 100, 12)
    for standardize in (True, False):
        model = SpanRegressor(standardize=standardize, interpolate=False)
        once, scaled = (model.fit(x, Y).predict(x) for x in (X, X * scales))
        assert np.allclose(once, scaled, rtol=1e-6, atol=1e-6) == standardize


# Refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torch_too", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named_and_leave_no_trace(value, torch_too, random):
    X, Y, _ = linear(random, n=5000)
    kind = torch.from_numpy if torch_too else np.asarray
    model = SpanRegressor().fit(kind(X), kind(Y))
    bad_X, bad_Y, told = X.copy(), Y.copy(), "NaN" if np.isnan(value) else "infinite"
    bad_X[4000, 3] = bad_Y[17, 1] = value
    with pytest.raises(DataError, match=f"X: row 4000, column 3 is {told}"):
        model.partial_fit(kind(bad_X), kind(Y))
    with pytest.raises(DataError, match=f"y: row 17, column 1 is {told}"):
        model.partial_fit(kind(X), kind(bad_Y))
    with pytest.raises(DataError, match=f"X: row 4000, column 3 is {told}"):
        model.predict(kind(bad_X))
    assert np.array_equal(model.coef_, SpanRegressor().fit(kind(X), kind(Y)).coef_)


ROWS, TARGETS = np.eye(6), np.ones((6, 2))


@pytest.mark.parametrize(
    ("X", "y", "told"),
    [
        (ROWS, TARGETS[:5], "X has 6 rows and y 5"),
        (ROWS[:1], TARGETS[:1], "there is one row"),
        (ROWS, TARGETS[:, :, None], "dim 3"),
        (torch.from_numpy(ROWS[0]), TARGETS, r"X must be a matrix .* of shape \(6,\)"),
        (torch.from_numpy(ROWS), torch.ones(6, 2, 2), r"y must be .* of shape \(6, 2, 2\)"),
        (torch.from_numpy(ROWS) * 1j, TARGETS, "real numbers; .*complex128"),
        (ROWS, None, "requires y"),
        (1e200 * ROWS, TARGETS, "X: numbers are too large to square"),
        (ROWS, 1e-155 * ROWS[:, :2], "y: numbers are too small to square"),
    ],
)
def test_rows_that_cannot_be_fitted_are_refused(X, y, told):
    with pytest.raises(ValueError, match=told):
        SpanRegressor().fit(X, y)


@pytest.mark.parametrize("folds", [1, 2.5, True, None])
def test_folds_that_cannot_be_are_refused(folds):
    with pytest.raises(UsageError, match=f"folds must be a whole number, 2 or more; not {folds}"):
        SpanRegressor(folds=folds).fit(ROWS, TARGETS)


@pytest.mark.parametrize(("penalties", "told"), [([-1], "0 or above; got -1"), (3, "numbers in a list"), ([], "none")])
def test_penalties_that_cannot_be_are_refused(penalties, told):
    with pytest.raises(UsageError, match=told):
        SpanRegressor(penalties).fit(ROWS, TARGETS)


def test_batches_that_do_not_go_together_are_refused(random):
    X, Y, _ = linear(random)
    model = SpanRegressor().fit(X, Y)
    with pytest.raises(ValueError, match="11 features"):
        model.partial_fit(X[:, :11], Y)
    with pytest.raises(DataError, match=r"y is of shape \(400, 5\), of earlier rows \(rows, 6\)"):
        model.partial_fit(X, Y[:, :5])
    with pytest.raises(UsageError, match="folds is 4, but earlier rows were dealt to 5"):
        model.set_params(folds=4).partial_fit(X, Y)


@pytest.mark.filterwarnings("ignore::widthwise.errors.NumericsWarning")
def test_few_rows_are_folds_each(random):
    X, Y, _ = linear(random)
    assert np.isfinite(SpanRegressor().fit(X[:2], Y[:2]).predict(X)).all()
    assert np.allclose(SpanRegressor().fit(X[:3], Y[:3]).coef_, SpanRegressor(folds=3).fit(X[:3], Y[:3]).coef_)


def test_an_optimum_on_the_edge_of_the_grid_is_warned_of(random):
    X, Y, _ = linear(random)
    with pytest.warns(NumericsWarning, match="the best penalty of [1-6] targets is on the grid's edge"):
        SpanRegressor(penalties=[1, 10, 100]).fit(X, Y)
