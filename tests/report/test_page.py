"""The page of a report: whole or not at all, the same bytes again, safe with any text, quiet in a browser."""

import csv
import dataclasses
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from example import empty, example, small

from widthwise.errors import StorageError, UsageError
from widthwise.report import drawing, page, theme
from widthwise.results import Finding, Results, Row

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=8000", "--dump-dom"),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return page.write(small(), tmp_path_factory.mktemp("reports") / "small")


@pytest.fixture
def by_hand(monkeypatch):
    monkeypatch.setattr(drawing, "converter", lambda: None)


class Reader(html.parser.HTMLParser):
    """Collects the tags, attributes and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_and_the_same_tables_and_figures_lie_side_by_side(written):
    names = {str(path.relative_to(written.parent)) for path in written.parent.rglob("*") if path.is_file()}
    assert written.name == "index.html"
    for name in ("scores", "networks", "findings", "history", "feature_errors", "summary_width_gap"):
        assert {f"{name}.csv", f"{name}.json"} <= names
    for name in ("span_error_width_gap", "span_gap_width_gap", "probe_accuracy_width_gap", "training_curves"):
        assert {f"figures/{name}.svg", f"figures/{name}.vl.json"} <= names
    assert json.loads((written.parent / "scores.json").read_text()) == json.loads(small().to_json())


def test_the_page_asks_the_network_for_nothing(written):
    reader = Reader(written.read_text("utf-8"))
    for tag, name, value in reader.attributes:
        if name in ("src", "href", "action", "poster", "srcset", "data"):
            assert (tag, name, value[:1]) == ("a", "href", "#")
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|import\(", written.read_text("utf-8"))
    assert not {"link", "iframe", "object", "img"} & set(reader.tags)
    assert ("meta", "http-equiv", "Content-Security-Policy") in reader.attributes


def test_findings_figures_tables_definitions_citation_and_provenance_are_there(written):
    text = " ".join(Reader(written.read_text("utf-8")).words)
    for words in (
        *("ResNet-18 on CIFAR-10, small", "below resolution", "Sixty-four 1/8-width networks", "−0.0130"),
        *("Figure 1. Span error", "12 networks", "span_gap", "within_class", "arXiv:2407.00968", "@software"),
        *("widthwise run recipes/paper-resnet18.yaml", "torch 2.13.0", "kind: resnet18"),
    ):
        assert words in text


def test_every_id_is_used_once_and_every_link_leads_somewhere(written):
    attributes = Reader(written.read_text("utf-8")).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for _, name, value in attributes if name == "href"} <= set(ids)


def test_every_colour_of_the_figures_turns_in_the_dark(written):
    text = written.read_text("utf-8")
    for light, dark in theme.COLOURS.values():
        assert f'figure svg [fill="{light}"] {{ fill: {dark}; }}' in text


@pytest.mark.usefixtures("by_hand")
def test_the_same_results_give_the_same_bytes(tmp_path):
    first = {path: path.read_bytes() for path in page.write(small(), tmp_path / "a").parent.rglob("*.*")}
    again = {path: path.read_bytes() for path in page.write(small(), tmp_path / "a").parent.rglob("*.*")}
    assert first == again


def test_the_same_results_give_the_same_bytes_with_vega_too():
    results = dataclasses.replace(small(), rows=small().rows[:60], feature_errors=(), networks=())
    assert page.files(results) == page.files(results)


def test_without_the_extra_the_page_has_plain_figures_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    text = page.write(small(), tmp_path / "report").read_text("utf-8")
    assert 'pip install "widthwise[report]"' in text
    assert text.count("<figure") == 6
    assert (tmp_path / "report/figures/span_error_width_gap.svg").read_text().startswith("<svg")


def test_with_the_extra_the_page_does_not_speak_of_it(written):
    if drawing.converter() is None:
        pytest.skip("the report extra (vl-convert) is not installed")
    assert "widthwise[report]" not in written.read_text("utf-8")


@pytest.mark.usefixtures("by_hand")
def test_text_of_any_kind_stays_text():
    nasty = '</title><script>alert("1")</script> & Größe α ½ 🙂'
    row = Row(nasty, "span_error", "mean", "validation", True, "1/2", "features", "2 x 1/2", "1", value=0.1)
    finding = Finding(nasty, nasty, nasty, nasty, (nasty,))
    network = dataclasses.replace(example().networks[0], key=nasty, kind=nasty, width=nasty)
    results = Results(nasty, {"title": nasty}, (row,), (finding,), networks=(network,), provenance={nasty: nasty})
    files = page.files(results)
    assert Reader(files["index.html"]).tags.count("script") == 1
    assert "Größe α ½ 🙂" in files["index.html"]
    assert all(re.fullmatch(r"(figures/)?[\w.-]+", name) for name in files)


@pytest.mark.usefixtures("by_hand")
def test_results_of_little_still_make_a_page(tmp_path):
    one = dataclasses.replace(empty(), rows=(Row("own", "own_measure", "own_statistic", value=float("nan")),))
    alone = dataclasses.replace(empty(), networks=example(networks=1).networks)
    for name, results in (("empty", empty()), ("one", one), ("alone", alone)):
        text = page.write(results, tmp_path / name).read_text("utf-8")
        assert "no claim was put to a verdict" in text
        assert "NaN" not in text.partition("<script>")[0]
    assert "own_measure" in (tmp_path / "one/index.html").read_text()
    assert "1 network<" in (tmp_path / "alone/index.html").read_text()


@pytest.mark.usefixtures("by_hand")
def test_a_new_report_takes_the_old_ones_place_and_leaves_what_a_reader_added(tmp_path):
    old = page.write(small(), tmp_path / "report").parent
    (old / "notes.txt").write_text("mine")
    page.write(empty("Second"), old)
    assert "Second" in (old / "index.html").read_text()
    assert (old / "notes.txt").read_text() == "mine"
    assert not (old / "figures").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


@pytest.mark.usefixtures("by_hand")
def test_a_folder_that_is_no_report_is_refused_and_left_alone(tmp_path):
    (tmp_path / "index.html").write_text("my home page")
    with pytest.raises(UsageError, match="not a report; give a new or an empty folder"):
        page.write(empty(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


@pytest.mark.usefixtures("by_hand")
def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    old = page.write(empty("First"), tmp_path / "report")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StorageError, match="No space left on device; nothing was changed"):
        page.write(empty("Second"), old.parent)
    assert "First" in old.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


PROBE = """
<script>
(async () => {
  const saved = {}, blobs = {}, make = URL.createObjectURL;
  URL.createObjectURL = blob => { const url = make.call(URL, blob); blobs[url] = blob; return url; };
  HTMLAnchorElement.prototype.click = function () { saved[this.download] = blobs[this.href]; };
  const wait = () => new Promise(done => setTimeout(done, 1500));
  const column = k => all("#scores tbody tr:not([hidden])").map(row => exact(row.cells[k]));
  const found = { all: document.querySelector("[data-count]").textContent };
  document.querySelector("[data-csv=scores]").click();
  all("figure:first-of-type [data-figure]").forEach(button => button.click());
  await wait();
  const filter = document.querySelector("[data-filter=scores]");
  filter.value = "span_gap 1/8 parameters validation networks";
  filter.dispatchEvent(new Event("input"));
  found.filtered = document.querySelector("[data-count]").textContent;
  filter.value = "span_error mean_all";
  filter.dispatchEvent(new Event("input"));
  const head = all("#scores th").find(cell => cell.dataset.name === "value");
  head.querySelector("button").click();
  found.up = column(head.cellIndex);
  head.querySelector("button").click();
  found.down = column(head.cellIndex);
  found.saved = Object.entries(saved).map(([name, blob]) => [name, blob.type, blob.size]);
  found.csv = await saved["scores.csv"].text();
  found.svg = await saved["span_error_width_gap.svg"].text();
  const asked = performance.getEntriesByType("resource").map(entry => entry.name);
  found.asked = asked.filter(name => !name.startsWith("blob:"));
  found.wide = document.documentElement.scrollWidth <= innerWidth;
  const shown = document.createElement("pre");
  shown.id = "probe";
  shown.textContent = JSON.stringify(found);
  document.body.append(shown);
})();
</script>
"""


@pytest.fixture(scope="module")
def browsed(written, tmp_path_factory):
    """The page in a browser without a network, after a reader has tried its buttons."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    folder = tmp_path_factory.mktemp("browser")
    copy = folder / "index.html"
    copy.write_text(written.read_text("utf-8").replace("</body>", f"{PROBE}</body>"), "utf-8")
    for attempt in range(3):  # a browser on a busy machine may give up before the page has answered
        command = [CHROMIUM, *QUIET, f"--user-data-dir={folder / f'profile{attempt}'}"]
        ran = subprocess.run([*command, copy.as_uri()], capture_output=True, text=True, timeout=120, check=False)
        dom = Reader(ran.stdout)
        probe = next((words for words in reversed(dom.words) if words.startswith('{"all"')), None)
        if probe:
            break
    assert probe, ran.stderr[-2000:]
    return json.loads(probe), [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


def test_in_a_browser_nothing_is_logged_and_nothing_asked_for(browsed):
    found, console = browsed
    assert console == []
    assert found["asked"] == []
    assert found["wide"]


def test_in_a_browser_the_score_table_filters_and_sorts(browsed):
    found, _ = browsed
    rows = len(small().rows)
    assert found["all"] == f"{rows} of {rows} rows"
    assert found["filtered"] == f"1 of {rows} rows"
    up = [float(value) for value in found["up"]]
    assert up == sorted(up)
    assert found["down"] == found["up"][::-1]
    assert len(up) == 21


def test_in_a_browser_every_table_and_figure_can_be_saved(browsed, written):
    found, _ = browsed
    kinds = {name: kind for name, kind, size in found["saved"] if size > 1000}
    assert kinds == {"scores.csv": "text/csv", "span_error_width_gap.svg": "image/svg+xml",
                     "span_error_width_gap.png": "image/png"}  # fmt: skip
    assert found["svg"].startswith("<svg")
    assert theme.LIGHT["blue"] in found["svg"]
    saved = list(csv.DictReader(found["csv"].splitlines()))
    beside = list(csv.DictReader((written.parent / "scores.csv").read_text().splitlines()))
    assert saved == beside
