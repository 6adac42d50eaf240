"""The report of a run whose tasks are rewards: nothing is chosen in it, and whole fronts are compared."""

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
from pipeline.report.soups.tables import point_table, reference_table, volume_tables
from pipeline.report.soups.verdict import soup_verdicts
from pipeline.report.soups.warnings import cautions
from pipeline.report.tables.table import Table
from pipeline.report.tables.verdict import ArmVerdict
from pipeline.report.training.curves import training_figures

__all__ = ["SoupPage", "is_soup", "soup_page"]


@dataclass(frozen=True, slots=True)
class SoupPage:
    """What the page of a run of rewards has in the place of choices and accuracies.

    Attributes:
        warnings: sentences for the top of the page.
        note: on which split, and what the intervals speak of.
        verdicts: one a LiNeS arm.
        fronts: figures of the fronts.
        volumes: their hypervolumes.
        references: of the SFT model and the policies.
        points: of every arm.
        training: figures of reward and KL.
        samples: completions, one table a prompt.
    """

    warnings: Sequence[str] = ()
    note: str = "Nothing was scored by every reward yet."
    verdicts: Sequence[ArmVerdict] = ()
    fronts: Sequence[Figure] = ()
    volumes: Sequence[Table] = ()
    references: Table | None = None
    points: Table | None = None
    training: Sequence[Figure] = ()
    samples: Sequence[Table] = ()


def soup_page(measure: Measure) -> SoupPage:
    """All of it.

    Raises:
        ValueError: completions.parquet is of another schema version, or outcomes do not fit the spec's `samples`.
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
        volumes=volume_tables(fronts) if fronts else [],
        references=reference_table(scene),
        points=point_table(scene, completions),
        training=training,
        samples=sample_tables(scene, completions) if completions else [],
    )


def _note(scene: SoupScene) -> str:
    where = f"On the test split, of {scene.prompts} prompts"
    if scene.split == "val":
        where = (
            f"On the validation split, of {scene.prompts} prompts, since not every arm was scored in full on test "
            "(`test: every` in an arm asks for it)"
        )
    several = f" of {scene.draws} completions each" if scene.draws > 1 else ""
    return (
        f"{where}{several}; nothing was chosen. The brackets are 95% intervals by resampling "
        f"{'prompts, and completions within prompts' if scene.draws > 1 else 'prompts'}, the same for all arms; they "
        "are not adjusted for the number of comparisons. A difference whose interval holds 0 is called a tie."
        f"{_seeds(scene)}"
    )


def _seeds(scene: SoupScene) -> str:
    targets: Mapping[str, str] = scene.run.provenance["targets"]
    if len(set(targets.values())) < len(targets):  # several policies of one reward
        return ""
    return " Each policy is of one training run, so the intervals do not speak of another run with another seed."
