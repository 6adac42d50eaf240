"""Trains the small T5 on the corpus of ``texts``: span corruption (Raffel et al., 2020), then LM adaptation.

LM adaptation (Lester et al., 2021) continues beginnings of documents, so that the model answers without sentinels.
"""

import argparse
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from .training import descend, set_rate, share_spent

OUT = Path(__file__).parents[1] / "checkpoints/tiny-t5"
_VOCABULARY, _SENTINELS = 4096, 32
_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"
_LONGEST = 64
#: Share of the tokens that is masked, and mean length of a masked span; a document has about 30 tokens.
_MASKED, _SPAN = 0.25, 3.0
#: Share of the budget that is span corruption; the rest continues beginnings of documents.
_CORRUPTION = 0.75
_log = logging.getLogger(__name__)

Tokens = NDArray[np.int64]


def build_tokenizer(lines: Sequence[str]) -> PreTrainedTokenizerFast:
    """Learn a unigram vocabulary; texts are put in lower case, and end with </s> as T5's do."""
    sentinels = [f"<extra_id_{k}>" for k in range(_SENTINELS)]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=_VOCABULARY - _SENTINELS,
        special_tokens=[_PAD, _END, _UNKNOWN],
        unk_token=_UNKNOWN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines[::4], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", pair=f"$A {_END} $B {_END}", special_tokens=[(_END, tokenizer.token_to_id(_END))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        unk_token=_UNKNOWN,
        additional_special_tokens=sentinels,
        model_max_length=512,
    )


def build_model() -> T5ForConditionalGeneration:
    """Return an untrained T5 of four encoder and four decoder blocks, with T5 1.1's gated activation."""
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=_VOCABULARY,
            d_model=128,
            d_kv=32,
            num_heads=4,
            d_ff=256,
            num_layers=4,
            num_decoder_layers=4,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=64,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,  # type: ignore[call-arg]
        )
    )


def corrupted(tokens: Tokens, sentinels: Tokens, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
    """Replace spans by sentinels; return the rest, and the sentinels each followed by its span.

    Args:
        tokens: (T,) of a document, without its end.
        sentinels: in the order of their use.
        rng: draws the spans.
    """
    count = max(1, round(_MASKED * len(tokens) / _SPAN))
    masked = min(max(count, round(_MASKED * len(tokens))), len(tokens) - 1)
    count = min(count, masked, len(tokens) - masked)
    lengths, gaps = _parts(masked, count, rng), _parts(len(tokens) - masked, count, rng)
    source: list[int] = []
    target: list[int] = []
    place = 0
    for sentinel, gap, length in zip(sentinels, gaps, lengths, strict=False):
        source += [*tokens[place : place + gap], sentinel]
        target += [sentinel, *tokens[place + gap : place + gap + length]]
        place += gap + length
    return np.array(source), np.array(target)


def _parts(total: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return `count` positive numbers with the sum `total`, drawn uniformly."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def continued(tokens: Tokens, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
    """Return a beginning of a document, and the rest of it."""
    cut = int(rng.integers(1, len(tokens)))
    return tokens[:cut], tokens[cut:]


def padded(rows: Sequence[Tokens], end: int, pad: int) -> torch.Tensor:
    """Return rows (B, T) with their ends, padded."""
    longest = max(map(len, rows)) + 1
    return torch.from_numpy(np.stack([np.r_[row, end, np.full(longest - len(row) - 1, pad)] for row in rows])).long()


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents as tokens, shortest first; a batch holds documents of nearly equal length."""

    documents: Sequence[Tokens]
    sentinels: Tokens

    @classmethod
    def of(cls, lines: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> "Corpus":
        """Encode every line."""
        encoded = tokenizer(list(lines), add_special_tokens=False, truncation=True, max_length=_LONGEST)["input_ids"]
        kept = sorted((np.array(row) for row in encoded if len(row) > 3), key=len)
        names = [f"<extra_id_{k}>" for k in range(_SENTINELS)]
        return cls(kept, np.array(tokenizer.convert_tokens_to_ids(names)))

    def batch(self, size: int, adapting: bool, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids (B, S), padded with 0, and labels (B, T), padded with -100."""
        start = int(rng.integers(0, len(self.documents) - size + 1))
        some = self.documents[start : start + size]
        pairs = [continued(d, rng) if adapting else corrupted(d, self.sentinels, rng) for d in some]
        return padded([source for source, _ in pairs], 1, 0), padded([target for _, target in pairs], 1, -100)


def train(model: T5ForConditionalGeneration, corpus: Corpus, args: argparse.Namespace) -> int:
    """Train by the clock or for a number of documents; return how many were seen."""
    rng = np.random.default_rng(args.seed)
    opt = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01, fused=True)
    started = paused = time.monotonic()
    seen, mean_loss = 0, math.nan
    while (spent := share_spent(seen, started, args)) < 1:
        adapting = spent > _CORRUPTION
        ids, labels = corpus.batch(args.batch, adapting, rng)
        set_rate(opt, args.lr, min(1, (seen + args.batch) / (200 * args.batch)), spent)
        loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
        descend(opt, loss, model.parameters())
        seen += args.batch
        mean_loss = loss.item() if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss.item()
        if time.monotonic() - paused > args.pause:
            _log.info(
                "%.0fs %d documents, adapting %s, loss %.3f", time.monotonic() - started, seen, adapting, mean_loss
            )
            model.save_pretrained(args.work / "tiny-t5")
            paused = time.monotonic()
    return seen


def main() -> None:
    """Write the model in half precision and its tokenizer into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=0, help="budget in documents; 0 means by --minutes")
    parser.add_argument("--minutes", type=float, default=38)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--pause", type=float, default=60, help="seconds between snapshots")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    lines = (args.work / "corpus.txt").read_text().splitlines()
    tokenizer, model = build_tokenizer(lines), build_model()
    seen = train(model, Corpus.of(lines, tokenizer), args)
    _log.info("%d documents", seen)
    tokenizer.save_pretrained(OUT)
    model.half().save_pretrained(OUT)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
