"""A run in Weights & Biases: its spec, the best so far of each arm over candidates, and a table of all candidates."""

from typing import Any

from pipeline.watch.mirrors.snapshot import CandidateSnapshot, Picture


class WandbMirror:
    """One run of a project. Its id follows from the content, so that a repetition goes on with the same one.

    Nothing of this machine is told but the run: no code, console, packages, host or meters.
    """

    def __init__(self, project: str) -> None:
        """Connect to nothing yet.

        Args:
            project: PROJECT, or ENTITY/PROJECT. The key is found as `wandb` itself does: WANDB_API_KEY, `wandb login`.

        Raises:
            ValueError: it is not installed.
        """
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise ValueError("--wandb: it is not installed: pip install 'lines-sweep[mirrors]'") from error
        self._wandb = wandb
        self._entity, _, self._project = project.rpartition("/")
        self._run: Any = None
        self._shown = ""

    def show(self, picture: Picture) -> None:
        """Log where the run stands, if it stands elsewhere than before.

        Raises:
            ValueError: Weights & Biases refuses, or is out of reach.
        """
        digest = " ".join([*(row.digest for row in picture.rows), str(picture.finished)])
        if digest == self._shown:
            return
        try:
            if self._run is None:
                self._run = self._open(picture)
            # Steps never go back; a picture of as many candidates as before may still say something else.
            self._run.log(picture.metrics, step=max(len(picture.rows), self._run.step))
            self._run.summary["finished"] = picture.finished
            self._run.log({"candidates_table": self._table(picture)})
        except self._wandb.Error as error:
            raise ValueError(f"--wandb {self._project}: {error}; WANDB_MODE=offline writes a folder instead") from error
        self._shown = digest

    def close(self) -> None:
        """Send what is left."""
        if self._run is not None:
            self._run.finish()

    def _open(self, picture: Picture) -> Any:
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
            id=picture.run,
            name=picture.name,
            config={"spec": dict(picture.spec), **picture.facts},
            resume="allow",
            settings=settings,
        )

    def _table(self, picture: Picture) -> Any:
        params = list(dict.fromkeys(name for row in picture.rows for name in row.params))
        metrics = list(dict.fromkeys(name for row in picture.rows for name in row.metrics))
        data: list[Any] = [_line(row, params, metrics) for row in picture.rows]
        return self._wandb.Table(columns=["key", *params, *metrics, "chosen", "failure"], data=data)


def _line(row: CandidateSnapshot, params: list[str], metrics: list[str]) -> list[Any]:
    told = [row.params.get(name) for name in params] + [row.metrics.get(name) for name in metrics]
    return [row.key, *told, row.chosen, row.failure]
