"""Which Python and packages a machine has, and where two machines differ; of the standard library alone."""

import platform
from collections.abc import Mapping
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


def versions_here() -> dict[str, str]:
    """Python to the minor version, and packages without what follows "+": CPUs and GPUs have builds of their own."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package).partition("+")[0]
        except metadata.PackageNotFoundError:
            found[package] = _ABSENT
    return found


def check_versions(theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """The cluster has what the submitting machine has; a package that the latter lacks is no matter.

    Args:
        theirs: of the cluster.
        ours: of the machine that the job came from.

    Raises:
        ValueError: they differ; each difference is named.
    """
    differing = [
        f"{name} {theirs.get(name, _ABSENT)} (submitted from {version})"
        for name, version in ours.items()
        if version not in (_ABSENT, theirs.get(name, _ABSENT))
    ]
    if differing:
        raise ValueError(
            f"the cluster has other versions than the machine that submitted: {', '.join(differing)}: install "
            "constraints.txt on both, or give --any-versions where the scores of this run are compared with no others"
        )
