"""A probe reads what is there to be read, by a penalty that rows of neither side chose."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from widthwise import probe_accuracy, seeds
from widthwise.columns import Concatenation
from widthwise.errors import DataError, NumericsWarning, UsageError
from widthwise.linalg.logistic import log_loss, logistic
from widthwise.measures.probe_accuracy import DECADES, Part, measure, probe
from widthwise.pairs import Joint, Pair
from widthwise.splits import Split


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):  # problems are small: threads would wait for each other
        yield


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def classes_of(generator, n, p, classes=4, apart=1.0):
    """Return Gaussian classes of one shape about random centres, and the share the best rule gets right."""
    labels = torch.arange(n) % classes
    centres = apart * normal(generator, classes, p)
    X = centres[labels] + normal(generator, n, p)
    return X, labels, torch.cdist(X, centres).argmin(1) == labels


def least(losses):
    """Return the place of the least loss, the first of those within 1e-4 of it."""
    losses = torch.as_tensor(losses)
    return int((losses <= losses.min() * (1 + 1e-4)).nonzero()[0])


def digits():
    X, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
    order = torch.randperm(len(X), generator=seeds.stream(0, "test"))
    return X[order], labels[order]


def of_digits(X, labels, **options):
    """Return the probe fitted on 700 digits, its penalty chosen on 300, scored on the rest."""
    given = {"reserve_features": X[700:1000], "reserve_labels": labels[700:1000]}
    given |= {"test_features": X[1000:], "test_labels": labels[1000:]}
    return probe_accuracy(X[:700], labels[:700], **given | options)


def test_gaussian_classes_are_read_as_well_as_by_the_best_rule(seed):
    X, labels, best = classes_of(seeds.stream(seed, "test"), 14_000, 5)
    found = probe_accuracy(X[:4000], labels[:4000], test_features=X[4000:], test_labels=labels[4000:])
    bayes = best[4000:].double().mean()
    apart = (found.correct != best[4000:]).double().mean()  # rows on which the two rules differ
    assert abs(found.value - float(bayes)) < 4.5 * math.sqrt(float(apart) / 10_000) + 0.002
    assert found.low < found.value < found.high


def test_scikit_learn_gets_the_same_digits_right():
    X, labels = digits()
    found = of_digits(X, labels)
    fit, test = X[:700] - X[:700].mean(0), X[1000:] - X[:700].mean(0)
    live = (fit.amax(0) != fit.amin(0)).sum()
    C = 1 / (found.penalty[0] * float(fit.square().sum() / live))
    model = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(fit.numpy(), labels[:700].numpy())
    right = torch.from_numpy(model.predict(test.numpy())) == labels[1000:]
    assert (right != found.correct).sum() <= 1
    theirs = model.predict_log_proba(test.numpy())[np.arange(len(test)), labels[1000:].numpy()]
    assert found.log_loss == pytest.approx(-theirs.mean(), abs=1e-5)
    assert found.p_live == int(live) < found.p


def test_the_penalty_is_the_one_of_least_loss_on_the_reserve():
    # Mutants: chosen on the rows that fit, or on those scored.
    X, labels = digits()
    X = torch.cat([X, 4 * torch.nn.functional.one_hot(labels, 10)], 1)
    X[700:, 64:] = 0  # what the fit's rows alone know, as a network knows those that trained it
    losses = []
    for penalty in DECADES:
        given = {"test_features": X[700:1000], "test_labels": labels[700:1000], "penalties": [penalty]}
        losses.append(probe_accuracy(X[:700], labels[:700], **given).log_loss)
    found = of_digits(X, labels)
    assert found.penalty == (DECADES[least(losses)],)
    assert (found.chosen_by, found.on_edge) == ("reserve", 0)


@pytest.mark.parametrize("draw", range(4, 8))
def test_a_loss_that_rises_before_it_falls_is_followed_to_its_least(draw):
    # Columns of large variance lean towards the labels on the fit's rows alone; the small one is right everywhere.
    # Mutant: a path that ends at 5 % above the least, whatever is left to learn, ends too early in draw 5.
    X, labels, signs = normal(seeds.stream(draw, "test"), 240, 4), torch.arange(240) % 2, torch.arange(240) % 2 * 2 - 1
    X[:, :3] *= 8
    X[:120, :3] += 2 * signs[:120, None]
    X[:, 3] = 0.5 * X[:, 3] + signs
    fit = torch.arange(240) < 120
    path = logistic(X[fit], labels[fit], 2, DECADES)
    losses = [float(log_loss(path.logits(X[~fit], k), labels[~fit])) for k in range(len(DECADES))]
    assert probe(X, labels, [Part(fit, ~fit, ~fit)], 2, DECADES).penalties == (DECADES[least(losses)],)


def test_each_half_of_the_test_rows_chooses_for_the_other(seed):
    # Mutant: a half that chooses for itself.
    X, labels, _ = classes_of(seeds.stream(seed, "test"), 300, 30)
    X[200:250] *= 0.01  # one half wants small penalties, the other large ones
    labels[250:] = labels[250:].flip(0)
    place = torch.arange(300)
    fit, one, two = place < 200, (place >= 200) & (place < 250), place >= 250
    found = probe(X, labels, [Part(fit, one, two), Part(fit, two, one)], 4, DECADES)
    alone = [probe(X, labels, [Part(fit, half, half)], 4, DECADES) for half in (one, two)]
    assert found.penalties == (alone[0].penalties[0], alone[1].penalties[0])
    assert found.penalties[0] < found.penalties[1]
    swapped = probe(X, labels, [Part(fit, one, two)], 4, [found.penalties[0]])
    assert torch.allclose(found.logits[two], swapped.logits[two], atol=1e-4)
    assert bool(found.logits[fit].isnan().all())


def test_in_folds_the_other_folds_choose(seed):
    # Mutant: a fold that chooses for itself.
    X, labels, _ = classes_of(seeds.stream(seed, "test"), 60, 10, apart=0.6)
    fold = torch.arange(60) // 4 % 3
    parts = [Part(fold != k, fold == k, fold == k) for k in range(3)]
    grid, losses = DECADES[:5], torch.zeros(3, 5)
    for k, part in enumerate(parts):
        for q, penalty in enumerate(grid):
            logits = probe(X, labels, [part], 4, [penalty]).logits
            losses[k, q] = log_loss(logits[part.score], labels[part.score])
    expected = tuple(grid[least(losses.sum(0) - losses[k])] for k in range(3))
    assert probe(X, labels, parts, 4, grid, crossed=True).penalties == expected


def test_rows_alone_are_read_in_folds(seed):
    X, labels, best = classes_of(seeds.stream(seed, "test"), 2000, 5)
    found = probe_accuracy(X, labels)
    assert (found.rows, found.rows_fit, found.chosen_by, len(found.penalty)) == (2000, 1600, "folds", 5)
    assert found.value == pytest.approx(float(best.double().mean()), abs=0.03)


@pytest.mark.filterwarnings("ignore:the best penalty is on the edge")  # of a short grid, on purpose
@pytest.mark.parametrize("change", ["rotation", "scale", "translation", "dead column"])
def test_an_accuracy_does_not_change_with(change):
    X, labels = digits()
    X = X[:, X[:700].amax(0) != X[:700].amin(0)]
    Q = torch.linalg.qr(normal(seeds.stream(1, "test"), X.shape[1], X.shape[1]))[0]
    dead = torch.full((len(X), 1), 0.1, dtype=torch.float64)
    changed = {"rotation": X @ Q, "scale": 1e3 * X, "translation": X + 1e3, "dead column": torch.cat([X, dead], 1)}
    before, after = (of_digits(Z, labels, penalties=[0.01, 1e-3, 1e-5]) for Z in (X, changed[change]))
    assert after.log_loss == pytest.approx(before.log_loss, abs=1e-6)
    assert torch.equal(before.correct, after.correct)


def test_an_accuracy_changes_with_the_scale_of_single_columns():
    X, labels = digits()
    stretched = X * torch.logspace(-2, 2, 64, dtype=torch.float64)
    before, after = (of_digits(Z, labels, penalties=[0.01]).log_loss for Z in (X, stretched))
    assert abs(before - after) > 0.01


def test_features_come_in_any_form(seed):
    X, labels, _ = classes_of(seeds.stream(seed, "test"), 200, 6)
    test = {"test_features": X[100:], "test_labels": labels[100:]}
    plain = probe_accuracy(X[:100], labels[:100], **test)
    forms = (
        X[:100].numpy(),
        list(X[:100].split(30)),
        Concatenation([X[:100, :2], X[:100, 2:].numpy()]),
    )
    for features in forms:
        assert probe_accuracy(features, labels[:100].numpy(), **test) == plain
    assert probe_accuracy(X[:100], labels[:100].tolist(), **test) == plain


def test_features_that_say_nothing_want_the_largest_penalty_and_are_warned_of():
    X, labels = torch.ones(40, 3), torch.arange(40) % 2
    with pytest.warns(NumericsWarning, match=r"edge of the grid \(1e-06 to 100\) in 2 of 2 choices"):
        found = probe_accuracy(X[:20], labels[:20], test_features=X[20:], test_labels=labels[20:])
    assert found.penalty == (100.0, 100.0)  # all losses are equal
    assert (found.value, found.p_live, found.on_edge) == (0.5, 0, 2)


def test_a_class_without_rows_to_fit_is_wrong_and_does_not_choose(seed):
    X, labels, _ = classes_of(seeds.stream(seed, "test"), 400, 6, apart=0.7)
    fit = labels[:200] < 3
    test = {"test_features": X[200:], "test_labels": labels[200:]}
    found = probe_accuracy(X[:200][fit], labels[:200][fit], **test)
    assert found.to_dict()["log_loss"] is None  # infinite
    assert not bool(found.correct[labels[200:] == 3].any())
    assert max(found.penalty) < DECADES[0]


def test_a_penalty_that_is_given_is_used(seed):
    X, labels, _ = classes_of(seeds.stream(seed, "test"), 200, 6)
    found = probe_accuracy(
        X[:100], labels[:100], test_features=X[100:], test_labels=labels[100:], penalties=[0.3], classes=7
    )
    assert (found.penalty, found.chosen_by, found.on_edge, found.classes) == ((0.3, 0.3), "given", 0, 7)


def test_a_result_reads_as_a_sentence_and_as_plain_values():
    found = of_digits(*digits())
    assert str(found) == (
        f"a linear probe of 64 features is right on {100 * found.value:.1f} % [{100 * found.low:.1f}, "
        f"{100 * found.high:.1f}] of 797 rows that it was not fitted on; 700 rows to fit, penalty {found.penalty[0]:g}"
    )
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["value"] == found.value
    assert plain["penalty"] == list(found.penalty)
    assert found._repr_html_().startswith("<table><caption>a linear probe of 64 features")


def test_a_result_gives_a_frame_of_rows():
    pytest.importorskip("pandas")
    found = of_digits(*digits())
    assert found.to_frame()["correct"].mean() == pytest.approx(found.value)


# As a member of the family ------------------------------------------------------------------------------


def pair_of(X, labels, trained, reserve):
    """Return rows of probes: `trained` rows, then unseen ones in five folds, the first `reserve` not scored."""
    unseen = torch.arange(len(X) - trained)
    cell = torch.cat([torch.zeros(trained, dtype=torch.long), 1 + unseen % 5])
    scored = torch.where(unseen < reserve, -1, (unseen - reserve) * 50 // (len(unseen) - reserve))
    split = Split("probe", cell, torch.cat([torch.full((trained,), -1), scored]), ())
    return Pair(Joint({"net": Concatenation([X])}, split, labels), ("net",))


def test_on_trained_rows_the_family_gives_what_arrays_give():
    X, labels = digits()
    found, score = of_digits(X, labels), measure(pair_of(X, labels, 700, 300))
    assert score.value == found.value
    assert (score.values["penalty"], score.values["n_fit"]) == (found.penalty[0], 700)
    assert (score.values["p"], score.values["p_live"], score.values["rows"]) == (64, found.p_live, 797)
    wrong = score.arrays["block_wrong"].sum() / score.arrays["block_rows"].sum()
    assert float(wrong) == pytest.approx(1 - found.value)


def test_without_a_reserve_halves_of_the_test_rows_choose():
    X, labels = digits()
    score = measure(pair_of(X, labels, 1000, 0))
    found = probe_accuracy(X[:1000], labels[:1000], test_features=X[1000:], test_labels=labels[1000:])
    assert score.value == pytest.approx(found.value, abs=0.01)
    assert score.values["rows"] == 797


def test_on_unseen_rows_only_test_rows_are_scored():
    X, labels = digits()
    X[:700] = 0  # what trained the networks is not looked at
    score = measure(pair_of(X, labels, 700, 300), rows="unseen")
    assert score.values["rows"] == 797
    assert score.values["n_fit"] == 877
    assert score.value > 0.94


def test_what_a_family_member_does_not_know_is_refused():
    with pytest.raises(UsageError, match='rows "train" or "unseen", not "test"'):
        measure(pair_of(*digits(), 700, 300), rows="test")


# Refusals -----------------------------------------------------------------------------------------------


def test_arrays_that_do_not_fit_are_refused():
    X, labels = torch.zeros(10, 2), torch.arange(10) % 2
    test = {"test_features": X, "test_labels": labels}
    with pytest.raises(UsageError, match="test_features and test_labels belong together"):
        probe_accuracy(X, labels, test_features=X)
    with pytest.raises(UsageError, match="pass test_features and test_labels too"):
        probe_accuracy(X, labels, reserve_features=X, reserve_labels=labels)
    with pytest.raises(DataError, match=r"test_labels has shape \(9,\); there must be one label for each of the 10"):
        probe_accuracy(X, labels, test_features=X, test_labels=labels[1:])
    with pytest.raises(DataError, match="features has 2, test_features has 3"):
        probe_accuracy(X, labels, test_features=torch.zeros(10, 3), test_labels=labels)
    with pytest.raises(DataError, match=r"whole numbers from 0, not <U1; numpy\.unique"):
        probe_accuracy(X, ["a", "b"] * 5, **test)
    with pytest.raises(DataError, match="test_labels: label 1 in row 1 is out of range; 1 classes"):
        probe_accuracy(X, 0 * labels, **test, classes=1)
    with pytest.raises(DataError, match=r"2 classes or more; got \[0\]"):
        probe_accuracy(X, 0 * labels, **test)
    with pytest.raises(UsageError, match="above 0, finite and strictly decreasing"):
        probe_accuracy(X, labels, **test, penalties=[0.0, 1.0])
    bad = X.clone()
    bad[3, 1] = math.inf
    with pytest.raises(DataError, match="features has no columns"):
        probe_accuracy(np.ones((10, 0)), np.arange(10) % 2)
    with pytest.raises(DataError, match="test_features: row 3, column 1 is inf"):
        probe_accuracy(X, labels, test_features=bad, test_labels=labels)
