"""What a job takes along to the cluster: this project's code, the spec, and the small files that the spec names."""

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

from pipeline.cluster.files.bundle import Parcel
from pipeline.cluster.files.bundle import pack as listed
from pipeline.cluster.files.spec_files import FieldPath, NamedFile, moved, named_files
from pipeline.cluster.jobs.layout import ARGUMENTS, FOLDER, SPEC
from pipeline.spec.run import RunSpec
from tasks.embedded import checkpoint_path, pack_names, pack_path
from tasks.files.sources import Source

#: Bytes of files that travel with a job. They pass through the memory of the cluster's head; more belongs on storage
#: that the cluster reaches.
MOST = 200 * 2**20
_CODE = ("pipeline", "search", "tasks")
_EMBEDDED = "embedded/"
#: Ray leaves out of what it sends whatever a file of these names lists.
_IGNORE_LISTS = (".gitignore", ".rayignore")


@dataclass(frozen=True)
class Package:
    """A folder with what is sent.

    Attributes:
        modules: packages of Python.
        working_dir: the job's working directory.
        files: bytes of the files that the spec names.
    """

    modules: tuple[Path, ...]
    working_dir: Path
    files: int


@dataclass(frozen=True)
class Origin:
    """Where a spec comes from.

    Attributes:
        folder: the spec's own; what lies in it keeps its path from there, so that what the run's journal names is found
            here too, from that folder.
        seen: paths that the cluster sees as this machine does, and that are not sent.
    """

    folder: Path
    seen: Sequence[Path] = ()

    def sees(self, path: str) -> bool:
        """Whether the cluster has `path` anyway."""
        return any(Path(path).resolve().is_relative_to(s.expanduser().resolve()) for s in self.seen)

    def place(self, path: str) -> Path:
        """The folder, below the job's working directory, in which what is at `path` lies."""
        # Links of folders are followed, so that a folder has one place; that of the file itself is not, as its name is
        # kept: two links of one name may lead to two files of one folder.
        parent, home = Path(path).absolute().parent.resolve(), self.folder.resolve()
        if parent.is_relative_to(home):
            return parent.relative_to(home)
        return Path("outside", hashlib.blake2b(str(parent).encode(), digest_size=4).hexdigest())


def pack(spec: RunSpec, origin: Origin, job: Mapping[str, Any], scratch: Path) -> Package:
    """Lay out in `scratch` what the job takes along.

    Args:
        spec: the spec, its paths made absolute.
        origin: where it comes from.
        job: what `pipeline.cli.job_entry` is told.
        scratch: an empty folder.

    Raises:
        ValueError: the files that the spec names are too large to be sent (the fields are named), two of them would be
            one file there, or one has a name that cannot be sent.
    """
    named = {place: found for place, found in named_files(spec).items() if not origin.sees(found.path)}
    _check_modules(named, origin)
    parcels = {found: listed(Path(found.path), found.kind, found.below) for found in dict.fromkeys(named.values())}
    _check_size(named, parcels)
    work, code = scratch / "work", scratch / "code"
    there = moved(spec, {place: _value(found, parcels[found], origin) for place, found in named.items()})
    _write(work, there, job)
    written: dict[Path, Path] = {}
    for found, parcel in parcels.items():
        _copy_files(parcel, work / origin.place(found.path), written)
    wanted = _embedded(there)
    sent = [_copy_code(_source(m), code / m, lambda path: _is_sent(path, wanted)) for m in _CODE]
    sent += [_copy_code(_source(m), code / m) for m in _own_modules(spec.plugins)]
    return Package(tuple(sent), work, sum(parcel.size for parcel in parcels.values()))


def _value(named: NamedFile, parcel: Parcel, origin: Origin) -> str:
    return f"{named.prefix}{origin.place(named.path) / parcel.name}{named.suffix}"


def _check_size(named: Mapping[FieldPath, NamedFile], parcels: Mapping[NamedFile, Parcel]) -> None:
    if (total := sum(parcel.size for parcel in parcels.values())) <= MOST:
        return
    largest = sorted(named, key=lambda place: -parcels[named[place]].size)[:3]
    shown = ", ".join(
        f"{'.'.join(map(str, place))}: {named[place].path} ({parcels[named[place]].size / 2**20:,.0f} MiB)"
        for place in largest
    )
    raise ValueError(
        f"{shown}: {total / 2**20:,.0f} MiB of files are too much to send with a job, at most {MOST >> 20} MiB: put "
        "them where the cluster reads them (s3://, gs://, hf:) and name that in the spec; where the cluster sees the "
        "same path, as on a shared disk, give --seen FOLDER"
    )


def _check_modules(named: Mapping[FieldPath, NamedFile], origin: Origin) -> None:
    """Python files beside the spec: the job's folder is on Python's path, behind our code and before all else."""
    for place, found in named.items():
        path = Path(found.path)
        if path.suffix != ".py" or path.stem in _CODE or origin.place(found.path) != Path():
            continue
        module = importlib.util.find_spec(path.stem)
        if module is not None and module.origin is not None and Path(module.origin).resolve() != path.resolve():
            raise ValueError(
                f"{'.'.join(map(str, place))}: {path.name} beside the spec would be imported for the module "
                f"{path.stem} that is installed: rename it, or put it into a folder"
            )


def _write(work: Path, spec: RunSpec, job: Mapping[str, Any]) -> None:
    (work / FOLDER).mkdir(parents=True)
    content = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (work / SPEC).write_text(content, encoding="utf-8")
    (work / ARGUMENTS).write_text(json.dumps(job), encoding="utf-8")


def _copy_files(parcel: Parcel, folder: Path, written: dict[Path, Path]) -> None:
    """Copy a parcel's files; `written`, what was copied to where before, is added to."""
    for entry in parcel.entries:
        target = folder / entry.name
        if "\\" in entry.name:  # Ray skips such a file when it unpacks, without an error
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
    def left_out(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if n in ("__pycache__", *_IGNORE_LISTS) or not keep(Path(folder, n))]

    shutil.copytree(source, target, ignore=left_out, copy_function=shutil.copyfile)
    return target


def _source(module: str) -> Path:
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None, module
    return Path(found.origin).parent


def _own_modules(plugins: Sequence[str]) -> Iterator[str]:
    """Packages of plug-ins that are not installed among the others, as a project of one's own is in development."""
    installed = [Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib")]
    for module in dict.fromkeys(p.partition(".")[0] for p in plugins if not p.endswith(".py")):
        found = importlib.util.find_spec(module)
        if found is None or not found.submodule_search_locations or found.origin is None:
            continue
        if not any(Path(found.origin).is_relative_to(folder) for folder in installed):
            yield module


def _embedded(spec: RunSpec) -> set[Path]:
    """The embedded files that a spec asks for: its checkpoints, and all packs or none, as they build on one another."""
    tasks = {task.source.removeprefix(_EMBEDDED) for task in (*spec.tasks.values(), *spec.ood.values())}
    packs = {pack_path(name) for name in pack_names()} if tasks & set(pack_names()) else set()
    models = [s.name for s in map(Source.parse, (spec.base, *spec.experts.values())) if s.kind == "embedded"]
    return packs | {checkpoint_path("base").parent / f"{name}.safetensors" for name in models}


def _is_sent(path: Path, wanted: set[Path]) -> bool:
    return path.suffix not in (".parquet", ".safetensors") or path in wanted
