"""The interface of merge methods. It does not import torch: specs read names and parameters of methods."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from pipeline.parameters import Parameter
from pipeline.recipe import Number, ParamValue

if TYPE_CHECKING:
    from torch import Tensor

    Delta: TypeAlias = Mapping[str, Tensor]

Params: TypeAlias = Mapping[str, ParamValue]
#: What a method needs of each expert besides its task vector: see `pipeline.learning`.
Needs = Literal["", "fisher", "gram", "merged_gram", "learned"]
#: Needs that depend on several experts at once: only runs gather them, and files cannot give them.
OF_SEVERAL: tuple[Needs, ...] = ("merged_gram", "learned")


@dataclass(frozen=True, slots=True)
class Experts:
    """The inputs of a method, by parameter name; a method must not write to them.

    An entry of a low-rank task vector, or of one in a file, is computed each time it is read: read an entry once, use
    it and drop it, and only a few tensors are in memory besides the result.

    Attributes:
        deltas: the experts' task vectors in the run's order: float32, all with the same names and shapes.
        base: theta0 with the same names; None if the caller has none.
        statistics: one mapping for each expert, of the kind `Method.needs`; () for a method that needs nothing.
    """

    deltas: "Sequence[Delta]"
    base: "Delta | None" = None
    statistics: "Sequence[Delta]" = ()


#: The end of an error of a method that takes a number of experts.
CHOOSE_EXPERTS = "choose by --expert (files), `experts` (spec), or weights of 1 and 0"

Combine: TypeAlias = "Callable[[Experts, Sequence[Number], Params], Delta]"
#: Computes one parameter of the combined vector; of `Experts` it reads that parameter only.
Entry: TypeAlias = "Callable[[Experts, str], Tensor]"
Prepare: TypeAlias = "Callable[[Experts, Sequence[Number], Params], Entry]"
#: As `Prepare` for one parameter, whose name comes first: the names of `Experts` are its pieces, flat and in order. The
#: entries are computed in this order, each once.
PrepareParameter: TypeAlias = "Callable[[str, Experts, Sequence[Number], Params], Entry]"


def any_weights(weights: Sequence[Number], params: Params) -> None:
    """Accept any weights and parameters."""


def never(params: Params) -> bool:
    """Whether a method is entrywise that needs whole parameters."""
    return False


def no_pieces(params: Params) -> None:
    """Tell that a method cannot take the pieces of a parameter."""


def always(params: Params) -> bool:
    """Whether a method is entrywise that is with any parameters."""
    return True


@dataclass(frozen=True, slots=True)
class Method:
    """A way to combine task vectors.

    Attributes:
        doc: one line for users, with its source.
        prepare: (experts, one weight for each, every declared parameter) -> what computes a parameter of the combined
            vector, float32, from the same parameter of all experts; it may be that of a task vector. What takes whole
            task vectors, such as a threshold, is computed once, here. An expert of weight 0 has no part in it.
        parameters: parameters that the method takes.
        check: (weights, parameters), called before anything is loaded; raises ValueError, with the rule and the value
            got, for weights and parameters that the method cannot use.
        needs: what must be gathered from models and data first.
        shares: (weights, parameters) -> the factor of each expert, if the result is the sum of factor times task
            vector: low-rank task vectors then stay low-rank. None for all other methods.
        whole: theta0 plus the result is meant to be a model, which equation 2 would undo: its alpha is 1 if none is
            given.
        entrywise: parameters -> whether an entry of the result depends on the same entry of all experts only, besides
            what is prepared: parameters may then be cut into pieces, and each be combined by itself.
        by_parameter: parameters -> what computes a parameter by itself from its pieces, if the method can; None if it
            needs whole parameters, or is entrywise.
        at_once: what `combine` does, if that is faster than to prepare, and then to compute every parameter.
        propagates: whether each entry of the result is a sum that has in it the same entry of every expert that takes
            part, times some number: one that is NaN or infinite then makes it so too, as 0 times infinity is NaN.

    Example:
        >>> METHODS["average"].combine(Experts([{"w": torch.ones(2)}, {"w": torch.zeros(2)}]), (1, 1), {})
        {'w': tensor([0.5000, 0.5000])}
    """

    doc: str
    prepare: Prepare
    parameters: tuple[Parameter, ...] = ()
    check: Callable[[Sequence[Number], Params], None] = any_weights
    needs: Needs = ""
    shares: Callable[[Sequence[Number], Params], Sequence[Number]] | None = None
    whole: bool = False
    entrywise: Callable[[Params], bool] = never
    by_parameter: "Callable[[Params], PrepareParameter | None]" = no_pieces
    at_once: "Combine | None" = None
    propagates: bool = False

    def combine(self, experts: Experts, weights: Sequence[Number], params: Params) -> "Delta":
        """Return the combined vector: float32, with the names and shapes of the task vectors; it may be one of them."""
        if self.at_once:
            return self.at_once(experts, weights, params)
        entry = self.prepare(experts, weights, params)
        return {name: entry(experts, name) for name in experts.deltas[0]}


def resolve_weights(weights: Sequence[Number], num_experts: int) -> tuple[Number, ...]:
    """Return one weight for each expert: 1 for each if `weights` is empty.

    Raises:
        ValueError: if the numbers of weights and experts differ.
    """
    if weights and len(weights) != num_experts:
        raise ValueError(f"weights: must be one for each of {num_experts} experts, got {len(weights)}")
    return tuple(weights) or (1,) * num_experts


def check_some(method: str) -> Callable[[Sequence[Number], Params], None]:
    """Return the check of a method that takes any weights, but needs an expert."""

    def check(weights: Sequence[Number], params: Params) -> None:
        if not any(weights):
            raise ValueError(f"method {method}: weights must select at least one expert, got {list(weights)}")

    return check


def check_selection(
    method: str, else_: str = "the method 'weighted' takes any"
) -> Callable[[Sequence[Number], Params], None]:
    """Return the check of a method whose weights only select experts; `else_` names what takes any weights."""

    def check(weights: Sequence[Number], params: Params) -> None:
        if any(weight not in (0, 1) for weight in weights):
            raise ValueError(
                f"method {method}: weights select experts and must be 0 or 1, got {list(weights)}; {else_}"
            )
        check_some(method)(weights, params)

    return check


def check_count(method: str, count: int) -> Callable[[Sequence[Number], Params], None]:
    """Return the check of a method that takes `count` experts, 1 or 2, whose weights only select them."""

    def check(weights: Sequence[Number], params: Params) -> None:
        check_selection(method)(weights, params)
        if (got := len(used_experts(weights))) != count:
            number = "one expert" if count == 1 else "two experts"
            raise ValueError(f"method {method}: takes {number}, got {got}: {CHOOSE_EXPERTS}")

    return check


def check_expert(weights: Sequence[Number], params: Params) -> None:
    """Check that the parameter `expert` is the place of an expert that takes part."""
    expert = int(number(params, "expert"))
    if expert >= len(weights) or not weights[expert]:
        places = ", ".join(map(str, used_experts(weights)))
        raise ValueError(f"expert: must be the place of an expert that takes part, one of {places}, got {expert}")


def used_experts(weights: Sequence[Number]) -> list[int]:
    """Return the places, in the run's order, of the experts whose weight is not 0."""
    return [place for place, weight in enumerate(weights) if weight]


def number(params: Params, name: str) -> float:
    """Return a parameter of kind "float" or "int"."""
    value = params[name]
    assert isinstance(value, float | int), "checked with its declaration"
    return value


def times(delta: "Delta", name: str, factor: Number) -> "Tensor":
    """Return a parameter of a task vector times a number, as a new tensor that the caller may write to."""
    entry = delta[name]
    if not getattr(delta, "makes_new", False):
        return entry * factor
    return entry if factor == 1 else entry.mul_(factor)


def selected(experts: Experts, weights: Sequence[Number]) -> "list[Delta]":
    """Return the task vectors whose weight is not 0."""
    return [delta for delta, weight in zip(experts.deltas, weights, strict=True) if weight]
