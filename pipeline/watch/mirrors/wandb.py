"""A run in Weights & Biases: its spec, the best so far of each arm over candidates, and a table of all candidates."""

from typing import Any

from pipeline.watch.mirrors.snapshot import CandidateSnapshot, RunSnapshot
from tasks.extras import install_hint


class WandbMirror:
    """One run of a project. Its id is a hash of the run, so that a repetition continues the same one.

    Only the run is sent, and nothing about this machine: no code, console, packages, host or meters.
    """

    def __init__(self, project: str) -> None:
        """Prepare without a connection.

        Args:
            project: PROJECT, or ENTITY/PROJECT. `wandb` finds the key itself: WANDB_API_KEY, `wandb login`.

        Raises:
            ValueError: if wandb is not installed.
        """
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise ValueError(f"--wandb: it is not installed: {install_hint('mirrors')}") from error
        self._wandb = wandb
        self._entity, _, self._project = project.rpartition("/")
        self._run: Any = None
        self._shown = ""

    def show(self, snapshot: RunSnapshot) -> None:
        """Log the run if it has changed.

        Raises:
            ValueError: if Weights & Biases refuses or cannot be reached.
        """
        digest = " ".join([*(row.digest for row in snapshot.rows), str(snapshot.finished)])
        if digest == self._shown:
            return
        try:
            if self._run is None:
                self._run = self._open(snapshot)
            # Steps must not decrease; a snapshot with as many candidates as before may differ in other ways.
            self._run.log(snapshot.metrics, step=max(len(snapshot.rows), self._run.step))
            self._run.summary["finished"] = snapshot.finished
            self._run.log({"candidates_table": self._table(snapshot)})
        except self._wandb.Error as error:
            raise ValueError(f"--wandb {self._project}: {error}; WANDB_MODE=offline writes a folder instead") from error
        self._shown = digest

    def close(self) -> None:
        """Send what is not sent yet."""
        if self._run is not None:
            self._run.finish()

    def _open(self, snapshot: RunSnapshot) -> Any:
        settings = self._wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            host="lines",
            silent=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        return self._wandb.init(
            project=self._project,
            entity=self._entity or None,
            id=snapshot.run,
            name=snapshot.name,
            config={"spec": dict(snapshot.spec), **snapshot.facts},
            resume="allow",
            settings=settings,
        )

    def _table(self, snapshot: RunSnapshot) -> Any:
        params = list(dict.fromkeys(name for row in snapshot.rows for name in row.params))
        metrics = list(dict.fromkeys(name for row in snapshot.rows for name in row.metrics))
        data: list[Any] = [_line(row, params, metrics) for row in snapshot.rows]
        return self._wandb.Table(columns=["key", *params, *metrics, "chosen", "failure"], data=data)


def _line(row: CandidateSnapshot, params: list[str], metrics: list[str]) -> list[Any]:
    cells = [row.params.get(name) for name in params] + [row.metrics.get(name) for name in metrics]
    return [row.key, *cells, row.chosen, row.failure]
