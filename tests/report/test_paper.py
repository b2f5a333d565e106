"""The paper's tables: ours and the published values side by side, never mixed; and how to cite."""

import re

from widthwise.report import cite, paper, published
from widthwise.report.table import to_latex
from widthwise.results import Results, Row


def shuffled(kind: str) -> Results:
    where = {"trained": True, "matching": "parameters", "target": "1"}
    rows = [
        Row("shuffled", "span_error", "mean", split, width=width, source=source, value=value, **where)
        for split, by_width in {"validation": (0.1, 0.15), "shuffled": (0.12, 0.16)}.items()
        for width, source, value in zip(("1", "1/4"), ("1", "16 x 1/4"), by_width, strict=True)
    ]
    return Results("a study", {"network": {"kind": kind}}, tuple(rows))


def table(name: str, results: Results) -> dict:
    (found,) = [t for t in paper.tables(results) if t.name == name]
    return {row[:2]: dict(zip(found.header, row, strict=True)) for row in found.rows}


def test_published_span_errors_stand_in_rows_of_their_own_with_gaps_computed_from_them():
    found = table("paper_tables_4_5", shuffled("resnet18"))
    ours = found["ours", "validation"]
    assert (ours["another wide"], ours["FSE 1/4"]) == (0.1, 0.15)
    assert abs(ours["FSG 1/4"] - 0.05) < 1e-12
    theirs = found["published, Table 5", "validation"], found["published, Table 5", "test"]
    assert [round(row["FSG 1/4"], 4) for row in theirs] == [0.0059, -0.0036]
    assert len([key for key in found if key[0] != "ours"]) == len(published.TABLES_4_5) == 8


def test_an_architecture_that_the_paper_has_not_gets_no_published_values():
    found = table("paper_tables_4_5", shuffled("mlp"))
    assert {key[0] for key in found} == {"ours"}
    names = [t.name for t in paper.tables(shuffled("mlp"))]
    assert "paper_matching" not in names


def test_the_papers_counts_stand_beside_ours():
    (found,) = [t for t in paper.tables(shuffled("vgg16")) if t.name == "paper_matching"]
    assert found.rows == (("1/4", 16, 16),)


def test_a_table_for_latex_escapes_what_latex_reads():
    (found,) = [t for t in paper.tables(shuffled("vgg16")) if t.name == "paper_matching"]
    text = to_latex(found)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert r"\begin{tabular}{lrr}" in text
    assert r"\label{tab:paper_matching}" in text
    assert r"1/4 & 16 & 16 \\" in text
    assert not re.search(r"(?<!\\)[%#_]", text.replace("paper_matching", ""))


def test_citations_name_the_paper_and_the_version():
    for text in (cite.bibtex("1.2.3"), cite.ris("1.2.3")):
        assert "2407.00968" in text
        assert "1.2.3" in text
        assert "Jelassi" in text
