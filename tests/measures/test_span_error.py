"""span_error against a direct computation on awkward data, its invariances, identities, support and refusals."""

import json
import warnings
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

import reference_span as reference
from widthwise import arrays, regression, splits
from widthwise.columns import concatenate
from widthwise.errors import DataError, NumericsWarning, UsageError
from widthwise.linalg import krylov, penalty_path, ridge
from widthwise.linalg import strata as centring
from widthwise.measures.span_error import span_error

PENALTIES = (1e-9, 1e-7, 1e-5, 1e-3, 1e-1, 10.0)
GIVEN = {"penalties": PENALTIES, "interpolate": False}


def quiet(*args, **options):
    """Return the span error without its warnings: of small data most have one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericsWarning)
        return span_error(*args, **options)


def off(ours, truth) -> float:
    """Return the largest difference, in units of max(truth, 1e-3)."""
    ours, truth = np.array(ours, float), np.asarray(truth)
    assert (np.isnan(ours) == np.isnan(truth)).all()
    return float(np.nanmax(np.abs(ours - truth) / np.maximum(truth, 1e-3)))


# Awkward data --------------------------------------------------------------------------------------------


def plain(random, n=200, p=24):
    X = random.normal(size=(n, p))
    Y = X @ random.normal(size=(p, 4)) + random.normal(size=(n, 4)) * [0.01, 0.3, 2, 20]
    return X, np.hstack([Y, random.normal(size=(n, 1)), np.abs(X[:, :1])])


def few_rows(random):
    return plain(random, n=90, p=110)


def dead_and_twice(random):
    X, Y = plain(random)
    return np.hstack([X, X[:, :6], np.zeros((len(X), 3)), np.full((len(X), 2), 7.7), X[:, :2]]), Y


def scales(random):
    X, Y = plain(random)
    return X * np.logspace(-6, 6, X.shape[1]), Y * np.logspace(-6, 6, Y.shape[1])


def means(random):
    X, Y = plain(random)
    return X + 1e4, Y - 1e4


def everything(random):
    X, Y = few_rows(random)
    X = np.hstack([X, X[:, :9], np.zeros((len(X), 4))])
    return X * 10 ** random.uniform(-6, 6, X.shape[1]) + 1e4, Y * 10 ** random.uniform(-6, 6, Y.shape[1]) + 1e4


def rare(random):
    X, Y = plain(random)
    indicators = np.zeros((len(X), 8))
    for j in range(8):
        indicators[random.choice(len(X), j + 1, replace=False), j] = 1.0
    return np.hstack([X, indicators]), np.hstack([Y, Y[:, :1] * indicators[:, -3:], indicators[:, :1]])


def many(random):
    """Return more columns than are reduced at once, of three blocks."""
    X, Y = plain(random, n=400, p=150)
    return X, np.hstack([Y[:, :4] + 0.1 * X[:, :4], Y[:, 4:]])


def many_dead_and_dependent(random):
    X, Y = many(random)
    sums = X[:, :30] @ random.normal(size=(30, 6))
    dead = np.hstack([np.zeros((len(X), 3)), np.full((len(X), 2), 7.7)])
    X = np.hstack([X[:, :128], dead, X[:, :9], sums, X[:, 5:7]])
    return X[:, random.permutation(X.shape[1])], Y


def decaying_columns(random):
    X, Y = many(random)
    return X * random.permutation(np.logspace(0, -9, X.shape[1])), Y


def decaying(random):
    """Return directions whose deviations fall to 1e-9, turned so that every column has a part of all."""
    X, Y = many(random)
    directions = X * np.logspace(0, -9, X.shape[1])
    return directions @ rotation(random, X.shape[1]), np.hstack([Y, directions @ random.normal(size=(X.shape[1], 2))])


AWKWARD = (plain, few_rows, dead_and_twice, scales, means, everything, rare, many, many_dead_and_dependent)
AWKWARD = (*AWKWARD, decaying_columns, decaying)
HARD = (scales, everything, decaying)


def bound(data) -> float:
    """Return what an error may be off by. Second moments of float64 know no more where scales span 1e12, nor where
    a penalty of 1e-9 is all that holds the smallest directions: 1e-16 / 1e-9.
    """
    return 1e-6 if data in HARD else 1e-8


@pytest.fixture(params=AWKWARD, ids=lambda f: f.__name__)
def awkward(request, seed):
    return (*request.param(np.random.default_rng(seed)), bound(request.param))


@pytest.fixture
def random(seed):
    return np.random.default_rng(seed)


# Truths --------------------------------------------------------------------------------------------------


def test_it_equals_the_direct_computation_in_folds(awkward):
    X, Y, bound = awkward
    split = splits.k_fold("validation", torch.arange(len(X)))
    truth, result = reference.truth(X, Y, split, PENALTIES), quiet(X, Y, **GIVEN)
    assert off(result.path, truth.path) < bound
    error, chosen = reference.choose(truth)
    assert off(result.per_feature, error) < bound
    assert np.array_equal(result.penalty, np.sort(chosen, 0)[2])  # the median of five


def test_it_equals_the_direct_computation_on_test_rows(awkward, random):
    X, Y, bound = awkward
    fit, score = np.split(random.permutation(len(X)), [len(X) * 6 // 10])
    split = splits.held_out("test", torch.arange(len(fit)), len(fit) + torch.arange(len(score)))
    rows = np.concatenate([fit, score])
    truth = reference.truth(X[rows], Y[rows], split, PENALTIES)
    constant = np.logical_or(*(Y[some].max(0) == Y[some].min(0) for some in (fit, score)))  # these have no error
    result = quiet(X[fit], Y[fit], split="test", source_test=X[score], target_test=Y[score], **GIVEN)
    assert off(result.path, np.where(constant, np.nan, truth.path)) < bound
    assert off(result.per_feature, np.where(constant, np.nan, reference.choose(truth)[0])) < bound
    assert (result.rows, result.rows_fit) == (len(score), len(fit))


@pytest.mark.parametrize(
    "options",
    [
        {"folds": 2},
        {"folds": 7},
        {"per_target": False},
        {"standardize": True},
        {"groups": True},
        {"interpolate": True},
        {"interpolate": True, "per_target": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("data", [plain, everything, many_dead_and_dependent], ids=lambda f: f.__name__)
def test_it_equals_the_direct_computation_with_options(data, options, random):
    X, Y = data(random)
    groups = random.integers(len(X) // 3, size=len(X)) if options.pop("groups", False) else None
    split = splits.k_fold("validation", torch.arange(len(X)), options.get("folds", 5), groups)
    truth = reference.truth(X, Y, split, PENALTIES, standardize=options.get("standardize", False))
    result = quiet(X, Y, groups=groups, **GIVEN | options)
    assert off(result.path, truth.path) < bound(data)
    how = {name: options[name] for name in ("interpolate", "per_target") if name in options}
    error, chosen = reference.choose(truth, **how)
    if how.keys() == {"interpolate", "per_target"}:  # then not off the curve, but at the penalty itself
        error = reference.error_at(X, Y, split, chosen, truth.squares)
    assert off(result.per_feature, error) < bound(data)


@pytest.mark.parametrize("data", [plain, few_rows, scales, many_dead_and_dependent], ids=lambda f: f.__name__)
def test_within_classes_it_equals_the_direct_computation(data, random):
    X, Y = data(random)
    labels = random.integers(4, size=len(X))
    labels[0] = 9  # a class of one row: others' mean stands in for what no row to fit tells
    spread = np.where(X.max(0) > X.min(0), X.std(0), 0)  # a constant's deviation is rounding
    X, Y = X + spread * (labels[:, None] % 4), Y + 5 * Y.std(0) * (labels[:, None] % 4)
    split = splits.k_fold("validation", torch.arange(len(X)))
    truth = reference.truth(X, Y, split, PENALTIES, labels)
    result = quiet(X, Y, labels=labels, **GIVEN)
    error, _ = reference.choose(truth)
    _, supported = reference.support(Y, split)
    assert off(result.within_class, error[supported].mean()) < bound(data)
    assert off(result.per_feature, quiet(X, Y, **GIVEN).per_feature) < 1e-12


def test_directions_that_all_but_vanish_cost_digits_at_the_smallest_penalty_alone(random):
    X, Y = decaying(random)
    split = splits.k_fold("validation", torch.arange(len(X)))
    truth, path = reference.truth(X, Y, split, PENALTIES).path, quiet(X, Y, **GIVEN).path
    assert off(path[1:], truth[1:]) < 1e-8
    assert off(path[:1], truth[:1]) < 1e-6


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("data", [plain, scales, rare, many_dead_and_dependent], ids=lambda f: f.__name__)
def test_errors_of_fewer_rows_are_those_of_fits_on_those_rows(data, split, random):
    X, Y = data(random)
    if split == "validation":
        rows, result = splits.k_fold(split, torch.arange(len(X))), quiet(X, Y, extrapolate=True, **GIVEN)
    else:
        n = len(X) * 6 // 10
        rows = splits.held_out(split, torch.arange(n), torch.arange(n, len(X)))
        tests = {"source_test": X[n:], "target_test": Y[n:]}
        result = quiet(X[:n], Y[:n], split=split, extrapolate=True, **tests, **GIVEN)
    supported = np.setdiff1d(np.arange(Y.shape[1]), result.constant_features + result.unsupported_features)
    for part in rows.parts:
        quarter, half, fit = (set(reference.rows_of(rows, getattr(part, x))) for x in ("quarter", "half", "fit"))
        assert quarter < half < fit
        assert (len(quarter), len(half)) == pytest.approx((len(fit) / 4, len(fit) / 2), abs=4)
    for size in ("quarter", "half", "fit"):
        error, _ = reference.choose(reference.truth(X, Y, rows, PENALTIES, size=size))
        assert off(result.extrapolated[size], error[supported].mean()) < bound(data)


def test_the_summaries_are_those_of_the_direct_computation(random):
    X, Y = rare(random)
    Y = np.hstack([Y, np.full((len(Y), 2), 3.3), 1e-9 * Y[:, :1]])
    split = splits.k_fold("validation", torch.arange(len(X)))
    truth = reference.truth(X, Y, split, PENALTIES)
    constant, supported = reference.support(Y, split)
    error = np.where(constant, np.nan, reference.choose(truth)[0])
    result = quiet(X, Y, **GIVEN)
    squares = truth.squares[~constant]
    assert result.mean == pytest.approx(error[supported].mean(), rel=1e-8)
    assert result.mean_all == pytest.approx(error[~constant].mean(), rel=1e-8)
    assert result.median == pytest.approx(np.median(error[supported]), rel=1e-8)
    assert result.worst == pytest.approx(np.nanmax(error), rel=1e-8)
    assert result.variance_weighted == pytest.approx((error[~constant] * squares).sum() / squares.sum(), rel=1e-8)
    assert result.constant_features == tuple(np.flatnonzero(constant))
    assert result.unsupported_features == tuple(np.flatnonzero(~supported & ~constant))
    assert (result.constant, result.unsupported) == (2, (~supported & ~constant).sum())
    assert result.outlying == (error[supported] > 5).sum()
    assert (result.p, result.p_live) == (X.shape[1], X.shape[1])


def test_it_is_one_less_the_pooled_r2_of_scikit_learn(random):
    X, Y = plain(random)
    split = splits.k_fold("validation", torch.arange(len(X)))
    predicted = np.empty_like(Y)
    for part in split.parts:
        fit, score = (reference.rows_of(split, cells) for cells in (part.fit, part.score))
        centred = X[fit] - X[fit].mean(0)
        peer = Ridge(alpha=1e-2 * (centred**2).sum() / X.shape[1], solver="cholesky").fit(X[fit], Y[fit])
        predicted[score] = peer.predict(X[score])
    ours = quiet(X, Y, penalties=[1e-2]).path[0]
    assert np.allclose(1 - np.array(ours), r2_score(Y, predicted, multioutput="raw_values"), rtol=0, atol=1e-10)


# Identities ----------------------------------------------------------------------------------------------


def test_features_beside_noise_span_themselves(random):
    X = random.normal(size=(600, 30))
    assert quiet(np.hstack([X, random.normal(size=(600, 40))]), X).mean < 1e-6


def test_a_copy_is_spanned_whatever_the_rest(random):
    X = np.maximum(random.normal(size=(300, 40)) @ random.normal(size=(40, 40)), 0)
    assert quiet(X, X).worst < 1e-12
    assert quiet(X, X @ random.normal(size=(40, 5)) + 1e4).worst < 1e-9


def test_unrelated_features_have_error_one():
    errors = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        errors.append(quiet(random.normal(size=(400, 20)), random.normal(size=(400, 16))).mean)
    mean, error = np.mean(errors), np.std(errors, ddof=1) / len(errors) ** 0.5
    assert 1 - 4 * error <= mean <= 1.02


def test_more_unrelated_features_than_a_regression_bears_do_not_look_like_a_fit(random):
    X, Y = random.normal(size=(400, 300)), random.normal(size=(400, 20))
    assert np.linalg.lstsq(X, Y, rcond=None)[1].sum() < 0.4 * (Y**2).sum()  # in-sample R^2 above 0.6
    assert 0.98 < quiet(X, Y).mean < 1.02


def test_it_falls_as_rows_grow_to_what_it_is_in_the_population(random):
    X, W = random.normal(size=(3000, 60)), random.normal(size=(60, 30))
    Y = X @ (W / np.linalg.norm(W, axis=0)) + random.normal(size=(3000, 30))
    errors = [quiet(X[:n], Y[:n]).mean for n in (200, 600, 3000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(0.5, abs=0.03)


def test_direction_is_source_then_target(random):
    X = random.normal(size=(500, 12))
    assert quiet(X, X[:, :6]).mean < 1e-9
    assert quiet(X[:, :6], X).mean == pytest.approx(0.5, abs=0.05)


# Invariances ---------------------------------------------------------------------------------------------


def related(random):
    """Return sources and targets of several sizes, whose features are spanned unequally well."""
    hidden = random.normal(size=(150, 12)) * np.linspace(0.2, 3, 12)
    X = np.maximum(hidden @ random.normal(size=(12, 20)), 0)
    return X, np.maximum(hidden @ random.normal(size=(12, 9)), 0) * np.linspace(0.5, 8, 9)


def rotation(random, p):
    return np.linalg.qr(random.normal(size=(p, p)))[0]


def test_it_is_invariant_as_declared(random):
    X, Y = related(random)
    errors = np.array(quiet(X, Y).per_feature)

    def change(X, Y):
        return np.abs(np.array(quiet(X, Y).per_feature) - errors).max()

    assert change(X @ rotation(random, 20), Y) < 1e-9
    assert change(1e5 * X, Y) < 1e-9
    assert change(X + random.normal(size=20) * 100, Y) < 1e-9
    assert change(X, Y * 10 ** random.uniform(-5, 5, 9) * random.choice([-1, 1], 9)) < 1e-9
    assert change(X, Y + random.normal(size=9) * 1e4) < 1e-9
    assert change(X[:, ::-1], Y) < 1e-9


def test_it_is_not_invariant_where_that_is_denied(random):
    X, Y = related(random)
    mean = quiet(X, Y).mean
    for scaled in (np.arange(20) < 10, np.arange(20) == 3):  # one network of two, one column
        assert abs(quiet(X * np.where(scaled, 1e4, 1), Y).mean - mean) > 1e-6
    turned = Y @ rotation(random, 9)
    assert abs(quiet(X, turned).mean - mean) > 1e-3
    assert quiet(X, turned).variance_weighted != pytest.approx(quiet(X, Y).variance_weighted, rel=1e-9)


def test_the_variance_weighted_error_at_one_penalty_survives_a_rotation_of_the_target(random):
    X, Y = related(random)
    shared = [quiet(X, y, per_target=False) for y in (Y, Y @ rotation(random, 9))]
    assert shared[0].variance_weighted == pytest.approx(shared[1].variance_weighted, rel=1e-9)
    assert len(set(shared[0].penalty)) == 1


def test_standardized_sources_make_it_invariant_to_the_scale_of_columns(random):
    X, Y = related(random)
    ours = [quiet(x, Y, standardize=True).mean for x in (X, X * 10 ** random.uniform(-1, 1, 20))]
    assert ours[0] == pytest.approx(ours[1], rel=1e-9)


# Mutants: what the comparison above must catch -----------------------------------------------------------


def fits_on_scored_rows(monkeypatch):
    def leaky(*args, **options):
        split = splits.k_fold(*args, **options)
        return replace(split, parts=tuple(replace(part, fit=part.fit + part.score) for part in split.parts))

    monkeypatch.setattr(arrays, "k_fold", leaky)


def centres_with_the_means_of_scored_rows(monkeypatch):
    honest = ridge.held_out

    def leaky(fit, moments, source, target, labels=None, **options):
        own = centring.strata(moments, labels).means
        return honest(replace(fit, means=own), moments, source, target, labels, **options)

    monkeypatch.setattr(ridge, "held_out", leaky)


def divides_by_squares_of_one_fold(monkeypatch):
    def squares(self):
        moments = self._moments(self.joint.split.parts[0].score)
        return moments.centred_squares[self._target] * len(self.joint.split.parts)

    monkeypatch.setattr(regression.Regression, "squares", property(squares))


def divides_by_squares_about_the_fits_means(monkeypatch):
    def squares(self):
        parts = zip(self.joint.split.parts, self.fits, strict=True)
        scored = [(self._moments(part.score), fit) for part, fit in parts]
        return sum(centring.squares_about(m, centring.strata(m), fit.means, self._target) for m, fit in scored)

    monkeypatch.setattr(regression.Regression, "squares", property(squares))


def chooses_on_the_scored_part_too(monkeypatch):
    def choose(self, targets):
        curves, means = self._curves
        optimum = penalty_path.best_penalty(curves.sum(0), means.sum(0), self.penalties, False)
        each = zip(curves, means, strict=True)
        error = sum(penalty_path.error_at(curve, mean, self.penalties, optimum, False) for curve, mean in each)
        return regression.Choice(error[targets], (optimum,) * len(curves)).of(targets)

    monkeypatch.setattr(regression.Regression, "choose", choose)


def scales_penalties_by_all_columns(monkeypatch):
    honest = ridge.fit

    def fit(moments, source, *args, **options):
        made = honest(moments, source, *args, **options)
        return replace(made, scale=made.scale * made.p_live / len(source))

    monkeypatch.setattr(ridge, "fit", fit)


@pytest.mark.parametrize(
    "mutate",
    [
        fits_on_scored_rows,
        centres_with_the_means_of_scored_rows,
        divides_by_squares_of_one_fold,
        divides_by_squares_about_the_fits_means,
        chooses_on_the_scored_part_too,
        scales_penalties_by_all_columns,
    ],
    ids=lambda f: f.__name__,
)
def test_the_direct_computation_finds(mutate, random, monkeypatch):
    X, Y = dead_and_twice(random)
    truth = reference.truth(X, Y, splits.k_fold("validation", torch.arange(len(X))), PENALTIES)
    error = reference.choose(truth)[0]
    assert off(quiet(X, Y, **GIVEN).per_feature, error) < 1e-8
    mutate(monkeypatch)
    assert off(quiet(X, Y, **GIVEN).per_feature, error) > 1e-4


# Support -------------------------------------------------------------------------------------------------


def test_constants_have_no_error_and_are_counted_apart_from_the_unsupported(random):
    X, Y = plain(random)
    Y = np.hstack([Y, np.full((len(Y), 1), 1e8 / 3), (np.arange(len(Y)) < 8)[:, None]])
    result = quiet(X, Y)
    assert (result.constant_features, result.unsupported_features) == ((6,), (7,))
    assert np.isnan(result.per_feature[6])
    assert np.isfinite(result.per_feature[7])
    assert json.loads(json.dumps(result.to_dict()))["per_feature"][6] is None


def test_the_mask_of_a_target_is_the_same_whatever_the_source(random):
    X, Y = rare(random)
    first, second = quiet(X, Y), quiet(random.normal(size=(len(X), 3)), Y)
    assert first.unsupported_features == second.unsupported_features != ()


def test_a_feature_that_only_test_rows_show_is_constant(random):
    X, Y = plain(random)
    Y[:100, 0], Y[100:, 1] = 3.3, 1e6 / 7
    result = quiet(X[:100], Y[:100], split="test", source_test=X[100:], target_test=Y[100:])
    assert result.constant_features == (0,)
    assert result.unsupported_features == (1,)  # nothing to explain among the scored rows, so no error either
    assert np.isnan(result.per_feature[:2]).all()
    assert np.isfinite([result.mean, result.mean_all, result.worst, result.variance_weighted]).all()


def test_a_loud_feature_of_few_rows_moves_mean_all_and_not_the_mean(random):
    X, Y = plain(random)
    loud = np.zeros((len(Y), 1))
    loud[random.choice(len(Y), 8, replace=False)] = 1 + random.normal(size=(8, 1)) ** 2
    before, after = quiet(X, Y), quiet(X, np.hstack([Y, loud + 1e-12 * random.normal(size=loud.shape)]))
    assert after.mean == pytest.approx(before.mean, rel=1e-12)
    assert after.mean_all > before.mean_all + 0.05


# Finite n, intervals and what a result says -------------------------------------------------------------


def test_extrapolations_follow_their_formulas(random):
    X, W = random.normal(size=(800, 40)), random.normal(size=(40, 30))
    Y = X @ (W / np.linalg.norm(W, axis=0)) + random.normal(size=(800, 30))
    result = quiet(X, Y, extrapolate=True, **GIVEN)
    F = result.extrapolated
    split = splits.k_fold("validation", torch.arange(len(X)))
    for size in ("quarter", "half"):
        truth = reference.truth(X, Y, split, PENALTIES, size=size)
        assert F[size] == pytest.approx(reference.choose(truth)[0].mean(), rel=1e-9)
    assert F["fit"] == result.mean
    assert F["richardson"] == pytest.approx(2 * F["fit"] - F["half"], rel=1e-12)
    D1, D2 = F["quarter"] - F["half"], F["half"] - F["fit"]
    assert 0 < D2 < D1
    assert F["aitken"] == pytest.approx(F["fit"] - D2**2 / (D1 - D2), rel=1e-12)
    assert F["fit"] > 0.5 + 0.02
    assert (F["richardson"], F["aitken"]) == (pytest.approx(0.5, abs=0.04),) * 2


def test_aitken_is_null_where_the_errors_do_not_fall_ever_more_slowly(random):
    result = quiet(random.normal(size=(400, 150)), random.normal(size=(400, 12)), extrapolate=True)
    F = result.extrapolated
    D1, D2 = F["quarter"] - F["half"], F["half"] - F["fit"]
    assert (F["aitken"] is None) == (not 0 < D2 < D1)
    assert F["richardson"] == 2 * F["fit"] - F["half"]


def test_at_penalty_zero_the_error_times_the_free_share_of_rows_is_the_limit():
    ours = []
    for seed in range(8):
        random = np.random.default_rng(seed)
        X = random.normal(size=(1000, 80))
        Y = X @ random.normal(size=(80, 12)) / 80**0.5 + random.normal(size=(1000, 12)) * 0.5
        X = np.hstack([X, X[:, :10]])  # rank 80 of 90
        ours.append(quiet(X, Y, penalties=[0.0]).mean * (1 - 80 / 800))
    assert np.mean(ours) == pytest.approx(0.2, abs=4 * np.std(ours, ddof=1) / 8**0.5 + 0.002)


def test_the_interval_is_around_the_mean_and_only_where_there_are_fifty_blocks(random):
    X, Y = plain(random, n=500)
    result = quiet(X, Y)
    assert result.low < result.mean < result.high
    assert (result.interval_over, quiet(X, Y, row_interval=False).mean) == ("rows", result.mean)
    assert np.isnan(quiet(X, Y, row_interval=False).low)
    assert np.isfinite(quiet(X, Y, folds=3).low)
    assert np.isnan(quiet(X, Y, groups=np.arange(500) % 30).low)


def test_it_prints_as_a_sentence_with_its_direction(random):
    X, Y = plain(random, n=500)
    text = str(quiet(X, np.hstack([Y, np.zeros((500, 1))])))
    assert text.startswith("source spans ")
    assert text.endswith("over rows, 6 of 7 features")
    assert "<th>variance_weighted</th>" in quiet(X, Y)._repr_html_()


def test_to_dict_is_json_and_has_the_documented_keys(random):
    X, Y = plain(random)
    plainly = json.loads(json.dumps(quiet(X, Y, labels=np.arange(len(X)) % 3, extrapolate=True, **GIVEN).to_dict()))
    documented = """mean low high mean_all median variance_weighted worst per_feature penalty constant unsupported
        outlying constant_features unsupported_features rows rows_fit p p_live df within_class extrapolated path"""
    assert set(documented.split()) <= plainly.keys()
    assert len(plainly["path"]) == len(PENALTIES)
    assert quiet(X, Y).path is None


def test_penalties_are_reported_in_the_order_given(random):
    X, Y = plain(random)
    up, down = (quiet(X, Y, penalties=p, interpolate=False) for p in (PENALTIES, PENALTIES[::-1]))
    assert up.path == down.path[::-1]
    assert up.per_feature == down.per_feature


# Warnings and refusals -----------------------------------------------------------------------------------


def test_few_rows_for_many_features_are_warned_of(random):
    X, Y = few_rows(random)
    with pytest.warns(NumericsWarning, match="effective degrees of freedom for 72 rows"):
        span_error(X, Y, penalties=[1e-6])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X = random.normal(size=(1000, 12))
        span_error(X, X @ random.normal(size=(12, 3)) + random.normal(size=(1000, 3)))


def test_an_optimum_on_the_edge_is_counted_and_warned_of(random):
    X, Y = plain(random, n=600)
    with pytest.warns(NumericsWarning, match=r"the best penalty of \d target features is on the grid's edge"):
        assert span_error(X, Y[:, :2], penalties=[1.0, 3.0, 10.0, 30.0]).on_edge == 2


def test_an_optimum_on_the_edge_that_no_wider_grid_would_move_is_not(random):
    X = random.normal(size=(600, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert span_error(X, X[:, :5]).on_edge == 0
        assert span_error(np.hstack([X, random.normal(size=(600, 20))]), X).on_edge == 0
        assert span_error(X, X + random.normal(size=(600, 20))).on_edge == 0


def many(random) -> tuple[np.ndarray, np.ndarray]:
    """Return features that a Krylov space has only some dimensions for, 48 of 120, and targets."""
    return plain(random, n=900, p=120)


def test_many_features_are_fitted_approximately_and_say_how_far_they_may_be_off(random, monkeypatch):
    X, Y = many(random)
    exact = quiet(X, Y)
    assert (exact.residual, exact.excess) == (None, None)
    monkeypatch.setattr(krylov, "FROM", 100)
    monkeypatch.setattr(krylov, "TOLERANCE", 0.0)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = span_error(X, Y)
    told = next(str(warning.message) for warning in heard if "approximate" in str(warning.message))
    assert told.startswith("120 features are more than 100, so their fits are approximate")
    assert f"up to {found.excess:.1e} of a target's variance above the least (relative residual" in told
    assert 0 < found.residual < 1e-2
    assert found.excess > 0
    assert off(found.per_feature, exact.per_feature) < 0.3
    assert found.df == pytest.approx(exact.df, abs=5 * 0.5 * exact.df**0.5)


def test_many_features_at_large_penalties_are_fitted_exactly(random, monkeypatch):
    X, Y = many(random)
    exact = quiet(X, Y, penalties=[3.0, 10.0])
    monkeypatch.setattr(krylov, "FROM", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NumericsWarning)
        warnings.filterwarnings("ignore", message=".*grid's edge")
        found = span_error(X, Y, penalties=[3.0, 10.0])
    assert found.excess < 1e-8
    assert off(found.path, exact.path) < 1e-6


def test_many_features_without_a_penalty_are_refused(random, monkeypatch):
    monkeypatch.setattr(krylov, "FROM", 100)
    with pytest.raises(UsageError, match=r"a penalty of 0 asks for the ranks of 120 features.*known of 100 at most"):
        span_error(*many(random), penalties=[0.0, 1.0])


def test_rows_too_few_for_any_supported_feature_are_warned_of(random):
    X, Y = plain(random, n=30, p=3)
    with pytest.warns(NumericsWarning, match=r"none of 6 target features varies on 20 effective rows or more .*of 30"):
        result = span_error(X, Y, penalties=[1e-3])
    assert np.isnan(result.mean)
    assert np.isfinite(result.mean_all)
    assert result.to_dict()["mean"] is None
    assert str(result).startswith("too few rows to say what source spans of target: mean over all ")


def test_labels_that_leave_nothing_within_a_class_are_warned_of(random):
    X, Y = plain(random, n=600)
    with pytest.warns(NumericsWarning, match="600 classes among 600 rows leave little within one: are `labels`"):
        result = span_error(X, Y, labels=range(600))
    assert result.to_dict()["within_class"] is None
    assert result.mean == span_error(X, Y).mean


def test_sources_that_do_not_vary_leave_the_mean(random):
    _, Y = plain(random)
    with pytest.warns(NumericsWarning, match="none of the 3 source features varies on the rows that fit"):
        result = span_error(np.ones((len(Y), 3)), Y)
    assert result.p_live == 0
    assert result.mean == pytest.approx(1, abs=0.05)
    assert set(result.penalty) == {np.inf}


def test_two_rows_are_enough_to_answer():
    result = quiet([[0.0], [1.0]], [[0.0], [1.0]], folds=2)
    assert result.per_feature == (4.0,)  # each row is predicted by the other: (1 + 1) / (1/4 + 1/4)


ONE = np.ones((100, 2))
VARYING = np.random.default_rng(0).normal(size=(100, 2))


@pytest.mark.parametrize(
    ("given", "options", "error", "told"),
    [
        ((VARYING, VARYING[:90]), {}, DataError, "source has 100 rows and target has 90 rows; both must be"),
        (
            (VARYING[:, 0], VARYING),
            {},
            DataError,
            r"source: features must be a matrix \(rows, columns\), not of shape \(100,\)",
        ),
        ((VARYING[:0], VARYING[:0]), {}, DataError, "source has 0 rows and 2 features; there must be some of each"),
        ((VARYING, VARYING[:, :0]), {}, DataError, "target has 100 rows and 0 features; there must be some of each"),
        (([], VARYING), {}, DataError, "source has 0 rows and target has 100 rows"),
        (([[1, 2], [3]], VARYING), {}, DataError, "must be a matrix"),
        ((VARYING.astype(str), VARYING), {}, DataError, "features must be real numbers, not of type <U"),
        ((VARYING.astype(complex), VARYING), {}, DataError, "features must be real numbers, not of type complex128"),
        ((VARYING, VARYING.astype(complex)), {}, DataError, "target: features must be real numbers, not of type comp"),
        (
            (torch.ones(100, 2, dtype=torch.complex64), VARYING),
            {},
            DataError,
            "source: features must be real numbers, not of type complex64",
        ),
        (("wide.npy", VARYING), {}, UsageError, r"source: wide.npy is a path; give what is in it, such as numpy.load"),
        (((x for x in [VARYING]), VARYING), {}, UsageError, "a generator can be read only once; pass a list"),
        ((VARYING * 1e200, VARYING), {}, DataError, "source: features are too large to square; divide them by a const"),
        ((VARYING, VARYING * 1e-155), {}, DataError, "target: features are too small to square; multiply them by a"),
        ((VARYING, VARYING), {"labels": [np.nan, *range(99)]}, DataError, "labels: row 0 is nan; give every row one"),
        ((VARYING, VARYING), {"groups": [*range(99), np.nan]}, DataError, "groups: row 99 is nan; give every row one"),
        ((VARYING, ONE), {}, DataError, "none of the 2 target features varies on the 100 rows that fit"),
        ((VARYING, VARYING), {"labels": np.zeros(99)}, DataError, r"labels have shape \(99,\).*each of the 100 rows"),
        ((VARYING, VARYING), {"labels": np.zeros((100, 1))}, DataError, r"labels have shape \(100, 1\)"),
        ((VARYING, VARYING), {"groups": np.zeros(99)}, DataError, r"groups have shape \(99,\).*each of the 100 rows"),
        ((VARYING, VARYING), {"groups": np.arange(100) % 3}, UsageError, "from 2 to the number of groups, 3; not 5"),
        ((VARYING, VARYING), {"folds": 1}, UsageError, "folds must be a whole number from 2 to .* rows, 100; not 1"),
        ((VARYING, VARYING), {"folds": 101}, UsageError, "folds must be a whole number from 2 .* rows, 100; not 101"),
        (
            (VARYING[:1], VARYING[:1]),
            {},
            UsageError,
            "folds take 2 rows or more, since .* not fit; not 1",
        ),
        (
            (VARYING, VARYING),
            {"precision": "float16"},
            UsageError,
            "precision must be 'float64' or 'float32_chunks', not 'float16'",
        ),
        ((VARYING, VARYING), {"penalties": []}, UsageError, "one or more finite numbers, each 0 or above; got none"),
        ((VARYING, VARYING), {"penalties": [1, -1]}, UsageError, "each 0 or above; got 1, -1"),
        ((VARYING, VARYING), {"penalties": [float("nan")]}, UsageError, "finite numbers, each 0 or above; got nan"),
        ((VARYING, VARYING), {"penalties": [float("inf")]}, UsageError, "finite numbers, each 0 or above; got inf"),
        ((VARYING, VARYING), {"penalties": "1e-3"}, UsageError, r"numbers in a list, such as .*; not '1e-3'"),
        ((VARYING, VARYING), {"penalties": [0, 1, 2, 3]}, UsageError, "each above 0 and none twice.*interpolate=False"),
        ((VARYING, VARYING), {"penalties": [1, 1, 2, 3]}, UsageError, "each above 0 and none twice.*interpolate=False"),
        ((VARYING, VARYING), {"split": "tests"}, UsageError, 'split must be "validation" or "test", not \'tests\''),
        ((VARYING, VARYING), {"split": "test"}, UsageError, "needs source_test and target_test"),
        ((VARYING, VARYING), {"source_test": VARYING}, UsageError, 'belong to split="test"'),
        (
            (VARYING, VARYING),
            {"split": "test", "source_test": VARYING, "target_test": VARYING + 1},
            UsageError,
            "source_test is source again; test rows are others than those that fit",
        ),
    ],
)
def test_what_cannot_be_is_refused(given, options, error, told):
    with pytest.raises(error, match=told):
        span_error(*given, **options)


def test_test_rows_that_do_not_match_are_refused(random):
    X, Y = plain(random)

    def test(source, target, **options):
        return span_error(X, Y, split="test", source_test=source, target_test=target, **options)

    with pytest.raises(DataError, match="source_test has 200 rows and target_test has 199 rows"):
        test(X, Y[1:])
    with pytest.raises(DataError, match="source has 24 features, source_test 23; they must agree"):
        test(X[:, 1:], Y)
    with pytest.raises(UsageError, match="scores at least 2 rows"):
        test(X[:1], Y[:1])
    with pytest.raises(UsageError, match="scores at least 2 groups"):
        test(X, Y, groups=np.zeros(200))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_place(value, random):
    X, Y = (x.copy() for x in plain(random))
    X[150, 3] = value
    with pytest.raises(DataError, match=f"source: row 150, column 3 is {value}; features must be finite"):
        span_error(X, Y)
    with pytest.raises(DataError, match=f"target: row 150, column 3 is {value}"):
        span_error(Y, X)
    with pytest.raises(DataError, match=f"source: row 50 of the test rows, column 3 is {value}"):
        span_error(X[:100], Y[:100], split="test", source_test=X[100:], target_test=Y[100:])


# Precision -----------------------------------------------------------------------------------------------


def networks(random, n=1500):
    """Return sources and targets as networks have them: float32, ReLU, spanned unequally well."""
    hidden = np.maximum(random.normal(size=(n, 64)) @ random.normal(size=(64, 130)), 0)
    both = np.maximum(hidden @ random.normal(size=(130, 130)) / 130**0.5, 0).astype(np.float32)
    return both[:, :100], both[:, 100:]


@contextmanager
def lax():
    """Leave on what a caller may have: bfloat16 products of float32 matrices, by two roads."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
            yield
    finally:
        torch.set_float32_matmul_precision(before)


CONDITIONED = (
    plain,
    few_rows,
    dead_and_twice,
    means,
    rare,
    scales,
    everything,
    many,
    many_dead_and_dependent,
    networks,
)


@pytest.mark.parametrize("data", CONDITIONED, ids=lambda f: f.__name__)
def test_float32_chunks_cost_3e_6_of_an_error_of_a_tenth_or_more(data, random):
    X, Y = data(random)
    exact, cheap = (quiet(X, Y, precision=p) for p in ("float64", "float32_chunks"))
    supported = np.setdiff1d(np.arange(Y.shape[1]), exact.constant_features + exact.unsupported_features)
    ours, truth = (np.array(result.per_feature)[supported] for result in (cheap, exact))
    assert (np.abs(ours - truth) <= 3e-6 * np.maximum(truth, 0.1)).all()
    assert (cheap.constant_features, cheap.unsupported_features) == (
        exact.constant_features,
        exact.unsupported_features,
    )


def test_float32_chunks_do_not_tell_a_spanned_feature_from_one_spanned_to_1e_7(random):
    X = random.normal(size=(2000, 40))
    exact, cheap = (quiet(X, X[:, :9], precision=p).worst for p in ("float64", "float32_chunks"))
    assert exact < 1e-12
    assert cheap < 3e-7


def test_float32_chunks_are_not_for_directions_that_all_but_vanish(random):
    X, Y = decaying(random)
    exact, cheap = (quiet(X, Y, precision=p, **GIVEN).path for p in ("float64", "float32_chunks"))
    assert off(cheap[:1], exact[:1]) > 0.1  # at a penalty of 1e-9
    assert off(cheap[5:], exact[5:]) < 1e-4  # of 10


@pytest.mark.parametrize("penalties", [None, [1e-9], [1e-6], [1e-3]], ids=str)
@pytest.mark.parametrize("data", [*CONDITIONED, decaying, decaying_columns], ids=lambda f: f.__name__)
def test_what_float32_products_may_cost_is_said(data, penalties, random):
    X, Y = data(random)
    options = {"penalties": penalties, "interpolate": False}
    exact, cheap = (quiet(X, Y, precision=p, **options) for p in ("float64", "float32_chunks"))
    supported = np.setdiff1d(np.arange(Y.shape[1]), exact.constant_features + exact.unsupported_features)
    moved = np.abs(np.subtract(cheap.per_feature, exact.per_feature))[supported]
    assert exact.rounding is None
    assert moved.max() <= cheap.rounding or cheap.rounding > 1e-4
    if data not in (decaying, dead_and_twice, many_dead_and_dependent):  # singular: more is feared than happens
        assert cheap.rounding < 1e-4


def test_errors_that_float32_products_may_have_spoiled_are_warned_of(random):
    X, Y = decaying(random)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = span_error(X, Y, precision="float32_chunks", **GIVEN)
    assert any("float32 products may have moved an error by" in str(warning.message) for warning in caught)
    assert "float32 rounding at most about" in str(result)


@pytest.mark.parametrize("precision", ["float64", "float32_chunks"])
@pytest.mark.parametrize("data", [networks, many_dead_and_dependent], ids=lambda f: f.__name__)
def test_what_a_caller_allows_float32_products_changes_no_bit(data, precision, random):
    X, Y = data(random)
    options = {"precision": precision, "labels": np.arange(len(X)) % 3}
    expected = quiet(X, Y, **options)
    with lax():
        result = quiet(X, Y, **options)
        assert torch.get_float32_matmul_precision() == "medium"  # as it was left
        assert torch.is_autocast_enabled("cpu")
    assert result == expected


# Every form of features ----------------------------------------------------------------------------------


class Batches:
    """Batches of unequal sizes, that can be started again."""

    def __init__(self, rows, cuts=(7, 50, 51)):
        self.rows, self.cuts = rows, cuts

    def __iter__(self):
        yield from np.split(self.rows, self.cuts)


def test_every_form_of_the_same_features_gives_the_same_numbers(random, tmp_path):
    X, Y = (x.astype(np.float32) for x in plain(random))
    X[:, 0] += 1e4
    expected = quiet(X, Y, **GIVEN)
    np.save(tmp_path / "x.npy", X)
    forms = [
        (torch.from_numpy(X), torch.from_numpy(Y).requires_grad_()),
        (X.astype(np.float64), np.asfortranarray(Y)),
        (X.tolist(), Y.tolist()),
        (np.load(tmp_path / "x.npy", mmap_mode="r"), Y[::-1][::-1]),
        (list(np.split(X, [30, 100])), tuple(torch.from_numpy(Y).split([30, 70, 100]))),
        (Batches(X), Batches(Y)),
        (Batches(X), Y),
        (torch.from_numpy(X), Batches(Y)),
        (concatenate(X[:, :3], torch.from_numpy(X[:, 3:9]), concatenate(X[:, 9:])), concatenate(Y)),
        (X.astype(">f4"), Y),
    ]
    for source, target in forms:
        result = quiet(source, target, **GIVEN)
        assert np.allclose(result.path, expected.path, rtol=1e-9, atol=0)
        assert (result.low, result.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


@pytest.mark.parametrize("kind", [np.float16, np.int8, np.int64, np.uint8, bool])
def test_features_of_few_bits_are_what_they_are_in_float64(kind, random):
    X, Y = (np.abs(10 * x.clip(0)).astype(kind) for x in plain(random))
    paths = [quiet(x, y, **GIVEN).path for x, y in ((X, Y), (X.astype(float), Y.astype(float)))]
    assert np.array_equal(*paths, equal_nan=True)


def test_bfloat16_is_read(random):
    X, Y = (torch.from_numpy(x).bfloat16() for x in plain(random))
    assert quiet(X, Y, **GIVEN).path == quiet(X.double(), Y.double(), **GIVEN).path


def test_test_rows_may_come_in_batches_too(random):
    X, Y = plain(random)
    expected = quiet(X[:120], Y[:120], split="test", source_test=X[120:], target_test=Y[120:], **GIVEN)
    batches = {"source_test": Batches(X[120:], (9,)), "target_test": Y[120:]}
    result = quiet(Batches(X[:120]), Y[:120], split="test", **batches, **GIVEN)
    assert np.allclose(result.path, expected.path, rtol=1e-9, atol=0)
    assert result.low == pytest.approx(expected.low, rel=1e-9)


def test_batches_of_other_widths_are_refused(random):
    X, Y = plain(random)
    with pytest.raises(DataError, match="source: from row 150 on there are 3 features, not 24"):
        span_error([X[:150], X[150:, :3]], Y)


def test_batches_out_of_step_are_refused(random):
    X, Y = plain(random)
    with pytest.raises(DataError, match="from row 7 on the next batch has 43 of source, 93 of target"):
        span_error(Batches(X), Batches(Y, (7, 100)))


def test_the_order_of_rows_does_not_matter_within_folds_given_by_groups(random):
    X, Y = plain(random)
    order = random.permutation(len(X))
    names = np.array([f"sample {k}" for k in range(len(X))])
    before, after = quiet(X, Y, groups=names), quiet(X[order], Y[order], groups=names[order])
    assert np.allclose(before.per_feature, after.per_feature, rtol=1e-9, atol=0)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_threads_change_rounding_alone_in_inference_mode_too(split, seed):
    random = np.random.default_rng(seed)
    X, Y = random.normal(size=(2000, 130)), random.normal(size=(2000, 7))
    Y += X[:, :7]
    tests = {"split": split, "source_test": X[:600], "target_test": Y[:600]} if split == "test" else {}
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.inference_mode(threads == 2):
                found.append(span_error(torch.from_numpy(X), torch.from_numpy(Y), **tests))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert np.allclose(other.per_feature, found[0].per_feature, rtol=1e-9)
        assert (other.low, other.high) == pytest.approx((found[0].low, found[0].high), rel=1e-9)
