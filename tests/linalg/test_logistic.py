"""Logistic regression finds the minimiser, of any features, and says where it did not."""

import math

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from widthwise import seeds
from widthwise.errors import DataError, NumericsWarning, UsageError
from widthwise.linalg.logistic import accuracy, log_loss, logistic, logits

PATH = (10.0, 1.0, 0.1, 1e-2, 1e-3)


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):  # problems are small: threads would wait for each other
        yield


def classes_of(generator, n, p, classes=3, apart=1.0):
    """Return Gaussian classes of the same shape about random centres."""
    labels = torch.arange(n) % classes
    centres = apart * torch.randn(classes, p, generator=generator, dtype=torch.float64)
    return centres[labels] + torch.randn(n, p, generator=generator, dtype=torch.float64), labels


def relative_scale(X):
    """Return trace(Xc'Xc) / n / p_live, by which a penalty is multiplied."""
    return (X - X.mean(0)).square().sum() / len(X) / (X.amax(0) != X.amin(0)).sum()


def peer(X, labels, penalty):
    C = 1 / (penalty * float(relative_scale(X)) * len(X))
    centred = (X - X.mean(0)).numpy()  # scikit-learn's intercept is not penalised either: centring is for its speed
    return LogisticRegression(C=C, tol=1e-9, max_iter=10_000).fit(centred, labels.numpy()), centred


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_the_digits_are_fitted_as_by_scikit_learn(penalty):
    X, labels = (torch.tensor(x[:600]) for x in load_digits(return_X_y=True))
    model, centred = peer(X, labels, penalty)
    ours = logistic(X, labels, 10, [penalty]).logits(X, 0)
    theirs = torch.from_numpy(model.decision_function(centred))
    assert float(log_loss(ours, labels)) == pytest.approx(float(log_loss(theirs, labels)), abs=1e-6)
    assert float((ours.softmax(1) - theirs.softmax(1)).abs().max()) < 1e-3
    assert (ours.argmax(1) == theirs.argmax(1)).double().mean() > 0.999


@pytest.mark.parametrize(("n", "p"), [(300, 20), (60, 200)])
def test_solutions_are_where_the_gradient_is_zero(seed, n, p):
    # Mutants: a penalty on the intercept; p for p_live; |W|^2 without the half.
    X, labels = classes_of(seeds.stream(seed, "test"), n, p)
    X[:, ::4] = 7.0  # dead
    path = logistic(X, labels, 3, PATH, tolerance=1e-9)
    assert path.live == p - len(range(0, p, 4))
    for k, penalty in enumerate(PATH):
        W = path.weights[k].clone().requires_grad_()
        b = path.intercepts[k].clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(X @ W + b, labels)
        (loss + penalty * relative_scale(X) / 2 * W.square().sum()).backward()
        assert float(W.grad.norm()) < 1e-7
        assert float(b.grad.norm()) < 1e-7
        assert float(path.weights[k][::4].abs().max()) == 0


def test_a_step_of_the_path_does_not_depend_on_where_it_started(seed):
    X, labels = classes_of(seeds.stream(seed, "test"), 300, 20)
    path = logistic(X, labels, 3, PATH, tolerance=1e-10)
    alone = logistic(X, labels, 3, PATH[-1:], tolerance=1e-10)
    assert torch.allclose(path.weights[-1], alone.weights[0], atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda X, Q: X + 1e4,
        lambda X, Q: X @ Q,
        lambda X, Q: 1e6 * X,
        lambda X, Q: 1e-6 * X,
        lambda X, Q: torch.cat([X, torch.full((len(X), 3), 0.1, dtype=X.dtype)], 1),
    ],
    ids=["translation", "rotation", "scale up", "scale down", "dead columns"],
)
def test_predictions_do_not_change_with(seed, change):
    generator = seeds.stream(seed, "test")
    X, labels = classes_of(generator, 200, 30)
    Q = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64))[0]
    Y = change(X, Q)
    before, after = (logistic(Z, labels, 3, PATH, tolerance=1e-10).logits(Z, 4) for Z in (X, Y))
    assert torch.allclose(before.softmax(1), after.softmax(1), atol=1e-5)


def test_predictions_change_with_the_scale_of_one_column(seed):
    X, labels = classes_of(seeds.stream(seed, "test"), 200, 5)
    Y = X * torch.tensor([10.0, 1, 1, 1, 1])
    before, after = (logistic(Z, labels, 3, [0.1]).logits(Z, 0).softmax(1) for Z in (X, Y))
    assert float((before - after).abs().max()) > 0.01


def test_columns_of_very_different_scales_converge(seed):
    X, labels = classes_of(seeds.stream(seed, "test"), 300, 24)
    X = X * torch.logspace(-6, 6, 24, dtype=torch.float64) + 1e4
    assert all(logistic(X, labels, 3, PATH).converged)


def test_separable_classes_converge_because_of_the_penalty(seed):
    X, labels = classes_of(seeds.stream(seed, "test"), 90, 60, apart=3.0)
    path = logistic(X, labels, 3, [10.0**-k for k in range(9)])
    assert all(path.converged)
    assert float(accuracy(path.logits(X, 8), labels)) == 1
    assert float(log_loss(path.logits(X, 8), labels)) < 1e-4


def test_features_that_say_nothing_leave_the_share_of_each_class():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    path = logistic(torch.ones(100, 4), labels, 3, [1.0])
    assert path.live == 0
    shares = path.logits(torch.ones(1, 4), 0).softmax(1)[0]
    assert torch.allclose(shares, torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64))


def test_a_class_without_rows_is_never_predicted(seed):
    X, labels = classes_of(seeds.stream(seed, "test"), 90, 5)
    with_gap = logistic(X, labels + (labels > 0), 4, [0.1])  # no row of class 1
    assert float(with_gap.intercepts[0, 1]) == -math.inf
    found, full = with_gap.logits(X, 0).softmax(1), logistic(X, labels, 3, [0.1]).logits(X, 0).softmax(1)
    assert torch.allclose(found[:, [0, 2, 3]], full)


def test_single_precision_features_are_fitted_in_double(seed):
    X, labels = classes_of(seeds.stream(seed, "test"), 200, 10)
    X = X.float()
    single, double = (logistic(Z, labels, 3, [1e-2]).weights for Z in (X, X.double()))
    assert torch.equal(single, double)


def test_the_path_ends_where_it_is_told_to(seed):
    X, labels = classes_of(seeds.stream(seed, "test"), 90, 5)
    seen = []

    def stop(weights, intercept):
        seen.append(float(log_loss(logits(X, weights, intercept), labels)))
        return len(seen) == 2

    path = logistic(X, labels, 3, PATH, stop=stop)
    assert path.penalties == PATH[:2]
    assert len(path.weights) == len(path.converged) == 2
    assert seen[1] == pytest.approx(float(log_loss(path.logits(X, 1), labels)))


def test_losses_and_accuracies_of_a_whole_path_come_at_once():
    outputs = torch.tensor([[[0.0, 0.0], [9.0, 0.0]], [[0.0, 1.0], [0.0, 9.0]]])
    labels = torch.tensor([1, 0])
    assert accuracy(outputs, labels).tolist() == [0.5, 0.5]
    expected = [
        (math.log(2) + math.log1p(math.exp(-9))) / 2,
        (math.log1p(math.exp(-1)) + 9 + math.log1p(math.exp(-9))) / 2,
    ]
    assert log_loss(outputs, labels).tolist() == pytest.approx(expected)


def test_what_did_not_converge_is_warned_of(seed):
    X, labels = classes_of(seeds.stream(seed, "test"), 90, 20)
    with pytest.warns(NumericsWarning, match=r"did not converge .* at penalty 0\.001 \(gradient .*raise steps"):
        path = logistic(X, labels, 3, [1e-3], steps=1)
    assert path.converged == (False,)
    assert path.gradient_norms[0] > 1e-7


def test_what_cannot_be_fitted_is_refused():
    X, labels = torch.zeros(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    with pytest.raises(DataError, match="label 2 in row 2 is out of range; 2 classes are numbered 0 to 1"):
        logistic(X, labels, 2, [1.0])
    with pytest.raises(DataError, match="label -1 in row 0"):
        logistic(X, labels - 1, 3, [1.0])
    with pytest.raises(DataError, match=r"2 classes or more; got \[1\]"):
        logistic(X, torch.ones(6, dtype=torch.long), 3, [1.0])
    for bad in ([], [0.0], [1.0, 1.0], [0.1, 1.0], [math.inf]):
        with pytest.raises(UsageError, match="strictly decreasing"):
            logistic(X, labels, 3, bad)
    X[4, 1] = math.nan
    with pytest.raises(DataError, match="row 4, column 1 is nan"):
        logistic(X, labels, 3, [1.0])
