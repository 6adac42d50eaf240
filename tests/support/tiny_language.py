"""Tiny random language models with a real BPE tokenizer, prompts for them, and LoRA adapters."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

WHAT = ("library", "tool", "daemon", "plugin", "font", "editor", "server", "game")
FOR = ("reading images", "sending mail", "drawing maps", "testing programs", "playing music", "watching the network")
IN = ("Python", "Perl", "C", "Java", "Rust")
HOW = ("It is small and fast.", "It has few dependencies.", "It is used by other packages.", "It comes with examples.")
TEMPLATE = "Package description: {source}\nSynopsis:"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def row(number: int) -> dict[str, str]:
    """Return a package's description and synopsis; numbers below 1,200 give distinct ones, of different lengths."""
    rest = number * 467 % 1200  # coprime: neighbours differ in every part
    rest, what = divmod(rest, len(WHAT))
    rest, purpose = divmod(rest, len(FOR))
    more, language = divmod(rest, len(IN))
    source = f"This package provides a {WHAT[what]} for {FOR[purpose]}, written in {IN[language]}."
    return {
        "source": " ".join([source, *HOW[:more]]),
        "reference": f"{WHAT[what]} for {FOR[purpose]} in {IN[language]}",
    }


def tiny_tokenizer(vocabulary: int = 300) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE trained on the rows, which encodes any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for number in range(40) for text in row(number).values()), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
    )


def write_tiny_llama(folder: Path, layers: int = 4, hidden: int = 32, seed: int = 0) -> Path:
    """Write a random Llama (tied embeddings, context 256) and its tokenizer with save_pretrained."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def t5_config(encoder: int = 3, decoder: int = 3, tied: bool = True) -> PreTrainedConfig:
    """Return the configuration of a tiny T5 1.1 (gated GELU), or of a T5 1.0 if the output weights are tied."""
    return T5Config(
        vocab_size=300,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=encoder,
        num_decoder_layers=decoder,
        num_heads=4,
        relative_attention_num_buckets=8,
        initializer_factor=1.0,
        feed_forward_proj="relu" if tied else "gated-gelu",
        tie_word_embeddings=tied,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )


def bart_config(encoder: int = 3, decoder: int = 3) -> PreTrainedConfig:
    """Return the configuration of a tiny BART of context 64."""
    return BartConfig(
        vocab_size=300,
        d_model=32,
        encoder_layers=encoder,
        decoder_layers=decoder,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        init_std=0.1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )


def write_tiny_seq2seq(folder: Path, config: PreTrainedConfig, seed: int = 0) -> Path:
    """Write a random encoder-decoder and its tokenizer; output weights that are not tied are random, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSeq2SeqLM.from_config(config)
        if not getattr(config, "scale_decoder_outputs", True):  # T5 1.1
            model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
            model.all_tied_weights_keys.pop("lm_head.weight")
        model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def bert_config(**more: Any) -> PreTrainedConfig:
    """Return the configuration of a tiny BERT of 3 blocks and context 128."""
    return BertConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=128,
        initializer_range=0.1,
        pad_token_id=0,
        **more,
    )


def write_tiny_encoder(folder: Path, config: PreTrainedConfig, auto: Any = AutoModel, seed: int = 0) -> Path:
    """Write a random encoder, with the head of the class `auto`, and its tokenizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_prompts(folder: Path, train: int = 32, val: int = 8, test: int = 8) -> Path:
    """Write train.jsonl, val.jsonl and test.jsonl of different rows, each with `source` and `reference`."""
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        lines = [json.dumps(row(number)) for number in range(start, start + count)]
        (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        start += count
    return folder


def write_adapter(folder: Path, base: Path, seed: int, scale: float = 0.05, rank: int = 4) -> Path:
    """Write a LoRA adapter as peft saves it, on every linear module of the blocks.

    Args:
        folder: where it is written.
        base: of `write_tiny_llama`.
        seed: of A and B.
        scale: standard deviation of B's entries; alpha is twice the rank.
        rank: of each module.
    """
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=scale)
    adapted.save_pretrained(folder)
    return folder
