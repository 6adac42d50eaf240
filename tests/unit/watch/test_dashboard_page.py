"""Proves what the dashboard shows at each stage of a run, that text is escaped, and which hosts its server answers."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import optuna
import psutil
import pytest
from toy import IDENTITY, ToyEvaluator, toy_spec

from pipeline.messages import Failure, WorkerInfo
from pipeline.plan.plan import make_plan
from pipeline.pools.local import LocalPool
from pipeline.recipe import Recipe
from pipeline.records.journal import FILE_NAME, Journal
from pipeline.run.progress import RunProgress
from pipeline.run.run import run
from pipeline.watch import progress_file
from pipeline.watch.dashboard import live as live_page
from pipeline.watch.dashboard.live import Live
from pipeline.watch.dashboard.page import spoken
from pipeline.watch.dashboard.server import bound, is_own_host, page_server
from pipeline.watch.dashboard.study import Studies, serve
from pipeline.watch.observers import watched
from pipeline.watch.progress_file import ProgressFile, read_status
from search.proposer import Proposal

EVIL = "<img src=x onerror=alert(1)>"


class Failing(ToyEvaluator):
    """Fails for some candidates, with a cause that tries to inject HTML."""

    def evaluate(self, request):  # type: ignore[no-untyped-def]
        if request.recipe.alpha == 0.25:
            raise ArithmeticError(EVIL)
        return super().evaluate(request)


def work(folder: Path, evaluator: ToyEvaluator) -> None:
    plan = make_plan(toy_spec())
    run(plan, IDENTITY, folder, lambda: LocalPool(evaluator), None)


@pytest.fixture(scope="module")
def failed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failed")
    work(folder, Failing(EVIL))
    return folder


def looked(folder: Path) -> dict[str, object]:
    live = Live(str(folder))
    live.look()
    found: dict[str, object] = json.loads(live.state)
    return found


def test_a_run_that_has_not_started_is_waited_for(tmp_path: Path) -> None:
    state = looked(tmp_path / "not there")
    assert state["state"] == "waiting" and "no journal yet" in str(state["html"])


def test_a_finished_run_is_shown_with_its_figures_and_failures_and_nothing_is_read_as_html(failed_run: Path) -> None:
    live = Live(str(failed_run))
    live.look()
    state, figures = json.loads(live.state), json.loads(live.figures)
    html = str(state["html"])
    assert state["state"] == "finished" and state["done"] == state["expected"] > 100 and state["failures"] > 0
    assert "&lt;img src=x onerror=alert(1)&gt;" in html and "<img" not in html
    assert "Target against control" in [figure["title"] for figure in figures]
    assert all(json.loads(panel)["data"] for figure in figures for panel in figure["panels"])


def test_a_killed_run_is_shown_as_far_as_it_came(failed_run: Path, tmp_path: Path) -> None:
    lines = (failed_run / FILE_NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / FILE_NAME).write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:20])
    state = looked(tmp_path)
    assert state["state"] == "running", "the journal was just written"
    assert 0 < int(str(state["done"])) < int(str(state["expected"]))
    assert "Best so far" in str(state["html"])


def test_an_error_is_shown_on_the_page(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(f'{EVIL}\n{{"record": "run"}}\n')
    state = looked(tmp_path)
    assert state["state"] == "quiet" and "line 1 is damaged" in str(state["html"])
    assert "<img" not in str(state["html"])


def test_a_page_follows_what_is_appended(failed_run: Path, tmp_path: Path) -> None:
    whole = (failed_run / FILE_NAME).read_bytes()
    live, done = Live(str(tmp_path)), []
    for stop in (len(whole) // 3, len(whole) // 2, len(whole)):
        (tmp_path / FILE_NAME).write_bytes(whole[:stop])
        live.look()
        done.append(json.loads(live.state)["done"])
    assert done == sorted(set(done)) and json.loads(live.state)["state"] == "finished"


def test_studies_hold_every_candidate_in_the_order_it_was_proposed(failed_run: Path) -> None:
    studies = Studies()
    live = Live(str(failed_run), studies)
    live.look()
    trials = trials_of(studies, "LiNeS (cats)")
    assert [t.params["alpha"] for t in trials] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert EVIL in trials[1].user_attrs["failure"]


def test_studies_follow_a_run_and_restart_if_its_search_changes(
    tmp_path: Path, failed_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_page, "REST", 0)
    lines = (failed_run / FILE_NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / FILE_NAME).write_bytes(b"".join(lines[: len(lines) // 2]))
    studies = Studies()
    live = Live(str(tmp_path), studies)
    live.look()
    half = sum(s_trials(studies).values())
    (tmp_path / FILE_NAME).write_bytes(b"".join(lines))
    live.look()
    assert 0 < half < sum(s_trials(studies).values()) and s_trials(studies)["merge"] == 12
    journal = Journal(tmp_path)
    last = json.loads(next(line for line in lines if b'"group":["merge",""],"number":11' in line))
    journal.proposal(("merge", ""), Proposal(3, {"alpha": 0.123}, last["state"]))
    journal.close()
    live.look()
    assert s_trials(studies)["merge"] == 4


def test_a_failed_candidate_that_is_scored_later_is_a_trial_with_its_values(
    failed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run is resumed to score lost shards: meanwhile it is not finished."""
    monkeypatch.setattr(live_page, "REST", 0)
    lines = (failed_run / FILE_NAME).read_bytes().splitlines(keepends=True)
    records = [json.loads(line) for line in lines]
    scores = ((i, r["request"]) for i, r in enumerate(records) if r["record"] == "score")
    place = next(i for i, asked in scores if Recipe.from_json(asked[0]).beta == 0.5 and asked[3] == "val")
    lost = {"record": "failure", "request": records[place]["request"], "worker": "w", "kind": "lost", "cause": "gone"}
    (tmp_path / FILE_NAME).write_bytes(
        b"".join([*lines[:place], json.dumps(lost).encode() + b"\n", *lines[place + 1 :]])
    )
    studies = Studies()
    live = Live(str(tmp_path), studies)
    live.look()
    failed, state = failed_trials(studies), json.loads(live.state)["state"]
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(lines[place])
    live.look()
    assert (state, json.loads(live.state)["state"]) == ("finished", "running")
    assert 0 < failed_trials(studies) < failed


def failed_trials(studies: Studies) -> int:
    every = (t for name in optuna.get_all_study_names(studies.storage) for t in trials_of(studies, name))
    return sum(t.state.name == "FAIL" for t in every)


def trials_of(studies: Studies, name: str) -> list[optuna.trial.FrozenTrial]:
    return studies.storage.get_all_trials(studies.storage.get_study_id_from_name(name))


def s_trials(studies: Studies) -> dict[str, int]:
    return {name: len(trials_of(studies, name)) for name in optuna.get_all_study_names(studies.storage)}


def test_the_status_of_a_driver_can_be_read_until_the_run_ends(tmp_path: Path) -> None:
    worker = WorkerInfo("worker-0", f"cpu {EVIL}", "f", {}, "")
    with watched(toy_spec(resources={"pool": "local"}), tmp_path) as watch:
        watch(RunProgress(from_cache=3, workers=[worker]))
        driver = read_status(tmp_path)
        assert driver.alive and driver.from_cache == 3 and driver.devices == {"worker-0": f"cpu {EVIL}"}
    assert list(tmp_path.iterdir()) == [] and not read_status(tmp_path).alive


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"time": "x"}', "null"])
def test_a_file_without_a_status_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "progress.json").write_text(text)
    assert not read_status(tmp_path).alive


def test_a_failed_write_of_the_progress_file_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_file, "EVERY", 0)
    file = ProgressFile(tmp_path / "not there")
    for _ in range(3):
        file(RunProgress())
    assert len(caplog.records) == 1 and "cannot be written" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8280", "localhost", "LOCALHOST:80"])
def test_own_hosts(host: str) -> None:
    assert is_own_host(host)


@pytest.mark.parametrize(
    "host", [None, "", "evil.example", "evil.example:8280", "127.0.0.1.evil.example", "[::1", "10.0.0.1"]
)
def test_other_hosts(host: str | None) -> None:
    assert not is_own_host(host)


@pytest.fixture
def port(failed_run: Path) -> Iterator[int]:
    live = Live(str(failed_run))
    live.look()
    server = bound(lambda chosen: page_server(live, {"url": "", "note": EVIL}, chosen), range(0, 1))
    serve(server)
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def asked(port: int, path: str, method: str = "GET", host: str = "localhost") -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={"Host": host})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode()


@pytest.mark.parametrize("path", ["/", "/state.json", "/figures.json", "/plotly.js", "/report.js", "/dashboard.js"])
def test_what_is_served_comes_with_headers_that_keep_it_here(port: int, path: str) -> None:
    status, headers, body = asked(port, path)
    assert status == 200 and len(body) > 100
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "http" not in policy and "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and "Access-Control-Allow-Origin" not in headers


def test_the_page_loads_nothing_from_elsewhere(port: int) -> None:
    body = asked(port, "/")[2]
    assert "://" not in body.replace("http://www.w3.org", "") and "<img" not in body


def test_nothing_else_is_answered(port: int) -> None:
    assert asked(port, "/", host="evil.example")[0] == 403
    assert asked(port, "/../pyproject.toml")[0] == asked(port, "/journal.jsonl")[0] == 404
    assert {asked(port, "/", method)[0] for method in ("POST", "PUT", "DELETE", "OPTIONS")} == {405}


def test_it_listens_on_loopback_alone(port: int) -> None:
    found = [c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert {a.ip for a in found if a.port == port} == {"127.0.0.1"}


def test_a_port_in_use_is_an_error_and_the_default_is_the_next_free_one(port: int, failed_run: Path) -> None:
    live = Live(str(failed_run))

    def make(chosen: int) -> object:
        return page_server(live, {"url": "", "note": ""}, chosen)

    with pytest.raises(ValueError, match=f"--port {port}: Address already in use: give another one"):
        bound(make, range(0), port)
    other = bound(make, range(port, port + 20))
    assert port < other.server_address[1] < port + 20
    other.server_close()
    with pytest.raises(ValueError, match="none of"):
        bound(make, range(port, port + 1))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (98, "98 s"), (240, "4 min"), (3600, "1 h 00 min"), (100_000, "1 d 3 h")]
)
def test_lengths_of_time_in_words(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


def test_failures_that_are_scored_later_are_no_longer_shown(failed_run: Path, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes((failed_run / FILE_NAME).read_bytes())
    live = Live(str(tmp_path))
    live.look()
    before = live.page.failures
    toy, journal = ToyEvaluator("worker-0"), Journal(tmp_path)
    journal.answers([toy.evaluate(before[0].request)])
    journal.close()
    live.look()
    assert isinstance(before[0], Failure) and len(live.page.failures) == len(before) - 1
