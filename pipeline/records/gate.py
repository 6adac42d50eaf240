"""The leave-one-group-out gate: what edits and merges lose on validation when a third of the blocks loses its update.

A profile such as LiNeS damps the first blocks. It can win only where the target needs the update of the first third
much less than that of the last, and where something is lost that damping the first third gives back.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pipeline.merging.methods import METHODS
from pipeline.merging.scaling import SCALINGS
from pipeline.messages import Identity
from pipeline.recipe import ParamValue, Recipe, step_text, step_titles
from search.intervals import Interval

#: The groups of blocks that are left out, one at a time.
THIRDS = ("first", "middle", "last")
#: What may be lost and still count as nothing: in accuracy, and of other metrics as a part of what the whole edit
#: changes.
ALLOWED_ACCURACY, ALLOWED_PART = 0.01, 0.05
#: Increased whenever a field changes its name or meaning.
VERSION = 2
#: In a run's folder, and in that of an inspection: the field `gate` holds the gate.
FILE_NAME = "inspect.json"

_SEARCHED_WEIGHTS = re.compile(r" \[[^]]*\*[^]]*\] ")

Word = Literal["room", "no room", "open"]


def thirds(num_blocks: int) -> tuple[range, ...]:
    """Return the blocks of each third, as the scaling function `grouped` cuts them.

    Example:
        >>> thirds(8)
        (range(0, 3), range(3, 5), range(5, 8))
    """
    numbers = {"factors": tuple(map(float, range(len(THIRDS))))}
    of_block = [SCALINGS["grouped"].function(block / max(1, num_blocks - 1), numbers) for block in range(num_blocks)]
    starts = [sum(group < third for group in of_block) for third in range(len(THIRDS) + 1)]
    return tuple(range(start, stop) for start, stop in zip(starts, starts[1:], strict=False))


def combination(recipe: Recipe, searched: Iterable[str], experts: Iterable[str]) -> str:
    """Return the method with its parameters, the weights of the experts and the steps of a recipe, without scaling.

    Args:
        recipe: of a candidate.
        searched: names of dimensions; a parameter or weight that is searched is a star, whatever its value.
        experts: their names, in the run's order.

    Example:
        >>> combination(Recipe.make("weighted", "linear", 0.5, 0.5, (0.2, 0, 0.7)), ["weights.a", "beta"], "abc")
        'weighted [*, 0, 0.7] []'
        >>> recipe = Recipe.make("ties", params={"keep": 10}).followed_by([("norm_match", {"by": "block"})])
        >>> combination(recipe, ["norm_match.by"], "abc")
        "ties:keep=10 [] ['norm_match:by=*']"
    """
    own, dims = {p.name for p in METHODS[recipe.method].parameters}, tuple(searched)
    method = step_text(recipe.method, [(k, _shown(k, v, dims)) for k, v in recipe.params if k in own])
    steps = [
        step_text(name, [(k, _shown(f"{title}.{k}", v, dims)) for k, v in params])
        for title, (name, params) in zip(step_titles(name for name, _ in recipe.then), recipe.then, strict=True)
    ]
    weights = (
        "*" if f"weights.{e}" in dims else str(w) for e, w in zip(experts, recipe.weights, strict=bool(recipe.weights))
    )
    return f"{method} [{', '.join(weights)}] {steps}"


def earlier_form(combined: str) -> str:
    """Return how gates of earlier versions wrote a combination: one star for all weights if one of them is searched.

    Example:
        >>> earlier_form("weighted [*, 0, 0.7] []")
        'weighted * []'
    """
    return _SEARCHED_WEIGHTS.sub(" * ", combined, count=1)


def _shown(dimension: str, value: ParamValue, searched: tuple[str, ...]) -> ParamValue:
    """Return the value, or a star if it, or a part of it, is searched."""
    return "*" if any(s == dimension or s.startswith(f"{dimension}.") for s in searched) else value


@dataclass(frozen=True, slots=True)
class RoleLosses:
    """What the tasks of one role gain and lose, each with its paired 95% interval.

    Attributes:
        gain: the whole edit minus the base; positive is better, whatever the metric.
        cost: third -> the whole edit minus the edit without this third; positive is a loss. A merge without a third
            has the better of its own constant and twice that.
    """

    gain: Interval
    cost: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Reason:
    """What the gate says of an edit.

    Attributes:
        word: room, no room or open.
        why: the key of a sentence: free, nothing gained, needed, even, nothing lost, not given back, lost deep or
            unsure.
    """

    word: Word
    why: str


@dataclass(frozen=True)
class GatedEdit:
    """An edit of one expert, or a merge, with three thirds left out in turn.

    Attributes:
        kind: edit or merge.
        name: the expert, or the arm of the merge.
        combined: how the task vector is made, as `combination` says.
        constant: lambda of the whole edit; a merge's is the best of a few on validation.
        accuracy: whether the target's metric is an accuracy.
        roles: role -> losses; a role in bits per byte has its own name, as in the report.
        last_over_first: by how much more the target loses without the last third than without the first.
        control_last_over_first: the same of the control tasks; negative if they regain more without the last. None
            if there are none, or in gates of earlier versions.
        failure: why nothing was measured; "" if it was.
    """

    kind: str
    name: str
    combined: str
    constant: float
    accuracy: bool = True
    roles: Mapping[str, RoleLosses] = field(default_factory=dict)
    last_over_first: Interval | None = None
    control_last_over_first: Interval | None = None
    failure: str = ""

    @property
    def target(self) -> RoleLosses | None:
        """The losses of the target tasks; None if nothing was measured."""
        return next((losses for role, losses in self.roles.items() if role.startswith("target")), None)

    @property
    def control(self) -> RoleLosses | None:
        """The losses of the control tasks; None if there are none."""
        return next((losses for role, losses in self.roles.items() if role.startswith("control")), None)

    def allowed(self, losses: RoleLosses) -> float:
        """Return the loss of a role that counts as nothing, in the role's unit."""
        in_bits = any(losses is found and role not in ("target", "control") for role, found in self.roles.items())
        return ALLOWED_ACCURACY if self.accuracy and not in_bits else ALLOWED_PART * abs(losses.gain.value)

    @property
    def predicted(self) -> Reason:
        """Whether a profile that damps the first blocks has room to win against constants."""
        target, over = self.target, self.last_over_first
        control = self.control if self.kind == "edit" else None
        if target is None or over is None:
            return Reason("open", self.failure)
        first, allowed = target.cost["first"], self.allowed(target)
        if first.low > allowed:
            return Reason("no room", "needed")
        if over.high <= allowed:
            return Reason("no room", "even")
        if control is not None and -control.gain.low <= self.allowed(control):
            return Reason("no room", "nothing lost")
        if control is not None and control.cost["first"].low > 0:
            return Reason("no room", "not given back")
        if control is not None and (deep := self.control_last_over_first) is not None and deep.high < 0:
            return Reason("no room", "lost deep")
        if first.high <= allowed and over.low > 0:
            return Reason("room", "free")
        if target.gain.low <= 0:
            return Reason("open", "nothing gained")
        return Reason("open", "unsure")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "GatedEdit":
        """Build what `to_json` wrote.

        Raises:
            ValueError: if it is something else.
        """
        try:
            roles = {role: _losses(found) for role, found in data["roles"].items()}
            over = {name: _interval(data.get(name)) for name in ("last_over_first", "control_last_over_first")}
            return cls(**{**data, "roles": roles, **over})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not what `lines inspect` writes ({error!r})") from error


def _interval(data: Mapping[str, Any] | None) -> Interval | None:
    return None if data is None else Interval(**data)


def _losses(data: Mapping[str, Any]) -> RoleLosses:
    return RoleLosses(Interval(**data["gain"]), {third: Interval(**found) for third, found in data["cost"].items()})


@dataclass(frozen=True)
class Gate:
    """The gate of a spec.

    Attributes:
        checkpoints: "base" and each expert -> content fingerprint.
        tasks: task -> [content fingerprint, number of validation samples].
        numerics: dtype, device type and versions.
        edits: what was taken apart.
    """

    checkpoints: Mapping[str, str]
    tasks: Mapping[str, tuple[str, int]]
    numerics: str
    edits: tuple[GatedEdit, ...]

    @classmethod
    def of(cls, identity: Identity, edits: Iterable[GatedEdit]) -> "Gate":
        """Join edits with what their scores depend on."""
        tasks = {name: (fingerprint, count) for name, (fingerprint, count, _) in identity.tasks.items()}
        return cls(dict(identity.checkpoints), tasks, identity.numerics, tuple(edits))

    def with_earlier(self, earlier: "Gate") -> "Gate":
        """Return a gate that also has the edits of an earlier inspection that this one lacks."""
        own = {(e.kind, e.name, form) for e in self.edits for form in (e.combined, earlier_form(e.combined))}
        rest = (edit for edit in earlier.edits if (edit.kind, edit.name, edit.combined) not in own)
        return replace(self, edits=(*self.edits, *rest))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"version": VERSION, **asdict(self), "edits": [edit.to_json() for edit in self.edits]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Gate":
        """Build what `to_json` wrote.

        Raises:
            ValueError: if it is something else, or of another version.
        """
        if not isinstance(data, Mapping) or data.get("version") != VERSION:
            raise ValueError(f"not a gate of version {VERSION}: run `lines inspect` again")
        try:
            tasks = {name: (fingerprint, count) for name, (fingerprint, count) in data["tasks"].items()}
            edits = tuple(map(GatedEdit.from_json, data["edits"]))
            return cls(dict(data["checkpoints"]), tasks, data["numerics"], edits)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not what `lines inspect` writes ({error!r})") from error
