"""Proves that adapters give the outputs of edited weights, and that a candidate changes only their scales."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_language import write_adapter, write_tiny_llama
from torch import Tensor
from toy import toy_spec
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lora import read_adapter
from pipeline.loading.experts import has_only_sums
from pipeline.merging.low_rank import LowRank, LowRankDelta
from pipeline.merging.resident import ResidentModel
from pipeline.merging.resident_low_rank import AdaptedModel, Candidates, can_stay_low_rank
from pipeline.recipe import Recipe
from tasks.base import LayerMap, NonFiniteError
from tasks.language.causal import CausalBackbone, build

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 17, 33, 65, 101], [7, 3, 250, 12, 90, 41]])
RECIPES = [
    Recipe.make("single", weights=(1, 0)),
    Recipe.make("weighted", weights=(0.3, 0.7)),
    Recipe.make("weighted", "linear", 1, 1, (0.3, 0.7)),
    Recipe.make("weighted", "reversed:linear", 1, 1, (0.3, 0.7)),
    Recipe.make("weighted", "uniform:linear", 1, 1, (0.3, 0.7)),
    Recipe.make("average", "linear", "auto", 0.5),
    Recipe.make("average", "equal_norm:linear", 0.5, 0.5, params={"component.attention": 0.5}),
    Recipe.make("average", "linear", "auto", 0.5, params={"component.values": -1, "pattern.values": "v_proj"}),
]


def adapted(module: torch.nn.Module, layer_map: LayerMap, deltas: dict[str, LowRankDelta]) -> AdaptedModel:
    return AdaptedModel(module, Candidates(module, layer_map, deltas, CPU), torch.float32)


class Parts:
    def __init__(self, folder: Path) -> None:
        self.base = write_tiny_llama(folder / "base")
        self.policies = [write_adapter(folder / str(seed), self.base, seed=seed) for seed in (1, 2)]
        self.state = AutoModelForCausalLM.from_pretrained(self.base).state_dict()

    def backbone(self) -> CausalBackbone:
        return build(str(self.base), self.state, CPU, torch.float32, {})

    def deltas(self, backbone: CausalBackbone) -> dict[str, LowRankDelta]:
        shapes = {name: p.shape for name, p in backbone.module.named_parameters()}
        found = {}
        for path in self.policies:
            adapter = read_adapter(locate(str(path)))
            found[path.name] = adapter.task_vector(backbone.weight_parts(adapter.factors, path.name), shapes)
        return found

    def adapted_model(self) -> tuple[CausalBackbone, AdaptedModel]:
        backbone = self.backbone()
        deltas = self.deltas(backbone)
        return backbone, adapted(backbone.module, backbone.layer_map, deltas)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts(tmp_path_factory.mktemp("adapted"))


@torch.inference_mode()
def logits(backbone: CausalBackbone) -> Tensor:
    found: Tensor = backbone.module(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_logits_are_those_of_the_edited_weights(parts: Parts, recipe: Recipe) -> None:
    backbone, adapted_model = parts.adapted_model()
    other = parts.backbone()
    base = other.select(parts.state, "base")
    dense = ResidentModel(other.module, other.layer_map, base, parts.deltas(other), CPU, torch.float32)
    if "uniform" not in recipe.scaling:  # its mean is over edited parameters, which are fewer here
        assert adapted_model.materialise(recipe).alpha == pytest.approx(dense.materialise(recipe).alpha, rel=1e-5)
        torch.testing.assert_close(logits(backbone), logits(other), rtol=1e-4, atol=1e-5)
    adapted_model.materialise(Recipe.make("zero"))
    dense.materialise(Recipe.make("zero"))
    assert torch.equal(logits(backbone), logits(other))


@pytest.mark.parametrize("place", [0, 1])
def test_ends_of_lambda_equal_the_policies_as_peft_loads_them(parts: Parts, place: int) -> None:
    backbone, adapted_model = parts.adapted_model()
    adapted_model.materialise(Recipe.make("weighted", weights=(1 - place, place)))
    model = AutoModelForCausalLM.from_pretrained(parts.base)
    policy = PeftModel.from_pretrained(model, parts.policies[place]).eval()
    with torch.inference_mode():
        torch.testing.assert_close(logits(backbone), policy(input_ids=IDS).logits, rtol=1e-4, atol=1e-5)


def test_lines_with_alpha_and_beta_of_one_doubles_the_last_block_and_leaves_the_first(parts: Parts) -> None:
    backbone, adapted_model = parts.adapted_model()
    first, last = (f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 3))
    plain = {n: adapted_model.hooks[n] for n in (first, last)}
    adapted_model.materialise(Recipe.make("weighted", weights=(0.5, 0.5)))
    before = {n: b.factors[1].clone() for n, b in plain.items() if b.factors}
    adapted_model.materialise(Recipe.make("weighted", "linear", 1, 1, (0.5, 0.5)))
    after = {n: b.factors[1] for n, b in plain.items() if b.factors}
    torch.testing.assert_close(after[first], before[first])
    torch.testing.assert_close(after[last], 2 * before[last])


def test_a_candidate_changes_no_weight_and_coming_back_gives_the_same_bits(parts: Parts) -> None:
    backbone, adapted_model = parts.adapted_model()
    before = {name: p.detach().clone() for name, p in backbone.module.named_parameters()}
    places = {name: p.data_ptr() for name, p in backbone.module.named_parameters()}
    a, b = RECIPES[1], RECIPES[2]
    first = adapted_model.materialise(a)
    seen = logits(backbone)
    assert adapted_model.materialise(b).fingerprint != first.fingerprint
    assert adapted_model.materialise(a) == first and torch.equal(logits(backbone), seen)
    for name, parameter in backbone.module.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.data_ptr() == places[name]


def test_the_equal_mean_is_over_what_has_factors(parts: Parts) -> None:
    _, adapted_model = parts.adapted_model()
    assert adapted_model.candidates.sizes.outside == 0 and len(set(adapted_model.candidates.sizes.blocks)) == 1
    adapted_model.materialise(RECIPES[4])
    name = "model.layers.0.self_attn.q_proj.weight"
    factors = adapted_model.hooks[name].factors
    assert factors is not None
    adapted_model.materialise(Recipe.make("weighted", alpha=1.5, weights=(0.3, 0.7)))
    again = adapted_model.hooks[name].factors
    assert again is not None
    torch.testing.assert_close(factors[1], again[1])


def test_of_gpt2_whose_weights_lie_the_other_way_round(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=3, n_head=4, n_positions=64)).eval()
    name = "transformer.h.1.attn.c_attn.weight"
    weight = model.get_parameter(name)
    factor = LowRank(torch.randn(weight.shape[0], 4), torch.randn(4, weight.shape[1]))
    delta = LowRankDelta({name: factor}, {n: p.shape for n, p in model.named_parameters()})
    from tasks.language.blocks import layer_map

    adapted_model = adapted(model, layer_map(model), {"a": delta})
    adapted_model.materialise(Recipe.make("single", alpha=0.1, weights=(1,)))
    with torch.inference_mode():
        with_adapter = model(input_ids=IDS).logits
        adapted_model.materialise(Recipe.make("zero"))
        weight.data += 0.1 * factor.dense()
        torch.testing.assert_close(with_adapter, model(input_ids=IDS).logits, rtol=1e-4, atol=1e-4)


def test_nan_and_nothing_are_told(parts: Parts) -> None:
    backbone, _ = parts.adapted_model()
    deltas = parts.deltas(backbone)
    name, factor = next(iter(deltas["1"].factors.items()))
    broken = LowRankDelta({name: LowRank(factor.b * float("nan"), factor.a)}, deltas["1"].shapes)
    zero = LowRankDelta({name: LowRank(factor.b * 0, factor.a)}, deltas["1"].shapes)
    bad = adapted(backbone.module, backbone.layer_map, {"1": broken, "2": zero})
    with pytest.raises(NonFiniteError, match="non-finite factors"):
        bad.materialise(RECIPES[0])
    with pytest.raises(ValueError, match="does nothing"):
        bad.materialise(Recipe.make("single", weights=(0, 1)))


def test_only_sums_of_adapters_of_linear_modules_stay_apart(parts: Parts) -> None:
    backbone = parts.backbone()
    deltas = list(parts.deltas(backbone).values())
    embedding = LowRankDelta(
        {"model.embed_tokens.weight": LowRank(torch.ones(300, 1), torch.ones(1, 32))}, deltas[0].shapes
    )
    assert can_stay_low_rank(backbone.module, deltas)
    assert not can_stay_low_rank(backbone.module, [*deltas, embedding])
    assert not can_stay_low_rank(backbone.module, [*deltas, dict(deltas[0].items())])


@pytest.mark.parametrize(
    ("merge", "only"), [("weighted", True), ("ties", False), ({"method": "sum", "then": ["norm_match"]}, False)]
)
def test_only_arms_of_sums_without_steps_keep_policies_apart(merge: str | dict[str, object], only: bool) -> None:
    weights = {"method": "weighted", "weights": {"cats": 1}}
    spec = toy_spec(arms={"x": {"merge": weights if merge == "weighted" else merge}, "edit": {"edit": "each_expert"}})
    assert has_only_sums(spec) == only


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe.make("average", params={"component.attention": 0, "component.mlp": 0}),
        Recipe.make("average", alpha=0, params={"lambda_outside": 0.5}),
    ],
    ids=str,
)
def test_a_recipe_that_scales_everything_edited_by_0_asks_for_the_base(parts: Parts, recipe: Recipe) -> None:
    backbone, adapted_model = parts.adapted_model()
    base = logits(backbone)
    adapted_model.materialise(recipe)
    assert torch.equal(logits(backbone), base)
