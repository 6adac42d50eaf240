"""Report all that a spec names and this machine lacks at once, before anything large is read or downloaded.

Nor is torch imported, unless a data set of images or of lm-eval is asked what it needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from pipeline.loading.spec_sources import SpecSources
from pipeline.spec.run import RunSpec
from pipeline.spec.sources import LM_EVAL, ModelSpec, TaskSpec
from tasks.files.models import Report
from tasks.files.sources import Source
from tasks.registry import FAMILY_TASKS, SOURCES, TASKS, near

#: More missing files than this in one folder or repository share a line.
_MOST_LINES = 5


def find_all(spec: RunSpec, sources: SpecSources, report: Report) -> None:
    """Fetch what URLs name, and look for every checkpoint and data set of a run.

    Raises:
        ValueError: if some are missing, as `check_present`.
    """
    sources.fetch_urls(report)
    report("looking for checkpoints and data", 0, 1)
    check_present(spec, sources)


def check_present(spec: ModelSpec, sources: SpecSources, fetched: str | None = None) -> None:
    """Look for every checkpoint and data set; what the hub can still give counts as present.

    Data sets of lm-eval's tasks are fetched, since only its reader knows what they consist of.

    Args:
        spec: of a run or a fine-tuning.
        sources: of its checkpoints.
        fetched: advice for data sets that can be fetched, if another than `lines prepare`.

    Raises:
        ValueError: if some are missing: each is named, with what to do; many of one folder by the first of them.
    """
    data = list(_missing_data(spec))
    if data and fetched is not None:
        from tasks.vision.published.files import FETCHED

        data = [line.replace(FETCHED, fetched) for line in data]
    report_missing([*data, *checkpoint_lines(sources, sources.missing())])


def report_missing(missing: Sequence[str]) -> None:
    """Report errors of several fields as one.

    Raises:
        ValueError: if there are any.
    """
    if len(missing) > 1:
        raise ValueError("\n  ".join(["not all that the spec names is on this machine:", *missing]))
    if missing:
        raise ValueError(missing[0])


def checkpoint_lines(sources: SpecSources, missing: Mapping[str, str]) -> list[str]:
    """Return the lines of `SpecSources.missing`, with one line for many files of one folder or repository."""
    places: dict[str, list[str]] = {}
    for field in missing:
        place = _place(sources.parsed[field]) if field.startswith("experts.") else field
        places.setdefault(place, []).append(field)
    lines = []
    for place, fields in places.items():
        if len(fields) > _MOST_LINES:
            more = f"{fields[0]} and {len(fields) - 1} more of {place}"
            lines.append(missing[fields[0]].replace(fields[0], more, 1))
        else:
            lines += [missing[field] for field in fields]
    return lines


def _place(source: Source) -> str:
    """The folder of a file, or the repository of the hub."""
    return "/".join(source.text.split("/")[:2]) if source.kind == "hub" else str(PurePath(source.text).parent)


def _missing_data(spec: ModelSpec) -> Iterator[str]:
    shifted = spec.ood if isinstance(spec, RunSpec) else {}
    for where, tasks in (("tasks", spec.tasks), ("ood", shifted)):
        for name, task in tasks.items():
            try:
                _look_for(spec, name, task)
            except ValueError as error:
                text = str(error)
                yield (
                    f"{where}.{name}: {text}" if not text.startswith(f"tasks.{name}") else where + text[len("tasks") :]
                )


def _look_for(spec: ModelSpec, name: str, task: TaskSpec) -> None:
    """Look for a task's data.

    Raises:
        ValueError: if they are missing.
    """
    source, path = task.source, Path(task.source).expanduser()
    if source.startswith("vision/"):
        _look_for_images(name, task)
    elif source.startswith(LM_EVAL):
        from tasks.base import TaskRequest
        from tasks.language.lm_eval.loading import check_data

        check_data(TaskRequest(name, source, {}, task.options))
    elif _is_path(spec, source) and not path.exists():
        if spec.backbone.family not in FAMILY_TASKS:
            _look_for_images(name, task)
        beside = (other.name for other in path.parent.glob("*"))
        raise ValueError(f"{source}: there is no such file or folder; {near(path.name, beside)}")


def _look_for_images(name: str, task: TaskSpec) -> None:
    from tasks.base import TaskRequest
    from tasks.vision.sources import image_source

    image_source(TaskRequest(name, task.source, {}, task.options))


def _is_path(spec: ModelSpec, source: str) -> bool:
    """Return whether a source can only be a path: it is not embedded, nor registered, nor a name that a plug-in may."""
    if isinstance(spec, RunSpec) and spec.generation is not None:
        return False  # its tasks are rewards
    first = source.split("/")[0]
    named = first == "embedded" or source in TASKS or first in SOURCES
    return not named and not (spec.plugins and first not in ("", ".", "..", "~"))
