"""Proves which component a parameter has, and that factors multiply lambda, with equal bits in memory and in files."""

import math
from typing import Any

import pytest
import torch
from module_tree import module_of, parameters
from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.merge import merge_states
from pipeline.merging.components import USUAL, Components, usual_component
from pipeline.merging.flat import Arena
from pipeline.merging.resident import ResidentModel
from pipeline.merging.scaling import Coefficients
from pipeline.recipe import Recipe
from tasks.base import LayerMap

CPU = torch.device("cpu")
NAMES = {
    "norms": "visual.transformer.resblocks.0.ln_1.weight visual.ln_post.bias vision_model.pre_layrnorm.weight "
    "encoder.layer.0.attention.output.LayerNorm.weight model.layers.0.post_attention_layernorm.weight "
    "decoder.block.0.layer.0.layer_norm.weight h.0.ln_1.bias ln_f.weight model.layers.0.self_attn.q_norm.weight "
    "backbone.layers.0.mixer.norm.weight backbone.norm_f.weight layer1.0.bn1.weight stages.0.blocks.0.norm.bias "
    "bert.embeddings.LayerNorm.bias model.layers.0.mamba.dt_layernorm.weight",
    "attention": "transformer.resblocks.0.attn.in_proj_weight text_model.encoder.layers.0.self_attn.k_proj.bias "
    "blocks.0.attn.qkv.weight decoder.block.0.layer.1.EncDecAttention.k.weight encoder.layer.0.attention.attn.q.weight "
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight h.0.attn.c_attn.weight "
    "encoder.layer.0.attention.output.dense.weight model.layers.0.shared_transformer.self_attn.o_proj.weight",
    "ssm": "backbone.layers.0.mixer.A_log model.layers.0.mamba.conv1d.weight "
    "model.layers.0.mamba_decoder.mamba.in_proj.weight layers.0.mixer.D layers.0.ssm.x_proj.weight",
    "mlp": "visual.transformer.resblocks.0.mlp.c_fc.weight stages.0.blocks.0.mlp.fc1.weight h.0.mlp.c_proj.bias "
    "decoder.block.0.layer.2.DenseReluDense.wi_0.weight encoder.layer.0.intermediate.dense.weight "
    "encoder.layer.0.output.dense.bias model.layers.0.feed_forward.experts.0.gate_proj.weight "
    "model.decoder.layers.0.fc1.weight distilbert.transformer.layer.0.ffn.lin1.weight",
    "heads": "lm_head.weight classifier.bias head.fc.weight visual.proj text_projection visual_projection.weight "
    "score.weight cls.predictions.bias vision_model.head.mlp.fc1.weight bert.pooler.dense.weight fc.weight",
    "embeddings": "visual.conv1.weight visual.class_embedding positional_embedding token_embedding.weight wte.weight "
    "cls_token patch_embed.proj.weight pos_embed model.embed_tokens.weight shared.weight stem.0.weight "
    "bert.embeddings.word_embeddings.weight",
    "": "logit_scale stages.0.blocks.0.conv_dw.weight layer1.0.conv1.weight conv_head.weight "
    "visual.trunk.stages.0.blocks.0.token_mixer.conv.weight blocks.0.ls1.gamma",
}


@pytest.mark.parametrize("component", NAMES)
def test_components_of_known_models(component: str) -> None:
    assert {name: usual_component(name) for name in NAMES[component].split()} == dict.fromkeys(
        NAMES[component].split(), component
    )
    assert component in {*USUAL, ""}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"component.mpl": 1}, "components: unknown component 'mpl'; did you mean 'mlp'.* patterns: {mpl: REGEX}"),
        ({"component.mlp": "x"}, "components.mlp: must be a number, got 'x'"),
        ({"component.mlp": math.inf}, r"components.mlp: must be in \(-inf, inf\), got inf"),
        ({"component.mlp": 1, "pattern.mlp": "a"}, "patterns.mlp: is a usual component"),
        ({"pattern.gate": "a"}, "patterns.gate: has no factor; give one in components"),
        ({"component.gate": 1, "pattern.gate": "("}, r"patterns.gate: '\(' is not a regular expression"),
        ({"component.A b": 1, "pattern.A b": "a"}, "a component's name must be lower-case letters"),
    ],
)
def test_what_is_no_component_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Components.of(params)


def test_a_component_needs_a_parameter_and_a_parameter_one_component() -> None:
    names = ["h.0.mlp.c_fc.weight", "h.0.mlp.c_proj.weight", "h.0.ln_1.weight", "gain"]
    with pytest.raises(ValueError, match="ssm: matches none of the 4 edited .* mlp .2., norms .1., 1 in no.* gain"):
        Components.of({"component.ssm": 0.5}).check(names)
    both = {"component.a": 0.5, "pattern.a": "mlp", "component.b": 1, "pattern.b": "c_proj"}
    with pytest.raises(ValueError, match="patterns: a and b both match h.0.mlp.c_proj.weight"):
        Components.of(both).check(names)
    Components.of({}).check([])


SHAPES = {
    "conv1.weight": (4, 3),
    "h.0.ln_1.weight": (4,),
    "h.0.attn.q.weight": (5, 4),
    "h.0.attn.v.weight": (70, 3),
    "h.0.mlp.up.weight": (4, 7),
    "h.0.gain": (3,),
    "h.1.attn.q.weight": (5, 4),
    "h.1.mlp.up.weight": (4, 7),
    "lm_head.weight": (),
}
LAYERS = LayerMap.from_pattern(SHAPES, r"h\.(\d)\.")
FACTORS = {"component.attention": 0.3, "component.mlp": -1.5, "component.embeddings": 0}
OWN = {"component.gain": 2, "pattern.gain": "gain|v.w", "component.attention": 0.3}
FIXED = {**FACTORS, "lambda_outside": 0.4, "component.heads": 0.25}


def state(seed: int, scale: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def models(dtype: torch.dtype) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    base = {name: t.to(dtype) for name, t in state(0, 1).items()}
    return base, [{n: (t.float() + state(seed, 0.3)[n]).to(dtype) for n, t in base.items()} for seed in (1, 2)]


def resident(dtype: torch.dtype) -> tuple[torch.nn.Module, ResidentModel]:
    base, experts = models(dtype)
    module = module_of(base)
    deltas = {str(i): {n: e[n].float() - base[n].float() for n in base} for i, e in enumerate(experts)}
    return module, ResidentModel(module, LAYERS, {n: t.float() for n, t in base.items()}, deltas, CPU, dtype)


def expected(params: dict[str, Any], alpha: float, beta: float, name: str) -> float:
    """Coefficient by hand: lambda of the block times the factor."""
    block = LAYERS.blocks.get(name)
    value = params.get("lambda_outside", alpha) if block is None else alpha + beta * block
    own = next((c for c in ("gain",) if f"component.{c}" in params and ("gain" in name or "v.w" in name)), None)
    return float(value) * float(params.get(f"component.{own or usual_component(name)}", 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("params", [FACTORS, OWN, FIXED])
@pytest.mark.parametrize("control", ["", "reversed:", "uniform:", "equal_norm:"])
def test_factors_multiply_lambda_and_files_have_the_bits_of_workers(
    dtype: torch.dtype, params: dict[str, Any], control: str
) -> None:
    base, experts = models(dtype)
    recipe = Recipe.make("sum", f"{control}linear", 0.2, 0.7, params=params)
    module, model = resident(dtype)
    made = model.materialise(recipe)
    files = [Checkpoint(str(i), e, str(i)) for i, e in enumerate([base, *experts])]
    written, merged = merge_states(files[0], files[1:], recipe, LAYERS)
    assert all(torch.equal(tensor, parameters(module)[name]) for name, tensor in written.items())
    assert made.alpha == merged.alpha
    vector = {n: sum(e[n].float() - base[n].float() for e in experts) for n in base}
    order = {n: expected(params, *((0.9, -0.7) if control == "reversed:" else (0.2, 0.7)), n) for n in base}
    if control == "reversed:":
        order |= {n: expected(params, 0.2, 0.7, n) for n in base if n not in LAYERS.blocks}
    if control in ("uniform:", "equal_norm:"):
        flat = [n for n in base if n in LAYERS.blocks or "lambda_outside" not in params]
        order |= dict.fromkeys(flat, constant(control, {n: order[n] for n in flat}, vector))
    for name, tensor in written.items():
        wanted = base[name].float() + order[name] * vector[name]
        torch.testing.assert_close(
            tensor.float(), wanted.to(dtype).float(), rtol=1e-6 + (dtype != torch.float32) / 64, atol=1e-6
        )


def constant(control: str, coefficients: dict[str, float], vector: dict[str, Any]) -> float:
    """The constant of equal mean, or of equal norm, over these parameters."""
    counts = {n: vector[n].numel() for n in coefficients}
    if control == "uniform:":
        return sum(c * counts[n] for n, c in coefficients.items()) / sum(counts.values())
    norms = {n: float(vector[n].double().norm()) for n in coefficients}
    parts = [c * norms[n] for n, c in coefficients.items()]
    return math.copysign(math.hypot(*parts) / math.hypot(*norms.values()), sum(parts))


def test_one_combined_vector_serves_every_factor_and_leaves_no_trace() -> None:
    module, model = resident(torch.float32)
    plain, scaled = (Recipe.make("sum", "linear", 0.2, 0.7, params=p) for p in ({}, FACTORS))
    first = model.materialise(plain)
    weights, kept = parameters(module), model._combined.get(plain, 2)
    other = model.materialise(scaled)
    assert model._combined.get(scaled, 2) is kept
    assert other.fingerprint != first.fingerprint and other.outside != first.outside
    assert model.materialise(plain) == first and all(torch.equal(weights[n], t) for n, t in parameters(module).items())


def test_what_a_model_lacks_is_refused_by_the_worker_and_a_factor_of_0_is_the_base() -> None:
    module, model = resident(torch.float32)
    with pytest.raises(ValueError, match="components.ssm: matches none of the 9 edited parameters"):
        model.materialise(Recipe.make("sum", params={"component.ssm": 0.5}))
    none = {"component.attention": 0, "component.mlp": 0, "component.norms": 0, "component.heads": 0}
    alone = Recipe.make("sum", params={**none, "component.embeddings": 0, "component.gain": 1, "pattern.gain": "gain"})
    model.materialise(alone)
    changed = [name for name, tensor in parameters(module).items() if not torch.equal(tensor, model.base[name])]
    assert changed == ["h.0.gain"]


def test_experts_that_differ_only_where_the_factor_is_0_ask_for_the_base() -> None:
    base = state(0, 1)
    deltas = {"a": {n: torch.full_like(t, n == "h.0.mlp.up.weight") for n, t in base.items()}}
    model = ResidentModel(module_of(base), LAYERS, base, deltas, CPU, torch.float32)
    made = model.materialise(Recipe.make("sum", params={"component.mlp": 0}))
    assert made.fingerprint == model.base_fingerprint
    with pytest.raises(ValueError, match="below the resolution"):
        model.materialise(Recipe.make("sum", alpha=1e-30, params={"component.heads": 0}))


def test_a_group_without_parameters_has_no_part() -> None:
    shapes = {name: torch.Size(shape) for name, shape in SHAPES.items() if name.startswith("h.")}
    lambdas = Coefficients(0.5, (0.2, 0.9), Components.of({"component.mlp": 0.5}))
    parts = Arena.plan(shapes, LayerMap.from_pattern(shapes, r"h\.(\d)\.")).parts(lambdas)
    assert {name for part in parts for name in part.members} == shapes.keys()
    assert {part.group for part in parts} == {1, 2}
