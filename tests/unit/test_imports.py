"""Proves what commands import, and that a run is read without torch and Ray.

import-linter (pyproject.toml) proves the directions of import.
"""

import pkgutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_run import small_spec, write_spec
from typer.testing import CliRunner

from pipeline.cli.main import app
from tasks.embedded import checkpoint_path

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


def imported_by(*words: str) -> set[str]:
    """Run a command of `lines` in a process of its own, and return the packages that it has imported."""
    code = (
        "import sys; from pipeline.cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(found.stderr.splitlines()[-1].split()) - sys.stdlib_module_names


#: What takes long to import.
HEAVY = {"fsspec", "jinja2", "numpy", "optuna", "pandas", "plotly", "pyarrow", "ray", "scipy", "torch", "transformers"}


def test_help_imports_what_prints_it_and_nothing_else() -> None:
    found = imported_by("--help")
    assert {"pipeline", "rich", "typer"} <= found and not found & {*HEAVY, "pydantic", "yaml"}


def test_the_help_of_a_command_imports_nothing_heavy() -> None:
    """Typer itself imports pydantic to read a command line."""
    assert not imported_by("submit", "--help") & HEAVY


@pytest.mark.slow
def test_a_spec_is_validated_without_ray_plots_and_tables(tmp_path: Path) -> None:
    """`lines validate` reads checkpoints and data with torch; once these are decoded, Arrow needs no pandas."""
    spec = write_spec(tmp_path, small_spec({"mnist": checkpoint_path("mnist")}, tasks=["mnist"], controls=[]))
    assert CliRunner().invoke(app, ["validate", str(spec)]).exit_code == 0
    found = imported_by("validate", str(spec))
    assert {"open_clip", "optuna", "pyarrow", "torch"} <= found
    assert found & {"datasets", "matplotlib", "pandas", "plotly", "ray", "scipy", "trl"} == set()


@pytest.mark.slow
def test_a_merge_into_a_folder_imports_torch_alone(tmp_path: Path) -> None:
    """Functions of torch for shapes without values, and of the hub for shards, import sympy: three CPU seconds."""
    found = imported_by(
        "merge", "--base", "embedded/base", "--expert", "embedded/mnist", "--alpha", "0.5", "-o", f"{tmp_path / 'out'}/"
    )
    assert {"safetensors", "torch"} <= found and not found & {
        "open_clip",
        "optuna",
        "pandas",
        "ray",
        "sympy",
        "transformers",
    }


@pytest.mark.slow
def test_a_run_whose_scores_are_known_imports_no_ray(tmp_path: Path) -> None:
    arms = {"sum": {"merge": {"method": "sum"}, "scaling": {"function": "constant", "alpha": 0.5}}}
    experts = {"mnist": checkpoint_path("mnist")}
    spec = write_spec(tmp_path, small_spec(experts, tasks=["mnist"], controls=[], arms=arms))
    assert CliRunner().invoke(app, ["run", str(spec), "--pool", "local", "--out", str(tmp_path / "a")]).exit_code == 0
    found = imported_by("run", str(spec), "--pool", "ray", "--out", str(tmp_path / "b"))
    assert {"open_clip", "plotly"} <= found
    assert not found & {"datasets", "matplotlib", "pandas", "ray", "transformers", "trl"}


def test_no_test_folder_is_a_package_or_is_imported_in_place_of_one() -> None:
    folders = {p.name for path in (ROOT / "tests", ROOT / "tests" / "support") for p in path.glob("*/")}
    assert not folders & {"lines_sweep", "pipeline", "tasks", "search"}
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_names_of_test_files_are_unique() -> None:
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
