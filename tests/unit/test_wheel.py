"""Proves that the wheel holds every file that the package reads, and leaves out the scripts that rebuild its data."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
pytestmark = [pytest.mark.slow, pytest.mark.checkout]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in a wheel that is built from a copy, without network and dependencies."""
    copy, target = tmp_path_factory.mktemp("source") / "copy", tmp_path_factory.mktemp("wheel")
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("lines_sweep", "pipeline", "search", "tasks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-c", BUILD, str(target)], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    [wheel] = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_module_is_in_the_wheel(files: set[str]) -> None:
    paths = (
        path.relative_to(ROOT)
        for top in ("lines_sweep", "pipeline", "search", "tasks")
        for path in (ROOT / top).rglob("*.py")
    )
    modules = {path.as_posix() for path in paths if "rebuild" not in path.parts}
    assert len(modules) > 200 and modules <= files


def test_data_files_are_in_the_wheel(files: set[str]) -> None:
    patterns = ("pipeline/**/templates/*", "tasks/vision/published/*.yaml", "tasks/embedded/packs/*")
    patterns += ("tasks/embedded/checkpoints/**/*.*", "tasks/embedded/CARD.md", "*/py.typed")
    for pattern in patterns:
        data = {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern) if path.is_file()}
        assert data and data <= files, pattern


def test_the_rebuilding_scripts_and_tests_are_left_out(files: set[str]) -> None:
    assert not [name for name in files if "rebuild" in Path(name).parts or name.startswith(("tests", "benchmarks"))]
