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

from pipeline.job_entry import ARGUMENTS, FOLDER, SPEC
from pipeline.named_files import Named, Place, moved, named_files
from pipeline.parcels import Parcel
from pipeline.parcels import pack as listed
from pipeline.spec import RunSpec
from tasks.embedded import checkpoint_path, pack_names, pack_path

#: Bytes of files that travel with a job. They pass through the memory of the cluster's head; more belongs on storage
#: that the cluster reaches.
MOST = 200 * 2**20
_CODE = ("pipeline", "search", "tasks")
_EMBEDDED = "embedded/"


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
        parent, home = Path(path).resolve().parent, self.folder.resolve()
        if parent.is_relative_to(home):
            return parent.relative_to(home)
        return Path("outside", hashlib.blake2b(str(parent).encode(), digest_size=4).hexdigest())


def pack(spec: RunSpec, origin: Origin, job: Mapping[str, Any], scratch: Path) -> Package:
    """Lay out in `scratch` what the job takes along.

    Args:
        spec: the spec, its paths made absolute.
        origin: where it comes from.
        job: what `pipeline.job_entry` is told.
        scratch: an empty folder.

    Raises:
        ValueError: the files that the spec names are too large to be sent; the fields are named.
    """
    named = {place: found for place, found in named_files(spec).items() if not origin.sees(found.path)}
    parcels = {found: listed(Path(found.path), found.kind, found.below) for found in dict.fromkeys(named.values())}
    _check_size(named, parcels)
    work, code = scratch / "work", scratch / "code"
    there = moved(spec, {place: _value(found, parcels[found], origin) for place, found in named.items()})
    _write(work, there, job)
    for found, parcel in parcels.items():
        _copy_files(parcel, work / origin.place(found.path))
    wanted = _embedded(there)
    modules = [*_CODE, *_own_modules(spec.plugins)]
    sent = tuple(_copy_code(_source(m), code / m, lambda path: _is_sent(path, wanted)) for m in modules)
    return Package(sent, work, sum(parcel.size for parcel in parcels.values()))


def _value(named: Named, parcel: Parcel, origin: Origin) -> str:
    return f"{named.prefix}{origin.place(named.path) / parcel.name}{named.suffix}"


def _check_size(named: Mapping[Place, Named], parcels: Mapping[Named, Parcel]) -> None:
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


def _write(work: Path, spec: RunSpec, job: Mapping[str, Any]) -> None:
    (work / FOLDER).mkdir(parents=True)
    content = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (work / SPEC).write_text(content, encoding="utf-8")
    (work / ARGUMENTS).write_text(json.dumps(job), encoding="utf-8")


def _copy_files(parcel: Parcel, folder: Path) -> None:
    for entry in parcel.entries:
        target = folder / entry.name
        if entry.name.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(entry.path, target)


def _copy_code(source: Path, target: Path, keep: Callable[[Path], bool]) -> Path:
    def left_out(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "__pycache__" or not keep(Path(folder, name))]

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
    models = [source for source in (spec.base, *spec.experts.values()) if source.startswith(_EMBEDDED)]
    return packs | {checkpoint_path("base").parent / f"{m.removeprefix(_EMBEDDED)}.safetensors" for m in models}


def _is_sent(path: Path, wanted: set[Path]) -> bool:
    return path.suffix not in (".parquet", ".safetensors") or path in wanted
