"""The report: one page that opens offline, and beside it the same tables and figures as files.

index.html                everything, in one file that asks the network for nothing
STUDY.html                the same of one study, where there are several
scores.csv, scores.json   the tables: scores, networks, findings, history, feature_errors, summary_STUDY, paper_TABLE
summary_STUDY.tex         the short ones for LaTeX
study.yaml                the study that was run, as a file
cite.bib, cite.ris        how to cite
figures/NAME.svg          the figures, and their specifications as NAME.vl.json
"""

import dataclasses
import importlib.metadata
import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup

from widthwise.config import digest
from widthwise.report import cite, drawing, folder, paper, theme
from widthwise.report.comparison import distinct, slug
from widthwise.report.figures import Figure, figures
from widthwise.report.spec import stacked
from widthwise.report.table import Cell, Table, finite, text, to_csv, to_json, to_latex
from widthwise.report.tables import feature_errors, findings, history, networks, score_table, summaries
from widthwise.results import Results

STUDY = "study.yaml"
OF_A_STUDY = ("rows", "findings", "feature_errors")


@dataclass(frozen=True)
class Drawn:
    """A figure with its SVG, as wide as the page and for a narrow screen."""

    figure: Figure
    wide: str
    narrow: str


def write(results: Results, into: Path) -> Path:
    """Write the report of `results` into a folder, whole or not at all, and return the path of its page.

    Raises:
        UsageError: if the folder holds something that is not a report.
        StorageError: if it cannot be written.
    """
    return folder.replace(Path(into), files(results)) / "index.html"


def place(results: Results, reports: Path, name: str) -> Path:
    """Return the folder of a report: named after its study or, where another study's lies so, with a digest behind."""
    found = reports / name
    kept, own = found / STUDY, _study(results)
    if not kept.is_file() or kept.read_text("utf-8") == own:
        return found
    return reports / f"{name}-{digest(own, 6)}"


def files(results: Results) -> dict[str, str]:
    """Return every file of the report by its path inside the folder: the same text for the same results."""
    drawn = [
        Drawn(figure, drawing.draw(figure.spec), drawing.draw(stacked(figure.spec))) for figure in figures(results)
    ]
    studies = distinct(row.study for row in results.rows)
    studies = studies if len(studies) > 1 else []
    found = {"index.html": render(results, drawn, others=[(f"{slug(study)}.html", study) for study in studies])}
    found[STUDY] = _study(results)
    for study in studies:
        own = [each for each in drawn if each.figure.study == study]
        found[f"{slug(study)}.html"] = render(only(results, study), own, others=[("index.html", "all studies")])
    beside = [
        score_table(results),
        networks(results),
        findings(results),
        history(results),
        feature_errors(results),
    ]
    short = [*summaries(results), *paper.tables(results)]
    for table in [*beside, *short]:
        found[f"{table.name}.csv"] = to_csv(table)
        found[f"{table.name}.json"] = to_json(table)
    found |= {f"{table.name}.tex": to_latex(table) for table in short}
    found |= {"cite.bib": cite.bibtex(_version()), "cite.ris": cite.ris(_version())}
    for each in drawn:
        found[f"figures/{each.figure.name}.svg"] = each.wide
        found[f"figures/{each.figure.name}.vl.json"] = json.dumps(each.figure.spec, indent=1)
    return found


def only(results: Results, study: str) -> Results:
    """Return what one study says, and the networks."""
    parts = {name: tuple(p for p in getattr(results, name) if p.study == study) for name in OF_A_STUDY}
    return dataclasses.replace(results, title=f"{results.title}: {study.replace('_', ' ')}", **parts)


def render(results: Results, drawn: list[Drawn], others: Sequence[tuple[str, str]] = ()) -> str:
    """Return the page; `others` are the pages beside it, each a file's name and what it is of."""
    source = importlib.resources.files("widthwise.report").joinpath("page.html").read_text("utf-8")
    page = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    ).from_string(source)
    return page.render(
        title=results.title,
        version=_version(),
        findings=results.findings,
        others=[(name, of.replace("_", " ")) for name, of in others],
        summaries=summaries(results),
        paper=paper.tables(results),
        bibtex=cite.bibtex(_version()),
        ris=cite.ris(_version()),
        figures=[_inlined(each) for each in drawn],
        by_hand=drawing.converter() is None,
        networks=networks(results),
        scores=_value_first(score_table(results)),
        feature_errors=bool(results.feature_errors),
        history=bool(history(results).rows),
        provenance=list(_lines(results.provenance)),
        study=_study(results),
        recolour=Markup(theme.recolour()),
        cells=_cells,
        columns=_columns,
        typeset=_typeset,
    )


def _study(results: Results) -> str:
    """Return the study as a file."""
    plain = _plain(results.study)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=88)


def _inlined(each: Drawn) -> dict:
    """Return a figure for the template, its SVGs made to stand beside others."""
    figure = each.figure
    wide, narrow = (
        Markup(drawing.inline(svg, f"{figure.name}-{kind}", figure.title))
        for kind, svg in (("wide", each.wide), ("narrow", each.narrow))
    )
    return {
        "name": figure.name,
        "title": figure.title,
        "caption": figure.caption,
        "wide": wide,
        "narrow": narrow,
    }


def _value_first(table: Table) -> Table:
    """Return the score table with the numbers before the seed, so that they are in sight."""
    late = ("seed", "method", "df", "n", "p")
    order = sorted(range(len(table.header)), key=lambda k: table.header[k] in late)
    rows = tuple(tuple(row[k] for k in order) for row in table.rows)
    return dataclasses.replace(table, header=tuple(table.header[k] for k in order), rows=rows)


def _cells(table: Table) -> Iterator[list[Markup]]:
    """Return the cells of each row as HTML: what is shown and, where that differs, the value itself."""
    for row, shown in zip(table.rows, table.texts, strict=True):
        yield [_cell(value, words) for value, words in zip(row, shown, strict=True)]


def _cell(value: Cell, shown: str) -> Markup:
    value = finite(value)
    exact = "" if value is None else str(value)
    shown = _typeset(shown) if isinstance(value, int | float) and not isinstance(value, bool) else shown
    if shown == exact:
        return Markup("<td>{}").format(shown)
    return Markup('<td data-v="{}">{}').format(exact, shown)


def _columns(table: Table) -> Markup:
    """Return the CSS of a table's columns: numbers to the right, columns that nothing fills left out."""
    rules = []
    for k, right in enumerate(table.numeric):
        name = f"#{table.name} :is(th, td):nth-child({k + 1})"
        if right:
            rules.append(f"{name} {{ text-align: right; }}")
        if k not in table.shown:
            rules.append(f"{name} {{ display: none; }}")
    return Markup("\n".join(rules))


def _typeset(words: str) -> str:
    """Return words with true minus signs, times signs and arrows, and no break before a %."""
    words = words.replace(" -> ", " → ")
    words = re.sub(r"(?<=\d) %", "\N{NARROW NO-BREAK SPACE}%", words)
    words = re.sub(r"(?<![\w.)\]])-(?=[\d.])", "−", words)
    return re.sub(r"(\d) x (\d)", r"\1 × \2", words)


def _lines(provenance: Mapping) -> Iterator[tuple[str, str]]:
    """Return where the numbers come from, a name and one text each."""
    for name, value in provenance.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {_word(part)}" for key, part in value.items() if part is not None)
        elif isinstance(value, list | tuple):
            value = ", ".join(_word(part) for part in value)
        yield str(name).replace("_", " "), _word(value)


def _word(value) -> str:
    return text(value) if isinstance(value, float) else str(value)


def _plain(value):
    """Return a study as YAML's own kinds; what is none of them, such as a width, as its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _version() -> str:
    try:
        return importlib.metadata.version("widthwise")
    except importlib.metadata.PackageNotFoundError:
        return "0"
