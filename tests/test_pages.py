"""What the pages and docstrings show a reader to type works as shown."""

import doctest
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import widthwise
from widthwise.config import load_study
from widthwise.data.base import validate
from widthwise.pairs import Joint, Pair, concatenate
from widthwise.splits import k_fold

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_readme_example_prints_what_the_readme_says(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it leaves its files
    (example,), (printed, *_) = blocks("README.md", "python"), blocks("README.md", "text")
    exec(example, {})
    assert capsys.readouterr().out == printed


def test_the_estimator_against_that_of_scikit_learn_prints_what_the_page_says(capsys):
    (example,), (printed,) = blocks("docs/estimator.md", "python"), blocks("docs/estimator.md", "text")
    exec(example, {})
    assert capsys.readouterr().out == printed


def test_the_readme_study_file_is_one():
    (text,) = blocks("README.md", "yaml")
    assert len(load_study(yaml.safe_load(text)).studies) == 3


def member(function: str) -> dict:
    """Return the names of the member that docs/adding.md adds, the one that has `function`."""
    names = {"__name__": "mine"}
    exec(next(block for block in blocks("docs/adding.md", "python") if f"def {function}" in block), names)
    return names


def test_the_network_that_the_docs_add_is_one():
    names = member("build")
    network = names["build"]((1, 8, 8), 10, Fraction(1, 4), members=3)
    assert network(torch.zeros(3, 5, 1, 8, 8)).shape == (3, 5, 10)
    assert network.n_features == names["widths"](Fraction(1, 4))[-1]


def test_the_data_set_that_the_docs_add_is_one(tmp_path):
    images, labels = np.zeros((20, 1, 28, 28), np.uint8), np.arange(20) % 10
    (tmp_path / "my_data").mkdir()
    parts = {"train": images, "train_labels": labels, "test": images, "test_labels": labels}
    np.savez(tmp_path / "my_data" / "images.npz", **parts)
    validate(member("read")["read"](tmp_path), "my_data")


def test_the_measure_that_the_docs_add_is_one():
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    sides = {"source": concatenate(rows), "target": concatenate(2 * rows + 1)}
    pair = Pair(Joint(sides, k_fold("validation", torch.arange(50))), ("source",), ("target",))
    assert member("measure")["measure"](pair).value == pytest.approx(1)


@pytest.mark.parametrize("name", widthwise.__all__)
def test_the_examples_of_a_docstring_print_what_it_says(name):
    for example in doctest.DocTestFinder().find(getattr(widthwise, name), name):
        assert not doctest.DocTestRunner().run(example).failed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"
