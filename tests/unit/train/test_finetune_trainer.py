"""Proves that a step is AdamW on the frozen head's cross-entropy, frozen parameters stay, and resuming is exact."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from small_finetune import outputs, read_finetune
from torch.nn import functional as F

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.train.executor import train_here
from pipeline.train.finetune.augment import AUGMENTATIONS
from pipeline.train.finetune.batches import EpochBatches
from pipeline.train.finetune.preparation import FinetuneJob, load_base, load_training_task, prepare
from pipeline.train.finetune.spec import FinetuneSettings
from pipeline.train.finetune.trainer import NonFiniteTraining, finetune
from pipeline.train.job import TrainingStatus
from pipeline.train.model_folder import CHECKPOINT, RESULT, condition
from pipeline.train.seeds import generator_of, seed_of
from tasks.embedded import checkpoint_path

pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decoded")


@pytest.fixture(autouse=True)
def _decoded_once(_own_cache: None, decoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(decoded))


def jobs(folder: Path, **changes: Any) -> dict[str, FinetuneJob]:
    spec = read_finetune(folder, **changes)
    return {j.run.name: j for j in prepare(spec, folder / "out", "cpu", lambda *_: None)}


def job(folder: Path, method: str = "full", **changes: Any) -> FinetuneJob:
    return jobs(folder, methods={method: {}}, **changes)[f"{method}/emoji"]


def train(made: FinetuneJob) -> list[TrainingStatus]:
    states: list[TrainingStatus] = []
    finetune(made, states.append)
    return states


def tower(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def base() -> dict[str, torch.Tensor]:
    return {n: t.float() for n, t in load_file(checkpoint_path("base")).items() if n.startswith("visual.")}


def test_two_steps_are_those_of_adamw_written_out(tmp_path: Path) -> None:
    training = {"lr": 1e-3, "steps": 2, "batch_size": 8, "weight_decay": 0.05, "warm_up": 0.5, "label_smoothing": 0.1}
    made = job(tmp_path, training=training)
    train(made)
    model = load_base(made.spec, torch.device("cpu"))
    task = load_training_task(made.spec, "emoji", model.backbone)
    module = model.backbone.module.requires_grad_().train()
    moments = {n: (torch.zeros_like(p), torch.zeros_like(p)) for n, p in module.named_parameters()}
    batches = EpochBatches(task.num_samples("train"), made.run.settings)
    for step, rate in enumerate([1e-3, 1e-3]):  # warm-up is one step of two; then the cosine's first
        images, labels = task.batch("train", batches.rows(step), torch.device("cpu"))
        logits = task.logits(model.backbone.embed(images))  # type: ignore[attr-defined]
        log_p = F.log_softmax(logits, dim=1)
        loss = -(0.9 * log_p[range(8), labels] + 0.1 * log_p.mean(dim=1)).mean()
        names, parameters = zip(*module.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, parameters)
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        with torch.no_grad():
            for name, p, g in zip(names, parameters, gradients, strict=True):
                first, second = moments[name]
                g = g * min(1.0, 1.0 / float(norm))
                first.lerp_(g, 0.1)
                second.lerp_(g * g, 0.001)
                p.mul_(1 - rate * 0.05)
                hat = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
                p.sub_(rate * hat[0] / (hat[1].sqrt() + 1e-8))
    found = tower(made.folder)
    for name, p in module.named_parameters():
        mine, its = p.detach(), found[f"visual.{name}"]
        if name.endswith(
            "in_proj_bias"
        ):  # the keys' bias changes nothing: its gradient is rounding, which Adam blows up
            mine, its = torch.cat([mine[:96], mine[192:]]), torch.cat([its[:96], its[192:]])
        # A step moves by 1e-3. Adam divides a gradient by its own size, so the few entries whose gradient is near
        # rounding move as the processor's order of summation has it: one of 27,648 by 2.1e-5 on one kind of CPU.
        torch.testing.assert_close(its, mine, rtol=1e-4, atol=1e-4)
        assert ((its - mine).abs() > 2e-5 + 1e-4 * mine.abs()).float().mean() < 1e-4, name


@pytest.mark.parametrize(
    ("method", "frozen_blocks"),
    [
        ("full", set()),
        ("linear", {0}),
        ("exponential", set()),
        ("half_frozen", {0, 1, 2, 3}),
        ("last_block", set(range(7))),
    ],
)
def test_frozen_parameters_keep_their_bits_and_all_others_move(
    tmp_path: Path, method: str, frozen_blocks: set[int]
) -> None:
    made = job(tmp_path, method, training={"lr": 1e-3, "steps": 2, "batch_size": 8, "warm_up": 0})
    train(made)
    before, after = base(), tower(made.folder)
    assert before.keys() == after.keys()
    same = {name for name in before if torch.equal(before[name], after[name])}
    embeddings = {"visual.class_embedding", "visual.positional_embedding", "visual.conv1.weight"}
    embeddings |= {"visual.ln_pre.weight", "visual.ln_pre.bias"}
    inside = {n for n in before if any(f"resblocks.{b}." in n for b in frozen_blocks)}
    assert same == inside | (embeddings if frozen_blocks else set())


def test_deeper_blocks_move_more_under_a_rate_that_rises(tmp_path: Path) -> None:
    made = job(tmp_path, "exponential", training={"lr": 1e-3, "steps": 1, "batch_size": 8, "warm_up": 0})
    train(made)
    before, after = base(), tower(made.folder)
    # Adam's first step is the rate times the gradient's sign (almost): the largest change is the rate of the block.
    moved = [
        float((after[name] - before[name]).abs().max())
        for name in (f"visual.transformer.resblocks.{b}.mlp.c_fc.weight" for b in range(8))
    ]
    assert moved == pytest.approx([1e-3 * 0.5 ** (7 - b) * (1 + 0.1) for b in range(8)], rel=0.12)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_stopped_run_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path, method: str, stop_at: int) -> None:
    changes = {"training": {"lr": 1e-3, "steps": 6, "batch_size": 8, "augment": "jitter"}}
    whole, stopped = job(tmp_path, method, **changes), job(tmp_path, method, **changes)
    whole = replace(whole, folder=tmp_path / "whole")
    train(whole)

    def stop(status: TrainingStatus) -> None:
        if status.step == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(stopped, stop)
    assert condition(stopped.folder, stopped.identity) == ("started" if stop_at > 2 else "new")
    states = train(stopped)
    assert states[0].step == stop_at // 2 * 2 + 1
    assert condition(stopped.folder, stopped.identity) == "finished"
    assert not (stopped.folder / CHECKPOINT).exists()
    assert outputs(stopped.folder) == outputs(whole.folder)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_killed_between_its_weights_and_its_result_resumes(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it was too short for a checkpoint: the weights in the folder are recognised."""
    changes = {"training": {"lr": 1e-3, "steps": 2, "batch_size": 8}, "save_dtype": "float16"}
    killed = job(tmp_path, method, **changes)
    whole = replace(killed, folder=tmp_path / "whole")
    train(whole)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pipeline.train.finetune.trainer.finish", interrupt)
        train(killed)
    assert not (killed.folder / RESULT).exists() and len(outputs(killed.folder)) == len(outputs(whole.folder))
    assert condition(killed.folder, killed.identity) == "started"
    assert train(killed) == [], "no step is done again"
    assert outputs(killed.folder) == outputs(whole.folder)
    assert not (killed.folder / CHECKPOINT).exists()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_model_that_runs_out_of_memory_is_named_and_the_next_one_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"lr": 1e-3, "steps": 1, "batch_size": 8}
    changes = {"methods": {"full": {"training": {"augment": "jitter"}}, "linear": {}}, "training": training}

    def huge(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.empty(1 << 50)

    monkeypatch.setitem(AUGMENTATIONS, "jitter", huge)  # type: ignore[arg-type]
    made = jobs(tmp_path, **changes)
    failures = train_here(finetune, list(made.values()), lambda states: None)
    assert failures.keys() == {"full/emoji"}
    assert failures["full/emoji"].startswith("full/emoji: RuntimeError: ") and "memory" in failures["full/emoji"]
    assert condition(made["linear/emoji"].folder, made["linear/emoji"].identity) == "finished"


def test_the_log_and_the_result_agree_with_the_training(tmp_path: Path) -> None:
    made = job(tmp_path, save_dtype="float16", training={"lr": 1e-3, "steps": 5, "batch_size": 8})
    states = train(made)
    rows = pq.read_table(made.folder / "log.parquet").to_pylist()
    assert [r["step"] for r in rows] == list(range(6))
    assert [f"loss {r['loss']:.3f}" for r in rows[1:]] == [t.text for t in states] and rows[0]["loss"] is None
    assert [r["step"] for r in rows if r["val_accuracy"] is not None] == [0, 2, 4, 5]
    result = json.loads((made.folder / RESULT).read_text())
    assert result["val_accuracy"] == rows[-1]["val_accuracy"] and result["val_samples"] == 40
    assert {t.dtype for t in tower(made.folder).values()} == {torch.float16}
    # The written model is the one that was scored.
    model = load_base(made.spec, torch.device("cpu"))
    kept = model.backbone.select(read_checkpoint(str(made.folder)).state, "the model")
    model.backbone.module.load_state_dict({n: t.float() for n, t in kept.items()}, strict=False)
    task = load_training_task(made.spec, "emoji", model.backbone)
    assert task.evaluate(model.backbone, "val", 0, 40).stats.mean == result["val_accuracy"]


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    for method in ("full", "lora"):
        made = job(tmp_path, method, training={"lr": 2e-3, "steps": 10, "batch_size": 16, "warm_up": 0.2})
        train(made)
        losses = pq.read_table(made.folder / "log.parquet")["loss"].to_pylist()[1:]
        assert sum(losses[-3:]) < 0.9 * sum(losses[:3]), (method, losses)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job(tmp_path)
    whole = AUGMENTATIONS["jitter"]

    def broken(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        nan = generator.initial_seed() == seed_of("augment", 0, 3)
        return whole(images, generator) * (torch.nan if nan else 1)

    monkeypatch.setitem(AUGMENTATIONS, "jitter", broken)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteTraining, match=r"full/emoji: the loss is nan .* at step 4 of 6, at a rate of"):
        train(made)
    assert condition(made.folder, made.identity) == "started"
    assert pq.read_table(made.folder / "log.parquet")["step"].to_pylist() == [0, 1, 2, 3]


def test_a_folder_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    made = job(tmp_path)
    train(made)
    other = job(tmp_path, training={"lr": 2e-4, "steps": 6, "batch_size": 16, "augment": "jitter"})
    with pytest.raises(ValueError, match=r"trained differently: training.lr 0.0001, not 0.0002; choose another --out"):
        condition(other.folder, other.identity)
    with pytest.raises(ValueError, match="method 'full', not 'linear'"):
        condition(made.folder, job(tmp_path, "linear").identity)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").touch()
    with pytest.raises(ValueError, match=r"holds something else \(todo.txt\)"):
        condition(tmp_path / "notes", made.identity)


def test_a_worker_that_sees_other_data_stops(tmp_path: Path) -> None:
    made = job(tmp_path)
    with pytest.raises(ValueError, match="full/emoji: this machine has other checkpoints or data"):
        train(replace(made, identity={**made.identity, "task": "0"}))


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    made = job(tmp_path)
    made.folder.mkdir(parents=True)
    (made.folder / CHECKPOINT).write_bytes(os.urandom(64))
    with pytest.raises(ValueError, match=r"checkpoint.safetensors: damaged .* delete the folder"):
        condition(made.folder, made.identity)


def test_each_epoch_is_a_permutation_less_the_last_smaller_batch() -> None:
    batches = EpochBatches(10, FinetuneSettings(lr=1, epochs=2, batch_size=4, seed=3))
    assert (batches.size, batches.total) == (4, 4)
    epochs = [torch.cat([batches.rows(s) for s in steps]).tolist() for steps in ((0, 1), (2, 3))]
    assert all(len(set(rows)) == 8 and set(rows) <= set(range(10)) for rows in epochs) and epochs[0] != epochs[1]
    assert torch.equal(batches.rows(1), EpochBatches(10, FinetuneSettings(lr=1, steps=2, batch_size=4, seed=3)).rows(1))
    small = EpochBatches(3, FinetuneSettings(lr=1, steps=5, batch_size=64))
    assert small.size == 3 and sorted(small.rows(4).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("name", ["jitter", "crop"])
def test_augmentation_keeps_the_range_and_follows_its_generator(name: str) -> None:
    images = torch.randint(0, 256, (16, 3, 20, 24), dtype=torch.uint8)
    changed, again, other = (AUGMENTATIONS[name](images, generator_of(seed)) for seed in (1, 1, 2))
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert changed.min() >= 0 and changed.max() <= 255
    assert torch.equal(changed, again) and not torch.equal(changed, other)
    flat = torch.full((4, 3, 8, 8), 77, dtype=torch.uint8)
    torch.testing.assert_close(AUGMENTATIONS[name](flat, generator_of(0)), flat.float())


def test_a_crop_shows_nine_tenths_of_the_image_or_more() -> None:
    across = torch.linspace(0, 255, 64).expand(256, 3, 64, 64)
    seen = AUGMENTATIONS["crop"](across, generator_of(0))[:, 0]
    width = (seen[:, 0, -1] - seen[:, 0, 0]) / (across[0, 0, 0, -1] - across[0, 0, 0, 0])
    assert width.max() <= 1 and width.min() > 0.9 * 0.86  # sqrt(0.9 * 3 / 4) of it, or more
    assert width.min() < 0.9
