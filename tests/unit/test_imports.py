"""Proves the directions of import: pipeline -> tasks, search; Ray in two files; a run is read without torch and Ray."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "tasks", "search")
#: `doctor` imports Ray inside a function, to say which one is installed.
MAY_IMPORT_RAY = {
    "pipeline.cluster.session",
    "pipeline.pools.actor_group",
    "pipeline.cli.doctor",
    "pipeline.cluster.jobs.client",
    "pipeline.cluster.join",
    "pipeline.cluster.preflight",
    "pipeline.watch.prometheus",
    "pipeline.cluster.nodes",
    "pipeline.pools.ray_pool",
    "pipeline.cluster.decode_images",
    "pipeline.cluster.files.transfer",
    "pipeline.train.executor",
}
SEARCH_STANDS_ON = {"numpy", "optuna", "moocore", "scipy", "search"}
#: What needs them besides these: the command line, loading, workers, pools on Ray, export, merging of weights.
HEAVY = {
    "cli",
    "cluster",
    "crew",
    "doctor",
    "execute",
    "expert_checks",
    "export",
    "export_policy",
    "joining",
    "learning",
    "loading",
    "merge_command",
    "merging",
    "policy_worker",
    "preflight",
    "prepare_command",
    "presence",
    "ray_metrics",
    "ray_nodes",
    "ray_pool",
    "ray_prepare",
    "rewards",
    "scorer",
    "shipping",
    "train",
    "worker",
}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(p): p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))}
LIGHT = [m for m in MODULES if m.startswith("pipeline") and m.partition(".")[2].split(".")[0] not in HEAVY]
LIGHT += [f"pipeline.merging.{m}" for m in ("methods", "parameters", "scaling")]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(node: ast.AST, package: str, lazy: bool) -> Iterator[str]:
    """Names that are imported below `node`, inside functions too where `lazy`; never those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = resolve_name("." * child.level + (child.module or ""), package)
            yield from (module, *(f"{module}.{alias.name}" for alias in child.names))
        elif not is_type_checking(child) and (lazy or not isinstance(child, ast.FunctionDef)):
            yield from imports(child, package, lazy)


@cache
def imported(module: str, lazy: bool = True) -> frozenset[str]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(imports(ast.parse(path.read_text(encoding="utf-8")), package, lazy))


def roots(module: str) -> set[str]:
    return {name.split(".")[0] for name in imported(module)}


def reached(module: str) -> set[str]:
    """Every name that importing `module` imports, by way of our own modules."""
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        parents = {".".join(name.split(".")[:i]) for i in range(1, name.count(".") + 1)}
        found = imported(name, lazy=False) if name in MODULES else frozenset()
        waiting |= (parents | found) - seen
    return seen


def test_there_are_modules_to_look_at() -> None:
    assert len(MODULES) > 50 and len(LIGHT) > 20


@pytest.mark.parametrize("package", ["tasks", "search"])
def test_tasks_and_search_know_nothing_of_each_other_of_pipeline_or_of_ray(package: str) -> None:
    strangers = {*PACKAGES, "ray"} - {package}
    assert {m: both for m in MODULES if m.split(".")[0] == package and (both := roots(m) & strangers)} == {}


def test_search_stands_on_numbers_and_optuna_alone() -> None:
    allowed = SEARCH_STANDS_ON | set(sys.stdlib_module_names)
    assert {m: more for m in MODULES if m.split(".")[0] == "search" and (more := roots(m) - allowed)} == {}


def test_ray_is_imported_in_two_files_and_by_the_doctor_when_it_is_asked() -> None:
    assert {m for m in MODULES if "ray" in roots(m)} == MAY_IMPORT_RAY
    assert "ray" not in imported("pipeline.cli.doctor", lazy=False)


def test_a_search_never_imports_what_makes_checkpoints() -> None:
    makers = ("pipeline.train.", "pipeline.cli.finetune", "pipeline.cli.ppo")
    others = {m for m in MODULES if not f"{m}.".startswith(makers)}
    assert {m for m in others if any(n.startswith("pipeline.train") for n in imported(m))} == set()


@pytest.mark.parametrize("module", LIGHT)
def test_what_reads_a_run_imports_neither_torch_nor_ray(module: str) -> None:
    assert {n.split(".")[0] for n in reached(module)} & {"torch", "ray", "open_clip", "torchvision"} == set()


def test_nor_do_the_libraries_that_it_imports() -> None:
    lines = [f"import {module}" for module in LIGHT]
    lines += ["import sys", "print(sorted({'torch', 'ray', 'open_clip'} & set(sys.modules)))"]
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.strip() == "[]"


def test_no_test_folder_is_a_package_or_called_like_one() -> None:
    folders = [p for p in (ROOT / "tests").rglob("*") if p.is_dir() and p.name != "__pycache__"]
    assert not [p for p in folders if p.name in PACKAGES]
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_names_of_test_files_are_unique() -> None:
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
