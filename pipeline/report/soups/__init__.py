"""The report of a run whose tasks are rewards: it chooses nothing, and compares whole fronts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.report.data.estimates import Measure
from pipeline.report.figures.figure import Figure
from pipeline.report.soups.comparisons import read_fronts
from pipeline.report.soups.completions import read_completions
from pipeline.report.soups.figures import front_figures
from pipeline.report.soups.policies import read_curves, read_policies
from pipeline.report.soups.samples import sample_tables
from pipeline.report.soups.scene import SoupScene, is_soup, read_scene
from pipeline.report.soups.tables import point_table, reference_table, soup_volumes
from pipeline.report.soups.verdict import soup_verdicts
from pipeline.report.soups.warnings import cautions
from pipeline.report.tables.table import Table
from pipeline.report.tables.verdict import NOT_ADJUSTED, ArmVerdict
from pipeline.report.training.curves import training_figures

__all__ = ["SoupPage", "is_soup", "soup_page"]


@dataclass(frozen=True, slots=True)
class SoupPage:
    """The part of the page that a run of rewards has in place of choices and accuracies.

    Attributes:
        warnings: sentences for the top of the page.
        note: the split, and the meaning of the intervals.
        verdicts: one for each LiNeS arm.
        fronts: figures of the fronts.
        volumes: their hypervolumes.
        references: the SFT model and the policies.
        points: of every arm.
        training: figures of reward and KL.
        samples: completions, one table a prompt.
    """

    warnings: Sequence[str] = ()
    note: str = "No candidate has been scored by every reward yet."
    verdicts: Sequence[ArmVerdict] = ()
    fronts: Sequence[Figure] = ()
    volumes: Sequence[Table] = ()
    references: Table | None = None
    points: Table | None = None
    training: Sequence[Figure] = ()
    samples: Sequence[Table] = ()


def soup_page(measure: Measure) -> SoupPage:
    """Return the contents of the page.

    Raises:
        ValueError: if completions.parquet has another schema version, or outcomes do not fit the spec's `samples`.
    """
    curves = read_curves(measure.run)
    training = training_figures(curves)
    scene = read_scene(measure)
    if scene is None:
        return SoupPage(training=training)
    completions = read_completions(scene)
    fronts = read_fronts(scene) if scene.soups else None
    return SoupPage(
        warnings=cautions(scene, completions, read_policies(measure.run, curves)),
        note=_note(scene),
        verdicts=soup_verdicts(fronts) if fronts else [],
        fronts=front_figures(scene, completions),
        volumes=soup_volumes(fronts) if fronts else [],
        references=reference_table(scene),
        points=point_table(scene, completions),
        training=training,
        samples=sample_tables(scene, completions) if completions else [],
    )


def _note(scene: SoupScene) -> str:
    where = f"Test split: {scene.prompts} prompts"
    why = ""
    if scene.split == "val":
        where = f"Validation split: {scene.prompts} prompts"
        why = " Not every arm was scored in full on test; `test: every` in an arm does that."
    several = f" with {scene.draws} completions each" if scene.draws > 1 else ""
    resampled = "prompts, and completions within prompts" if scene.draws > 1 else "prompts"
    return (
        f"{where}{several}; nothing was chosen.{why} The brackets are 95% intervals from resamples of {resampled}, "
        f"the same for all arms. {NOT_ADJUSTED}{_seeds(scene)}"
    )


def _seeds(scene: SoupScene) -> str:
    targets: Mapping[str, str] = scene.run.provenance["targets"]
    if len(set(targets.values())) < len(targets):  # several policies of one reward
        return ""
    return " Each policy comes from one training run, so the intervals do not cover another run with another seed."
