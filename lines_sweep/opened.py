"""A run folder, opened for reading in Python: tables, figures, verdict, export."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lines_sweep.arguments import named_arguments
from pipeline.records import tables
from pipeline.records.journal import FILE_NAME
from pipeline.records.provenance_file import FILE_NAME as PROVENANCE
from pipeline.records.provenance_file import read_provenance
from pipeline.storage.run_folder import run_folder
from tasks.registry import near

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from pipeline.report.data.estimates import Measure
    from pipeline.report.page import Summary

#: Option of `lines export` -> argument.
_ARGUMENTS = {"arm": "arm", "expert": "expert", "point": "point"}


def open_run(place: str | Path) -> "Run":
    """Open a run that was executed before, finished or not.

    Args:
        place: the run's folder, a path or a URL; of a URL a copy is read, which is removed when Python ends.

    Raises:
        ValueError: if there is no run, or it has no tables yet.
        RemoteError: if the store refuses.
    """
    with run_folder(str(place)) as folder:
        found = Run(str(place), folder)
    if not (folder / FILE_NAME).is_file():
        raise ValueError(f"{place}: no run here: there is no {FILE_NAME}")
    if not (folder / PROVENANCE).is_file():
        raise ValueError(f"{place}: this run was stopped before it wrote tables: `lines report {place}` writes them")
    return found


@dataclass(frozen=True)
class Run:
    """A run's results. Tables are pyarrow's: `.to_pandas()` needs pandas. docs/reference/results.md has every column.

    Attributes:
        place: where the run is, a path or a URL.
        folder: its files on this machine.
    """

    place: str
    folder: Path = field(repr=False)

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """The content of provenance.json: spec, fingerprints, versions, seconds, failures."""
        return read_provenance(self.folder / PROVENANCE)

    @property
    def name(self) -> str:
        """The run's name in its spec."""
        return str(self.provenance["name"])

    @property
    def failures(self) -> Sequence[Mapping[str, Any]]:
        """Shards that could not be scored, and groups that could not be searched, with their causes."""
        return [*self.provenance["failures"], *self.provenance["not_searched"]]

    @cached_property
    def candidates(self) -> pa.Table:
        """One row for each candidate: arm, recipe, objectives on validation, whether it was chosen."""
        return tables.read(self.folder / "candidates.parquet", tables.CANDIDATES)

    @cached_property
    def scores(self) -> pa.Table:
        """One row for each candidate, task and split that was scored in full."""
        return tables.read(self.folder / "scores.parquet", tables.SCORES)

    def samples(self, task: str) -> pa.Table:
        """Return the per-sample outcomes of a task: one row for each recipe and split.

        Raises:
            ValueError: if the run has no such task.
        """
        known = sorted(path.stem for path in (self.folder / "samples").glob("*.parquet"))
        if task not in known:
            raise ValueError(f"task {task!r}: not in the run; {near(task, known)}")
        return tables.read(self.folder / "samples" / f"{task}.parquet", tables.SAMPLES)

    def front(self, arm: str) -> pa.Table:
        """Return the candidates of an arm that no other of its group dominates on validation.

        Raises:
            ValueError: if the run has no such arm.
        """
        arms = self.candidates["arm"].unique().to_pylist()
        if arm not in arms:
            raise ValueError(f"arm {arm!r}: not in the run; {near(arm, arms)}")
        return self.candidates.filter((pc.field("arm") == arm) & pc.field("on_front"))

    @property
    def figures(self) -> Sequence[str]:
        """The names of the report's figures."""
        return list(self._figures)

    def figure(self, name: str) -> "Figure":
        """Return a figure of the report, as plotly's.

        Args:
            name: one of `figures`.

        Raises:
            ValueError: if the report has no such figure.
        """
        if name not in self._figures:
            raise ValueError(f"figure {name!r}: not in the report; {near(name, self.figures)}")
        return self._figures[name]

    @cached_property
    def _figures(self) -> Mapping[str, "Figure"]:
        from pipeline.report.page import figures  # plotly

        found = [(figure.title, panel) for figure in figures(self._measure) for panel in figure.panels]
        return {": ".join(filter(None, (title, panel.title))): panel.figure for title, panel in found}

    @property
    def verdict(self) -> str:
        """What the report says of each LiNeS arm against the others and its controls, a line each."""
        return "\n".join(self._summary.sentences)

    @cached_property
    def _summary(self) -> "Summary":
        from pipeline.report.page import summary_of

        return summary_of(self._measure)

    @cached_property
    def _measure(self) -> "Measure":
        from pipeline.report.data.estimates import Measure

        return Measure.read(self.folder)

    @named_arguments(_ARGUMENTS)
    def export(
        self, arm: str, folder: str | Path, *, expert: str = "", point: Mapping[str, object] | None = None
    ) -> Path:
        """Write the model that an arm chose, with its recipe and a model card.

        Args:
            arm: its name in the spec.
            folder: a new folder.
            expert: which one, if the arm edits each expert.
            point: of the arm's space, for example {"lambda": 0.4}; by default the one chosen on validation.

        Raises:
            ValueError: if there is no such arm, expert or point, a checkpoint has changed since the run, or the folder
                exists.
        """
        from pipeline.export.candidate import CandidateChoice, export  # torch

        return export(self.folder, CandidateChoice.of(arm, expert, point), Path(folder))

    @named_arguments(_ARGUMENTS | {"mergekit": "export_mergekit", "output": "file"})
    def export_mergekit(
        self, arm: str, file: str | Path, *, expert: str = "", point: Mapping[str, object] | None = None
    ) -> Path:
        """Write what an arm chose as a recipe of mergekit that gives the same tensors.

        Args:
            arm: its name in the spec.
            file: a new .yml or .yaml file.
            expert: as for `export`.
            point: as for `export`.

        Raises:
            ValueError: as for `export`, or if mergekit has no recipe of the candidate; the message says why.
        """
        from pipeline.export.candidate import CandidateChoice, export_mergekit  # torch

        return export_mergekit(self.folder, CandidateChoice.of(arm, expert, point), Path(file))

    def _repr_html_(self) -> str:
        """Return verdict and main tables for a notebook."""
        from pipeline.report.rendering.render import fragment

        return fragment("notebook.html.j2", name=self.name, found=self._summary)
