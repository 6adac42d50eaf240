"""The arms of a run and their opponents: plain arms, LiNeS arms and their matched controls."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pipeline.report.data.run import PRE_TRAINED, CandidateRow, Run

#: Okabe and Ito's colour-blind safe palette, without the yellow and the black, which are invisible on a light or dark
#: page; then three more, for runs of several LiNeS arms with all their controls.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#7E57C2", "#A0522D", "#7CB342")
#: The first arm of each role has a fixed place in the palette, the same for edits and merges.
PLACES = {"lines": 0, "plain": 1, "constant": 2, "uniform": 3, "reversed": 4, "equal_norm": 5}
GREY = "#8A8F98"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star-triangle-down", "pentagon", "hourglass")
#: Line styles by role, which also distinguish the arms in grey prints.
DASHES = {
    "lines": "solid",
    "plain": "longdash",
    "uniform": "dot",
    "equal_norm": "dot",
    "constant": "dash",
    "reversed": "dashdot",
}
#: A control in words.
CONTROL_WORDS = {
    "uniform": "constant of equal mean",
    "equal_norm": "constant of equal norm",
    "constant": "tuned constant",
    "reversed": "reversed depth",
}


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm over all its groups.

    Attributes:
        name: as in the spec.
        kind: pre-trained, edit, merge, or mask (a step towards a merge's parameters, which is not a model).
        role: "pre-trained", "plain" (no scaling over depth), "lines", or its control: uniform, equal_norm, constant,
            reversed.
        control_of: the LiNeS arm of a control, else "".
        groups: an edit's experts, or ("",).
        candidates: in the order of their proposal, within each group.
        colour, symbol: of its marks. The same in every figure, except where two arms of one figure have one colour.
        lap: number of earlier arms with its colour; their symbols differ.
    """

    name: str
    kind: str
    role: str
    control_of: str
    groups: tuple[str, ...]
    candidates: tuple[CandidateRow, ...]
    colour: str
    symbol: str
    lap: int = 0

    @property
    def look(self) -> tuple[str, str]:
        """What distinguishes its marks from those of other arms."""
        return self.colour, self.symbol

    @property
    def dash(self) -> str:
        """The arm's line style, as plotly names it."""
        return DASHES.get(self.role, "solid")

    def chosen(self, group: str) -> CandidateRow | None:
        """Return the choice of validation in a group, or its only candidate; theta0 serves every group."""
        here = [c for c in self.candidates if self.kind == PRE_TRAINED or c.group == group]
        return next((c for c in here if c.chosen), here[0] if len(here) == 1 else None)

    @property
    def methods(self) -> frozenset[str]:
        """The merge methods of its candidates, each with the names of the steps that follow."""
        recipes = [c.recipe for c in self.candidates if c.recipe.method != "zero"]
        return frozenset(", ".join((r.method, *(name for name, _ in r.then))) for r in recipes)

    @property
    def is_unscaled(self) -> bool:
        """Whether it consists of experts as they are, without any scaling."""
        return all(candidate.recipe.is_expert for candidate in self.candidates)

    @property
    def has_components(self) -> bool:
        """Whether components have factors in any of its candidates."""
        return any(c.recipe.has_components for c in self.candidates)


def read_arms(run: Run) -> list[ArmResult]:
    """Return all arms: the pre-trained model, then edits, merges and masks, each in the order of the spec.

    The further seeds of a choice are no arm: see `pipeline.report.tables.seeds`.
    """
    shown = [c for c in run.candidates if c.kind != "seeds"]
    names = list(dict.fromkeys(c.arm for c in shown))
    parts = {name: tuple(c for c in shown if c.arm == name) for name in names}
    led = {c.control_of for c in shown}
    kinds = {name: parts[name][0].kind for name in names}
    arms = [_arm(name, parts[name], _role(parts[name], led), GREY, "square") for name in names]
    coloured = [_colour([a for a in arms if kinds[a.name] == kind]) for kind in ("edit", "merge")]
    uncoloured = {kind: [a for a in arms if a.kind == kind] for kind in (PRE_TRAINED, "mask")}
    return uncoloured[PRE_TRAINED] + coloured[0] + coloured[1] + uncoloured["mask"]


def opponents(arm: ArmResult, arms: Iterable[ArmResult]) -> list[ArmResult]:
    """Return the opponents of a LiNeS arm: the plain arms of its kind (and merge method), then its own controls."""
    others = [a for a in arms if a.kind == arm.kind and a.name != arm.name]
    plain = [a for a in others if a.role == "plain"]
    same = [a for a in plain if a.methods & arm.methods]
    return (same or plain) + [a for a in others if a.control_of == arm.name]


def legend_arm(name: str, number: int, role: str = "") -> ArmResult:
    """Return a name with a look of its own for a legend, such as a policy's or an expert's; number counts them."""
    bare = ArmResult(name, "edit", role, "", (), (), GREY, "square")
    return _painted(bare, number % len(PALETTE), number // len(PALETTE))


def distinct(arms: Iterable[ArmResult]) -> list[ArmResult]:
    """Return the arms of one exhibit in different colours, as far as the palette goes; the first keeps its own.

    Beyond the palette they have different looks.
    """
    arms = list(arms)
    used = Counter({arm.colour for arm in arms})
    found: list[ArmResult] = []
    for arm in arms:
        place = min(range(len(PALETTE)), key=lambda i: used[PALETTE[i]])
        looks = [a.look for a in found]
        if arm.look in looks or (any(arm.colour == colour for colour, _ in looks) and not used[PALETTE[place]]):
            painted = (_painted(arm, place, lap) for lap in range(len(SYMBOLS)))
            arm = next((a for a in painted if a.look not in looks), arm) if arm.colour in PALETTE else arm
            used[arm.colour] += 1
        found.append(arm)
    return found


def _role(candidates: tuple[CandidateRow, ...], led: set[str]) -> str:
    first = candidates[0]
    if first.kind == PRE_TRAINED:
        return PRE_TRAINED
    if first.control_of:
        return first.control
    # Recognised by its candidates or by its controls: with beta = 0 only, its candidates are constants.
    shaped = any(c.recipe.scaling != "constant" or c.recipe.has_components for c in candidates)
    return "lines" if first.arm in led or shaped else "plain"


def _arm(name: str, candidates: tuple[CandidateRow, ...], role: str, colour: str, symbol: str) -> ArmResult:
    first = candidates[0]
    groups = tuple(dict.fromkeys(c.group for c in candidates))
    return ArmResult(name, first.kind, role, first.control_of, groups, candidates, colour, symbol)


def _colour(arms: list[ArmResult]) -> list[ArmResult]:
    places: dict[str, int] = {}
    for arm in arms:
        if PLACES[arm.role] not in places.values():
            places[arm.name] = PLACES[arm.role]
    for arm in arms:
        if arm.name not in places:
            adjacent = Counter(places[a.name] for a in arms if a.name in places and _side_by_side(arm, a))
            used = Counter(places.values())
            places[arm.name] = min(range(len(PALETTE)), key=lambda i: (adjacent[i], used[i], i))
    laps = {name: list(places.values())[:i].count(place) for i, (name, place) in enumerate(places.items())}
    return [_painted(arm, places[arm.name], laps[arm.name]) for arm in arms]


def _side_by_side(a: ArmResult, b: ArmResult) -> bool:
    """Whether a verdict compares the two: a LiNeS arm, its controls, and the plain arms of its method."""
    family = (a.control_of or a.name) == (b.control_of or b.name)
    return family or ("plain" in (a.role, b.role) and bool(a.methods & b.methods))


def _painted(arm: ArmResult, place: int, lap: int) -> ArmResult:
    return replace(arm, colour=PALETTE[place], symbol=SYMBOLS[(place + lap) % len(SYMBOLS)], lap=lap)
