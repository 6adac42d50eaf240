"""Proves that a report shows the numbers of the tables in one safe self-contained file, and in Markdown too."""

import base64
import gzip
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs_version
from toy_run import UNTRUSTED, RunBuilder, build_run

from pipeline.report.data import estimates
from pipeline.report.page import build, build_of, summary, summary_of
from pipeline.report.rendering.render import escape_markdown, html, plotly_js

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Balance(HTMLParser):
    """Collects attributes, checks nesting, and keeps text that is not script or style."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture(scope="module")
def written(finished_run: Path) -> tuple[str, str]:
    html, markdown = build(finished_run)
    assert (html.name, markdown.name) == ("report.html", "report.md")
    assert not list(finished_run.glob("*.partial"))
    return html.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(written: tuple[str, str]) -> Balance:
    parser = Balance()
    parser.feed(written[0])
    assert parser.open == []
    return parser


def test_html_is_self_contained_and_small(written: tuple[str, str], parsed: Balance) -> None:
    links = [value for _, name, value in parsed.attributes if name in ("src", "href")]
    assert links and all(link.startswith("#") for link in links)
    assert len(written[0].encode()) < 1_500_000
    assert "default-src 'none'" in written[0]


def test_a_page_with_figures_holds_the_plotly_that_draws_them(written: tuple[str, str]) -> None:
    [packed] = re.findall(r'<script type="application/gzip" id="plotly">(.*?)</script>', written[0])
    library = gzip.decompress(base64.b64decode(packed))
    assert library == plotly_js()
    [version] = re.findall(rb"plotly\.js \(cartesian - minified\) v(\d+\.\d+\.\d+)", library)
    assert version.decode() == get_plotlyjs_version(), "take the file of plotly.js-cartesian-dist-min anew"


def test_a_page_without_figures_holds_no_plotly() -> None:
    assert "application/gzip" not in html("page.html.j2")


def test_untrusted_names_are_shown_but_never_run(written: tuple[str, str], parsed: Balance) -> None:
    assert "<script>alert" not in written[0]
    assert any(UNTRUSTED in text for text in parsed.text)
    outside_code = re.sub(r"```.*?```", "", written[1], flags=re.S)
    assert "<script>" not in outside_code and "&lt;script&gt;" in outside_code


def test_plots_are_json_with_the_arms_colours(written: tuple[str, str]) -> None:
    found = re.findall(r'<script type="application/json">(.*?)</script>', written[0], flags=re.S)
    specs = [json.loads(text) for text in found]
    assert len(specs) > 10 and all(spec["data"] for spec in specs)
    colours: dict[str, set[str]] = {}
    for trace in (trace for spec in specs for trace in spec["data"]):
        colours.setdefault(trace["name"], set()).add(trace.get("line", trace.get("marker", {})).get("color"))
    assert all(len(found - {None}) <= 1 for found in colours.values())


def test_markdown_has_the_same_cells(written: tuple[str, str], parsed: Balance) -> None:
    numbers = set(re.findall(r"\d+\.\d \[[^\]]+\]", " ".join(" ".join(parsed.text).split())))
    assert len(numbers) > 50
    assert all(number in written[1] for number in numbers)


def test_markdown_rows_have_as_many_cells_as_their_head(written: tuple[str, str]) -> None:
    width = 0
    for line in written[1].splitlines():
        bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert bars == width or 0 in (bars, width)
        width = bars


def test_verdicts_call_a_tie_a_tie(finished_run: Path) -> None:
    found = summary(finished_run)
    merge = [sentence for sentence in found.sentences if sentence.startswith("task arithmetic + LiNeS")]
    assert any("not shown to matter" in sentence and "tie with it" in sentence for sentence in merge)
    edit = [sentence for sentence in found.sentences if sentence.startswith(UNTRUSTED)]
    assert any("it beats every matched control" in sentence for sentence in edit)
    assert [table.columns[0] for table in found.tables] == ["model", "model", "against", "against"]


def test_a_summary_of_a_reported_run_computes_no_interval_again(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, computed = estimates.Measure.read(finished_run), list[object]()
    for name in ("mean_interval", "paired_difference"):
        compute = getattr(estimates, name)
        monkeypatch.setattr(estimates, name, lambda cells, f=compute: (computed.append(cells), f(cells))[1])
    build_of(measure)
    before = len(computed)
    found = summary_of(measure)
    assert len(computed) == before > 0
    assert found == summary(finished_run)


def test_failures_are_shown_with_their_cause(written: tuple[str, str]) -> None:
    assert "the logits of 3 samples are not finite" in written[0]
    assert "non\\_finite" in written[1]


def test_a_run_without_failures_shows_none(tmp_path: Path) -> None:
    run = small_run()
    html, markdown = build(run.write(tmp_path))
    assert "## Failures\n\nNone." in markdown.read_text(encoding="utf-8")
    assert "nothing to compare" in html.read_text(encoding="utf-8")


def test_an_interrupted_run_reports_validation(tmp_path: Path) -> None:
    run = build_run()
    run.scores = [row for row in run.scores if row["split"] == "val"]
    for kept in run.samples.values():
        for key in [key for key in kept if key[1] == "test"]:
            del kept[key]
    folder = run.write(tmp_path)
    provenance = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(provenance | {"complete": False}))
    markdown = build(folder)[1].read_text(encoding="utf-8")
    assert "This run is not complete" in markdown and "No test scores." in markdown
    assert "Validation split" in summary(folder).tables[0].note


def test_rewards_are_not_shown_as_per_cent(tmp_path: Path) -> None:
    run = small_run()
    run.scores = [row | {"metric": "reward"} for row in run.scores]
    table = summary(run.write(tmp_path)).tables[0]
    assert re.fullmatch(r"0\.\d{3}", table.rows[0][1].text)


def test_a_missing_table_and_another_schema_are_errors(finished_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished_run, tmp_path / "run")
    (folder / "samples" / "digits.parquet").unlink()
    with pytest.raises(ValueError, match=r"digits\.parquet: no such file"):
        build(folder)
    (folder / "provenance.json").write_text('{"schema_version": 99}')
    with pytest.raises(ValueError, match="schema version 99, this program reads"):
        build(folder)
    with pytest.raises(ValueError, match=r"provenance\.json: no such file"):
        summary(tmp_path)


def test_report_needs_neither_torch_nor_ray() -> None:
    code = "import sys, pipeline.report.page; sys.exit(bool({'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("text", ["a|b", "*a*", "`a`", "[a](b)", "<b>", "a\nb"])
def test_markdown_escapes(text: str) -> None:
    escaped = escape_markdown(text)
    assert "\n" not in escaped and "<" not in escaped
    assert not re.search(r"(?<!\\)\]\(", escaped)
    assert re.sub(r"\\(.)", r"\1", escaped).replace("&lt;", "<").replace("&gt;", ">") == " ".join(text.split())


def small_run() -> RunBuilder:
    """The pre-trained model and the plain experts of the toy run."""
    full, small = build_run(), RunBuilder()
    keep = {"pre-trained", "fine-tuned"}
    small.candidates = [row for row in full.candidates if row["arm"] in keep]
    small.scores = [row for row in full.scores if row["arm"] in keep]
    small.samples = full.samples
    return small
