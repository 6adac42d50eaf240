"""Tables of a run of rewards: hypervolumes, every point of every arm, and the models that it started from."""

from pipeline.report.data.clouds import Cloud
from pipeline.report.data.resamples import REWARD_RESAMPLES, resampled_interval
from pipeline.report.soups.comparisons import Fronts
from pipeline.report.soups.completions import SplitCompletions
from pipeline.report.soups.scene import SoupScene
from pipeline.report.tables.hypervolumes import FrontSet, volume_tables
from pipeline.report.tables.table import NONE, Table, TableCell, Units, lead

UNITS = Units(percent=False)


def soup_volumes(fronts: Fronts) -> list[Table]:
    """Return the hypervolumes of each LiNeS arm with its rivals, or of all arms if there is no LiNeS arm."""
    soups = {soup.arm.name: soup for soup in fronts.scene.soups}
    arms = [soup.arm for soup in fronts.scene.soups]
    shown = [FrontSet("", soups, fronts.volumes)] if soups else []
    return volume_tables(shown, arms, UNITS, lambda against: f"Hypervolumes{against}", _volume_note(fronts))


def _volume_note(fronts: Fronts) -> str:
    rewards = zip(fronts.scene.rewards, fronts.corner_K, strict=True)
    shown = ((name, fronts.scene.units(name), float(value)) for name, value in rewards)
    worst = ", ".join(f"{name} {units.number(value)}{units.sign}" for name, units, value in shown)
    return (
        f"The volume that a front dominates above the worst mean rewards among all arms: {worst}. "
        f"{fronts.scale.note} 95% intervals and paired differences from {REWARD_RESAMPLES} resamples, the "
        "same for all arms; the worst values keep their distance from the SFT model. A front of more points, or of "
        "points closer together, dominates more by construction; the reward at equal other reward does not depend on "
        "that."
    )


def reference_table(scene: SoupScene) -> Table:
    """Return every reward of the SFT model and of each policy."""
    rows = []
    for cloud, name in ((scene.sft, "SFT model"), (scene.policies, "policy")):
        for i, candidate in enumerate([] if cloud is None else cloud.candidates):
            model = TableCell(f"{name} {candidate.group}".strip(), tone="lead")
            rows.append((model, *_rewards(scene, cloud, i), TableCell(candidate.recipe_id, tone="code")))
    return Table(
        "The models that the soups are made of",
        "Mean rewards, with 95% intervals.",
        ("model", *_columns(scene), "recipe id"),
        tuple(rows),
    )


def point_table(scene: SoupScene, completions: SplitCompletions | None) -> Table:
    """Return every point of every arm: its rewards, and how varied its completions are."""
    rows = []
    for soup in (*scene.soups, *scene.others):
        for i, (label, candidate) in enumerate(zip(soup.labels, soup.candidates, strict=True)):
            found = None if completions is None else completions.shares.get(candidate.recipe_id)
            varied = [TableCell(NONE)] * 2 if found is None else [_percent(found.distinct), _percent(found.repeated)]
            kept = varied if completions is not None else []
            recipe = TableCell(candidate.recipe_id, tone="code")
            rows.append((lead(soup.arm), TableCell(label or NONE), *_rewards(scene, soup, i), *kept, recipe))
    varied_columns = ("distinct", "repeated words") if completions is not None else ()
    note = f"Mean rewards, with 95% intervals.{_weight_note(scene)}"
    if completions is not None:
        note += (
            " Distinct: the share of the prompts' first completions that differ. Repeated words: the share of a "
            "completion's words that occurred earlier in it."
        )
    columns = ("arm", "point", *_columns(scene), *varied_columns, "recipe id")
    return Table("Every point", note, columns, tuple(rows))


def _weight_note(scene: SoupScene) -> str:
    if not any(label.startswith("λ") for soup in scene.soups for label in soup.labels):
        return ""
    first, *rest = [str(expert) for expert in scene.run.provenance["experts"]]
    if len(rest) == 1:
        return f" λ is the weight of {first}, 1 − λ the weight of {rest[0]}."
    return " λ is the first policy's weight."


def _rewards(scene: SoupScene, cloud: Cloud | None, point: int) -> list[TableCell]:
    assert cloud is not None
    means_SK = cloud.xy_SPM[:, point]
    return [
        scene.units(reward).mean(resampled_interval(means_SK[:, k], scene.prompts))
        for k, reward in enumerate(scene.rewards)
    ]


def _columns(scene: SoupScene) -> list[str]:
    return [f"{reward}{scene.units(reward).suffix}" for reward in scene.rewards]


def _percent(share: float) -> TableCell:
    return TableCell(f"{100 * share:.0f}%")
