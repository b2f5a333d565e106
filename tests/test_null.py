"""Where the span gap is known: untrained networks of one hidden layer, matched by features, have none.

Their hidden units are drawn one by one from the same distribution, so m narrow networks side by side *are* a
wide one in distribution, and the gap's mean is exactly zero.
"""

import math
from collections import Counter
from fractions import Fraction

import pytest
import torch

from widthwise import seeds
from widthwise.array_gap import span_gap
from widthwise.columns import Concatenation
from widthwise.layers import initialise
from widthwise.linalg.intervals import span_gap_interval
from widthwise.measures.span_error import measure
from widthwise.networks.base import build
from widthwise.pairs import Joint, Pair
from widthwise.splits import k_fold


def untrained(units: int, count: int, rows: torch.Tensor, depth: int, stream: str, seed: int) -> list[torch.Tensor]:
    """Return the features of `count` networks at initialisation."""
    network = build("mlp", (rows.shape[1],), 2, Fraction(1), count, hidden=units, depth=depth)
    initialise(network, [seeds.stream(seed, stream, k) for k in range(count)])
    with torch.no_grad():
        return list(network.features(rows.expand(count, *rows.shape)))


def span_errors(groups: dict[str, torch.Tensor], asked: list[tuple[tuple[str, ...], str]]) -> dict:
    n = len(next(iter(groups.values())))
    joint = Joint({k: Concatenation([v]) for k, v in groups.items()}, k_fold("validation", torch.arange(n)))
    found = {}
    for source in dict.fromkeys(source for source, _ in asked):
        targets = tuple(target for s, target in asked if s == source)
        arrays = measure(Pair(joint, source, targets), row_blocks=False).arrays
        sizes = [len(joint.columns[target]) for target in targets]
        for target, e, ok in zip(targets, *(arrays[k].split(sizes) for k in ("per_feature", "supported")), strict=True):
            found[source, target] = float(e[ok].mean())
    return found


def gap_of(depth: int, networks: int, seed: int, *, inputs=60, units=128, m=4, repeated=False):
    """Return (FSG, its jackknife standard error, mean FSE of the concatenations)."""
    S = R = networks
    rows = torch.randn(1000, inputs, generator=seeds.stream(seed, "null rows"))
    wide = untrained(units, S, rows, depth, "wide", seed)
    narrow = untrained(units // m, R if repeated else R * m, rows, depth, "narrow", seed)
    groups = {f"w{k}": x for k, x in enumerate(wide)} | {f"n{k}": x for k, x in enumerate(narrow)}
    concatenations = [tuple(f"n{c * m + j}" for j in range(m)) for c in range(R)]
    if repeated:
        concatenations = [(f"n{c}",) for c in range(R)]  # m copies of one network span what it alone spans
    kept = [[c[:j] + c[j + 1 :] for j in range(m)] for c in concatenations] if not repeated else []
    names = [f"w{k}" for k in range(S)]
    asked = [(c, w) for c in concatenations for w in names]
    asked += [((v,), w) for v in names for w in names if v != w]
    asked += [(k, w) for row in kept for k in row for w in names]
    e = span_errors(groups, asked)
    A = torch.tensor([[e[c, w] for w in names] for c in concatenations])
    B = torch.tensor([[e[(v,), w] if v != w else math.nan for w in names] for v in names])
    if repeated:
        return float(A.mean() - B[~B.isnan()].mean()), math.nan, float(A.mean())
    without = torch.tensor([[sum(e[k, w] for w in names) / S for k in row] for row in kept])
    over = span_gap_interval(A, B, without)
    return over.value, math.sqrt(over.variance), float(A.mean())


def test_untrained_networks_of_one_hidden_layer_have_no_gap_when_matched_by_features():
    gap, error, fse = gap_of(depth=1, networks=4, seed=0)
    assert error < 0.01 * fse
    assert abs(gap) < 4 * error


def test_one_narrow_network_repeated_has_a_gap():
    gap, _, fse = gap_of(depth=1, networks=4, seed=0, repeated=True)
    assert gap > 0.1 * fse


@pytest.mark.slow
def test_two_hidden_layers_have_a_negative_gap():
    gap, error, _ = gap_of(depth=2, networks=8, seed=0, inputs=16, units=64, m=16)
    assert gap < -2 * error  # the jackknife's error is wide: it covers .99 for .95


def test_slices_of_the_target_span_it():
    rows = torch.randn(1000, 60, generator=seeds.stream(0, "null rows"))
    (wide,) = untrained(128, 1, rows, 1, "wide", 0)
    groups = {"w": wide} | {f"s{j}": wide[:, j * 32 : (j + 1) * 32] for j in range(4)}
    source = tuple(f"s{j}" for j in range(4))
    assert span_errors(groups, [(source, "w")])[source, "w"] < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("S", "R"), [(3, 1), (4, 2)])
def test_the_jackknife_interval_covers_the_truth_in_at_least_93_percent(S, R, capsys):
    """2,000 repetitions; the truth at the same n is zero. Span errors at one penalty, in batches."""
    repetitions, n, folds, penalty = 2000, 250, 5, 1e-3
    rows = torch.randn(n, 6, generator=seeds.stream(0, "coverage rows"), dtype=torch.float64)
    fold = torch.arange(n) % folds

    def features(units: int, count: int, name: str) -> torch.Tensor:
        generator = seeds.stream(0, name, S, R)
        weights = torch.randn(repetitions, count, 6, units, generator=generator, dtype=torch.float64) / math.sqrt(3)
        return torch.relu(torch.einsum("nd,rcdu->rcnu", rows, weights))  # (repetitions, count, n, units)

    def fse(X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:  # (repetitions, n, p), (repetitions, n, t)
        squared = torch.zeros(repetitions, Y.shape[2], dtype=torch.float64)
        for k in range(folds):
            fit, held = fold != k, fold == k
            Xm, Ym = X[:, fit].mean(1, keepdim=True), Y[:, fit].mean(1, keepdim=True)
            Xc, Yc = X[:, fit] - Xm, Y[:, fit] - Ym
            G = Xc.transpose(1, 2) @ Xc
            ridge = penalty * G.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(X.shape[2])
            W = torch.linalg.solve(G + ridge, Xc.transpose(1, 2) @ Yc)
            squared += (Y[:, held] - Ym - (X[:, held] - Xm) @ W).square().sum(1)
        return (squared / (Y - Y.mean(1, keepdim=True)).square().sum(1)).mean(1)

    wide, narrow = features(16, S, "wide"), features(4, R * 4, "narrow")

    def together(members: list[int]) -> torch.Tensor:
        return torch.cat([narrow[:, j] for j in members], dim=2)

    A = torch.stack(
        [
            torch.stack([fse(together(list(range(4 * c, 4 * c + 4))), wide[:, i]) for i in range(S)], 1)
            for c in range(R)
        ],
        1,
    )
    nan = torch.full((repetitions,), math.nan, dtype=torch.float64)
    B = torch.stack(
        [torch.stack([fse(wide[:, k], wide[:, i]) if k != i else nan for i in range(S)], 1) for k in range(S)], 1
    )
    without = torch.stack(
        [
            torch.stack(
                [
                    torch.stack(
                        [
                            fse(together([q for q in range(4 * c, 4 * c + 4) if q != 4 * c + j]), wide[:, i])
                            for i in range(S)
                        ]
                    ).mean(0)
                    for j in range(4)
                ],
                1,
            )
            for c in range(R)
        ],
        1,
    )
    over = [span_gap_interval(A[r], B[r], without[r]) for r in range(repetitions)]
    covered = sum(o.low <= 0 <= o.high for o in over) / repetitions
    with capsys.disabled():
        print(f"\ncoverage of FSG's jackknife interval, (S, R) = ({S}, {R}), {repetitions} repetitions: {covered:.4f}")
    assert covered >= 0.93


@pytest.mark.slow
def test_of_networks_that_are_all_alike_few_studies_find_anything(capsys):
    """200 studies whose narrow networks are as wide as the wide ones, m = 1: each word in at most 5 %."""
    words = Counter()
    for study in range(200):
        rows = torch.randn(500, 10, generator=seeds.stream(study, "null rows"))
        nets = untrained(12, 5, rows, 1, "alike", study)
        fitted, fresh = [x[:300] for x in nets], [x[300:] for x in nets]
        test = {"wide_test": fresh[:3], "narrow_test": fresh[3:]}
        found = span_gap(fitted[:3], fitted[3:], matching="features", **test)
        assert found.count == 1
        words[found.verdict] += 1
    with capsys.disabled():
        print(f"\n200 studies of networks that are all alike: {dict(words)}")
    assert words["confirmed"] <= 10
    assert words["opposite"] <= 10
