"""Traps: data on which a usual number misleads, and the span error does not."""

import warnings

import numpy as np
import pytest

from widthwise.errors import NumericsWarning
from widthwise.linalg.penalty_path import HALF_DECADES
from widthwise.measures.span_error import span_error


@pytest.fixture
def random(seed):
    return np.random.default_rng(seed)


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericsWarning)
        return span_error(*args, **options)


def linear_cka(X, Y) -> float:
    """Return |Y'X|^2 / (|X'X| |Y'Y|) of centred features (Kornblith et al. 2019)."""
    X, Y = X - X.mean(0), Y - Y.mean(0)
    squared = np.linalg.norm(Y.T @ X) ** 2
    return squared / (np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y))


def test_four_loud_features_hide_all_others_from_cka_and_none_from_the_span_error(random):
    A = np.maximum(random.normal(size=(1000, 40)) @ random.normal(size=(40, 40)), 0)
    B = np.hstack([A, 1000 * A.std() * random.normal(size=(1000, 4))])
    assert linear_cka(A, B) < 0.05
    spanned = quiet(A, B)
    assert max(spanned.per_feature[:40]) < 1e-9
    assert min(spanned.per_feature[40:]) > 0.9
    assert spanned.median < 1e-9
    assert quiet(B, A).worst < 1e-4  # the other way round: one penalty for loud and quiet columns costs little


def test_the_first_directions_look_like_the_whole_to_cka_and_not_to_the_span_error(random):
    B = random.normal(size=(2000, 512)) / np.arange(1, 513)  # of the variance the k-th has 1 / k^2
    A = B[:, :24]
    assert linear_cka(A, B) > 0.99
    spanned = quiet(A, B)
    assert spanned.mean > 0.9
    assert max(spanned.per_feature[:24]) < 1e-6
    assert spanned.variance_weighted < 0.05  # what the loud directions say, as CKA does


def test_nearly_as_many_unrelated_features_as_rows_look_like_a_fit_in_sample_and_not_held_out(random):
    X, Y = random.normal(size=(2500, 1900)), random.normal(size=(2500, 24))
    X, Y, X_test, Y_test = X[:2000], Y[:2000], X[2000:], Y[2000:]
    in_sample = Y - X @ np.linalg.solve(X.T @ X, X.T @ Y)
    assert 1 - (in_sample**2).sum() / (Y**2).sum() > 0.94
    spanned = quiet(X, Y, split="test", source_test=X_test, target_test=Y_test, penalties=HALF_DECADES)
    errors = np.array(spanned.per_feature)
    assert spanned.mean > 1 - 4 * errors.std(ddof=1) / len(errors) ** 0.5
    assert min(spanned.path[0]) > 5  # that same fit without a penalty: far worse than the mean


@pytest.mark.parametrize("noise", [0, 1e-12])
def test_a_target_of_eight_rows_moves_the_mean_over_all_and_not_the_mean(noise, random):
    n = 5000
    X = random.normal(size=(n, 30))
    Y = X @ random.normal(size=(30, 9)) / 30**0.5 + 0.5 * random.normal(size=(n, 9))
    rare = np.zeros((n, 1))
    rare[random.choice(n, 8, replace=False)] = 1 + random.normal(size=(8, 1)) ** 2
    before, after = quiet(X, Y), quiet(X, np.hstack([Y, rare + noise * random.normal(size=(n, 1))]))
    assert after.mean == pytest.approx(before.mean, rel=1e-12)
    assert after.median == pytest.approx(before.median, rel=1e-12)
    assert after.unsupported_features == (9,)
    assert after.mean_all > before.mean_all + 0.05
    assert before.mean_all == before.mean
