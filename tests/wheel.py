"""Test the package as it is installed: a wheel in a new environment, from a folder that has no source of it.

`lines demo` runs in an empty folder, then the quick tests run in a copy of the repository without its packages; tests
that read these are marked `checkout`. Run by `make test-wheel`: python tests/wheel.py WHEEL
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PACKAGES = ("lines_sweep", "pipeline", "search", "tasks")
QUICK = ["-n", "2", "-m", "not checkout and not cluster and not training and not slow", "tests/unit", "tests/contracts"]
#: They import tasks.embedded.rebuild, which the wheel leaves out.
REBUILDING = ["tests/unit/embedded/test_convnext.py", "tests/unit/embedded/test_texts.py"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
ENVIRONMENT.pop("PYTHONPATH", None)


def run(*words: object, cwd: Path) -> None:
    """Run a program, whose output is shown, and end this one if it fails."""
    print("$", *words, flush=True)
    subprocess.run([str(word) for word in words], cwd=cwd, env=ENVIRONMENT, check=True)


def copy_without_packages(target: Path) -> None:
    """Copy the repository's files, except for the packages that the wheel holds; their documents are copied."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for path in map(Path, listed.rstrip("\0").split("\0")):
        if path.parts[0] not in PACKAGES or path.suffix == ".md":
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, target / path)


def main(wheel: Path) -> None:
    """Install and test."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        python, empty, copy = folder / "venv" / "bin" / "python", folder / "empty", folder / "copy"
        run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
        run(python, "deploy/install.py", wheel, cwd=ROOT)
        empty.mkdir()
        run(python.with_name("lines"), "demo", cwd=empty)
        run(python, "deploy/install.py", f"{wheel}[dev]", cwd=ROOT)
        copy_without_packages(copy)
        run(python, "-c", "import pipeline; assert 'site-packages' in pipeline.__file__", cwd=copy)
        run(python, "-m", "pytest", *QUICK, *(f"--ignore={path}" for path in REBUILDING), cwd=copy)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
