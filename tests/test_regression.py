"""Choices are made on the other parts, blocks are sums over rows, and a source's fits serve many targets."""

import numpy as np
import pytest
import torch

import reference_span as reference
from widthwise.columns import Concatenation
from widthwise.linalg import penalty_path
from widthwise.pairs import Joint
from widthwise.regression import Options, Regression
from widthwise.splits import held_out, k_fold

PENALTIES = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
N = 160


def data(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(3, size=N)
    X = random.normal(size=(N, 14)) + labels[:, None] + 1e4
    Y = X @ random.normal(size=(14, 7)) + random.normal(size=(N, 7)) * np.geomspace(0.1, 100, 7) - 1e4
    return X, Y, labels


def joint_of(seed: int, split=None) -> Joint:
    X, Y, labels = data(seed)
    groups = {"y1": Y[:, :3], "x": X, "y2": Y[:, 3:]}
    split = k_fold("validation", torch.arange(N)) if split is None else split
    return Joint({name: Concatenation([x]) for name, x in groups.items()}, split, torch.from_numpy(labels))


SPLITS = {
    "five folds": k_fold("validation", torch.arange(N)),
    "three folds": k_fold("validation", torch.arange(N), 3),
    "seven folds": k_fold("validation", torch.arange(N), 7),
    "test rows": held_out("test", torch.arange(100), 100 + torch.arange(60)),
}


@pytest.fixture(params=SPLITS)
def split(request):
    return SPLITS[request.param]


@pytest.mark.parametrize("size", ["fit", "half", "quarter"])
def test_the_path_and_the_choice_are_the_direct_ones(split, size, seed):
    X, Y, _ = data(seed)
    options = Options(PENALTIES, interpolate=False)
    regression = Regression(joint_of(seed, split), ("x",), ("y1", "y2"), options, size)
    truth = reference.truth(X, Y, split, PENALTIES, size=size)
    assert np.allclose(regression.path(), truth.path, rtol=1e-6, atol=0)
    assert np.allclose(regression.squares, truth.squares, rtol=1e-12)
    error, penalties = reference.choose(truth)
    choice = regression.choose(torch.arange(7))
    assert np.allclose(choice.error, error, rtol=1e-6, atol=0)
    assert np.array_equal(torch.stack([o.penalty for o in choice.optima]), penalties)
    assert torch.equal(choice.penalty, torch.from_numpy(np.sort(penalties, 0)[(len(penalties) - 1) // 2]))


@pytest.mark.parametrize("per_target", [True, False])
@pytest.mark.parametrize("within_class", [True, False])
@pytest.mark.parametrize("standardize", [True, False])
def test_blocks_are_sums_over_rows_of_predictions(split, per_target, within_class, standardize, seed):
    X, Y, labels = data(seed)
    options = Options(PENALTIES, False, per_target, standardize, within_class)
    regression = Regression(joint_of(seed, split), ("x",), ("y1", "y2"), options)
    targets = regression.local(("y2",))
    choice = regression.choose(targets)
    errors, totals = regression.block_sums(targets, choice)
    labels = labels if within_class else None
    truth = np.zeros((split.blocks, 4))
    for part, optimum in zip(split.parts, choice.optima, strict=True):
        fit, score = (reference.rows_of(split, cells) for cells in (part.fit, part.score))
        for j in range(4):
            y, penalty = Y[:, [3 + j]], float(optimum.penalty[j])
            residual = reference.residuals(X, y, fit, score, penalty, labels, standardize)[:, 0]
            np.add.at(truth[:, j], split.block[score].numpy(), residual**2)
    assert np.allclose(errors, truth, rtol=1e-6, atol=1e-9 * truth.max())
    assert np.allclose(errors.sum(0), choice.error * regression.squares[targets], rtol=1e-9)
    assert np.allclose(totals.sum(0), regression.squares[targets], rtol=1e-12)
    assert torch.equal(errors.sum(1) > 0, split.block[split.block >= 0].bincount(minlength=split.blocks) > 0)


def test_what_serves_many_targets_is_what_each_has_alone(seed):
    joint = joint_of(seed)
    together = Regression(joint, ("x",), ("y2", "y1"), Options())
    alone = Regression(joint, ("x",), ("y1",), Options())
    place = together.local(("y1",))
    assert place.tolist() == [4, 5, 6]
    ours, theirs = together.choose(place), alone.choose(torch.arange(3))
    assert torch.allclose(ours.error, theirs.error, rtol=1e-9, atol=0)
    for x, y in zip(together.block_sums(place, ours), alone.block_sums(torch.arange(3), theirs), strict=True):
        assert torch.allclose(x, y, rtol=1e-9, atol=0)


def test_a_target_may_be_its_own_source_and_sources_may_be_several(seed):
    regression = Regression(joint_of(seed), ("y2", "x"), ("x", "y2"), Options())
    assert float(regression.choose(torch.arange(18)).error.max()) < 1e-12


def test_a_shared_penalty_is_the_best_for_the_sum_of_these_targets(seed):
    X, Y, _ = data(seed)
    split = SPLITS["five folds"]
    regression = Regression(joint_of(seed), ("x",), ("y1", "y2"), Options(PENALTIES, False, per_target=False))
    for names, columns in ((("y1", "y2"), slice(None)), (("y2",), slice(3, None))):
        error, penalties = reference.choose(reference.truth(X, Y[:, columns], split, PENALTIES), per_target=False)
        choice = regression.choose(regression.local(names))
        assert np.allclose(choice.error, error, rtol=1e-6)
        assert np.array_equal(torch.stack([o.penalty for o in choice.optima]), penalties)


def test_degrees_of_freedom_are_averaged_over_parts_and_targets(seed):
    X, _, _ = data(seed)
    split = SPLITS["five folds"]
    regression = Regression(joint_of(seed), ("x",), ("y1", "y2"), Options(PENALTIES, False))
    choice = regression.choose(torch.arange(7))
    each = []
    for part, optimum in zip(split.parts, choice.optima, strict=True):
        centred = X[(fit := reference.rows_of(split, part.fit))] - X[fit].mean(0)
        values = np.linalg.eigvalsh(centred.T @ centred)
        each.append([(values / (values + q * values.mean())).sum() for q in optimum.penalty.tolist()])
    some = torch.arange(7) < 4
    assert regression.degrees(choice, some) == pytest.approx(np.array(each)[:, :4].mean(), rel=1e-9)
    assert np.isnan(regression.degrees(choice, torch.zeros(7, dtype=torch.bool)))


def test_nested_fits_are_let_go_once_their_errors_are_known(seed):
    regression = Regression(joint_of(seed), ("x",), ("y1",), Options(), "half")
    regression.choose(torch.arange(3))
    assert not {"fits", "_held_out"} & vars(regression).keys()


def test_the_default_grid_is_half_decades():
    assert Options().penalties == penalty_path.HALF_DECADES
    assert len(penalty_path.HALF_DECADES) == 21
    assert np.allclose(np.diff(np.log10(penalty_path.HALF_DECADES)), 0.5)
    assert (penalty_path.HALF_DECADES[0], penalty_path.HALF_DECADES[-1]) == (pytest.approx(1e-9), pytest.approx(10))
