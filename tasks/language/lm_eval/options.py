"""The options of an lm-eval task in a spec, checked without lm-eval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tasks.base import TaskRequest
from tasks.registry import check_options

#: lm-eval's defaults of `--seed`: Python's random, numpy, torch, few-shot examples.
SEEDS = (0, 1234, 1234, 1234)


@dataclass(frozen=True)
class Options:
    """How a task is scored; the defaults are lm-eval's.

    Attributes:
        where: path of the options in the spec, for errors.
        include_path: folder with the user's YAML files of tasks, which come before lm-eval's own.
        metric: one of the task's metrics; None for the first with a value in [0, 1] for each document.
        filter: one of the task's filters of answers; None for the first.
        num_fewshot: examples in front of each document; None for what the task has.
        seed: of random, numpy, torch and the few-shot examples, as in lm-eval's `--seed`.
        batch_size: requests a forward pass; None for 16 on a CPU, 64 on an accelerator.
        val_split: split of the data set that becomes val; None: see `tasks.language.lm_eval.documents`.
        val_fraction: share of the documents that becomes val if the task has one split only.
        gen_kwargs: settings of generation, put over those of the task.
        apply_chat_template: write prompts as a chat, by the tokenizer's template.
        system_instruction: text in front of every prompt.
        confirm_run_unsafe_code: let tasks run code that the model writes.
    """

    where: str
    include_path: Path | None = None
    metric: str | None = None
    filter: str | None = None
    num_fewshot: int | None = None
    seed: tuple[int, int, int, int] = SEEDS
    batch_size: int | None = None
    val_split: str | None = None
    val_fraction: float = 0.2
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    apply_chat_template: bool = False
    system_instruction: str | None = None
    confirm_run_unsafe_code: bool = False

    @classmethod
    def of(cls, request: TaskRequest) -> "Options":
        """Check the options of a task's entry in the spec.

        Raises:
            ValueError: if one is unknown or has a wrong value.

        Example:
            >>> Options.of(TaskRequest("arc", "lm_eval/arc_easy", options={"num_fewshot": 5})).num_fewshot
            5
        """
        where = f"tasks.{request.name}.options"
        check_options(where, request.options, _READ)
        read = {name: _READ[name](f"{where}.{name}", value) for name, value in request.options.items()}
        return cls(where, **read)


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: must be text, got {value!r}")
    return value


def _folder(where: str, value: object) -> Path:
    path = Path(_text(where, value)).expanduser()
    if not path.is_dir():
        raise ValueError(f"{where}: must be a folder with YAML files of lm-eval, got {str(value)!r}")
    return path


def _whole(least: int) -> Callable[[str, object], int]:
    def read(where: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{where}: must be a whole number, at least {least}, got {value!r}")
        return value

    return read


def _fraction(where: str, value: object) -> float:
    if not isinstance(value, float | int) or not 0 < value < 1:
        raise ValueError(f"{where}: must be in (0, 1), got {value!r}")
    return float(value)


def _flag(where: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{where}: must be true or false, got {value!r}")
    return value


def _mapping(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: must be a mapping, as in {{max_gen_toks: 64}}, got {value!r}")
    return value


def _seeds(where: str, value: object) -> tuple[int, int, int, int]:
    given = value if isinstance(value, list | tuple) else [value] * 4
    if len(given) != 4:
        raise ValueError(f"{where}: must be one number or four (random, numpy, torch, few-shot), got {value!r}")
    random, numpy, torch, fewshot = (_whole(0)(where, seed) for seed in given)
    return random, numpy, torch, fewshot


#: Option -> its check, in the order of the documentation.
_READ: dict[str, Callable[[str, object], Any]] = {
    "include_path": _folder,
    "metric": _text,
    "filter": _text,
    "num_fewshot": _whole(0),
    "seed": _seeds,
    "batch_size": _whole(1),
    "val_split": _text,
    "val_fraction": _fraction,
    "gen_kwargs": _mapping,
    "apply_chat_template": _flag,
    "system_instruction": _text,
    "confirm_run_unsafe_code": _flag,
}
assert set(_READ) == {f.name for f in fields(Options)} - {"where"}
