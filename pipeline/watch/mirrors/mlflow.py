"""A run in MLflow: one run of an experiment, and below it one for each candidate."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from rich.progress import track

from pipeline.console import console
from pipeline.watch.mirrors.snapshot import CandidateSnapshot, Picture

_RUN, _CANDIDATE, _DIGEST = "lines.run", "lines.candidate", "lines.digest"
#: Runs that MLflow tells at a time.
_PAGE = 1000
#: Characters of a value that every store takes.
_LONGEST = 500


class MlflowMirror:
    """An experiment of an MLflow server or database; only candidates that are new or have changed are written."""

    def __init__(self, uri: str) -> None:
        """Connect.

        Args:
            uri: of the server, or such as sqlite:///mlflow.db.

        Raises:
            ValueError: it holds a password, MLflow is missing, or there is nothing of the kind.
        """
        parts = urlsplit(uri)
        if parts.password or (parts.username and parts.scheme in ("http", "https")):  # there it may be a token
            raise ValueError(
                "--mlflow: a user or a password does not belong in a URI, which others can read on the command line: "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        try:
            from mlflow import MlflowClient
        except ModuleNotFoundError as error:
            raise ValueError("--mlflow: MLflow is not installed: pip install 'lines-sweep[mirrors]'") from error
        # A server that does not answer is tried seven times, for minutes, unless told otherwise.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        # Of each run that has ended it would print two lines.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        self._uri = uri
        with self._told():
            self._client = MlflowClient(tracking_uri=uri)
        self._experiment = ""
        self._known: dict[str, tuple[str, str]] = {}

    def show(self, picture: Picture) -> None:
        """Write what is new.

        Raises:
            ValueError: MLflow refuses, or is out of reach.
        """
        with self._told():
            if not self._experiment:
                experiment = self._find_experiment(picture.name)
                self._known = dict(self._find_runs(experiment, picture.run))
                self._experiment = experiment  # only now: where the search fails, the next look begins anew
            whole = CandidateSnapshot("", picture.name, "", picture.facts, picture.metrics, "", False)
            parent = self._write(picture, whole, "")
            for row in track(picture.rows, "mirroring", console=console, transient=True):
                self._write(picture, row, parent)
            if picture.finished:
                self._client.set_terminated(parent, "FINISHED")

    def close(self) -> None:
        """Nothing is left open."""

    def _find_experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            return str(self._client.create_experiment(name))
        if found.lifecycle_stage == "deleted":  # its name stays taken
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _find_runs(self, experiment: str, run: str) -> Iterator[tuple[str, tuple[str, str]]]:
        """(candidate, (MLflow's id, digest)) of what was written before."""
        token = None
        while True:
            query = f"tags.`{_RUN}` = '{run}'"
            page = self._client.search_runs([experiment], query, max_results=_PAGE, page_token=token)
            for found in page:
                tags = found.data.tags
                yield tags[_CANDIDATE], (found.info.run_id, tags.get(_DIGEST, ""))
            token = page.token
            if not token:
                return

    def _write(self, picture: Picture, row: CandidateSnapshot, parent: str) -> str:
        run_id, digest = self._known.get(row.key, ("", ""))
        if digest == row.digest:
            return run_id
        if not run_id:
            tags = {_RUN: picture.run, _CANDIDATE: row.key} | ({"mlflow.parentRunId": parent} if parent else {})
            run_id = self._client.create_run(self._experiment, tags=tags, run_name=row.name).info.run_id
            self._known[row.key] = run_id, ""
        if parent:
            self._client.set_terminated(run_id, "FAILED" if row.failure else "FINISHED")
        # The digest last, and tags are what MLflow writes last: a candidate that was written in part is written again.
        tags = {"lines.chosen": str(row.chosen).lower(), "lines.failure": row.failure, _DIGEST: row.digest}
        self._log(run_id, {} if digest else row.params, row.metrics, tags, step=0 if parent else len(picture.rows))
        self._known[row.key] = run_id, row.digest
        return run_id

    def _log(
        self, run_id: str, params: Mapping[str, str], metrics: Mapping[str, float], tags: dict[str, str], step: int
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)  # of values of one step and time MLflow shows the largest, not the last
        self._client.log_batch(
            run_id,
            metrics=[Metric(_allowed(name), value, now, step) for name, value in metrics.items()],
            params=[Param(_allowed(name), value[:_LONGEST]) for name, value in params.items()],
            tags=[RunTag(name, value[:_LONGEST]) for name, value in tags.items()],
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """MLflow's errors as one line."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            text = str(error).strip()
            hint = "; such as --mlflow sqlite:///mlflow.db" if "maintenance mode" in text else ""
            raise ValueError(f"--mlflow {self._uri}: {text.splitlines()[0][:300]}{hint}") from error


def _allowed(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w\-./ :]", "_", name)
