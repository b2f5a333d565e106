"""What every measure keeps to: a file in the folder is found and tested with no edit here.

A measure declares what leaves its value alone; each of those must, and every other transformation must change it.
One that reads no target cannot change with it, and so declares the transformations of the target.
"""

import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from widthwise import family
from widthwise.columns import Concatenation
from widthwise.errors import NumericsWarning
from widthwise.measures.base import TRANSFORMATIONS, Score
from widthwise.pairs import Joint, Pair
from widthwise.splits import k_fold

ROOT = Path(__file__).parents[2]
EVERY = family.names("measures")
NAMES = [name for name in EVERY if {"networks"} != family.member("measures", name).NEEDS]  # that are asked of a pair
n, p, t, classes = 400, 12, 6, 3


def features(seed: int) -> dict[str, torch.Tensor]:
    """Return a source of two networks, a target and logits, of unequal sizes and unequally well spanned."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden = normal(n, 8)
    source = (hidden[:, :6] @ normal(6, p)).relu() * torch.linspace(0.3, 3, p)
    target = (hidden @ normal(8, t)).relu() * torch.linspace(0.5, 8, t)
    logits = hidden @ normal(8, classes) + normal(n, classes)
    return {"a": source[:, : p // 2], "b": source[:, p // 2 :], "t": target, "a logits": logits, "b logits": logits}


def asked(seed: int, transform=lambda groups: groups) -> Pair:
    groups = features(seed)
    labels = (groups["a logits"] + torch.randn(n, classes, generator=torch.Generator().manual_seed(seed + 1))).argmax(1)
    groups = {name: Concatenation([x]) for name, x in transform(groups).items()}
    joint = Joint(groups, k_fold("validation", torch.arange(n)), labels)
    return Pair(joint, ("a", "b"), ("t",), ("a logits", "b logits"))


def rotation(size: int) -> torch.Tensor:
    square = torch.randn(size, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    return torch.linalg.qr(square).Q


def of_source(change):
    def transform(groups):
        changed = change(torch.cat([groups["a"], groups["b"]], 1))
        return groups | {"a": changed[:, : p // 2], "b": changed[:, p // 2 :]}

    return transform


def of_target(change):
    return lambda groups: groups | {"t": change(groups["t"])}


# What is not declared must change under one of several, for an accuracy can stay what it was by chance.
CHANGES = {
    "source rotation": (of_source(lambda X: X @ rotation(p)),),
    "source scale": (of_source(lambda X: 1e3 * X), of_source(lambda X: 1e-3 * X)),
    "source translation": (of_source(lambda X: X + torch.linspace(-50, 50, p)),),
    "source column scale": tuple(of_source(lambda X, k=k: X * torch.logspace(-6, 0, p).roll(k)) for k in (0, 5, 9)),
    "target rotation": (of_target(lambda Y: Y @ rotation(t)),),
    "target column scale": (of_target(lambda Y: Y * torch.logspace(-2, 2, t)),),
    "target translation": (of_target(lambda Y: Y + torch.linspace(-50, 50, t)),),
}


def value(name: str, pair: Pair) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericsWarning)
        return family.member("measures", name).measure(pair).value


def reads_the_target(name: str, seed: int) -> bool:
    noise = torch.randn(n, t, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return value(name, asked(seed)) != value(name, asked(seed, of_target(lambda Y: noise)))


def test_every_transformation_is_tried():
    assert set(CHANGES) == set(TRANSFORMATIONS)


@pytest.mark.parametrize("name", EVERY)
def test_a_measure_exports_what_the_family_needs(name):
    member = family.member("measures", name)
    assert isinstance(member.VERSION, int)
    assert member.VERSION >= 1
    assert set(member.NEEDS) <= {"moments", "features", "labels", "logits"} or set(member.NEEDS) == {"networks"}
    assert set(member.INVARIANT_TO) <= set(TRANSFORMATIONS)
    assert member.__doc__
    assert member.measure.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_gives_a_finite_score_and_the_same_again(name, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumericsWarning)
        first, second = (family.member("measures", name).measure(asked(seed)) for _ in range(2))
    assert isinstance(first, Score)
    assert torch.isfinite(torch.tensor(first.value))
    assert first.value == second.value
    assert all(isinstance(array, torch.Tensor) for array in first.arrays.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_asked_twice_of_one_pair_answers_the_same(name, seed):
    pair = asked(seed)
    assert value(name, pair) == value(name, pair)
    assert value(name, replace(pair, among=("t", "a"))) == pytest.approx(value(name, pair), rel=1e-12)


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_measure_is_invariant_to_what_it_declares_and_to_nothing_else(name, transformation, seed):
    before, after = value(name, asked(seed)), [value(name, asked(seed, change)) for change in CHANGES[transformation]]
    if transformation in family.member("measures", name).INVARIANT_TO:
        assert after == pytest.approx([before] * len(after), abs=1e-7)
    elif transformation.startswith("target") and not reads_the_target(name, seed):
        pytest.fail(f"{name} reads no target; declare {transformation}")
    else:
        assert max(abs(x - before) for x in after) > 1e-5


THROW_AWAY = '''"""The share of the target's variance that lies in its first feature."""

from widthwise.measures.base import Score

VERSION = 1
NEEDS = frozenset({"moments"})
INVARIANT_TO = frozenset(
    {"source rotation", "source scale", "source translation", "source column scale", "target translation"TOO}
)


def measure(pair):
    """Return it."""
    moments = pair.joint.moments(pair.joint.split.score_cells)
    squares = moments.centred_squares[pair.target_columns]
    return Score(float(squares[0] / squares.sum()))
'''


@pytest.mark.parametrize(("claim", "passes"), [("", True), (', "target rotation"', False)])
def test_a_new_file_is_a_measure_and_is_held_to_what_it_declares(tmp_path, claim, passes):
    shutil.copytree(ROOT / "src" / "widthwise", tmp_path / "widthwise", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "widthwise" / "measures" / "throw_away.py").write_text(THROW_AWAY.replace("TOO", claim))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "throw_away and not new_file", __file__]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
    ran = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ("10 passed" in ran.stdout) == passes, ran.stdout
    assert ("target rotation" in ran.stdout) == (not passes)
