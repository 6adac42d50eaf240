"""Proves that a completion depends on its prompt, the seed and the weights alone, and that samples follow softmax."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from causal_models import low_rank
from peft import PeftModel
from scipy import stats
from tiny_language import TEMPLATE, row, write_adapter, write_tiny_llama
from transformers import GenerationConfig, PreTrainedModel

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.merging.low_rank import LowRankDelta, low_rank_sum
from tasks.base import NonFiniteOutput
from tasks.language.base import Decoding, Engine, Prompt
from tasks.language.causal import CausalBackbone, build
from tasks.language.generation import TransformersEngine, sample_seed
from tasks.language.vllm_engine import VllmEngine
from tasks.language.vllm_engine import write_adapter as write_candidate

GREEDY = Decoding(max_new_tokens=12, batch_size=4)
SAMPLED = Decoding(max_new_tokens=12, temperature=1.0, batch_size=4, seed=3)
PROMPTS = [Prompt(TEMPLATE.replace("{source}", row(i)["source"]), row(i)["source"]) for i in range(10)]
FIRST = [0] * len(PROMPTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def backbone(folder: Path) -> CausalBackbone:
    """Scale up the blocks of a random model, which would otherwise repeat one token."""
    backbone = build(str(folder), read_checkpoint(str(folder)).state, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        for name in backbone.layer_map.blocks:
            if (weight := backbone.module.get_parameter(name)).ndim == 2:
                weight *= 4
    return backbone


@pytest.fixture
def engine(backbone: CausalBackbone) -> TransformersEngine:
    return TransformersEngine(backbone.module, backbone.tokenizer, backbone.device)


def model(backbone: CausalBackbone) -> PreTrainedModel:
    assert isinstance(backbone.module, PreTrainedModel)
    return backbone.module


@contextmanager
def recommending(backbone: CausalBackbone, **fields: object) -> Iterator[GenerationConfig]:
    """The model's files recommend generation settings."""
    before, module = model(backbone).generation_config, model(backbone)
    module.generation_config = GenerationConfig(**fields)
    try:
        yield module.generation_config
    finally:
        module.generation_config = before


def plain(backbone: CausalBackbone, prompt: Prompt, tokens: int) -> str:
    """Generate with transformers alone, one prompt at a time."""
    inputs = backbone.tokenizer(prompt.text, return_tensors="pt")
    with torch.inference_mode():
        found = model(backbone).generate(
            inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=tokens, do_sample=False
        )
    text = backbone.tokenizer.decode(found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert isinstance(text, str)
    return text.strip()


def test_greedy_is_what_transformers_gives_one_by_one(backbone: CausalBackbone, engine: TransformersEngine) -> None:
    protocol: Engine = engine
    found = protocol.complete(PROMPTS, FIRST, GREEDY)
    assert found == [plain(backbone, prompt, 12) for prompt in PROMPTS]
    assert len(set(found)) > 5 and engine.tokens == 120
    assert len({len(backbone.tokenizer(p.text)["input_ids"]) for p in PROMPTS[:4]}) > 1  # so there was padding


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED])
def test_shards_cut_at_batches_change_nothing(engine: TransformersEngine, decoding: Decoding) -> None:
    draws = [i % 2 for i in range(10)]
    whole = engine.complete(PROMPTS, draws, decoding)
    for size in (4, 8):
        starts = range(0, 10, size)
        shards = [engine.complete(PROMPTS[s : s + size], draws[s : s + size], decoding) for s in starts]
        assert [text for shard in shards for text in shard] == whole
    assert engine.complete([], [], decoding) == []


def test_a_sample_does_not_depend_on_its_neighbours(engine: TransformersEngine) -> None:
    whole = engine.complete(PROMPTS, FIRST, SAMPLED)
    assert engine.complete(PROMPTS[::-1], FIRST, SAMPLED) == whole[::-1]
    assert [engine.complete([prompt], [0], SAMPLED)[0] for prompt in PROMPTS] == whole
    assert engine.complete([PROMPTS[2]] * 3, [0, 0, 1], SAMPLED)[:2] == [whole[2]] * 2


def test_seeds_are_of_run_prompt_and_draw(engine: TransformersEngine) -> None:
    prompts = [PROMPTS[0]] * 5
    first = engine.complete(prompts, range(5), SAMPLED)
    assert engine.complete(prompts, range(5), SAMPLED) == first and len(set(first)) == 5
    other = engine.complete(prompts, range(5), Decoding(12, 1.0, 4, seed=4))
    assert not set(first) & set(other)
    seeds = {sample_seed(Decoding(1, seed=s), p, d) for s in (1, 11) for p in PROMPTS for d in (1, 11)}
    assert len(seeds) == 40 and all(0 <= seed < 2**63 for seed in seeds)
    assert sample_seed(SAMPLED, Prompt("a", "b"), 0) == sample_seed(GREEDY.__class__(9, seed=3), Prompt("a", "c"), 0)
    greedy = engine.complete(prompts, range(5), GREEDY)
    assert len(set(greedy)) == 1


def test_samples_follow_the_softmax(backbone: CausalBackbone, engine: TransformersEngine) -> None:
    count, temperature = 3000, 0.4
    found = Counter(engine.complete([PROMPTS[0]] * count, range(count), Decoding(1, temperature, 500)))
    with torch.inference_mode():
        tokens = backbone.tokenizer(PROMPTS[0].text, return_tensors="pt")["input_ids"]
        logits_V = backbone.module(tokens).logits[0, -1].double()

    def p_value(at: float) -> float:
        """Return the p-value of a chi-square test of the texts' counts, rare ones as one class."""
        expected: Counter[str] = Counter()
        for token, p in enumerate((logits_V / at).softmax(0).tolist()):
            expected[backbone.tokenizer.decode([token], skip_special_tokens=True).strip()] += p * count
        common = [text for text, n in expected.items() if n >= 8]
        pairs = np.array([(found[text], expected[text]) for text in common])
        pairs = np.vstack([pairs, [count, count] - pairs.sum(0)])
        return float(stats.chisquare(pairs[:, 0], pairs[:, 1]).pvalue)

    assert set(found) <= {backbone.tokenizer.decode([t], skip_special_tokens=True).strip() for t in range(300)}
    assert p_value(temperature) > 0.01
    assert p_value(0.3) < 1e-4 and p_value(0.5) < 1e-4


def test_completions_end_and_hold_no_special_tokens(engine: TransformersEngine) -> None:
    found = engine.complete([PROMPTS[1]] * 200, range(200), Decoding(20, 1.0, 50))
    assert 0.8 * 4000 < engine.tokens < 4000  # some ended by themselves, and padding does not count
    assert all(text == text.strip() for text in found)
    assert not any(special in text for text in found for special in ("<pad>", "<s>", "</s>"))


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED])
def test_what_a_models_files_recommend_has_no_hand_in_it(
    backbone: CausalBackbone, engine: TransformersEngine, decoding: Decoding
) -> None:
    before = engine.complete(PROMPTS[:4], FIRST[:4], decoding)
    fields = {"repetition_penalty": 9.0, "num_beams": 3, "do_sample": True, "top_k": 1}
    with recommending(backbone, **fields) as recommended:
        assert engine.complete(PROMPTS[:4], FIRST[:4], decoding) == before
        assert model(backbone).generation_config is recommended
        assert plain(backbone, PROMPTS[0], 12) not in before


def test_logits_that_are_no_numbers_are_a_failure(
    folder: Path, backbone: CausalBackbone, engine: TransformersEngine
) -> None:
    broken = build(str(folder), read_checkpoint(str(folder)).state, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        broken.module.get_parameter("model.norm.weight")[3] = torch.nan
    config = model(broken).generation_config
    for decoding in (GREEDY, SAMPLED):
        with pytest.raises(NonFiniteOutput, match="generation: non-finite logits"):
            TransformersEngine(broken.module, broken.tokenizer, broken.device).complete(PROMPTS, FIRST, decoding)
    assert model(broken).generation_config is config
    with pytest.raises(ValueError, match="zip"):
        engine.complete(PROMPTS, [0], GREEDY)


def test_a_candidate_is_one_adapter_of_scale_one(folder: Path, backbone: CausalBackbone, tmp_path: Path) -> None:
    deltas = [low_rank(backbone, write_adapter(tmp_path / str(r), folder, seed=r, rank=r)) for r in (2, 5)]
    name = "model.layers.1.mlp.up_proj.weight"
    alone = LowRankDelta({n: f for n, f in deltas[1].factors.items() if n != name}, deltas[1].shapes)
    soup = low_rank_sum([deltas[0], alone], [0.3, 0.7])
    assert {f.b.shape[1] for f in soup.factors.values()} == {2, 7}
    written = write_candidate(tmp_path / "new" / "soup", {n: (f.b, f.a) for n, f in soup.factors.items()}, str(folder))
    assert (written / "adapter_config.json").is_file()
    again = low_rank(backbone, written)
    for parameter, tensor in soup.items():
        torch.testing.assert_close(again[parameter], tensor, rtol=0, atol=1e-7)

    edited, base = (
        build(str(folder), read_checkpoint(str(folder)).state, torch.device("cpu"), torch.float32) for _ in range(2)
    )
    with torch.no_grad():
        for parameter, weight in edited.module.named_parameters():
            weight += soup[parameter]
    tokens = edited.tokenizer(PROMPTS[0].text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        dense, plain = edited.module(tokens).logits, base.module(tokens).logits
        adapted = PeftModel.from_pretrained(model(base), written)(tokens).logits
    torch.testing.assert_close(adapted, dense, rtol=0, atol=1e-4)
    assert (dense - plain).abs().max() > 0.05


def test_vllm_is_asked_for_by_name_where_it_is_missing(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"generation\.engine: vllm: not installed; pip install vllm, or use tran"):
        VllmEngine(folder, 128)
    with pytest.raises(ValueError, match=r"takes adapters of rank 512 at most, and the policies' ranks add up to 600"):
        VllmEngine(folder, 600)
