"""Write a candidate as a recipe of mergekit that gives the same tensors, or say why there is none."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.checkpoints.files import locate
from pipeline.checkpoints.mergekit.steps import EQUAL_BELOW
from pipeline.loading.model import LoadedModel
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Params, resolve_weights
from pipeline.merging.scaling import Coefficients, LayerSizes, coefficients
from pipeline.messages import Identity, ShardScore
from pipeline.parameters import resolve
from pipeline.recipe import Number, Recipe, step_text
from pipeline.spec.run import RunSpec
from tasks.base import LayerMap
from tasks.files.sources import HubName, Source

#: Method -> why mergekit has no recipe of it.
_NONE = {
    "zero": "it is the pre-trained model itself",
    "magnitude": "use ties with trim: tensor for a recipe of both",
    **dict.fromkeys(("dare", "dare_ties", "della", "della_linear"), "mergekit draws other random numbers"),
}
#: Methods of a weighted sum of task vectors, which mergekit calls task arithmetic.
_SUMS = ("single", "sum", "average", "weighted")


@dataclass(frozen=True, slots=True)
class MergekitModels:
    """The models of a recipe, as mergekit names them (see `mergekit_source`).

    Attributes:
        base: the pre-trained model.
        experts: in the order of the recipe's weights.
        precision: of the merged model.
        layers: over the names of the parameters.
    """

    base: str
    experts: Sequence[str]
    precision: str
    layers: LayerMap
    outside: Sequence[str] = ()
    """Names of the parameters outside the layers."""


def mergekit_source(source: str, base: str = "") -> str:
    """Return a checkpoint as mergekit names it: a folder, or OWNER/REPO of the hub; an adapter as BASE+ADAPTER.

    Args:
        source: as a spec names it.
        base: what mergekit calls the base, for adapters.

    Raises:
        ValueError: if mergekit cannot read it.
    """
    parsed = Source.parse(source)
    if parsed.kind == "hub":
        hub = HubName.of(parsed, files=False)
        return hub.repo + (f"@{hub.revision}" if hub.revision else "")
    files = locate(parsed)
    if files.adapter_config and base and files.folder:
        return f"{base}+{files.folder.resolve()}"
    if files.folder is None or not (files.folder / "config.json").is_file():
        raise ValueError(
            f"--mergekit: {source}: mergekit reads folders with a config.json, as save_pretrained writes them, and "
            "repositories of the hub: name one of these in the spec"
        )
    return str(files.folder.resolve())


def recipe_of(spec: RunSpec, identity: Identity, recipe: Recipe, score: ShardScore | None, model: LoadedModel) -> str:
    """Return a candidate of a run as a recipe of mergekit: see `mergekit_recipe`.

    Args:
        spec: of the run.
        identity: of the run.
        recipe: of the candidate.
        score: of the candidate, which has its alpha as a number; None if nothing was scored.
        model: the base.

    Raises:
        ValueError: if mergekit cannot read the models, or has no recipe of the candidate.
    """
    family, names = model.backbone.family, [name for name, _ in model.backbone.module.named_parameters()]
    if family not in ("causal", "seq2seq"):
        raise ValueError(f"--mergekit: backbone.family must be causal or seq2seq, got {family}")
    if spec.backbone.options.get("vocabulary", "equal") != "equal":
        raise ValueError("--mergekit: backbone.options.vocabulary: tokens of vocabularies that differ are merged here")
    alpha = score.alpha if score is not None else recipe.alpha
    if isinstance(alpha, str):
        raise ValueError(f"--mergekit: alpha is {alpha}, and no score of the run has its number")
    lambdas = coefficients(recipe, LayerSizes(identity.outside_size, identity.block_sizes), alpha)
    if family == "seq2seq" and len(set(lambdas.all)) > 1:
        raise ValueError(
            "--mergekit: mergekit's lists are over the layers of the encoder too: only a constant lambda fits"
        )
    base, layers = mergekit_source(spec.base), model.backbone.layer_map
    experts = [mergekit_source(source, base) for source in spec.experts.values()]
    outside = [name for name in names if name not in layers.blocks]
    return mergekit_recipe(recipe, lambdas, MergekitModels(base, experts, spec.backbone.precision, layers, outside))


def mergekit_recipe(recipe: Recipe, lambdas: Coefficients, models: MergekitModels) -> str:
    """Return a recipe of mergekit as YAML.

    Args:
        recipe: of the candidate.
        lambdas: its coefficients outside the layers and in each.
        models: the base and the experts.

    Raises:
        ValueError: if mergekit has no method that gives the same tensors; the message says why, and what has one.

    Example:
        >>> models = MergekitModels("base", ["a", "b"], "float32", LayerMap({"h.0.w": 0, "h.1.w": 1}, 2))
        >>> text = mergekit_recipe(Recipe.make("sum", "linear", 0.2, 0.5), Coefficients(0.2, (0.2, 0.7)), models)
        >>> yaml.safe_load(text)["parameters"]
        {'lambda': [0.2, 0.7]}
    """
    if recipe.then:
        steps = ", ".join(step_text(*step) for step in recipe.then)
        raise ValueError(f"--mergekit: mergekit has no steps after a merge, but this candidate has {steps}")
    if recipe.has_components:
        raise ValueError(
            "--mergekit: this candidate has factors of components, for which mergekit has filters by parts of names, "
            "not by regular expressions: leave --mergekit out to write its weights"
        )
    method = METHODS[recipe.method]
    weights = resolve_weights(recipe.weights, len(models.experts))
    params = resolve(method.parameters, dict(recipe.params))
    fields = _fields(recipe.method, weights, params, models)
    factor = _factor(lambdas, models)
    if factor != 1:
        if not fields.scalable:
            raise ValueError(
                f"--mergekit: {recipe.method} of mergekit gives a whole model, but lambda of this candidate is "
                f"{lambdas.outside:g} to {lambdas.blocks[-1]:g}: mergekit scales sums, ties and breadcrumbs only"
            )
        fields.parameters["lambda"] = factor
    content: dict[str, Any] = {"merge_method": fields.method}
    if fields.base:
        content["base_model"] = fields.base
    content["models"] = [
        {"model": model, "parameters": own} if own else {"model": model} for model, own in fields.models.items()
    ]
    if fields.parameters:
        content["parameters"] = fields.parameters
    content |= {"dtype": "float32", "out_dtype": models.precision}
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)


@dataclass(slots=True)
class _Fields:
    """The parts of a recipe of mergekit; `scalable` if its method has a parameter lambda."""

    method: str
    base: str | None
    models: dict[str, dict[str, float]]
    parameters: dict[str, Any]
    scalable: bool = False


def _fields(name: str, weights: Sequence[Number], params: Params, models: MergekitModels) -> _Fields:
    used = {model: weight for model, weight in zip(models.experts, weights, strict=True) if weight}
    if name in ("model_stock", "slerp", "nuslerp") and len(used) < 2:
        raise ValueError(f"--mergekit: {name} of mergekit takes two models at least, got {len(used)}")
    weighted = {model: {"weight": float(weight)} for model, weight in used.items()}
    plain: dict[str, dict[str, float]] = {model: {} for model in used}
    if name in _SUMS:
        shares = METHODS[name].shares
        assert shares is not None, "a sum"
        factors = dict(zip(models.experts, shares(weights, params), strict=True))
        return _Fields(
            "task_arithmetic", models.base, {m: {"weight": float(factors[m])} for m in used}, {}, scalable=True
        )
    match name:
        case "ties":
            _require(params, "trim", "tensor", "mergekit trims each parameter by itself")
            shared = _election(params) | {"density": _share(params, "keep")}
            return _Fields(name, models.base, weighted, shared, scalable=True)
        case "breadcrumbs" | "breadcrumbs_ties":
            _require(params, "round", "down", "mergekit rounds the number of entries down")
            shared = _election(params) | {"density": _share(params, "keep"), "gamma": _share(params, "top")}
            return _Fields(name, models.base, weighted, shared, scalable=True)
        case "model_stock":
            _require(params, "negative", "keep", "mergekit keeps negative cosines")
            return _Fields(name, models.base, plain, {"filter_wise": params["by"] == "rows"})
        case "sce":
            _require(params, "equal_below", EQUAL_BELOW, "mergekit gives small task vectors equal weights")
            return _Fields(name, models.base, plain, {"select_topk": params["density"]})
        case "nearswap":
            return _Fields(name, models.base, plain, {"t": params["t"]})
        case "arcee_fusion":
            return _Fields(name, models.base, plain, {})
        case "slerp":
            return _Fields(name, next(iter(used)), plain, {"t": params["t"]})
        case "karcher":
            return _Fields(name, None, plain, {"max_iter": params["max_iter"], "tol": params["tol"]})
        case "nuslerp":
            ways = {"nuslerp_flatten": params["by"] == "tensor", "nuslerp_row_wise": params["by"] == "columns"}
            return _Fields(name, _start(params, models), weighted, ways)
        case "multislerp":
            shared = {"normalize_weights": params["aggregate"] == "mean"}
            return _Fields(name, _start(params, models), weighted, shared)
    why = _NONE.get(name, "mergekit has no such method")
    raise ValueError(f"--mergekit: no recipe of mergekit gives what {name} gives: {why}")


def _election(params: Params) -> dict[str, Any]:
    return {"normalize": params["aggregate"] == "mean", "rescale": params["rescale"] == "l1"}


def _share(params: Params, name: str) -> float:
    percent = params[name]
    assert isinstance(percent, float | int), "checked with its declaration"
    return percent / 100


def _start(params: Params, models: MergekitModels) -> str | None:
    """Return the base, if task vectors are interpolated and not weights."""
    return models.base if params["between"] == "changes" else None


def _require(params: Mapping[str, Any], name: str, value: str | float, why: str) -> None:
    if params[name] != value:
        raise ValueError(
            f"--mergekit: {name} is {params[name]}, but {why}: search the arm with params: {{{name}: {value}}}"
        )


def _factor(lambdas: Coefficients, models: MergekitModels) -> Any:
    """Return mergekit's lambda: a number, a list over the layers, or one with another number outside the layers."""
    if len(set(lambdas.all)) == 1:
        return lambdas.outside
    layers = list(lambdas.blocks) if len(set(lambdas.blocks)) > 1 else lambdas.blocks[0]
    if isinstance(layers, list) and lambdas.outside == layers[0]:
        return layers
    return [{"filter": _segment(models), "value": layers}, {"value": lambdas.outside}]


def _segment(models: MergekitModels) -> str:
    """Return a part of the names of all parameters in the layers, which no other name has, such as "layers."."""
    numbered = (re.match(r"(?:.*?\.)??([^.]+\.)\d+\.", name) for name in models.layers.blocks)
    found = {match.group(1) if match else "" for match in numbered}
    segment = found.pop() if len(found) == 1 else ""
    if not segment or any(segment in name for name in models.outside):
        raise ValueError(
            "--mergekit: lambda outside the layers differs from that of the first layer, and no filter tells them "
            "apart by their names"
        )
    return segment
