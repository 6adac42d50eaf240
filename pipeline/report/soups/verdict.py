"""The headline of a run of rewards: each LiNeS arm's front against the plain soup's and its controls', in words."""

from collections.abc import Sequence

from pipeline.report.data.arms import CONTROL_WORDS, ArmResult, opponents
from pipeline.report.soups.comparisons import SURE, Contest, Fronts, contest
from pipeline.report.tables.table import NONE, Table, TableCell, Units
from pipeline.report.tables.verdict import ArmComparison, ArmVerdict, conclusion, standing

UNITS = Units(percent=False)
_VOLUME = {
    "better": "Its front beats that of {} without dominating it, by a hypervolume of",
    "worse": "Its front falls short of that of {}, by a hypervolume of",
    "tie": "Its front ties with that of {}, with a difference in hypervolume of",
}


def soup_verdicts(fronts: Fronts) -> list[ArmVerdict]:
    """One for each LiNeS arm that has points beside a plain soup's or a control's."""
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
    said = plain or ["It was run without a plain soup beside it."]
    return ArmVerdict(
        arm, (*said, conclusion(compared), *standing(compared), *_dominance(controls)), _table(arm, contests, fronts)
    )


def _against(found: Contest, fronts: Fronts) -> list[str]:
    """What holds, and never a word more: dominance, else hypervolume; then what is meant, and the gap."""
    name, volume = found.other.name, UNITS.difference(found.volume)
    explained = ""
    if found.dominates >= SURE:
        first = f"Its front dominates that of {name}, by a hypervolume of"
        explained = f"For each point of the other front it has one that {_AS_GOOD}{_of_resamples(found.dominates)}."
    elif found.dominated >= SURE:
        first = f"Its front is dominated by that of {name}, by a hypervolume of"
        explained = f"For each of its points the other front has one that {_AS_GOOD}{_of_resamples(found.dominated)}."
    else:
        first = _VOLUME[found.volume.verdict].format(name)
    return [f"{first} {volume.text} {volume.detail}.", *filter(None, [explained, _gap_sentence(found, fronts)])]


_AS_GOOD = "is at least as good in every reward and better in one"


def _of_resamples(share: float) -> str:
    """The share, rounded down: 97.5% is a bound."""
    return f", as measured and in {int(1000 * share + 1e-9) / 10:g}% of the resamples"


def _gap_sentence(found: Contest, fronts: Fronts) -> str:
    if found.gap is None:
        return ""
    first, second = fronts.scene.rewards
    word = {"better": "higher", "worse": "lower", "tie": "not told from the other's"}[found.gap.verdict]
    numbers = f"{UNITS.number(found.gap.value, True)} {UNITS.range(found.gap, True)}"
    return f"At equal {first} its {second} is {word}: {numbers} on average where the fronts overlap."


def _dominance(controls: Sequence[Contest]) -> list[str]:
    """Which controls are dominated, and which dominate."""
    ours = [_control(c) for c in controls if c.dominates >= SURE]
    theirs = [_control(c) for c in controls if c.dominated >= SURE]
    said = [f"Its front dominates that of the {' and of the '.join(ours)}."] if ours else []
    return said + [f"The front of the {name} dominates its own." for name in theirs]


def _control(found: Contest) -> str:
    return CONTROL_WORDS[found.other.role]


def _table(arm: ArmResult, contests: Sequence[Contest], fronts: Fronts) -> Table:
    rewards = fronts.scene.rewards
    rows = []
    for c in contests:
        what = CONTROL_WORDS.get(c.other.role, "no scaling over depth")
        lead = TableCell(c.other.name, f"({what})", tone="lead", colour=c.other.colour)
        gap = [UNITS.difference(c.gap)] * (len(rewards) == 2)
        rows.append((lead, UNITS.difference(c.volume), *gap, _dominates(c)))
    gaps = [f"{rewards[1]} at equal {rewards[0]}"] * (len(rewards) == 2)
    note = (
        f"{arm.name} minus the row, paired, with 95% intervals; who beats whom goes by hypervolume. Dominance: where "
        "it holds as measured, with the part of the resamples that it holds in; below 97.5% it is called unsure."
    )
    return Table(f"{arm.name} against …", note, ("against", "hypervolume", *gaps, "dominance"), tuple(rows))


def _dominates(found: Contest) -> TableCell:
    """Where one front dominates the other as measured: in how many of the resamples it does."""
    for share, word in ((found.dominates, "dominates"), (found.dominated, "dominated")):
        if share:
            return TableCell(word if share >= SURE else f"unsure: {word}", f"in {int(1000 * share + 1e-9) / 10:g}%")
    return TableCell(NONE)
