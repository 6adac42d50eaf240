"""Proves that candidates of one alpha share the encoder's outputs, that scores keep their bits, and what is kept."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_language import bart_config, row, t5_config, write_tiny_seq2seq
from torch import Tensor

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.merging.methods.base import Experts, Params
from pipeline.merging.resident import ResidentModel
from pipeline.recipe import Number, Recipe
from pipeline.workers.held import HeldRecipe
from tasks.base import KeepsOutputs, Task, TaskRequest
from tasks.kept_outputs import KeptOutputs
from tasks.language.seq2seq import Seq2SeqBackbone, build
from tasks.loading import load_task

CPU = torch.device("cpu")
GRID = tuple(itertools.product((0.2, 0.5, 1), (0.3, 0.6, 0.9)))
BATCHES = 3


def linear(alpha: float, beta: float, **params: float) -> Recipe:
    return Recipe.make("sum", "linear", alpha, beta, params=params)


class Side:
    """A model with two experts, and a task of choices and one of answers, of 3 batches each."""

    def __init__(self, model: Path, rows: Path, **options: object) -> None:
        state = read_checkpoint(str(model)).state
        self.backbone: Seq2SeqBackbone = build(str(model), state, CPU, torch.float32, options)
        module: Any = self.backbone.module
        base = {name: p.detach().clone() for name, p in module.named_parameters()}
        noise = torch.Generator().manual_seed(0)
        taus = {e: {n: 0.05 * torch.randn(t.shape, generator=noise) for n, t in base.items()} for e in "ab"}
        resident = ResidentModel(module, self.backbone.layer_map, base, taus, CPU, torch.float32, self._gather)
        self._held = HeldRecipe(resident, self.backbone)
        self.tasks = [self._task(rows, metric=metric) for metric in ("accuracy", "squad")]
        self.passes = 0
        module.get_encoder().register_forward_hook(self._count)

    def _task(self, rows: Path, metric: str) -> Task:
        more = {"max_new_tokens": 2} if metric == "squad" else {}
        return load_task(TaskRequest(metric, str(rows), {}, {"batch_size": 2, "metric": metric, **more}), self.backbone)

    def _count(self, *of: object) -> None:
        self.passes += 1

    def _gather(self, method: str, experts: Experts, weights: Sequence[Number], params: Params) -> list[Any]:
        """Overwrite the weights, as learning does."""
        with torch.no_grad():
            for parameter in self.backbone.module.parameters():
                parameter.fill_(0.1)
        return [{name: torch.ones_like(tensor) for name, tensor in delta.items()} for delta in experts.deltas]

    def scores(self, recipe: Recipe) -> list[bytes]:
        """Hold a recipe, and score each task in shards of 3 samples; return the bits of all values."""
        self._held.hold(recipe)
        found = [task.evaluate(self.backbone, "val", i, min(i + 3, 5)) for task in self.tasks for i in (0, 3)]
        return [part.tobytes() for f in found for part in (f.outcomes, f.margins) if part is not None]

    def passes_of(self, recipes: Sequence[Recipe]) -> int:
        before = self.passes
        for recipe in recipes:
            self.scores(recipe)
        return self.passes - before


@pytest.fixture(scope="module", params=["t5", "bart"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = t5_config(2, 2, tied=False) if request.param == "t5" else bart_config(2, 2)
    return write_tiny_seq2seq(tmp_path_factory.mktemp("model"), config)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_seq2seq(tmp_path_factory.mktemp("t5"), t5_config(2, 2))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    some = [
        {"prompt": row(i)["source"][: 20 + 9 * i], "choices": ["a tool", "data"], "label": i % 2, "answers": ["tool a"]}
        for i in range(5)
    ]
    for split in ("val", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in some), encoding="utf-8")
    return folder


def test_a_grid_of_3_by_3_makes_3_passes_a_batch_and_the_same_bits(model: Path, rows: Path) -> None:
    keeps, plain = Side(model, rows), Side(model, rows, encoder_memory=0)
    found = [keeps.scores(linear(alpha, beta)) for alpha, beta in GRID]
    assert found == [plain.scores(linear(alpha, beta)) for alpha, beta in GRID]
    assert len({tuple(f) for f in found}) == 9, "candidates differ"
    # Without, the shards also share no pass for the batch that both read a part of.
    assert keeps.passes == 3 * BATCHES * len(keeps.tasks) and plain.passes == 9 * (BATCHES + 1) * len(keeps.tasks)


@pytest.mark.parametrize("scaled", ["encoder", "both"])
def test_a_scaled_encoder_is_run_for_every_candidate(scaled: str, t5: Path, rows: Path) -> None:
    side = Side(t5, rows, scaled=scaled)
    assert side.passes_of([linear(0.5, 0.3), linear(0.5, 0.6)]) == 2 * (BATCHES + 1) * 2
    assert side.backbone.encoder_outputs.size == 0 == side.backbone.kept_bytes(1000, 1000)


def test_what_counts_is_lambda_outside_the_blocks(t5: Path, rows: Path) -> None:
    side, all_batches = Side(t5, rows), BATCHES * 2
    assert side.passes_of([linear(0.5, 0.3)]) == all_batches
    assert side.passes_of([Recipe.make("sum", "constant", 0.5)]) == 0
    assert side.passes_of([Recipe.make("sum", "reversed:quadratic", 0.5, 2)]) == 0
    assert side.passes_of([linear(0.7, 0.3, lambda_outside=0.5), linear(0.8, 0.3, lambda_outside=0.5)]) == 0
    assert side.passes_of([linear(0.5, 0.3, lambda_outside=0.6)]) == all_batches
    assert side.passes_of([Recipe.make("sum", "uniform:linear", 0.5, 0.3)]) == all_batches
    assert side.passes_of([Recipe.make("sum", "equal_norm:linear", 0.5, 0.3)]) == all_batches
    assert side.passes_of([Recipe.make("average", "linear", 0.5, 0.3)]) == all_batches
    assert side.passes_of([Recipe.make("weighted", "linear", 0.5, 0.3, (1, 2))]) == all_batches
    assert side.passes_of([Recipe.make("sum", "linear", "auto", 0.1)]) == 0, "equation 2 gives 0.5"
    assert side.passes_of([Recipe.make("zero"), linear(0, 0.7), Recipe.make("average", "linear", 0, 1)]) == all_batches
    ties = [Recipe.make("ties", "linear", 0.5, b, params={"keep": k}) for k, b in ((20, 0.1), (20, 0.2), (30, 0.2))]
    assert side.passes_of(ties) == 2 * all_batches


def test_failed_and_learned_rebuilds_leave_nothing_behind(t5: Path, rows: Path) -> None:
    side, plain = Side(t5, rows), Side(t5, rows, encoder_memory=0)
    wrong = Recipe.make("sum", "linear", 0.5, 0.3, (1, 1, 1))
    learned = Recipe.make("fisher", "linear", 0.5, 0.3)
    for recipe in (linear(0.5, 0.3), learned, linear(0.5, 0.6), learned, linear(0.2, 0.1)):
        assert side.scores(recipe) == plain.scores(recipe)
        with pytest.raises(ValueError, match="must be one for each of 2 experts, got 3"):
            side.scores(wrong)
        assert side.backbone.encoder_outputs.weights is None
    before = side.passes
    side.scores(learned)
    assert side.passes - before == (BATCHES + 1) * 2, "a learned method keeps nothing"


def test_what_is_kept_is_bounded_and_planned(t5: Path, rows: Path) -> None:
    side = Side(t5, rows)
    tokens = sum(task.tokens for task in side.tasks)  # type: ignore[attr-defined]
    one = side.backbone.kept_bytes(tokens, 1) // 2  # val and test have the same rows, and only val is scored
    assert side.passes_of([linear(0.2, 0.3)]) == BATCHES * 2
    assert side.backbone.encoder_outputs.size == one > 0
    side.scores(linear(0.5, 0.3))
    assert side.backbone.encoder_outputs.size == 2 * one
    small = Side(t5, rows, encoder_memory=1.5 * one / 2**30)
    small.passes_of([linear(0.2, 0.3), linear(0.5, 0.3)])
    assert one <= small.backbone.encoder_outputs.size <= 1.5 * one
    assert small.backbone.kept_bytes(tokens, 9) == small.backbone.encoder_outputs.limit == int(1.5 * one)
    assert small.passes_of([linear(0.5, 0.6)]) == 0, "the oldest weights make room"


def test_batches_are_found_by_identity_within_their_weights() -> None:
    outputs = KeptOutputs(limit=64)
    first, equal = torch.ones(1, 2), torch.ones(1, 2)

    def of(weights: str | None, tokens: Tensor, value: float) -> float:
        outputs.weights = weights
        return float(outputs.of(tokens, lambda: torch.full((4,), float(value)))[0])

    assert [of(None, first, 1), of(None, first, 2)] == [1, 2] and outputs.size == 0
    assert [of("a", first, 3), of("a", first, 4), of("a", equal, 5), of("a", equal, 6)] == [3, 3, 5, 5]
    assert [of("b", first, 7), of("a", first, 8), of("b", first, 9), outputs.size] == [7, 3, 7, 48]
    assert [of("c", first, 10), outputs.size] == [10, 64], "it fits beside a and b"
    assert [of("c", equal, 11), outputs.size] == [11, 48], "a, used longest ago, makes room"
    assert [of("b", first, 12), of("c", equal, 13), of("a", first, 14)] == [7, 11, 14]
    tight = KeptOutputs(limit=16)
    tight.weights = "a"
    made = [tight.of(tokens, lambda: torch.zeros(4)) for tokens in (first, equal, first, equal)]
    assert made[0] is made[2] and made[1] is not made[3] and tight.size == 16


def test_planned_bytes_follow_tokens_candidates_and_precision(t5: Path) -> None:
    backbone = build(str(t5), read_checkpoint(str(t5)).state, CPU, torch.bfloat16, {"encoder_memory": 2})
    assert isinstance(backbone, KeepsOutputs)
    assert backbone.kept_bytes(100, 3) == 100 * 3 * 32 * 2
    assert backbone.kept_bytes(10**9, 3) == 2 * 2**30


@pytest.mark.parametrize("bad", [-1, True, "all", float("inf"), float("nan"), None])
def test_a_wrong_limit_is_named(bad: object, t5: Path) -> None:
    with pytest.raises(ValueError, match=r"^backbone\.options\.encoder_memory: must be a number of GiB, 0 or more"):
        build(str(t5), {}, CPU, torch.float32, {"encoder_memory": bad})
