"""Downloads and unpacks the Debian and npm packages (``apt-get download`` and ``npm pack``); records versions.

Later steps import the PyPI packages ``mlxtend``, ``scikit-learn``, ``resvg-py`` and ``fonttools``, and read
``simple-icd-10-cm``.
"""

import argparse
import json
import re
import subprocess
import tarfile
from importlib.metadata import version
from pathlib import Path

NPM = {"package": "@iconify/json@2.2.535", "emojibase": "emojibase-data@17.0.0"}
DEBIAN_DATA = ("dataset-fashion-mnist", "openclipart-png", "wordnet-base")
PYPI = ("mlxtend", "scikit-learn", "simple-icd-10-cm", "resvg-py", "fonttools", "torch", "open_clip_torch")
FONT_LIST = Path(__file__).with_name("font_packages.txt")


def fetch(downloads: Path) -> None:
    """Fetch every package into ``downloads``."""
    downloads.mkdir(parents=True, exist_ok=True)
    for name in NPM.values():
        subprocess.run(["npm", "pack", "--silent", name], cwd=downloads, check=True)
    names = [*DEBIAN_DATA, *FONT_LIST.read_text().split()]
    subprocess.run(["apt-get", "download", *names], cwd=downloads, check=True)


def unpack(downloads: Path, target: Path) -> None:
    """Unpack npm archives to ``src/``, data packages to ``src/deb`` and each font package to its own folder."""
    with tarfile.open(next(downloads.glob("iconify-json-[0-9]*.tgz"))) as archive:
        archive.extractall(target, filter="data")
    with tarfile.open(next(downloads.glob("emojibase-data-*.tgz"))) as archive:
        archive.extractall(target / "emojibase", filter="data")
    for path in sorted(downloads.glob("*.deb")):
        name = path.name.split("_")[0]
        folder = target / ("deb" if name in DEBIAN_DATA else f"fonts/{name}")
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", str(path), str(folder)], check=True)


def versions(downloads: Path) -> dict[str, str]:
    """Return the version of every package."""
    found = {name: version(name) for name in PYPI}
    wanted = {*DEBIAN_DATA, *FONT_LIST.read_text().split()}
    for path in sorted(downloads.glob("*.deb")):
        name, number = path.stem.split("_")[:2]
        if name in wanted:
            found[name] = number.replace("%3a", ":")
    for path in sorted(downloads.glob("*.tgz")):
        match = re.fullmatch(r"(.+)-(\d[^-]*)\.tgz", path.name)
        assert match is not None
        found[match.group(1)] = match.group(2)
    return found


def main() -> None:
    """Fill ``DIR/dl`` and ``DIR/src``, and write ``DIR/sources.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--unpack-only", action="store_true", help="use the packages in DIR/dl")
    args = parser.parse_args()
    if not args.unpack_only:
        fetch(args.work / "dl")
    unpack(args.work / "dl", args.work / "src")
    (args.work / "sources.json").write_text(json.dumps(versions(args.work / "dl"), indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
