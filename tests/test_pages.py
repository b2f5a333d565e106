"""What the pages and docstrings show a reader to type works as shown."""

import doctest
import re
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import yaml

import widthwise
from widthwise.config import load_study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_readme_example_prints_what_the_readme_says(capsys):
    (example,), (printed, *_) = blocks("README.md", "python"), blocks("README.md", "text")
    exec(example, {})
    assert capsys.readouterr().out == printed


def test_the_readme_study_file_is_one():
    (text,) = blocks("README.md", "yaml")
    assert len(load_study(yaml.safe_load(text)).studies) == 2


def test_the_network_that_the_docs_add_is_one():
    names = {"__name__": "my_net"}
    exec(next(block for block in blocks("docs/adding.md", "python") if "def build" in block), names)
    network = names["build"]((1, 8, 8), 10, Fraction(1, 4), members=3)
    assert network(torch.zeros(3, 5, 1, 8, 8)).shape == (3, 5, 10)
    assert network.n_features == names["widths"](Fraction(1, 4))[-1]


@pytest.mark.parametrize("name", widthwise.__all__)
def test_the_examples_of_a_docstring_print_what_it_says(name):
    for example in doctest.DocTestFinder().find(getattr(widthwise, name), name):
        assert not doctest.DocTestRunner().run(example).failed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"
