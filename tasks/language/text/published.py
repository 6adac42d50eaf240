"""The catalogue of the published text tasks, and their rows: from a folder, or from the hub."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from pydantic import BaseModel, ConfigDict

from tasks.files.hub import hub_silence, out_of_reach
from tasks.language.rows import SUFFIXES, read_rows
from tasks.registry import near

#: The branch to which the hub converts data sets: CONFIG/SPLIT/*.parquet, also of those that were scripts.
_CONVERTED = "refs/convert/parquet"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Templates(_Model):
    """Which of promptsource's templates a task uses."""

    place: str
    count: int
    dropped: tuple[str, ...] = ()


class Label(_Model):
    """Where the right choice stands: a column with its place, counted from `first`, or with one of the `names`."""

    column: str = "label"
    first: int = 0
    names: str = ""

    def of(self, row: Mapping[str, Any], where: str) -> int:
        """Return the place of a row's right choice, from 0.

        Raises:
            ValueError: if the row has no such place.
        """
        value = row.get(self.column)
        try:
            return self.names.index(str(value)) if self.names else int(str(value)) - self.first
        except ValueError:
            raise ValueError(f"{where}: {self.column}: must be the place of a choice, got {value!r}") from None


class Rows(_Model):
    """Rows of a published split: all, the last ones, or those before the last ones."""

    split: str
    last: int | None = None
    before_last: int | None = None


class PublishedTask(_Model):
    """One entry of published.yaml."""

    repo: str = ""
    config: str = "default"
    templates: Templates
    label: Label = Label()
    metric: Literal["accuracy", "squad"] = "accuracy"
    val: Rows
    test: Rows
    note: str = ""
    manual: str = ""

    def rows(self, split: str) -> Rows:
        """Return the rows of train, val or test: train has those before val's in the same published split."""
        if split == "train":
            return Rows(split=self.val.split, before_last=self.val.last)
        return self.val if split == "val" else self.test


class _Catalogue(_Model):
    benchmarks: dict[str, tuple[str, ...]]
    tasks: dict[str, PublishedTask]


@cache
def catalogue() -> _Catalogue:
    """Return the benchmarks and tasks."""
    text = resources.files("tasks.language.text").joinpath("published.yaml").read_text(encoding="utf-8")
    return _Catalogue.model_validate(yaml.safe_load(text))


def published_task(name: str) -> PublishedTask:
    """Return a task by name.

    Raises:
        ValueError: if there is none; near names are suggested.
    """
    tasks = catalogue().tasks
    if name not in tasks:
        raise ValueError(f"unknown text task {name!r}: {near(name, tasks)}")
    return tasks[name]


def published_rows(name: str, rows: Rows, root: Path | None) -> tuple[str, list[Mapping[str, Any]]]:
    """Return the place of a split's rows for errors, and the rows.

    Args:
        name: of the task.
        rows: which ones.
        root: a folder with NAME/SPLIT.jsonl, NAME/SPLIT.parquet or NAME/SPLIT/*.parquet; None: the hub.

    Raises:
        ValueError: if they are not there, or the hub is out of reach.
    """
    task = published_task(name)
    files = _local(name, rows.split, root) if root is not None else _from_hub(name, task, rows.split)
    found: list[Mapping[str, Any]] = []
    for number, row in enumerate(chain.from_iterable(map(read_rows, files)), 1):
        if not isinstance(row, dict):
            raise ValueError(f"{files[0].parent}: {rows.split}: row {number}: must be an object, got {row!r:.60}")
        found.append(row)
    if rows.before_last is not None:
        return f"{name}: {rows.split}", found[: -rows.before_last]
    return f"{name}: {rows.split}", found if rows.last is None else found[-rows.last :]


def _local(name: str, split: str, root: Path) -> Sequence[Path]:
    folder = root / name
    single = [path for suffix in SUFFIXES if (path := folder / f"{split}{suffix}").is_file()]
    files = single[:1] or sorted((folder / split).glob("*.parquet"))
    if not files:
        names = " or ".join([*(f"{split}{suffix}" for suffix in SUFFIXES), f"{split}/*.parquet"])
        known = [p.name for p in root.glob("*/")] if not folder.is_dir() else [p.name for p in folder.iterdir()]
        wanted = name if not folder.is_dir() else f"{split}{SUFFIXES[0]}"
        raise ValueError(f"options.root: {folder}: has no {names}; {near(wanted, known)}")
    return files


def _from_hub(name: str, task: PublishedTask, split: str) -> Sequence[Path]:
    how = f"set options.root to a folder with {name}/{split}.parquet or .jsonl"
    if task.manual:
        raise ValueError(f"{task.manual}: {how}, with the columns of the hub's data set")
    silent = hub_silence() is not None
    try:
        folder = snapshot_download(
            task.repo,
            repo_type="dataset",
            revision=_CONVERTED,
            allow_patterns=[f"{task.config}/{split}/*.parquet"],
            local_files_only=silent,
        )
    except LocalEntryNotFoundError as error:
        raise ValueError(f"hf:{task.repo}: not in the local cache, and {out_of_reach()}; or {how}") from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"hf:{task.repo}: the hub refuses it: {str(error).strip()}; {how}") from error
    files = sorted((Path(folder) / task.config / split).glob("*.parquet"))
    if not files:
        raise ValueError(f"hf:{task.repo}: has no {task.config}/{split}/*.parquet in {_CONVERTED}; {how}")
    return files
