"""The command `lines doctor`."""

import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import typer

from pipeline.cli.common import Json
from pipeline.console import console, folded_table, print_result, styled
from pipeline.versions import PACKAGES, installed_version
from tasks.cores import permitted_cores, permitted_memory

_OPTIONAL = ("duckdb", "pandas")

#: The name of a check, whether it passed, and what was found.
Check = tuple[str, bool, str]


def doctor(as_json: Json = False) -> None:
    """Check what is installed, which devices there are, whether Ray starts and whether the model hub answers."""
    parts = (_python, _packages, _devices, _space, _embedded, _ray, _hub)
    with console.status("checking, which takes some seconds"), ThreadPoolExecutor(1) as pool:
        pool.submit(import_module, "torch")  # while Ray starts
        ray_checks = list(_safely(_ray))
        checks = [check for part in parts for check in (ray_checks if part is _ray else _safely(part))]
    if as_json:
        print_result(
            json.dumps([{"check": name, "ok": good, "found": found} for name, good, found in checks], indent=2)
        )
    else:
        table = folded_table("check", "", "found", title="lines doctor", title_justify="left")
        for name, good, found in checks:
            table.add_row(name, styled("green", "ok") if good else styled("red", "missing"), found)
        console.print(table)
    raise typer.Exit(0 if all(good for _, good, _ in checks) else 1)


def _safely(checks: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """Turn an exception of a check into a failed check, so that the others still run."""
    try:
        yield from checks()
    except Exception as error:
        yield checks.__name__.strip("_"), False, f"{type(error).__name__}: {error}"


def _python() -> Iterator[Check]:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield "python", good, f"{platform.python_version()} on {platform.system()} {platform.machine()} (3.11 to 3.13)"


def _packages() -> Iterator[Check]:
    for package in PACKAGES:
        version = installed_version(package)
        yield package, version is not None, version or f"not installed: pip install {package}"
    optional = [f"{p} {version}" for p in _OPTIONAL if (version := installed_version(p))]
    yield "optional packages", True, ", ".join(optional) or "none"
    vllm = installed_version("vllm") or "not installed"
    yield "vLLM", True, f"{vllm}; generation.engine: vllm is experimental, as it has not run on a GPU yet"


def _devices() -> Iterator[Check]:
    import torch

    yield "CPU", True, f"{permitted_cores()}, torch uses {torch.get_num_threads()} threads in this process"
    memory = permitted_memory()
    yield "memory", True, "no limit of a cgroup" if memory is None else f"a cgroup permits {memory / 2**30:.1f} GiB"
    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible!r})"
        yield "GPU", True, f"torch finds none{hidden}: workers run on the CPU"
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        yield f"GPU {i}", True, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def _space() -> Iterator[Check]:
    from tasks.files.cache import cache_root

    root = cache_root()
    existing = next(p for p in (root, *root.parents) if p.exists())
    writable = os.access(existing, os.W_OK)
    free = shutil.disk_usage(existing).free / 2**30
    yield "cache folder", writable and free > 1, f"{root}, {free:.0f} GiB free{'' if writable else ', not writable'}"


def _embedded() -> Iterator[Check]:
    from tasks.embedded import checkpoint_names, pack_names

    packs, checkpoints = len(pack_names()), len(checkpoint_names())
    yield "embedded models", packs > 0 and checkpoints > 0, f"{packs} task packs, {checkpoints} checkpoints"


def _ray() -> Iterator[Check]:
    from pipeline.cluster.session import local_ray
    from pipeline.cluster.session_folder import session_folder

    with local_ray(num_cpus=1):
        import ray

        yield "Ray", True, f"starts on this machine ({ray.__version__}), listening on 127.0.0.1 only"
        yield "Ray's folder", True, _access(session_folder())


def _access(folder: Path) -> str:
    """Describe a folder, and whether other users can enter it."""
    if folder.stat().st_mode & 0o077:
        return f"{folder}, which other users of this machine can enter: chmod 700, or unset RAY_TMPDIR"
    return f"{folder}, closed to other users"


def _hub() -> Iterator[Check]:
    """Check whether the model hub answers; never a failure, as embedded models need no hub."""
    from huggingface_hub import constants

    host = constants.ENDPOINT.split("//")[-1]
    try:
        socket.create_connection((host, 443), timeout=3).close()
        yield "model hub", True, f"{host} is in reach"
    except OSError as error:
        yield "model hub", True, f"{host} is not in reach ({error}): hf: sources need files that are cached already"
