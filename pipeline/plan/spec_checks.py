"""Checks of a spec before its arms are planned: its size, the names of its arms, and its arena."""

from collections.abc import Mapping

from pipeline.merging.methods import METHODS, look_up_method
from pipeline.merging.scaling import SCALINGS
from pipeline.parameters import look_up
from pipeline.plan.controls import NAMES, is_shaped
from pipeline.plan.derived import MASKS
from pipeline.plan.groups import PRE_TRAINED
from pipeline.plan.seeds import SEEDS, with_seeds
from pipeline.spec.arena import EDIT, arms_of
from pipeline.spec.arms import Merge
from pipeline.spec.run import RunSpec

#: The largest plan: searches, and searches times tasks. A larger one is taken for a mistake.
_MOST_GROUPS, _MOST_CELLS = 10_000, 1_000_000


def check_size(spec: RunSpec) -> None:
    """Refuse a plan that would fill the memory: each group holds the roles of all tasks.

    Raises:
        ValueError: if there are too many groups, or groups times tasks.
    """
    edits = [
        len(spec.experts) if "each_expert" in arm.edit else len(arm.edit) for arm in spec.arms.values() if arm.edit
    ]
    groups = (sum(edits) + len(spec.arms)) * (1 + len(NAMES) * bool(spec.controls.kinds))
    if groups > _MOST_GROUPS or groups * len(spec.tasks) > _MOST_CELLS:
        raise ValueError(
            f"arms: at most {_MOST_GROUPS:,} searches (arms times the experts that they edit, and controls), and "
            f"{_MOST_CELLS:,} searches times tasks, got {groups:,} and {len(spec.tasks)} tasks: use several runs"
        )


def taken_names(spec: RunSpec) -> dict[str, str]:
    """Return the names of controls and of further seeds -> whose they are, in words."""
    lines = [name for name, arm in spec.arms.items() if spec.controls.kinds and is_shaped(arm)]
    taken = {f"{name}, {control}": f"a control of the arm {name!r}" for name in lines for control in NAMES}
    random = [name for name, arm in spec.arms.items() if with_seeds(arm)]
    return taken | {f"{name}, {SEEDS}": f"the seeds of the arm {name!r}" for name in random}


def check_arena(spec: RunSpec) -> None:
    """Require known methods and functions in an arena: errors name its own fields, and not those of its arms.

    Raises:
        ValueError: if one is unknown; near names are suggested.
    """
    if spec.arena is None:
        return
    for label, merge in spec.arena.methods.items():
        look_up_method(merge.method, f"arena.methods.{label}")
    for label, profile in spec.arena.profiles.items():
        look_up(SCALINGS, profile.function, f"arena.profiles.{label}")


def check_ranking(spec: RunSpec) -> None:
    """Require that an arena scores all edits on the same tasks; run folders of earlier versions may not.

    Raises:
        ValueError: if it does not.
    """
    if spec.arena is None or spec.arena.edit is None or len(spec.tasks) == 1:
        return
    edits = {name: spec.arms[name].score for name, (_, method, _) in arms_of(spec.arena).items() if method == EDIT}
    if len({*edits.values()}) > 1:
        name = next(name for name, score in edits.items() if score == "targets")
        raise ValueError(
            f"arms.{name}.score: targets scores other tasks than the arena's other edits, so that they cannot be "
            "ranked: give all of them the same score, or none"
        )


def check_name(name: str, taken: Mapping[str, str]) -> None:
    """Refuse an arm with a name that the run gives to an arm of its own; `taken` says to which else.

    Raises:
        ValueError: if the name is taken.
    """
    if name == PRE_TRAINED:
        raise ValueError(f"arms.{name}: this name is taken by the pre-trained model; use another one")
    if name.startswith(MASKS):
        raise ValueError(f"arms.{name}: names that begin with {MASKS!r} are taken by the searches of mask lambdas")
    if name in taken:
        raise ValueError(f"arms.{name}: this name is taken by {taken[name]}; use another one")


def check_merge_of_rewards(field: str, merge: Merge) -> None:
    """Refuse a merge that needs accuracies or labelled data, which a run of rewards does not have.

    Raises:
        ValueError: if it learns from labels, searches masks or has several seeds; `field` is its path.
    """
    if merge.method in METHODS and METHODS[merge.method].needs:
        raise ValueError(f"{field}.method: {merge.method} learns from labelled data, but a run of rewards has none")
    if merge.params.get("tall_lambda") == "auto":
        raise ValueError(f"{field}.params.tall_lambda: auto is chosen by accuracies, but a run of rewards has none")
    if merge.seeds > 1:
        raise ValueError(f"{field}.seeds: scores a choice again, but a run of rewards chooses nothing")
