"""The package of a submitted job: this project's code, the spec, and the small files that the spec names.

A job package and `pipeline.cluster.files.transfer` share the list of a spec's files and of what is read with each
(`named_files`, `NamedFile.bundle`). They send them in different ways: a job must run without the submitting machine,
so Ray's working directory carries the files, through the memory of the cluster's head; and their paths relative to the
spec must stay, as the journal records them. Transfer sends files of any size to each node, but only while the driver
runs.
"""

import hashlib
import importlib.util
import json
import shutil
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.cluster.files.bundle import Bundle
from pipeline.cluster.files.spec_files import FieldPath, NamedFile, moved, named_files
from pipeline.cluster.jobs.layout import ARGUMENTS, FOLDER, SPEC
from pipeline.spec.run import RunSpec
from tasks.embedded import checkpoint_path, pack_names, pack_path, text_names, text_path
from tasks.files.sources import Source

#: Bytes of files that a job may carry: they pass through the memory of the cluster's head.
MAX_BYTES = 200 * 2**20
_CODE = ("lines_sweep", "pipeline", "search", "tasks")
_EMBEDDED = "embedded/"
#: Ray does not send the files that a file of these names lists.
_IGNORE_LISTS = (".gitignore", ".rayignore")


@dataclass(frozen=True)
class Package:
    """A job's content, laid out in a folder.

    Attributes:
        modules: folders of Python packages.
        working_dir: the job's working directory.
        size: total bytes of the files that the spec names.
    """

    modules: tuple[Path, ...]
    working_dir: Path
    size: int


@dataclass(frozen=True)
class Origin:
    """Where a spec comes from.

    Attributes:
        folder: the spec's folder; files below it keep their relative paths, so that the paths in the run's journal are
            also found here, from that folder.
        seen: paths that the cluster sees as this machine does; they are not sent.
    """

    folder: Path
    seen: Sequence[Path] = ()

    def sees(self, path: str) -> bool:
        """Whether the cluster sees `path` by itself."""
        return any(Path(path).resolve().is_relative_to(s.expanduser().resolve()) for s in self.seen)

    def place(self, path: str) -> Path:
        """Return the folder of the file `path`, relative to the job's working directory."""
        # Links of folders are resolved, so that a folder has one place; a link of the file itself keeps its name: two
        # links of one name may lead to two files of one folder.
        parent, home = Path(path).absolute().parent.resolve(), self.folder.resolve()
        if parent.is_relative_to(home):
            return parent.relative_to(home)
        return Path("outside", hashlib.blake2b(str(parent).encode(), digest_size=4).hexdigest())


def make_package(spec: RunSpec, origin: Origin, job: Mapping[str, Any], scratch: Path) -> Package:
    """Lay out a job's package in `scratch`.

    Args:
        spec: the spec, its paths made absolute.
        origin: where it comes from.
        job: the arguments of `pipeline.cli.job_entry`.
        scratch: an empty folder.

    Raises:
        ValueError: if the files are too large to be sent (the fields are named), two of them have one place there, or
            a name cannot be sent.
    """
    named = {field: file for field, file in named_files(spec).items() if not origin.sees(file.path)}
    _check_modules(named, origin)
    bundles = {file: file.bundle() for file in dict.fromkeys(named.values())}
    _check_size(named, bundles)
    work, code = scratch / "work", scratch / "code"
    places = {file: origin.place(file.path) for file in bundles}
    sent = moved(spec, {field: file.value(str(places[file] / bundles[file].name)) for field, file in named.items()})
    _write(work, sent, job)
    written: dict[Path, Path] = {}
    for file, bundle in bundles.items():
        _copy_files(bundle, work / places[file], written)
    embedded = _embedded(sent)
    modules = [_copy_code(_source(m), code / m, lambda path: _is_sent(path, embedded)) for m in _CODE]
    modules += [_copy_code(_source(m), code / m) for m in _own_modules(spec.plugins)]
    return Package(tuple(modules), work, sum(bundle.size for bundle in bundles.values()))


def _check_size(named: Mapping[FieldPath, NamedFile], bundles: Mapping[NamedFile, Bundle]) -> None:
    if (total := sum(bundle.size for bundle in bundles.values())) <= MAX_BYTES:
        return
    largest = sorted(named, key=lambda field: -bundles[named[field]].size)[:3]
    shown = ", ".join(
        f"{'.'.join(map(str, field))}: {named[field].path} ({bundles[named[field]].size / 2**20:,.0f} MiB)"
        for field in largest
    )
    raise ValueError(
        f"{shown}: {total / 2**20:,.0f} MiB of files are too much to send with a job, at most {MAX_BYTES >> 20} MiB: "
        "put them where the cluster reads them (s3://, gs://, hf:) and name that in the spec; if the cluster sees the "
        "same path, as on a shared disk, give --seen FOLDER"
    )


def _check_modules(named: Mapping[FieldPath, NamedFile], origin: Origin) -> None:
    """Refuse Python files next to the spec that hide installed modules.

    The job's working directory is on Python's path, behind our code and before all else.
    """
    for field, file in named.items():
        path = Path(file.path)
        if path.suffix != ".py" or path.stem in _CODE or origin.place(file.path) != Path():
            continue
        module = importlib.util.find_spec(path.stem)
        if module is not None and module.origin is not None and Path(module.origin).resolve() != path.resolve():
            raise ValueError(
                f"{'.'.join(map(str, field))}: {path.name} next to the spec would be imported in place of the module "
                f"{path.stem} that is installed: rename it, or put it into a folder"
            )


def _write(work: Path, spec: RunSpec, job: Mapping[str, Any]) -> None:
    (work / FOLDER).mkdir(parents=True)
    content = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (work / SPEC).write_text(content, encoding="utf-8")
    (work / ARGUMENTS).write_text(json.dumps(job), encoding="utf-8")


def _copy_files(bundle: Bundle, folder: Path, written: dict[Path, Path]) -> None:
    """Copy a bundle's files, and add them to `written`, target -> source."""
    for entry in bundle.entries:
        target = folder / entry.name
        if "\\" in entry.name:  # Ray skips it when it unpacks, without an error
            raise ValueError(f"{entry.path}: a name with a backslash cannot be sent with a job: rename it")
        if entry.name.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
        elif target.name not in _IGNORE_LISTS:
            _copy_file(Path(entry.path).resolve(), target, written)


def _copy_file(source: Path, target: Path, written: dict[Path, Path]) -> None:
    if target.exists() and written.get(target) != source:
        raise ValueError(
            f"{source}: has the same place in the job's folder as {written.get(target, 'a file of the job itself')}: "
            "rename one of the two, or its folder"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    written[target] = source


def _copy_code(source: Path, target: Path, keep: Callable[[Path], bool] = lambda path: True) -> Path:
    def ignored(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if n in ("__pycache__", *_IGNORE_LISTS) or not keep(Path(folder, n))]

    shutil.copytree(source, target, ignore=ignored, copy_function=shutil.copyfile)
    return target


def _source(module: str) -> Path:
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None, module
    return Path(found.origin).parent


def _own_modules(plugins: Sequence[str]) -> Iterator[str]:
    """Return the packages of plug-ins that are not in site-packages, such as a user's own project in development."""
    installed = [Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib")]
    for module in dict.fromkeys(p.partition(".")[0] for p in plugins if not p.endswith(".py")):
        found = importlib.util.find_spec(module)
        if found is None or not found.submodule_search_locations or found.origin is None:
            continue
        if not any(Path(found.origin).is_relative_to(folder) for folder in installed):
            yield module


def _embedded(spec: RunSpec) -> set[Path]:
    """Return the embedded files that a spec needs: its checkpoints, and all packs or none: they build on each other."""
    tasks = {task.source.removeprefix(_EMBEDDED) for task in (*spec.tasks.values(), *spec.ood.values())}
    packs = {pack_path(name) for name in pack_names()} if tasks & set(pack_names()) else set()
    texts = {path for name in tasks & set(text_names()) for path in text_path(name).iterdir()}
    models = [s.name for s in map(Source.parse, (spec.base, *spec.experts.values())) if s.kind == "embedded"]
    folder = checkpoint_path("base").parent
    named = {p for name in models for p in (folder / f"{name}.safetensors", *(folder / name).glob("*.safetensors"))}
    return packs | texts | named


def _is_sent(path: Path, embedded: set[Path]) -> bool:
    return path.suffix not in (".parquet", ".safetensors") or path in embedded
