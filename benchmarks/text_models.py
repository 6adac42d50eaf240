"""Random language models that read bytes, and questions for them."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def write_llama(folder: Path) -> Path:
    """Write a random Llama of 2 million parameters with a tokenizer of bytes."""
    tokenizer = _bytes()
    sizes = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, initializer_range=0.1, **sizes, **_IDS)
    return _write(folder, LlamaForCausalLM(config), tokenizer)


def write_t5(folder: Path) -> Path:
    """Write a random T5 1.1 of 6 million parameters, of which 42 % are the encoder's, with a tokenizer of bytes."""
    tokenizer = _bytes()
    sizes = {"d_model": 256, "d_kv": 64, "d_ff": 512, "num_layers": 4, "num_heads": 4}
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), feed_forward_proj="gated-gelu", decoder_start_token_id=0, **sizes, **_IDS
    )
    return _write(folder, T5ForConditionalGeneration(config), tokenizer)


def _bytes() -> PreTrainedTokenizerFast:
    letters = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def _write(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def question(rng: random.Random) -> dict[str, Any]:
    """Return a sum with four choices of three digits."""
    a, b = rng.randint(50, 400), rng.randint(50, 400)
    choices = [str(a + b), *(str(number) for number in rng.sample(range(100, 999), 3))]
    label = rng.randrange(4)
    choices[0], choices[label] = choices[label], choices[0]
    return {"question": f"What is {a} + {b}?", "choices": choices, "label": label}


def write_rows(folder: Path, count: int, examples: int) -> Path:
    """Write a task folder of sums with four choices, each after solved ones.

    Args:
        folder: of val.jsonl and test.jsonl; test has one row.
        count: rows of val.
        examples: solved sums in front of each, from 0 up to this number, so that lengths differ.
    """
    folder.mkdir()
    rng = random.Random(0)
    for split, size in (("val", count), ("test", 1)):
        rows = [_with_examples(rng, i % (examples + 1)) for i in range(size)]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def _with_examples(rng: random.Random, count: int) -> dict[str, Any]:
    solved = [question(rng) for _ in range(count)]
    own = question(rng)
    while len(set(own["choices"])) < len(own["choices"]):
        own = question(rng)
    lines = [f"{q['question']} {q['choices'][q['label']]}" for q in solved]
    return {"prompt": "\n".join([*lines, own["question"]]), "choices": own["choices"], "label": own["label"]}
