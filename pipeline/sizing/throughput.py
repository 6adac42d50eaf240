"""The throughput of a worker: of a former run, or measured on a few real samples."""

import time
from pathlib import Path

from pipeline.loading.model import Report
from pipeline.loading.prepare import prepare
from pipeline.messages import COMPLETIONS, EvalRequest, ShardScore
from pipeline.plan.plan import Plan
from pipeline.records.journal import read_history
from pipeline.workers.completion_worker import CompletionWorker
from pipeline.workers.worker import Worker
from tasks.base import KeepsOutputs

#: Samples that are measured, after as many to warm up.
_MEASURED = 64


def throughput_of_run(folder: Path) -> float:
    """Return the samples, or completions, that a worker of a former run scored in a second, rebuilds included.

    Raises:
        ValueError: if the run has no scores, or its journal is damaged.
    """
    answers = [a for a in read_history(folder).answers.values() if isinstance(a, ShardScore)]
    # Of a run of rewards, the scores with texts hold the time of generation.
    timed = [a for a in answers if a.texts] or answers
    seconds = sum(map(sum, (a.seconds for a in timed)))
    if not seconds:
        raise ValueError(f"--like {folder}: no such run, or it has scored nothing: give a folder of lines run")
    return sum(a.stats.n for a in timed) / seconds


def measured_throughput(plan: Plan, device_type: str, report: Report) -> float:
    """Load a worker in this process, and measure how many samples it scores in a second.

    Raises:
        ValueError: as `lines run` before its first score.
    """
    spec = plan.spec
    prepare(spec, device_type, report)
    report("loading a worker", 0, 1)
    worker: Worker | CompletionWorker = (Worker if spec.generation is None else CompletionWorker)(
        "measured", spec, device_type
    )
    task = next(iter(spec.tasks)) if spec.generation is None else COMPLETIONS
    count = min(_MEASURED, spec.shard_size, *(val for _, val, _ in worker.info().tasks.values()))
    recipe = plan.references[-1].recipe({})
    request = EvalRequest(recipe, "measured", task, "val", 0, 0, count)
    worker.evaluate(request)
    if isinstance(worker, Worker) and isinstance(worker.backbone, KeepsOutputs):
        worker.backbone.set_outside(None)  # most candidates may have another encoder
    started = time.perf_counter()
    worker.evaluate(request)
    return count / (time.perf_counter() - started)
