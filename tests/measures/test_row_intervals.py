"""Row intervals cover the error that the same fitted maps have on all rows there could be.

The population's error is known exactly: of x ~ N(0, I), sources X = x A and targets y = x L + h(x) N + noise, with h
products of two that no linear map predicts, y - b - X w has the mean square |L - A w|^2 + |N|^2 + noise^2 + b^2.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from torch import Tensor

from widthwise import seeds
from widthwise.columns import Concatenation
from widthwise.measures import span_error
from widthwise.pairs import Joint, Pair
from widthwise.regression import Options
from widthwise.splits import Split, held_out, k_fold

P, TARGETS, NOISE = 6, 8, 0.5


@dataclass(frozen=True)
class Population:
    A: Tensor  # (P, P): sources are mixed and of unequal size
    L: Tensor  # (P, targets)
    N: Tensor  # (3, targets)

    @property
    def variance(self) -> Tensor:
        return self.L.square().sum(0) + self.N.square().sum(0) + NOISE**2

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = normal(n, P, generator=generator)
        h = torch.stack([(x[:, 0] ** 2 - 1) / 2**0.5, x[:, 1] * x[:, 2], x[:, 3] * x[:, 4]], 1)
        return x @ self.A, x @ self.L + h @ self.N + NOISE * normal(n, TARGETS, generator=generator)

    def error(self, W: Tensor, b: Tensor) -> Tensor:
        """Return the error, over the variance, of every target's map y = b + X w."""
        unexplained = (self.L - self.A @ W).square().sum(0) + self.N.square().sum(0) + NOISE**2 + b**2
        return unexplained / self.variance


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def population(seed: int) -> Population:
    generator = seeds.stream(seed, "row intervals, population")
    A, L, N = (normal(*shape, generator=generator) for shape in ((P, P), (P, TARGETS), (3, TARGETS)))
    return Population(A, L / P**0.5, 0.5 * N)


def maps_of(pair: Pair) -> list[tuple[Tensor, Tensor]]:
    """Return the maps (W, b) whose errors a span error pools, one a part."""
    regression = span_error._regression(pair, Options())
    every, shift = torch.arange(TARGETS), pair.joint.cells[0].shift
    maps = []
    for fit, optimum in zip(regression.fits, regression.choose(every).optima, strict=True):
        W, means = fit.weights(optimum.penalty, every), fit.means[0] + shift
        maps.append((W, means[P:] - means[:P] @ W))
    return maps


def pair_of(split: Split, rows: tuple[Tensor, Tensor]) -> Pair:
    groups = {name: Concatenation([x]) for name, x in zip(("source", "target"), rows, strict=True)}
    return Pair(Joint(groups, split, sources=("source",)), ("source",), ("target",))


def on_test_rows(fit: int, score: int) -> Split:
    return held_out("test", torch.arange(fit), fit + torch.arange(score), nested=False)


def in_folds(rows: int) -> Split:
    return k_fold("validation", torch.arange(rows), nested=False)


# Split, repetitions, and the share of them that is covered at least. Of few rows the interval is too short: a ratio
# of sums is biased by 1 / rows, and a fold's map is fitted on rows that others score. Fewer repetitions tell as much.
SPLITS = {
    "test, 200 rows fit and 1,000 scored": (on_test_rows(200, 1000), 2000, 0.93),
    "validation, 1,000 rows": (in_folds(1000), 2000, 0.93),
    "test, 200 rows fit and 200 scored": (on_test_rows(200, 200), 300, 0.90),
    "validation, 300 rows": (in_folds(300), 300, 0.86),
}


@pytest.mark.parametrize("name", SPLITS)
def test_the_known_error_of_a_fitted_map_is_that_on_a_million_rows(name, seed):
    people, (split, *_) = population(seed), SPLITS[name]
    generator = seeds.stream(seed, "row intervals, a million")
    pair = pair_of(split, people.draw(len(split.cell), generator))
    X, Y = people.draw(1_000_000, generator)
    for W, b in maps_of(pair)[:2]:
        squared = (Y - b - X @ W).square()
        error = squared.std(0) / 1000 / people.variance
        assert ((squared.mean(0) / people.variance - people.error(W, b)).abs() < 5 * error).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", SPLITS)
def test_the_row_interval_covers_the_error_of_the_same_maps(name, capsys):
    """Repetitions of one population; half-widths against the true deviation times t."""
    split, repetitions, least = SPLITS[name]
    found = np.array([once(split, repetition) for repetition in range(repetitions)])
    mean, low, high, truth = found.T
    covered = float(((low <= truth) & (truth <= high)).mean())
    below, above = float((truth < low).mean()), float((truth > high).mean())
    deviation, half = float(np.std(mean - truth, ddof=1)), float((high - low).mean() / 2)
    longer, bias = half / (student.ppf(0.975, 49) * deviation), float((mean - truth).mean())
    with capsys.disabled():
        print(
            f"\n{name}, {repetitions} repetitions: covered {covered:.4f} (truth below {below:.4f}, above {above:.4f}); "
            f"mean half-width {half:.4f}, {longer:.3f} of t times the deviation {deviation:.4f}; "
            f"mean error {truth.mean():.4f}, estimate less truth {bias:+.4f} +- {deviation / repetitions**0.5:.4f}"
        )
    assert covered >= least
    assert longer <= 1.5


def once(split: Split, repetition: int) -> tuple[float, float, float, float]:
    """Return (estimate, low, high, the same maps' error in the population), means over supported targets."""
    people = population(0)
    pair = pair_of(split, people.draw(len(split.cell), seeds.stream(repetition, "row intervals, rows")))
    score = span_error.measure(pair)
    truth = torch.stack([people.error(*each) for each in maps_of(pair)]).mean(0)
    supported = score.arrays["supported"]
    return score.value, score.values["low"], score.values["high"], float(truth[supported].mean())
