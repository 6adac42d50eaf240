"""Tiny random sequence classifiers and encoders with real tokenizers, as save_pretrained writes them to the hub."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from tasks.language.base import Prompt, Sample

TEXTS = (
    "a small library for reading files and writing text",
    "the program shows the state of a network",
    "tools to draw graphs of data, and to print them",
    "It has few dependencies. It comes with examples.",
)
END = "<|endoftext|>"
CONTEXT = 64
CPU = torch.device("cpu")
_NAMES = {"cls_token": "<s>", "bos_token": "<s>", "sep_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}


def byte_tokenizer(special: list[str], **names: Any) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE like GPT-2's; `cls_token` and `sep_token` are added as by BART's and RoBERTa's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if "sep_token" in names:
        ends = [(names[name], tokenizer.token_to_id(names[name])) for name in ("sep_token", "cls_token")]
        tokenizer.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a WordPiece with token types like BERT's, without a longest input."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def write(folder: Path, kind: Any, config: Any, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Path:
    """Write a model with random weights, large enough for its scores to differ, and its tokenizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_bert(folder: Path, seed: int = 0, kind: Any = BertForSequenceClassification, **config: Any) -> Path:
    """Write a BERT with the labels BAD, FAIR and GOOD, or another `kind`, for example BertModel."""
    tokenizer = word_tokenizer()
    shape = _shape(tokenizer, max_position_embeddings=CONTEXT, pad_token_id=0)
    return write(folder, kind, BertConfig(**{**shape, **_labels("BAD", "FAIR", "GOOD"), **config}), tokenizer, seed)


def write_encoder(folder: Path, seed: int = 0) -> Path:
    """Write a BERT without a head, like sentence encoders."""
    return write_bert(folder, seed, BertModel)


def write_roberta(folder: Path) -> Path:
    """Write a RoBERTa with one label, limited only by its positions, which start after the padding's index."""
    tokenizer = byte_tokenizer(["<s>", "<pad>", "</s>"], **_NAMES)
    shape = _shape(tokenizer, max_position_embeddings=CONTEXT + 2, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    return write(folder, RobertaForSequenceClassification, RobertaConfig(**shape, num_labels=1), tokenizer)


def write_bart(folder: Path) -> Path:
    """Write a BART with the labels HALLUCINATED and FAITHFUL and, like the published detector, a wrong label count."""
    tokenizer = byte_tokenizer(["<s>", "<pad>", "</s>"], **_NAMES, model_max_length=CONTEXT)
    sides = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=CONTEXT,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        **sides,
        **_labels("HALLUCINATED", "FAITHFUL"),
    )
    write(folder, BartForSequenceClassification, config, tokenizer)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_num_labels": 3}))
    return folder


def write_gpt2(folder: Path, pad_token: str | None = None) -> Path:
    """Write a GPT-2 with one label; like those of 2022, its configuration names no pad token."""
    names = {"pad_token": pad_token} if pad_token else {}
    tokenizer = byte_tokenizer([END], bos_token=END, eos_token=END, unk_token=END, model_max_length=CONTEXT, **names)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=end,
        eos_token_id=end,
        num_labels=1,
    )
    return write(folder, GPT2ForSequenceClassification, config, tokenizer)


def _shape(tokenizer: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return {"vocab_size": len(tokenizer), **sizes, **more}


def _labels(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


WRITERS = {"bert": write_bert, "roberta": write_roberta, "bart": write_bart, "gpt2": write_gpt2}


def sample(completion: str, source: str = TEXTS[0]) -> Sample:
    """Return a completion of a prompt about a source."""
    return Sample(Prompt(f"Description: {source}\nSynopsis:", source), completion)


SAMPLES = [
    sample(completion, source)
    for completion in ("", "a tool", "a library that reads files. It has few dependencies.", "graphs of data " * 4)
    for source in TEXTS
]
