"""The arms of a spec: what is edited or merged, and how it is scaled, searched and chosen."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from pipeline.parameters import require_known
from pipeline.spec.default_search import with_default_search
from pipeline.spec.values import (
    Alpha,
    Beta,
    Dimension,
    Lambdas,
    Outside,
    ParamDimension,
    SpecModel,
    check_lambdas,
    listed,
    repeated,
)


class ScalingSpec(SpecModel):
    """lambda(depth) = alpha + beta * f(depth); alpha outside the residual blocks (equation 1, appendix A)."""

    function: str = "constant"
    """The function f: constant, linear, sqrt, quadratic, power, cosine, piecewise or grouped."""
    alpha: Alpha = 1.0
    """A number, a grid, a range, or auto: equation 2 with the L1 norm (auto_l2: with the L2 norm)."""
    beta: Beta = 0.0
    """A number, a grid, a range, or "1 - alpha"."""
    params: dict[str, ParamDimension] = {}
    """Parameters of the function: `p` of power, `knots` of piecewise, `factors` of grouped."""
    outside: Outside = "alpha"
    """Lambda outside the blocks, as in the unscaled stack of an encoder-decoder: alpha, a number, a grid or a range."""
    scale: Dimension = 1.0
    """Factor of alpha and beta, at least 0: WiSE-FT's interpolation with the pre-trained weights, for any function."""

    components: dict[str, Dimension] = {}
    """Factors of lambda: attention, ssm, mlp, norms, embeddings, heads, or of `patterns`. Others have 1."""
    patterns: dict[str, str] = {}
    """Components of your own: name -> regular expression, found anywhere in the names of its parameters."""

    @model_validator(mode="after")
    def _consistent(self) -> "ScalingSpec":
        if (lowest := min(listed(self.scale))) < 0:
            raise ValueError(f"scale: must be at least 0, got {lowest:g}")
        if self.scale != 1.0 and isinstance(self.alpha, str):
            raise ValueError(f"scale: needs a numeric alpha to multiply, got alpha: {self.alpha}")
        if self.scale != 1.0 and self.outside != "alpha":
            raise ValueError("scale: interpolates all weights, so it needs outside: alpha; leave scale or outside out")
        if isinstance(self.beta, str) and isinstance(self.alpha, str):
            raise ValueError(f"beta: {self.beta!r} needs a numeric alpha, got alpha: {self.alpha}")
        if self.function == "constant" and self.beta != 0.0:
            raise ValueError("beta: a constant scaling has none; set alpha, or use another function such as linear")
        if self.function == "grouped" and self.params and not isinstance(self.beta, str) and not any(listed(self.beta)):
            raise ValueError("beta: 0 leaves the factors of grouped without effect; with alpha: 0, set beta: 1")
        return self


class StepSpec(SpecModel):
    """A step after a merge, which changes the combined vector before it is scaled."""

    step: str
    """Name of the step: norm_match or svc (docs/reference/chains.md)."""
    params: dict[str, ParamDimension] = {}
    """Parameters of the step."""


def _as_step(value: object) -> object:
    return {"step": value} if isinstance(value, str) else value


class Merge(SpecModel):
    """How the task vectors are combined, before scaling."""

    method: str = ""
    """Name of the merge method, such as sum, average, ties or consensus (docs/reference/methods.md)."""
    params: dict[str, ParamDimension] = {}
    """Parameters of the method. `tall_lambda: auto` of consensus is chosen for each task on validation."""
    weights: dict[str, Dimension] = {}
    """Coefficient of each expert, for the method weighted."""
    lambdas: Lambdas | None = None
    """Rewarded soups, instead of weights: points on each edge of the simplex, the first of two weights, or lists."""
    then: tuple[Annotated[StepSpec, BeforeValidator(_as_step, json_schema_input_type=str | StepSpec)], ...] = ()
    """Steps after the merge, in this order: names, or mappings with parameters."""
    seeds: int = Field(1, ge=1, le=1000)
    """Random methods (dare, della, ...): with how many seeds the choice is scored; the report has their spread."""
    of: str = ""
    """Instead of a method: an arm above this one; its chosen merge is scaled in another way here."""

    @model_validator(mode="after")
    def _one_source(self) -> "Merge":
        if bool(self.method) == bool(self.of):
            raise ValueError("exactly one of method and of must be given")
        if self.of and (self.params or self.weights or self.then or self.lambdas is not None):
            raise ValueError(f"of: uses parameters, weights and steps of {self.of!r}; leave params, weights, then out")
        if self.of and self.seeds > 1:
            raise ValueError(f"seeds: scores the choice of a method again; give it to the arm {self.of!r}")
        if self.lambdas is not None:
            if self.method != "weighted" or self.weights:
                raise ValueError("lambdas: must be used with the method weighted and without weights")
            check_lambdas(self.lambdas)
        return self


class Race(SpecModel):
    """Stop candidates that a few samples show to be worse, by a paired test; then by what they can still reach."""

    race: float = Field(gt=0, lt=1)
    """Chance that the best candidate is stopped wrongly, in the whole search; 0.05 is usual. It is approximate."""


def _kind_of_stop(value: object) -> str:
    return "<race>" if isinstance(value, dict | Race) else "<stop>"


_Stop = Annotated[
    Annotated[Literal["auto", "exact", "none"], Tag("<stop>")] | Annotated[Race, Tag("<race>")],
    Discriminator(_kind_of_stop),
]


class Search(SpecModel):
    """How candidates are drawn from an arm's space."""

    sampler: str = "grid"
    """grid, random, qmc, tpe, gp, cmaes, nsga2, nsga3 or greedy (a soup); default for ranges without a step: gp."""
    trials: int | None = Field(None, ge=1, le=1_000_000)
    """Candidates of each search (an edit has one for each expert); not for a grid; for ranges 20 by default, or 10."""
    in_flight: int = Field(4, ge=1, le=10_000)
    """Candidates proposed before the first of them is scored. It changes the result; the cluster's size does not."""
    options: dict[str, Any] = {}
    """Options of the sampler."""
    stop: _Stop = "auto"
    """exact: stop a candidate that cannot win any more; auto: so where the report shows only what is chosen."""


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_Several = Annotated[tuple[str, ...], Field(min_length=1)]
#: Several names; one may be written without a list.
Names = Annotated[_Several, BeforeValidator(_as_tuple, json_schema_input_type=str | _Several)]


def check_edit(names: Names) -> None:
    """Require that each expert is named once, and each_expert alone.

    Raises:
        ValueError: if not.
    """
    if "each_expert" in names and len(names) > 1:
        raise ValueError(f"edit: each_expert must be the only entry, got {list(names)}")
    _check_repeated("edit", names)


def _check_repeated(field: str, names: Sequence[str]) -> None:
    if twice := repeated(names):
        raise ValueError(f"{field}: each expert may be named once, got {twice} more than once")


def _as_merge(value: object) -> object:
    return {"method": value} if isinstance(value, str) else value


class Select(SpecModel):
    """The objectives that rank candidates on validation."""

    maximise: Names = ("2 * target + control",)
    """One expression over target, control, retained, mean, worst, accuracy and task["name"], or several for a front."""


class Arm(SpecModel):
    """One row of the tables: a way to edit each expert, or to merge several."""

    edit: Names | None = None
    """`each_expert`, or names of experts. Each is edited, searched and chosen separately."""
    merge: Annotated[Merge, BeforeValidator(_as_merge, json_schema_input_type=str | Merge)] | None = None
    """A merge of all experts (or of `experts`): the name of a method, or a mapping with its parameters."""
    experts: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The experts that a merge uses; default: all."""
    scaling: ScalingSpec = ScalingSpec()
    """How the combined task vector is scaled over depth."""
    search: Search = Search()
    """How the space is searched."""
    select: Select | None = None
    """Overrides the run's `select`."""
    score: Literal["all", "targets"] = "all"
    """The tasks to score: all, or targets: only the tasks of the experts that a merge uses."""
    test: Literal["chosen", "every"] = "chosen"
    """What is scored on test: chosen: the candidate chosen on validation; every: all candidates, to draw curves."""

    @model_validator(mode="before")
    @classmethod
    def _default_search(cls, data: Any) -> Any:
        return with_default_search(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _one_kind(self) -> "Arm":
        if (self.edit is None) == (self.merge is None):
            raise ValueError("exactly one of edit and merge must be given")
        if self.merge is not None and self.merge.of and self.experts is not None:
            raise ValueError(f"experts: this arm uses those of {self.merge.of!r}; leave them out")
        if self.edit is not None and self.experts is not None:
            raise ValueError("experts: is for a merge; name the experts of an edit in edit, as in edit: [a, b]")
        check_edit(self.edit or ())
        _check_repeated("experts", self.experts or ())
        if self.merge is not None and self.experts is not None:
            for name in self.merge.weights:
                require_known("merge.weights", name, self.experts, "expert of this arm")
        return self
