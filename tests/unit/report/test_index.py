"""Proves that one page shows the exhibits of many runs, links to each, and counts the results of LiNeS."""

import json
import os
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from exhibit_run import Oracle, write_run
from toy import TASKS
from toy_run import UNTRUSTED, RunBuilder, build_run
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.report.index import build_index, common_folder

GRID = {"grid": [0.0, 0.25, "...", 1.0]}
CONTROLS = ("constant", "uniform", "equal norm", "reversed")
ARMS: dict[str, Any] = {
    "LiNeS": {"edit": "each_expert", "scaling": {"function": "linear", "alpha": GRID, "beta": "1 - alpha"}},
    "half": {"edit": "each_expert", "scaling": {"alpha": 0.5}},
    "steep": {"edit": "each_expert", "scaling": {"function": "quadratic", "alpha": 0.0, "beta": 1.0}},
}
TABLE: dict[str, Any] = {
    "kind": "table",
    "columns": {"Target": "target", "Control": "control", "beta": "beta"},
    "rows": {
        "Pre-trained": "pre-trained",
        "FT": "fine-tuned",
        "FT, halved": "half",
        "FT + LiNeS": "LiNeS",
        "steep": "steep",
        **{control: f"LiNeS, {control}" for control in CONTROLS},
    },
    "against": {
        "FT": "Pre-trained",  # neither is LiNeS
        "steep": "FT + LiNeS",  # both are
        "FT, halved": "FT + LiNeS",
        "FT + LiNeS": "FT",
        **dict.fromkeys(CONTROLS, "FT + LiNeS"),
    },
    "paper": {"FT": [90.5, 38.0, None]},
}
EXHIBITS = {
    "Table <1> | one": TABLE,
    "Curves": {"kind": "curve", "arms": ["LiNeS", "half"], "metrics": ["target", "control"]},
}
VERDICT = r"better|worse|tie"


class Page(HTMLParser):
    """Collects ids, links, and the words of each row of the table of contents."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.scripts = 0
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if tag == "a" else []
        self.scripts += tag == "script" and "type" not in found
        if tag == "table":
            self._inside = found.get("class") == "contents"
        if self._inside and tag == "tr":
            self.rows.append([])
        if self._inside and tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self._inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] = " ".join((self.rows[-1][-1] + data).split()) + " " * data.endswith(" ")

    def row(self, name: str) -> list[str]:
        return next([cell.strip() for cell in row[1:]] for row in self.rows if row[0].strip() == name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: one whose exhibits compare arms, one whose exhibits do not, and one without exhibits."""
    parent = tmp_path_factory.mktemp("many runs")
    write_run(parent / "first", name="first", arms=ARMS, exhibits=EXHIBITS, ood={})
    curves = {"Curves": EXHIBITS["Curves"]}
    write_run(parent / "at 2%", name="second", arms=ARMS, exhibits=curves, ood={}, controls=[])
    (parent / "third").mkdir()
    build_run().write(parent / "third")
    build_index([parent / name for name in ("first", "at 2%", "third")], parent)
    return parent


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def markdown(folder: Path) -> str:
    return (folder / "index.md").read_text(encoding="utf-8")


def counts(cell: str) -> dict[str, int]:
    return {word: int(n) for word, n in re.findall(rf"({VERDICT}) (\d+) of", cell)}


def expected(folder: Path, rivals: list[str]) -> Counter[str]:
    """Verdicts on LiNeS minus each rival, on targets and on controls, from the tables of the run."""
    oracle, found = Oracle(folder), Counter[str]()
    ids = {arm: {g: c["recipe_id"] for g, c in oracle.chosen(arm).items()} for arm in ("LiNeS", *rivals)}
    for own in (True, False):
        keys = [(g, t) for t in TASKS for g in TASKS if (g == t) is own]
        left, *others = ({key: ids[arm][key[0]] for key in keys} for arm in ("LiNeS", *rivals))
        found += Counter(oracle.difference(left, other).verdict for other in others)
    return found


def test_each_exhibit_counts_the_results_of_lines(folder: Path, page: Page) -> None:
    plain, controls = page.row("Table <1> | one")
    assert counts(plain) == expected(folder / "first", ["fine-tuned", "half"])
    assert counts(controls) == expected(folder / "first", [f"LiNeS, {control}" for control in CONTROLS])
    assert sum(counts(plain).values()) == 4 and sum(counts(controls).values()) == 8
    assert len(counts(plain) | counts(controls)) > 1
    assert page.row("Curves") == page.row("first") == ["", ""]


def test_a_run_whose_exhibits_compare_nothing_counts_its_verdicts(folder: Path, page: Page) -> None:
    plain, controls = page.row("second")
    steep = expected(folder / "at 2%", ["fine-tuned", "half"])  # steep is measured against the same two
    assert sum(counts(plain).values()) == 2 * steep.total() and controls == ""
    merged = [row for row in page.rows if row[0].strip() == "a toy run"]
    assert len(merged) == 1 and counts(merged[0][1]) and counts(merged[0][2])


def test_the_total_is_on_top(folder: Path, page: Page, markdown: str) -> None:
    for column, rival in ((1, "models without LiNeS"), (2, "its matched controls")):
        total = sum((Counter(counts(row[column])) for row in page.rows[1:]), Counter[str]())
        line = re.search(rf"^- LiNeS against {rival}: (.*)$", markdown, flags=re.M)
        assert line and counts(line[1].replace(":", "")) == total


def test_one_comparison_names_its_columns(tmp_path: Path) -> None:
    table = TABLE | {"against": {"FT + LiNeS": "FT"}}
    build_index([write_run(tmp_path / "run", arms=ARMS, exhibits={"T": table}, ood={})], tmp_path)
    cell = Page((tmp_path / "index.html").read_text(encoding="utf-8")).row("T")[0]
    assert re.fullmatch(rf"({VERDICT}) (Target · Control|Target ({VERDICT}) Control|Control ({VERDICT}) Target)", cell)


def test_runs_and_exhibits_keep_their_order(page: Page, markdown: str) -> None:
    names = [row[0].strip() for row in page.rows[1:]]
    assert names[:5] == ["first", "Table <1> | one", "Curves", "second", "Curves"]
    assert names[5] == "a toy run" and names[6].startswith("One expert edited") and len(names) == 8
    headings = re.findall(r"^#{2,3} (.*)$", markdown, flags=re.M)[1:]
    assert headings[:5] == ["first", "Table &lt;1&gt; \\| one", "Curves", "second", "Curves"]


def test_every_link_leads_somewhere(folder: Path, page: Page, markdown: str) -> None:
    inner = [link[1:] for link in page.links if link.startswith("#")]
    assert set(inner) <= set(page.ids) and len(page.ids) == len(set(page.ids))
    outer = [link for link in page.links if not link.startswith("#")]
    assert outer == ["first/report.html", "at%202%25/report.html", "third/report.html"]
    anchors = re.findall(r'<a id="([^"]+)"></a>', markdown)
    assert set(re.findall(r"\]\(#([^)]+)\)", markdown)) == set(anchors)


def test_the_page_is_one_safe_file(folder: Path, page: Page, markdown: str) -> None:
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert page.scripts == 1 and len(html.encode()) < 1_000_000 and "default-src 'none'" in html
    assert "<script>alert" not in html and "<script>" not in markdown
    assert UNTRUSTED.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in html
    assert not list(folder.glob("*.partial"))


def test_markdown_rows_have_as_many_cells_as_their_head(markdown: str) -> None:
    width = 0
    for line in markdown.splitlines():
        bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert bars == width or 0 in (bars, width)
        width = bars


def test_an_interrupted_run_is_marked_and_shown_so_far(tmp_path: Path) -> None:
    """One was stopped in its search, one after the pre-trained model was scored."""
    full, first = build_run(), RunBuilder()
    first.candidates, first.samples = full.candidates[:1], full.samples
    first.scores = [score for score in full.scores if score["arm"] == "pre-trained"]
    full.scores = [score for score in full.scores if score["split"] == "val"]
    full.samples = {t: {k: v for k, v in kept.items() if k[1] == "val"} for t, kept in full.samples.items()}
    for name, built in (("searching", full), ("starting", first)):
        (tmp_path / name).mkdir()
        provenance = built.write(tmp_path / name) / "provenance.json"
        known = json.loads(provenance.read_text(encoding="utf-8")) | {"name": name, "complete": False, "seconds": {}}
        provenance.write_text(json.dumps(known), encoding="utf-8")
    build_index([tmp_path / "searching", tmp_path / "starting"], tmp_path)
    markdown = (tmp_path / "index.md").read_text(encoding="utf-8")
    assert markdown.count("This run is not complete") == 2 and ", 1 shard failed, not complete." in markdown
    assert "Validation split" in markdown and "Nothing to show yet" in markdown and "nothing to compare" in markdown
    assert "](#run-1)" in markdown and " not complete |" in markdown


def test_the_index_is_in_the_deepest_folder_that_contains_all_runs(folder: Path, tmp_path: Path) -> None:
    apart = write_run(tmp_path / "deep" / "er" / "run", arms=ARMS, exhibits={}, ood={}, controls=[])
    (tmp_path / "linked").symlink_to(folder)
    assert common_folder([apart, tmp_path / "deep" / "run"]) == (tmp_path / "deep").resolve()
    assert common_folder([apart, apart / "within"]) == apart.parent.resolve()
    common = common_folder([apart, tmp_path / "linked" / "first"])
    assert common == Path(os.path.commonpath([tmp_path.resolve(), folder.resolve()]))
    html, _, _ = build_index([apart, tmp_path / "linked" / "first"], tmp_path)
    outer = [link for link in Page(html.read_text(encoding="utf-8")).links if not link.startswith("#")]
    assert outer[0] == "deep/er/run/report.html" and (tmp_path / outer[1].replace("%20", " ")).parent.is_dir()
    with pytest.raises(ValueError, match="needs a folder other than / that contains them all"):
        common_folder([Path("/here/run"), Path("/there/run")])


@pytest.mark.slow
def test_reports_of_several_runs_write_the_index(folder: Path, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, name=name, arms=ARMS, exhibits=EXHIBITS, ood={}) for name in ("a", "b")]
    found = CliRunner().invoke(app, ["report", *map(str, [*runs, runs[0]])])
    assert found.exit_code == 0, found.output
    text = (tmp_path / "index.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, flags=re.M)[1:] == ["a", "b"]
    assert all((run / "report.html").is_file() for run in runs)
    assert "Where LiNeS improves, ties or worsens" in found.output and "index.html" in found.output


def test_runs_of_one_name_have_their_folders_in_their_names(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b c"):
        shutil.copytree(folder / "first", tmp_path / name)
    html, markdown, table = build_index([tmp_path / "a", tmp_path / "b c"], tmp_path)
    assert [row[0].text for row in table.rows if not row[0].text.startswith(" ")] == ["first (a)", "first (b c)"]
    assert "## first (b c)" in markdown.read_text(encoding="utf-8")
    assert html.read_text(encoding="utf-8").count("first (b c)") == 3  # in the navigation, the contents and the heading


def test_a_folder_without_a_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", arms=ARMS, exhibits=EXHIBITS, ood={})
    (tmp_path / "index.html").write_text("of an earlier time")
    found = CliRunner().invoke(app, ["report", str(run), str(tmp_path / "index.html"), str(tmp_path)])
    output = " ".join(found.output.split())
    assert found.exit_code == 2 and f"{tmp_path}/index.html, {tmp_path}: no run here" in output
    assert "FOLDER/*/" in output
    assert not (run / "report.html").exists() and not (tmp_path / "index.md").exists()
