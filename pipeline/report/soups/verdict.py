"""The headline of a run of rewards: each LiNeS arm's front against the plain soup's and its controls', in words."""

from collections.abc import Sequence

from pipeline.report.data.arms import CONTROL_WORDS, ArmResult, opponents
from pipeline.report.soups.comparisons import SURE, Contest, Fronts, contest
from pipeline.report.tables.table import NONE, Table, TableCell, Units, lead
from pipeline.report.tables.verdict import ArmComparison, ArmVerdict, conclusion, standing

UNITS = Units(percent=False)
_VOLUME = {
    "better": "Its front beats the front of {} without dominating it: hypervolume",
    "worse": "Its front is worse than the front of {}: hypervolume",
    "tie": "Its front ties with the front of {}: hypervolume",
}
_AS_GOOD = "is at least as good in every reward and better in one"


def soup_verdicts(fronts: Fronts) -> list[ArmVerdict]:
    """Return one verdict for each LiNeS arm that can be compared with a plain soup or a control."""
    arms = [soup.arm for soup in fronts.scene.soups]
    leaders = [arm for arm in arms if arm.role == "lines"]
    return [found for arm in leaders if (found := _verdict(arm, opponents(arm, arms), fronts)) is not None]


def _verdict(arm: ArmResult, rivals: Sequence[ArmResult], fronts: Fronts) -> ArmVerdict | None:
    contests = [contest(fronts, arm, other) for other in rivals]
    if not contests:
        return None
    plain = [sentence for c in contests if c.other.role == "plain" for sentence in _against(c, fronts)]
    controls = [c for c in contests if c.other.control_of]
    compared = [ArmComparison(c.other, (("hypervolume", c.volume),)) for c in controls]
    first = plain or ["The run has no plain soup to compare it with."]
    sentences = (*first, conclusion(arm, compared), *standing(compared), *_dominance(controls))
    return ArmVerdict(arm, sentences, _table(arm, contests, fronts))


def _against(found: Contest, fronts: Fronts) -> list[str]:
    """Only what holds: dominance, else hypervolume; then the meaning of dominance, and the gap."""
    name, volume = found.other.name, UNITS.difference(found.volume)
    explained = ""
    if found.dominates >= SURE:
        first = f"Its front dominates the front of {name}: hypervolume"
        explained = f"For each point of the other front it has one that {_AS_GOOD}{_of_resamples(found.dominates)}."
    elif found.dominated >= SURE:
        first = f"Its front is dominated by the front of {name}: hypervolume"
        explained = f"For each of its points the other front has one that {_AS_GOOD}{_of_resamples(found.dominated)}."
    else:
        first = _VOLUME[found.volume.verdict].format(name)
    return [f"{first} {volume.text} {volume.detail}.", *filter(None, [explained, _gap_sentence(found, fronts)])]


def _percent(share: float) -> str:
    """The share, rounded down: 97.5% is a bound."""
    return f"{int(1000 * share + 1e-9) / 10:g}%"


def _of_resamples(share: float) -> str:
    return f", as measured and in {_percent(share)} of the resamples"


def _gap_sentence(found: Contest, fronts: Fronts) -> str:
    if found.gap is None:
        return ""
    first, second = fronts.scene.rewards
    word = {"better": "is higher", "worse": "is lower", "tie": "ties"}[found.gap.verdict]
    units = fronts.scene.units(second)
    numbers = f"{units.number(found.gap.value, True)}{units.points} {units.range(found.gap, True)}"
    return f"At equal {first} its {second} {word}: {numbers} on average over the overlap of the fronts."


def _dominance(controls: Sequence[Contest]) -> list[str]:
    """Which controls are dominated, and which dominate."""
    below = [CONTROL_WORDS[c.other.role] for c in controls if c.dominates >= SURE]
    above = [CONTROL_WORDS[c.other.role] for c in controls if c.dominated >= SURE]
    found = [f"Its front dominates the front of the {' and of the '.join(below)}."] if below else []
    return found + [f"The front of the {name} dominates its own." for name in above]


def _table(arm: ArmResult, contests: Sequence[Contest], fronts: Fronts) -> Table:
    rewards = fronts.scene.rewards
    rows = []
    for c in contests:
        what = CONTROL_WORDS.get(c.other.role, "no scaling over depth")
        gap = [fronts.scene.units(rewards[1]).difference(c.gap)] * (len(rewards) == 2)
        rows.append((lead(c.other, f"({what})"), UNITS.difference(c.volume), *gap, _dominates(c)))
    gaps = [f"{rewards[1]} at equal {rewards[0]}"] * (len(rewards) == 2)
    note = (
        f"{arm.name} minus the row, paired, with 95% intervals; the hypervolume decides which front is better. "
        "Dominance: shown if it holds as measured, with the share of the resamples in which it holds; unsure below "
        "97.5%."
    )
    return Table(f"{arm.name} against …", note, ("against", "hypervolume", *gaps, "dominance"), tuple(rows))


def _dominates(found: Contest) -> TableCell:
    """If one front dominates the other as measured, in how many of the resamples it does."""
    for share, word in ((found.dominates, "dominates"), (found.dominated, "dominated")):
        if share:
            return TableCell(word if share >= SURE else f"unsure: {word}", f"in {_percent(share)}")
    return TableCell(NONE)
