"""A run in MLflow: one run of an experiment, with a child run for each candidate."""

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from rich.progress import track

from pipeline.console import console
from pipeline.watch.mirrors.snapshot import CandidateSnapshot, RunSnapshot
from tasks.extras import install_hint

_RUN, _CANDIDATE, _DIGEST = "lines.run", "lines.candidate", "lines.digest"
#: Runs in a page of MLflow's search.
_PAGE = 1000
#: The longest value that every store of MLflow takes.
_LONGEST = 500


class MlflowMirror:
    """An experiment of an MLflow server or database; only candidates that are new or have changed are written."""

    def __init__(self, uri: str) -> None:
        """Connect.

        Args:
            uri: a tracking server, or a database such as sqlite:///mlflow.db.

        Raises:
            ValueError: if the URI holds a password, MLflow is not installed, or it cannot use the URI.
        """
        parts = urlsplit(uri)
        if parts.password or (parts.username and parts.scheme in ("http", "https")):  # a user name may be a token there
            raise ValueError(
                "--mlflow: a user or a password does not belong in a URI, which others can read on the command line: "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        try:
            from mlflow import MlflowClient
        except ModuleNotFoundError as error:
            raise ValueError(f"--mlflow: MLflow is not installed: {install_hint('mirrors')}") from error
        # By default a server that does not answer is tried seven times, for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        # MLflow would print two lines for each run that ends.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        self._uri = uri
        with self._short_errors():
            self.client = MlflowClient(tracking_uri=uri)
        self.experiment = ""
        self._known: dict[str, tuple[str, str]] = {}
        self._shown: dict[str, str] = {}

    def show(self, snapshot: RunSnapshot) -> None:
        """Write what is new.

        Raises:
            ValueError: if MLflow refuses or cannot be reached.
        """
        self._shown = _names(snapshot)
        with self._short_errors():
            if not self.experiment:
                experiment = self._find_experiment(snapshot.name)
                self._known = dict(self._find_runs(experiment, snapshot.run))
                self.experiment = experiment  # only now: after a failed search, the next call searches again
            whole = CandidateSnapshot("", snapshot.name, "", snapshot.facts, snapshot.metrics, "", False)
            parent = self._write(snapshot, whole, "")
            for row in track(snapshot.rows, "mirroring", console=console, transient=True):
                self._write(snapshot, row, parent)
            if snapshot.finished:
                self.client.set_terminated(parent, "FINISHED")

    def close(self) -> None:
        """Do nothing: no connection is open."""

    def _find_experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return str(self.client.create_experiment(name))
        if found.lifecycle_stage == "deleted":  # its name stays taken
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _find_runs(self, experiment: str, run: str) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield (candidate, (MLflow's run id, digest)) of what was written before."""
        token = None
        while True:
            query = f"tags.`{_RUN}` = '{run}'"
            page = self.client.search_runs([experiment], query, max_results=_PAGE, page_token=token)
            for found in page:
                tags = found.data.tags
                yield tags[_CANDIDATE], (found.info.run_id, tags.get(_DIGEST, ""))
            token = page.token
            if not token:
                return

    def _write(self, snapshot: RunSnapshot, row: CandidateSnapshot, parent: str) -> str:
        run_id, digest = self._known.get(row.key, ("", ""))
        if digest == row.digest:
            return run_id
        if not run_id:
            tags = {_RUN: snapshot.run, _CANDIDATE: row.key} | ({"mlflow.parentRunId": parent} if parent else {})
            run_id = self.client.create_run(self.experiment, tags=tags, run_name=row.name).info.run_id
            self._known[row.key] = run_id, ""
        if parent:
            self.client.set_terminated(run_id, "FAILED" if row.failure else "FINISHED")
        # MLflow writes tags last, so a candidate that was written in part has no digest and is written again.
        tags = {"lines.chosen": str(row.chosen).lower(), "lines.failure": row.failure, _DIGEST: row.digest}
        self._log(run_id, {} if digest else row.params, row.metrics, tags, step=0 if parent else len(snapshot.rows))
        self._known[row.key] = run_id, row.digest
        return run_id

    def _log(
        self, run_id: str, params: Mapping[str, str], metrics: Mapping[str, float], tags: dict[str, str], step: int
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)  # of equal steps and times MLflow shows the largest value
        self.client.log_batch(
            run_id,
            metrics=[Metric(self._shown[name], value, now, step) for name, value in metrics.items()],
            params=[Param(self._shown[name], value[:_LONGEST]) for name, value in params.items()],
            tags=[RunTag(name, value[:_LONGEST]) for name, value in tags.items()],
        )

    @contextmanager
    def _short_errors(self) -> Iterator[None]:
        """Raise MLflow's errors as one line."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            text = str(error).strip()
            hint = "; such as --mlflow sqlite:///mlflow.db" if "maintenance mode" in text else ""
            raise ValueError(f"--mlflow {self._uri}: {text.splitlines()[0][:300]}{hint}") from error


def allowed_names(names: Iterable[str]) -> dict[str, str]:
    """Return name -> name without the characters that MLflow refuses.

    Different names stay different: one that would become another one's gets an ending that depends on itself alone.

    Example:
        >>> allowed_names(["val/m_1", "val/m+1"])
        {'val/m_1': 'val/m_1', 'val/m+1': 'val/m_1-2c7f5f'}
    """
    plain = {name: re.sub(r"[^\w\-./ :]", "_", name) for name in names}
    count = Counter(plain.values())
    return {
        name: allowed if name == allowed or count[allowed] == 1 else f"{allowed}-{_ending(name)}"
        for name, allowed in plain.items()
    }


def _ending(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=3).hexdigest()


def _names(snapshot: RunSnapshot) -> dict[str, str]:
    """Return the names of metrics and parameters as MLflow shows them, those that the spec makes later included."""
    tasks = [*snapshot.spec.get("tasks", ()), *snapshot.spec.get("ood", ())]
    coming = [f"{split}/{task}" for task in tasks for split in ("val", "test")]
    coming += [f"best/{arm}" for arm in snapshot.spec.get("arms", ())]
    used = [name for row in snapshot.rows for name in (*row.params, *row.metrics)]
    return allowed_names(dict.fromkeys([*coming, *snapshot.facts, *snapshot.metrics, *used]))
