"""Proves that the project imports what it declares, and needs packages of extras, and pandas, for nothing else."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from small_run import small_spec, write_spec

from tasks.embedded import checkpoint_path

ROOT = Path(__file__).parents[2]
TOPS = ("lines_sweep", "pipeline", "tasks", "search")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: What only extras bring, by the names of import; pandas, which only the tests ask for.
ABSENT = "datasets duckdb gcsfs gguf h5py lm_eval mlflow optuna_dashboard pandas s3fs sklearn trl wandb"
PPO = ROOT / "examples" / "rewarded-soups" / "ppo.yaml"
CODE = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *more: None if name in {ABSENT.split()} else find(name, *more))

from typer.testing import CliRunner
from pipeline.cli.main import app
import pipeline.cluster.decode_images
spec, out, ppo = sys.argv[1:]
for words in (["run", spec, "--out", out], ["ppo", ppo], ["validate", ppo]):
    found = CliRunner().invoke(app, words)
    print(found.exit_code, " ".join(found.output.split()), found.exception or "")
"""


def plain(requirement: str) -> str:
    """The normalised name of a requirement."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=; ]", requirement)[0]).lower()


def imported() -> Iterator[tuple[Path, str]]:
    """Every file of the wheel with each package that it imports, wherever in the file."""
    paths = (path for top in TOPS for path in (ROOT / top).rglob("*.py"))
    for path in (path for path in paths if "rebuild" not in path.parts):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            yield from ((path.relative_to(ROOT), name.partition(".")[0]) for name in names)


@pytest.mark.checkout
def test_every_import_is_of_a_declared_package() -> None:
    extras = {name: needs for name, needs in PROJECT["optional-dependencies"].items() if name != "dev"}
    declared = {plain(r) for r in (*PROJECT["dependencies"], *(r for needs in extras.values() for r in needs))}
    owners = packages_distributions()
    found = {(path, top) for path, top in imported() if top not in {*sys.stdlib_module_names, *TOPS}}
    assert {"torch", "trl"} <= {top for _, top in found}
    assert [one for one in found if not {plain(name) for name in owners.get(one[1], [])} & declared] == []


@pytest.mark.slow
def test_a_run_needs_no_package_of_an_extra_and_what_needs_one_names_it(tmp_path: Path) -> None:
    spec = small_spec({"mnist": checkpoint_path("mnist")}, tasks=["mnist"], controls=[], arms={"sum": {"merge": "sum"}})
    words = [str(path) for path in (write_spec(tmp_path, spec), tmp_path / "run", PPO)]
    found = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True)
    assert not found.returncode, found.stderr[-2000:]
    ran, *refused = found.stdout.splitlines()
    assert ran.startswith("0 "), ran
    assert (tmp_path / "run" / "report.html").is_file() and (tmp_path / "run" / "samples" / "mnist.parquet").is_file()
    for line in refused:
        assert re.match(r"2 .*lines ppo: not installed: datasets, trl: pip install -e", line), line
    assert len(refused) == 2
