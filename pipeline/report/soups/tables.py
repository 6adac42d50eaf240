"""Tables of a run of rewards: hypervolumes, every point of every arm, and the models that it started from."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.report.data.arms import ArmResult, opponents
from pipeline.report.soups.comparisons import Fronts
from pipeline.report.soups.completions import SplitCompletions
from pipeline.report.soups.resamples import RESAMPLES, interval
from pipeline.report.soups.scale import read_scale
from pipeline.report.soups.scene import Soup, SoupScene
from pipeline.report.tables.table import NONE, Table, TableCell, Units

UNITS = Units(percent=False)


def volume_tables(fronts: Fronts) -> list[Table]:
    """One for each LiNeS arm with its rivals; one of all arms where there is no LiNeS arm."""
    arms = [soup.arm for soup in fronts.scene.soups]
    leaders = [arm for arm in arms if arm.role == "lines"]
    if not leaders:
        return [_volumes(fronts, None, arms, "Hypervolumes")] if arms else []
    tables = []
    for i, leader in enumerate(leaders):
        # LiNeS arms meet each other too, each pair once.
        rivals = [*opponents(leader, arms), *leaders[:i]]
        title = f"Hypervolumes: {leader.name} against …" if len(leaders) > 1 else "Hypervolumes"
        tables.append(_volumes(fronts, leader, rivals, title))
    return [tables[0], *(replace(table, note="") for table in tables[1:])]


def _volumes(fronts: Fronts, leader: ArmResult | None, rivals: Sequence[ArmResult], title: str) -> Table:
    soups = {soup.arm.name: soup for soup in fronts.scene.soups}
    rows = []
    for arm in [*([leader] if leader else []), *rivals]:
        lead = TableCell(arm.name, tone="lead", colour=arm.colour)
        counts = [TableCell(str(n)) for n in (len(soups[arm.name].labels), len(fronts.fronts[arm.name][0]))]
        against = TableCell(NONE)
        if leader is not None and arm.name != leader.name:
            against = UNITS.difference(fronts.difference(leader.name, arm.name))
        rows.append((lead, *counts, UNITS.mean(fronts.volume(arm.name)), *([against] if leader else [])))
    versus = [f"{leader.name} minus it"] if leader else []
    columns = ("arm", "points", "on the front", "hypervolume", *versus)
    return Table(title, _volume_note(fronts), columns, tuple(rows))


def _volume_note(fronts: Fronts) -> str:
    rewards = zip(fronts.scene.rewards, fronts.corner_K, strict=True)
    worst = ", ".join(f"{name} {UNITS.number(float(value))}" for name, value in rewards)
    return (
        f"What a front dominates above the worst mean rewards among all arms: {worst}. "
        f"{read_scale(fronts.scene).note} 95% intervals and paired differences by {RESAMPLES} resamples, the same for "
        "all arms; the worst values keep their distance from the SFT model. A front of more points, or of points "
        "that lie closer together, dominates more by construction; the reward at equal other reward does not."
    )


def reference_table(scene: SoupScene) -> Table:
    """Every reward of the SFT model and of each policy."""
    rows = []
    for soup, name in ((scene.sft, "SFT model"), (scene.policies, "policy")):
        for i, candidate in enumerate([] if soup is None else soup.candidates):
            lead = TableCell(f"{name} {candidate.group}".strip(), tone="lead")
            rows.append((lead, *_rewards(scene, soup, i), TableCell(candidate.recipe_id, tone="code")))
    return Table(
        "The models that the soups are made of",
        "Mean rewards, with 95% intervals.",
        ("model", *scene.rewards, "recipe id"),
        tuple(rows),
    )


def point_table(scene: SoupScene, completions: SplitCompletions | None) -> Table:
    """Every point of every arm: rewards, and how varied its completions are."""
    rows = []
    for soup in (*scene.soups, *scene.others):
        for i, (label, candidate) in enumerate(zip(soup.labels, soup.candidates, strict=True)):
            found = None if completions is None else completions.shares.get(candidate.recipe_id)
            varied = [TableCell(NONE)] * 2 if found is None else [_percent(found.distinct), _percent(found.repeated)]
            lead = TableCell(soup.arm.name, tone="lead", colour=soup.arm.colour)
            kept = varied if completions is not None else []
            point = TableCell(label or NONE)
            rows.append((lead, point, *_rewards(scene, soup, i), *kept, TableCell(candidate.recipe_id, tone="code")))
    varied_columns = ("distinct", "repeated words") if completions is not None else ()
    note = f"Mean rewards, with 95% intervals.{_weight_note(scene)}"
    if completions is not None:
        note += (
            " Distinct: how many of the prompts' first completions differ. Repeated words: what part of a completion's "
            "words it has said before."
        )
    columns = ("arm", "point", *scene.rewards, *varied_columns, "recipe id")
    return Table("Every point", note, columns, tuple(rows))


def _weight_note(scene: SoupScene) -> str:
    if not any(label.startswith("λ") for soup in scene.soups for label in soup.labels):
        return ""
    first, *rest = [str(expert) for expert in scene.run.provenance["experts"]]
    return (
        f" λ is the weight of {first}, 1 − λ that of {rest[0]}."
        if len(rest) == 1
        else " λ is the first policy's weight."
    )


def _rewards(scene: SoupScene, soup: Soup | None, point: int) -> list[TableCell]:
    assert soup is not None
    return [UNITS.mean(interval(soup.mean_SPK[:, point, k], scene.prompts)) for k in range(len(scene.rewards))]


def _percent(share: float) -> TableCell:
    return TableCell(f"{100 * share:.0f}%")
