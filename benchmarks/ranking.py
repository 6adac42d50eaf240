"""Rank classification through a task against a bare PyTorch loop over the same batches.

A random T5 and a random Llama score sums with four choices. The bare loop makes the same forward passes of the same
tokens in tensors of its own, and finds the answers. Sides take turns; times are CPU seconds of one thread.
Run: python -m benchmarks.ranking
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from benchmarks.text_models import write_llama, write_rows, write_t5
from tasks.base import Backbone, Task, TaskRequest
from tasks.language.rows import read_rows
from tasks.language.text.loading import load
from tasks.registry import BACKBONES

BATCH = 16
WRITE = {"seq2seq": write_t5, "causal": write_llama}
Row = dict[str, Any]
#: Makes a pass over batches, and returns the log-likelihoods of choices, (B, K) of each.
Loop = Callable[[], list[Tensor]]


def t5_loop(model: Any, tokenizer: PreTrainedTokenizerBase, groups: Sequence[Sequence[Row]]) -> Loop:
    """Return the bare loop of an encoder-decoder: one encoder row a prompt, one decoder row a choice."""
    batches = []
    for rows in groups:
        prompts, mask = padded([tokenizer(row["prompt"])["input_ids"] for row in rows])
        ends = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for row in rows for text in row["choices"]]
        labels, scored = padded(ends)
        inputs = torch.cat([labels.new_zeros(len(labels), 1), labels[:, :-1]], dim=1)
        batches.append((prompts, mask, inputs, labels, scored, len(ends) // len(rows)))

    @torch.inference_mode()
    def loop() -> list[Tensor]:
        found = []
        for prompts, mask, inputs, labels, scored, count in batches:
            hidden = model.encoder(input_ids=prompts, attention_mask=mask).last_hidden_state
            outputs = (hidden.repeat_interleave(count, 0),)
            mask = mask.repeat_interleave(count, 0)
            made = model(encoder_outputs=outputs, attention_mask=mask, decoder_input_ids=inputs, use_cache=False)
            each = made.logits.log_softmax(-1).gather(2, labels[..., None])[..., 0] * scored
            found.append(each.sum(1).view(-1, count))
        return found

    return loop


def llama_loop(model: Any, tokenizer: PreTrainedTokenizerBase, groups: Sequence[Sequence[Row]]) -> Loop:
    """Return the bare loop of a causal model: one row a choice, after its prompt."""
    batches = []
    for rows in groups:
        texts = [(row["prompt"], f"{row['prompt']} {text}") for row in rows for text in row["choices"]]
        starts = torch.tensor([len(tokenizer(prompt)["input_ids"]) for prompt, _ in texts])
        tokens, real = padded([tokenizer(text)["input_ids"] for _, text in texts])
        places = torch.arange(1, tokens.shape[1])
        scored = real[:, 1:] * (places >= starts[:, None])
        first = int(starts.min()) - 1
        kept = torch.arange(first, tokens.shape[1] - 1)
        batches.append((tokens[:, :-1], tokens[:, 1:][:, first:], scored[:, first:], kept, len(texts) // len(rows)))

    @torch.inference_mode()
    def loop() -> list[Tensor]:
        found = []
        for inputs, labels, scored, kept, count in batches:
            logits = model(input_ids=inputs, use_cache=False, logits_to_keep=kept).logits
            each = logits.log_softmax(-1).gather(2, labels[..., None])[..., 0] * scored
            found.append(each.sum(1).view(-1, count))
        return found

    return loop


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return rows, padded on the right with 0, and 1 where they have tokens."""
    tokens = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, (torch.arange(tokens.shape[1]) < lengths[:, None]).long()


def outcomes(scores: Sequence[Tensor], groups: Sequence[Sequence[Row]]) -> tuple[Tensor, Tensor]:
    """Return whether each answer is right, and its margin: the best wrong choice minus the right one."""
    labels = torch.tensor([row["label"] for rows in groups for row in rows])
    both = torch.cat(list(scores))
    right = both.gather(1, labels[:, None])
    wrong = both.scatter(1, labels[:, None], -torch.inf).amax(1)
    return both.argmax(1) == labels, wrong - right[:, 0]


def compare(family: str, folder: Path, rounds: int) -> None:
    """Print the median times of both sides, the median ratio of a round, and by how much the margins differ."""
    model = WRITE[family](folder / family)
    state = load_file(model / "model.safetensors")
    backbone: Any = BACKBONES[family](str(model), state, torch.device("cpu"), torch.float32)
    task = load(TaskRequest("sums", str(folder / "rows"), {}, {"batch_size": BATCH}), backbone)
    rows: Any = list(read_rows(folder / "rows" / "val.jsonl"))
    rows.sort(key=lambda row: len(row["prompt"]))
    groups = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    bare = (t5_loop if family == "seq2seq" else llama_loop)(backbone.module, backbone.tokenizer, groups)
    seconds = alternate(bare, task, backbone, rounds)
    right, margins = outcomes(bare(), groups)
    ours = task.evaluate(backbone, "val", 0, len(rows))
    assert ours.outcomes.tolist() == right.tolist(), "the sides find other answers"
    apart = float((margins - torch.from_numpy(ours.margins)).abs().max())
    mine, theirs = statistics.median(seconds["task"]), statistics.median(seconds["bare"])
    ratio = statistics.median(a / b for a, b in zip(seconds["task"], seconds["bare"], strict=True))
    print(f"{family}: task {mine:.3f} s, bare loop {theirs:.3f} s; median ratio {ratio:.3f} (aim 1.05); ", end="")
    print(f"{len(rows)} equal answers, margins differ by at most {apart:.1e} nats")


def alternate(bare: Callable[[], object], task: Task, backbone: Backbone, rounds: int) -> dict[str, list[float]]:
    """Run the sides in turn, after one round to warm up; return the CPU seconds of each."""
    count = task.num_samples("val")
    sides: dict[str, Callable[[], object]] = {
        "task": lambda: task.evaluate(backbone, "val", 0, count),
        "bare": bare,
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, side in sides.items():
            started = time.process_time()
            side()
            seconds[name].append(time.process_time() - started)
    return {name: values[1:] for name, values in seconds.items()}


def main() -> None:
    """Measure both families."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--samples", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        write_rows(Path(name) / "rows", options.samples, examples=3)
        for family in WRITE:
            compare(family, Path(name), options.rounds)


if __name__ == "__main__":
    main()
