"""Which Python and packages a machine has, and where two machines differ; of the standard library alone."""

import platform
from collections.abc import Iterable, Mapping
from importlib import metadata

#: What scores, candidates or their order may depend on.
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
_ABSENT = "not installed"


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package here; "not installed" of one that is not."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = _ABSENT
    return found


def versions_here() -> dict[str, str]:
    """Python to the minor version, and packages without what follows "+": CPUs and GPUs have builds of their own."""
    packages = {package: version.partition("+")[0] for package, version in installed(PACKAGES).items()}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **packages}


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Package, what was found, what is expected; what the expecting machine lacks itself is no matter."""
    return [
        (name, found.get(name, _ABSENT), version)
        for name, version in expected.items()
        if version not in (_ABSENT, found.get(name, _ABSENT))
    ]


def check_versions(theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """The cluster has what the submitting machine has; a package that the latter lacks is no matter.

    Args:
        theirs: of the cluster.
        ours: of the machine that the job came from.

    Raises:
        ValueError: they differ; each difference is named.
    """
    differing = [f"{name} {has} (submitted from {version})" for name, has, version in differences(ours, theirs)]
    if differing:
        raise ValueError(
            f"the cluster has other versions than the machine that submitted: {', '.join(differing)}: install "
            "constraints.txt on both, or give --any-versions where the scores of this run are compared with no others"
        )
