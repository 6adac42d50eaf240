"""Proves that a run is read without torch and Ray; import-linter (pyproject.toml) proves the directions of import."""

import pkgutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
LIGHT = next(c for c in CONTRACTS if c["name"] == "a run is read without torch and Ray")


def modules(name: str) -> list[str]:
    """A module and all that lie below it."""
    found = find_spec(name)
    assert found is not None, name
    below = pkgutil.walk_packages(found.submodule_search_locations or [], f"{name}.")
    return [name, *(module.name for module in below)]


def test_what_reads_a_run_loads_neither_torch_nor_ray() -> None:
    names = [module for source in LIGHT["source_modules"] for module in modules(source)]
    assert len(names) > 100
    code = [
        *(f"import {name}" for name in names),
        "import sys",
        f"print(set({LIGHT['forbidden_modules']}) & set(sys.modules))",
    ]
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.strip() == "set()"


def test_no_test_folder_is_a_package_or_is_imported_in_place_of_one() -> None:
    folders = {p.name for path in (ROOT / "tests", ROOT / "tests" / "support") for p in path.glob("*/")}
    assert not folders & {"lines_sweep", "pipeline", "tasks", "search"}
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_names_of_test_files_are_unique() -> None:
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
