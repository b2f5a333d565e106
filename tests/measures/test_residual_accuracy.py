"""Residuals beside features: truths by construction, an identity, floors, a refusal."""

import math
from types import SimpleNamespace

import pytest
import torch

from widthwise.columns import Concatenation
from widthwise.errors import UsageError
from widthwise.measures import residual_accuracy
from widthwise.measures.residual_accuracy import measure
from widthwise.pairs import Joint, Pair
from widthwise.splits import k_fold

n = 1500


def pair(seed: int, noise: float = 0.0) -> Pair:
    """Return a source that sees 4 of 8 directions, a target that sees all, and two classes that need all alike."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 8, generator=generator, dtype=torch.float64)
    rotated = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64)).Q
    labels = (z.sum(1) > 0).long()
    groups = {"seen": z[:, :4] @ torch.randn(4, 6, generator=generator, dtype=torch.float64), "all": z @ rotated}
    groups["seen too"] = groups["seen"] @ torch.randn(6, 5, generator=generator, dtype=torch.float64)
    joint = Joint({k: Concatenation([x]) for k, x in groups.items()}, k_fold("unseen", torch.arange(n)), labels)
    return Pair(joint, ("seen",), ("all",))


def error(share: float) -> float:
    return math.sqrt(share * (1 - share) / n)


def test_residuals_gain_what_the_unseen_directions_are_worth(seed):
    """Half of the variance of the label's score is seen: a probe of it is right on 1 - arccos(sqrt(1/2)) / pi."""
    known = 1 - math.acos(math.sqrt(0.5)) / math.pi
    assert measure(pair(seed), form="source").value == pytest.approx(known, abs=4 * error(known))
    assert measure(pair(seed)).value > 0.98
    assert measure(pair(seed), form="alone", columns=4).value == pytest.approx(known, abs=4 * error(known))


def test_source_with_residuals_and_source_with_target_are_worth_the_same(seed):
    appended, joined = measure(pair(seed)), measure(pair(seed), form="joined")
    assert appended.value == pytest.approx(joined.value, abs=0.01)


def test_features_that_the_source_spans_exactly_have_no_residual(seed):
    p = pair(seed)
    spanned = Pair(p.joint, ("seen",), ("seen too",))
    found = measure(spanned)
    assert found.values["spanned"] == found.values["columns"] == 5
    assert found.value == measure(spanned, form="source").value
    both = measure(Pair(p.joint, ("seen",), ("seen too", "all")))
    assert both.values["spanned"] == 5
    assert both.value == pytest.approx(measure(p).value, abs=0.01)


@pytest.mark.parametrize("form", ["noise", "permuted"])
def test_noise_and_residuals_of_other_rows_gain_nothing(form, seed):
    source, floor = measure(pair(seed), form="source"), measure(pair(seed), form=form)
    assert floor.value - source.value < 4 * error(source.value) / 2


def test_only_so_many_columns_of_the_target_are_taken(seed):
    found = measure(pair(seed), columns=3)
    assert found.values["columns"] == 3
    assert found.value < measure(pair(seed)).value


def test_a_scale_and_a_penalty_can_be_given(seed):
    chosen = measure(pair(seed)).values
    again = measure(pair(seed), scale=chosen["scale"], penalty=chosen["penalty"])
    assert again.value == pytest.approx(measure(pair(seed)).value, abs=0.01)
    assert measure(pair(seed), scale=0.0).value == measure(pair(seed), form="source").value


def test_the_penalty_is_one_that_all_folds_have_whoever_stopped_first():
    def fold(*losses):
        return residual_accuracy._Fold((1.0,), [SimpleNamespace(losses=list(losses))], 0)

    folds = [fold(3.0, 2.0), fold(3.0, 2.0, 1.0, 0.5), fold(3.0, 2.0, 1.0)]
    assert [residual_accuracy._chosen(folds, k) for k in range(3)] == [(0, 1)] * 3


def test_folds_where_everything_is_spanned_stand_beside_folds_where_it_is_not(seed, monkeypatch):
    p = pair(seed)
    found, rows = residual_accuracy._Rows.residuals, p.joint.split.cell

    def in_one_fold_nothing(self, k):
        residuals, spanned = found(self, k)
        return (residuals[:, :0], residuals.shape[1]) if k == 2 else (residuals, spanned)

    monkeypatch.setattr(residual_accuracy._Rows, "residuals", in_one_fold_nothing)
    score = measure(p)
    assert score.values["rows"] == len(rows)
    assert measure(p, form="source").value < score.value < 0.98


def test_a_form_that_is_none_is_refused():
    with pytest.raises(UsageError, match=r'a form of source, joined, appended, .*, not "added"'):
        measure(pair(0), form="added")
