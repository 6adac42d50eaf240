"""Which Python and packages a machine has, and how two machines differ. Imports the standard library alone."""

import platform
from collections.abc import Mapping
from importlib import metadata

#: Packages on which scores, candidates or their order may depend.
PACKAGES = (
    "moocore",
    "numpy",
    "open_clip_torch",
    "optuna",
    "peft",
    "pillow",
    "pyarrow",
    "ray",
    "safetensors",
    "scipy",
    "torch",
    "torchvision",
    "transformers",
)
_DRIVER_ONLY = ("moocore", "optuna")
_PROJECT = "lines-sweep"
_ABSENT = "not installed"


def installed_version(package: str) -> str | None:
    """Return the version of a package, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def exact_versions(*more: str) -> dict[str, str]:
    """Return the versions of Python, this project, `PACKAGES` and `more`, for run folders and checkpoints."""
    names = (_PROJECT, *PACKAGES, *more)
    return {"python": platform.python_version(), **{name: installed_version(name) or _ABSENT for name in names}}


def comparable_versions() -> dict[str, str]:
    """Return Python's minor version and those of packages, without the build (CPU, CUDA) that follows "+"."""
    versions = {name: (installed_version(name) or _ABSENT).partition("+")[0] for name in PACKAGES}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **versions}


def worker_versions() -> dict[str, str]:
    """Return what a worker's scores depend on: `comparable_versions` and this project, without the driver's."""
    versions = {_PROJECT: metadata.version(_PROJECT), **comparable_versions()}
    return {name: version for name, version in versions.items() if name not in _DRIVER_ONLY}


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (package, version found, version expected) for each difference; what `expected` lacks is skipped."""
    return [
        (name, found.get(name, _ABSENT), version)
        for name, version in expected.items()
        if version not in (_ABSENT, found.get(name, _ABSENT))
    ]


def check_versions(cluster: Mapping[str, str], submitter: Mapping[str, str]) -> None:
    """Check that a cluster has the versions of the machine that submitted a job.

    Raises:
        ValueError: if versions differ; each difference is named. Packages that the submitter lacks are not compared.
    """
    differing = [f"{name} {has} (submitted from {version})" for name, has, version in differences(submitter, cluster)]
    if differing:
        raise ValueError(
            f"the cluster has other versions than the machine that submitted: {', '.join(differing)}: install "
            "constraints.txt on both, or give --any-versions if the scores of this run are compared with no others"
        )
