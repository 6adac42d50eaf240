"""Proves that a causal model that cannot be built, or an expert that does not fit it, is refused with the cause."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from causal_models import CPU, built, copied, edit_json, low_rank
from safetensors.torch import load_file, save_file
from tiny_language import tiny_tokenizer, write_adapter, write_tiny_llama
from torch import Tensor

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.loading.rewards import as_policy
from tasks.language.causal import CausalBackbone, build
from tasks.language.experts import adapter_base, check_same_base


def changed(state: Mapping[str, Tensor], **tensors: Tensor | None) -> dict[str, Tensor]:
    """Replace tensors, or remove them if None; "__" in a keyword means a dot."""
    renamed = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in {**state, **renamed}.items() if tensor is not None}


def test_what_does_not_fit_is_named(llama_backbone: CausalBackbone, llama: Path) -> None:
    state = read_checkpoint(str(llama)).state
    norm, embeddings = "model__norm__weight", "model__embed_tokens__weight"
    for given, message in (
        (changed(state, **{norm: None}), r"missing tensors \(model\.norm\.weight\)"),
        (changed(state, score__weight=torch.ones(2)), r"1 unexpected tensors \(score\.weight\)"),
        (changed(state, **{norm: torch.ones(7)}), r"mis-shaped tensors \(model\.norm\.weight \[7\], expected \[32\]\)"),
        (changed(state, **{norm: torch.ones(32, dtype=torch.int8)}), r"quantised tensors \(model\.norm\.weight"),
        (
            changed(state, **{embeddings: torch.ones(302, 32)}),
            r"another vocabulary: .* has 302 tokens, the model's 300",
        ),
    ):
        with pytest.raises(ValueError, match=f"^expert: .*{message}"):
            llama_backbone.select(given, "expert")
        with pytest.raises(ValueError, match="^base: "):
            build(str(llama), given, CPU, torch.float32)


def test_adapters_of_other_modules_are_refused(llama_backbone: CausalBackbone, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"a: changes transformer\.h\.0\.attn\.c_attn, model\.norm: not a linear module"
    ):
        llama_backbone.weight_parts(["transformer.h.0.attn.c_attn", "model.norm"], "a")
    with pytest.raises(ValueError, match=r"a: changes lm_head, whose weight is tied to model\.embed_tokens\.weight"):
        llama_backbone.weight_parts(["lm_head"], "a")
    wide = write_tiny_llama(tmp_path / "wide", hidden=64)
    with pytest.raises(ValueError, match="was it trained on another architecture"):
        low_rank(llama_backbone, write_adapter(tmp_path / "adapter", wide, seed=0))


def test_a_model_that_cannot_be_built_says_why(llama: Path, tmp_path: Path) -> None:
    state = read_checkpoint(str(llama)).state

    def refuses(folder: Path, message: str, **options: object) -> None:
        with pytest.raises(ValueError, match=message):
            build(str(folder), state, CPU, torch.float32, options)

    refuses(llama, "^backbone.options.atention: unknown option; did you mean 'attention'", atention="eager")
    refuses(llama, "^backbone.options.trust_remote_code: must be true or false, got 'yes'", trust_remote_code="yes")
    refuses(llama, r"^backbone.options.attention: must be a name \(sdpa, eager, \.\.\.\), got 3", attention=3)
    refuses(llama, "^backbone.model: .*: cannot be read: .*fast", attention="fast")
    refuses(tmp_path / "nowhere", "^backbone.model: .*nowhere: no such folder")
    refuses(copied(llama, tmp_path / "bare", "config.json"), "^backbone.model: .*: has no config.json")
    mute = copied(llama, tmp_path / "mute", "tokenizer.json", "tokenizer_config.json")
    refuses(mute, "^backbone.model: .*: has no tokenizer: expected one of tokenizer.json")
    endless = copied(llama, tmp_path / "endless")
    edit_json(endless / "tokenizer_config.json", eos_token=None)
    refuses(endless, "^backbone.model: tokenizer of .*: has no end-of-sequence token: set one")
    refuses(llama, "^backbone.options.vocabulary: must be equal or shared, got 'all'", vocabulary="all")
    strange = copied(llama, tmp_path / "strange")
    edit_json(strange / "config.json", model_type="no-such-model")
    refuses(strange, "^backbone.model: .*: cannot be read: .*no-such-model")
    for name, content, what in (
        ("tokenizer_config.json", "null", "tokenizer of .*"),
        ("config.json", "[" * 50_000, ".*"),
        ("config.json", '{"model_type": "llama", "num_attention_heads": 0}', ".*"),
    ):
        damaged = copied(llama, tmp_path / f"damaged {name} {len(content)}")
        (damaged / name).write_text(content)
        refuses(damaged, f"^backbone.model: {what}: cannot be read: ")


def test_only_completions_need_a_pad_token(llama: Path, tmp_path: Path) -> None:
    assert as_policy(built(llama)).tokenizer.padding_side == "left"
    for pad, message in ((None, "has no pad token: set one, other than"), ("</s>", "its pad token is its end-of-seq")):
        padless = copied(llama, tmp_path / f"pad {pad}")
        edit_json(padless / "tokenizer_config.json", pad_token=pad)
        backbone = built(padless)
        with pytest.raises(ValueError, match=f"^backbone.model: tokenizer of .*: {message}"):
            as_policy(backbone)


def test_a_longer_vocabulary_must_begin_with_the_bases(llama: Path, tmp_path: Path) -> None:
    backbone = built(llama, vocabulary="shared")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(tmp_path / "longer")
    backbone.check_expert(tmp_path / "longer", "longer")
    other = tiny_tokenizer(290)
    other.add_tokens([f"<{i}>" for i in range(20)])
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"other: was trained with another vocabulary .* 10 of them differ"):
        backbone.check_expert(tmp_path / "other", "other")


def test_a_policy_with_another_vocabulary_is_refused(
    llama_backbone: CausalBackbone, llama: Path, tmp_path: Path
) -> None:
    same = write_adapter(tmp_path / "same", llama, seed=1)
    llama_backbone.check_expert(same, "same")  # no tokenizer of its own
    tiny_tokenizer().save_pretrained(same)
    llama_backbone.check_expert(same, "same")
    other = copied(same, tmp_path / "other")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(other)
    message = (
        rf"{other}: was trained with another vocabulary than {llama}: 301 tokens instead of 300, 1 of them differ "
        r"\(by number: 300 '<new>' instead of None\)"
    )
    with pytest.raises(ValueError, match=message):
        llama_backbone.check_expert(other, str(other))
    whole = copied(llama, tmp_path / "whole")
    tiny_tokenizer(290).save_pretrained(whole)
    with pytest.raises(ValueError, match="290 tokens instead of 300"):
        llama_backbone.check_expert(whole, "whole")


def test_adapters_of_different_bases_are_refused(llama: Path, tmp_path: Path) -> None:
    sources = {
        name: str(write_adapter(tmp_path / name, llama, seed))
        for seed, name in enumerate(("faithful", "plain", "short"))
    }

    def bases() -> dict[str, str]:
        return {name: adapter_base(Path(source), source) for name, source in sources.items()}

    assert bases()["plain"] == str(llama) and adapter_base(llama, "whole") == ""
    edit_json(Path(sources["short"]) / "adapter_config.json", base_model_name_or_path=f"{llama}/../{llama.name}/")
    check_same_base({"whole": "", **bases()})
    edit_json(Path(sources["short"]) / "adapter_config.json", base_model_name_or_path=None)
    check_same_base(bases())
    edit_json(Path(sources["plain"]) / "adapter_config.json", base_model_name_or_path="other/base")
    message = (
        rf"experts\.plain: its adapter was trained on other/base, that of experts\.faithful on {llama}: .*train both"
    )
    with pytest.raises(ValueError, match=message):
        check_same_base(bases())
    (Path(sources["plain"]) / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="adapter_config.json: not JSON"):
        check_same_base(bases())


def test_a_model_that_was_saved_with_nan_is_no_checkpoint(llama: Path, tmp_path: Path) -> None:
    broken = copied(llama, tmp_path / "broken")
    state = load_file(broken / "model.safetensors")
    state["model.norm.weight"][3] = torch.nan
    save_file(state, broken / "model.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinite values in model\.norm\.weight"):
        built(broken)
