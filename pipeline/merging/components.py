"""Components of a model: attention, MLP, norms, ...: each may have a factor, which multiplies lambda(depth).

A parameter belongs to one component at most, by its name alone: to that of a user's pattern, else to the first of
`USUAL` that matches. This module does not import torch, so that specs and reports can use it.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pipeline.parameters import Parameter
from pipeline.recipe import COMPONENT, PATTERN, ParamValue
from tasks.registry import near

#: Of every component.
FACTOR = Parameter("factor", "factor of lambda", 1.0)
_NAME = re.compile(r"[a-z][a-z0-9_]*")

#: Component -> what is found in the names of its parameters; the first that fits decides. So a norm inside attention is
#: a norm, and the MLP of a head a head. The names are those of open_clip, timm, torchvision and transformers.
USUAL: Mapping[str, str] = {
    "norms": r"(?:^|\.)(?:\w*norm\w*|ln\d?|ln_\w+|bn\d*)(?:\.|$)",
    "heads": r"(?:^|\.)(?:heads?|(?!conv_)\w+_head|classifier|pre_classifier|score|qa_outputs|cls|pooler|embed_out|"
    r"vocab_\w+|\w+_projection)(?:\.|$)|(?:^|\.)visual\.proj$|^(?:module\.)?(?:proj$|fc\.)",
    "attention": r"attn|attention|(?:^|\.)att\.|\.(?:q|k|v|o|qkv)_proj\.|Wqkv",
    "ssm": r"(?:^|\.)(?:\w*mamba\w*|\w*ssm\w*|mixer)\.",
    "mlp": r"(?:^|\.)(?:mlp\w*|ffn?\w*|feed_?forward\w*|\w*fc[12]|dense_\w+|densereludense|intermediate|output\.dense|"
    r"experts|shared_expert\w*|router|block_sparse_moe)(?:\.|$)",
    "embeddings": r"embed|(?:^|\.)(?:wte|wpe|shared|\w*stem|\w+_tokens?)(?:\.|$)|^(?:module\.)?(?:visual\.)?conv1\.",
}
_USUAL = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in USUAL.items()}


@lru_cache(maxsize=1 << 16)
def usual_component(parameter: str) -> str:
    """Return the usual component of a parameter, or "" if there is none.

    Example:
        >>> usual_component("h.0.attn.c_attn.weight"), usual_component("h.0.ln_1.weight"), usual_component("gamma")
        ('attention', 'norms', '')
    """
    return next((name for name, pattern in _USUAL.items() if pattern.search(parameter)), "")


@dataclass(frozen=True, slots=True)
class Components:
    """The factors of a recipe's components.

    Attributes:
        factors: (component, factor), sorted; every other parameter has the factor 1.
        patterns: (component, regular expression found anywhere in a name), of a user's own components.

    Example:
        >>> components = Components.of({"component.mlp": 0.5, "component.gate": 0, "pattern.gate": "gate"})
        >>> [components.factor(name) for name in ("mlp.up_proj.weight", "mlp.gate_proj.weight", "norm.weight")]
        [0.5, 0.0, 1.0]
    """

    factors: tuple[tuple[str, float], ...] = ()
    patterns: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, ParamValue]) -> "Components":
        """Take the factors and patterns out of a recipe's parameters.

        Raises:
            ValueError: if a factor is no finite number, a component is unknown, or a pattern is not a regular
                expression, has the name of a usual component or has no factor.
        """
        patterns = {k.removeprefix(PATTERN): v for k, v in params.items() if k.startswith(PATTERN)}
        given = {k.removeprefix(COMPONENT): v for k, v in params.items() if k.startswith(COMPONENT)}
        for name, pattern in patterns.items():
            _check_pattern(name, pattern, given)
        factors = {}
        for name, value in given.items():
            if name not in USUAL and name not in patterns:
                raise ValueError(
                    f"components: unknown component {name!r}; {near(name, [*USUAL, *patterns])}; for others, give "
                    f"patterns: {{{name}: REGEX}}"
                )
            try:
                factors[name] = float(FACTOR.check(value))  # type: ignore[arg-type]
            except ValueError as error:
                raise ValueError(f"components.{name}: {str(error).partition(': ')[2]}") from None
        return cls(tuple(sorted(factors.items())), tuple(sorted(map(_texts, patterns.items()))))

    def __bool__(self) -> bool:
        """Whether any component has a factor."""
        return bool(self.factors)

    def component(self, parameter: str) -> str:
        """Return the component of a parameter, or "" if there is none.

        Raises:
            ValueError: if the patterns of two components match.
        """
        own = [name for name, pattern in self.patterns if re.search(pattern, parameter)]
        if len(own) > 1:
            raise ValueError(f"patterns: {' and '.join(own)} both match {parameter}: each name must match one at most")
        return own[0] if own else usual_component(parameter)

    def factor(self, parameter: str) -> float:
        """Return what lambda is multiplied with for a parameter."""
        return dict(self.factors).get(self.component(parameter), 1.0) if self.factors else 1.0

    def check(self, parameters: Collection[str]) -> None:
        """Require that each component with a factor has one of the edited parameters.

        Raises:
            ValueError: if one has none; the message lists the components that there are.
        """
        if not self.factors:
            return
        found = Counter(map(self.component, parameters))
        if missing := [name for name, _ in self.factors if not found[name]]:
            raise ValueError(
                f"components.{missing[0]}: matches none of the {len(parameters)} edited parameters; there are "
                f"{_listed(found, self._without(parameters))}"
            )

    def _without(self, parameters: Iterable[str]) -> list[str]:
        return [name for name in parameters if not self.component(name)]


def component_params(factors: Mapping[str, ParamValue], patterns: Mapping[str, str]) -> dict[str, ParamValue]:
    """Return the parameters of a recipe with these factors and patterns, by component.

    Raises:
        ValueError: see `Components.of`.
    """
    params: dict[str, ParamValue] = {COMPONENT + name: factor for name, factor in factors.items()}
    params |= {PATTERN + name: pattern for name, pattern in patterns.items()}
    Components.of(params)
    return params


def _listed(found: Counter[str], others: list[str]) -> str:
    named = [f"{name} ({count})" for name, count in sorted(found.items()) if name]
    return ", ".join([*named, f"{len(others)} in no component, such as {others[0]}"] if others else named)


def _texts(item: tuple[str, ParamValue]) -> tuple[str, str]:
    return item[0], str(item[1])


def _check_pattern(name: str, pattern: ParamValue, given: Mapping[str, ParamValue]) -> None:
    where = f"patterns.{name}"
    if name in USUAL:
        raise ValueError(f"{where}: is a usual component, whose names are known; choose another name")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{where}: a component's name must be lower-case letters, digits and _, got {name!r}")
    if name not in given:
        raise ValueError(f"{where}: has no factor; give one in components: {{{name}: FACTOR}}, or leave it out")
    try:
        re.compile(str(pattern))
    except re.error as error:
        raise ValueError(f"{where}: {pattern!r} is not a regular expression: {error}") from error
