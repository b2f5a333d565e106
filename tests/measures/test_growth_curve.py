"""A growth curve is the span errors of the first networks, for every number of them, and where they end."""

import warnings

import numpy as np
import pytest
import torch

from widthwise.columns import Concatenation
from widthwise.errors import DataError, NumericsWarning, UsageError
from widthwise.linalg import limits, nested, penalty_path
from widthwise.measures import growth_curve, span_error
from widthwise.pairs import Joint, Pair
from widthwise.splits import held_out, k_fold

SPLITS = {
    "folds": k_fold("validation", torch.arange(400), 3),
    "test": held_out("test", torch.arange(300), 300 + torch.arange(100)),
}


def pair_of(random, networks: int = 4, split: str = "folds", width: int = 7, n: int = 400) -> Pair:
    """Return networks that each know some of ten hidden directions, and a target that knows all."""
    hidden = random.normal(size=(n, 10))
    groups = {str(k): hidden @ random.normal(size=(10, width)) * np.logspace(0, -2, width) for k in range(networks)}
    groups = {name: np.maximum(x, 0) for name, x in groups.items()}
    groups["y"] = np.maximum(hidden @ random.normal(size=(10, 5)), 0) + 0.1 * random.normal(size=(n, 5))
    joint = Joint({name: Concatenation([x]) for name, x in groups.items()}, SPLITS[split])
    return Pair(joint, tuple(map(str, range(networks))), ("y",))


@pytest.mark.parametrize("split", SPLITS)
def test_every_point_is_the_span_error_of_its_networks(split, seed):
    pair = pair_of(np.random.default_rng(seed), split=split)
    curve = growth_curve.measure(pair, leave_out=False)
    scales = [_scale(pair, m) for m in range(1, 5)]
    for m in range(1, 5):
        first = [pair.joint.groups[str(k)] for k in range(m)]
        part = Pair(pair.joint, pair.source[:m], ("y",))
        grid = tuple(q * scales[-1] / scales[m - 1] for q in penalty_path.HALF_DECADES)
        assert len(first) == m
        if split == "test":  # folds have a scale of their own each: there the grid cannot be given
            truth = span_error._spanned(part, span_error.Options(penalties=grid), row_blocks=False)
            assert curve.values["mean"][m - 1] == pytest.approx(truth.mean, rel=1e-8)
        near = span_error.measure(part, row_blocks=False)
        assert curve.values["mean"][m - 1] == pytest.approx(near.value, rel=1e-3)
    assert curve.values["networks"] == [1, 2, 3, 4]
    assert curve.values["p"] == [7, 14, 21, 28]
    assert curve.value == curve.values["mean"][-1]


def _scale(pair: Pair, m: int) -> float:
    joint, columns = pair.joint, torch.cat([pair.joint.columns[name] for name in pair.source[:m]])
    target = pair.target_columns
    moments = joint.moments(joint.split.parts[0].fit, torch.cat([columns, target]), crossed=len(columns))
    return nested.design(moments, torch.arange(len(columns)), len(columns) + torch.arange(len(target))).scale


@pytest.mark.parametrize("split", SPLITS)
def test_sums_by_block_are_those_of_the_span_error_of_all_networks(split, seed):
    pair = pair_of(np.random.default_rng(seed), split=split)
    ours = growth_curve.measure(pair, leave_out=False, row_blocks=True).arrays
    theirs = span_error.measure(pair).arrays
    for name in ("block_errors", "block_totals"):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-7, atol=1e-9)
    ratio = ours["block_errors"].sum(0) / ours["block_totals"].sum(0)
    torch.testing.assert_close(ratio, ours["per_feature"][-1], rtol=1e-2, atol=1e-3)  # grid against spline


def test_networks_that_know_all_end_at_zero_and_one_more_adds_nothing(seed):
    random = np.random.default_rng(seed)
    X = random.normal(size=(400, 6))
    groups = {"a": X, "b": X @ random.normal(size=(6, 6)), "y": X @ random.normal(size=(6, 3))}
    joint = Joint({name: Concatenation([x]) for name, x in groups.items()}, SPLITS["folds"])
    curve = growth_curve.measure(Pair(joint, ("a", "b"), ("y",)))
    assert max(curve.values["mean"]) < 1e-9


def test_an_interval_is_the_jackknife_of_the_curves_without_each_network(seed):
    pair = pair_of(np.random.default_rng(seed))
    values = growth_curve.measure(pair).values
    names = pair.source
    without = []
    for k in range(4):
        rest = tuple(name for name in names if name != names[k])
        without.append(growth_curve.measure(Pair(pair.joint, rest, ("y",)), leave_out=False).value)
    spread = (3 / 4 * ((np.array(without) - np.mean(without)) ** 2).sum()) ** 0.5
    half = (values["high"][-1] - values["low"][-1]) / 2
    assert half == pytest.approx(3.182446305284263 * spread, rel=1e-9)  # t at .975 with 3 degrees of freedom
    assert values["low"][:2] == [None, None]
    assert all(low < mean for low, mean in zip(values["low"][2:], values["mean"][2:], strict=True))


def test_orders_are_averaged_and_meet_at_the_last_point(seed):
    pair = pair_of(np.random.default_rng(seed))
    one, many = (growth_curve.measure(pair, orders=k, leave_out=False).values["mean"] for k in (1, 5))
    assert one[-1] == pytest.approx(many[-1], rel=1e-9)
    assert one[0] != pytest.approx(many[0], rel=1e-6)
    assert many == growth_curve.measure(pair, orders=5, leave_out=False).values["mean"]


def test_arrays_give_what_their_pair_gives(seed):
    pair = pair_of(np.random.default_rng(seed), split="test")
    rows = {name: group[0:400] for name, group in pair.joint.groups.items()}
    networks = [rows[name] for name in pair.source]
    fit, test = [x[:300] for x in networks], [x[300:] for x in networks]
    options = {"split": "test", "networks_test": test, "target_test": rows["y"][300:], "leave_out": False}
    curve = growth_curve.growth_curve(fit, rows["y"][:300], **options)
    assert curve.mean == pytest.approx(growth_curve.measure(pair, leave_out=False).values["mean"], rel=1e-9)
    assert str(curve).startswith(f"4 networks together miss {curve.mean[-1]:.3f} of the target, the first alone")
    assert curve.to_dict()["p"] == (7, 14, 21, 28)
    assert "<table>" in curve._repr_html_()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"penalties": [1e-12, 1.0]}, "penalties of 1e-10 and above; got 1e-12"),
        ({"networks_test": [np.zeros((5, 2))]}, "2 networks and test rows of 1"),
        ({"networks_test": "rows.npy"}, "networks_test must be a list of feature arrays, one a network; not one array"),
        ({"orders": 0}, "orders must be a whole number, 1 or more; not 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, told):
    rows = np.random.default_rng(0).normal(size=(100, 3))
    with pytest.raises(UsageError, match=told):
        growth_curve.growth_curve([rows, rows], rows, **options)
    with pytest.raises(UsageError, match="networks must be a list of feature arrays, one a network; not one array"):
        growth_curve.growth_curve("features.npy", torch.ones(10, 2))
    with pytest.raises(DataError, match=r"networks\[1\]: features must be a matrix .* not of shape \(10,\)"):
        growth_curve.growth_curve([torch.ones(10, 2), torch.ones(10)], torch.ones(10, 2))
    with pytest.raises(DataError, match="no target feature varies on 20 effective rows or more"):
        growth_curve.growth_curve([rows, rows[:, :1]], 0 * rows)
    with pytest.raises(UsageError, match="no networks"):
        growth_curve.growth_curve([], rows)


def test_a_limit_is_that_of_the_power_law():
    sizes = range(1, 20)
    assert limits.power_law(sizes, [0.1 + 0.7 * m**-0.8 for m in sizes]) == pytest.approx(0.1, abs=1e-6)
    assert limits.power_law(sizes[:4], [0.1 + 0.7 * m**-0.8 for m in sizes[:4]]) is None
    assert limits.power_law(sizes, [0.1 + 0.02 * m for m in sizes]) is None


def test_a_limit_has_an_interval_where_networks_can_be_left_out(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericsWarning)
        values = growth_curve.measure(pair_of(np.random.default_rng(seed), networks=9, width=3)).values
    if values["limit"] is not None:
        assert values["limit_low"] is None or not values["limit_low"] > values["limit"]


def test_what_takes_too_many_factorisations_is_refused(seed, monkeypatch):
    monkeypatch.setattr(growth_curve, "LARGEST", 20)
    pair = pair_of(np.random.default_rng(seed))
    assert growth_curve.measure(pair).values["low"] == [None] * 4
    with pytest.raises(UsageError, match="28 source features: other orders"):
        growth_curve.measure(pair, orders=2)
