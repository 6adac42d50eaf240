"""Proves that what is said about optional packages works: by the checkout's path, or by the names of packages."""

import re
import tomllib
from pathlib import Path

import pytest

from tasks import extras
from tasks.extras import install_hint

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.checkout
def test_a_checkout_is_installed_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert install_hint("mirrors") == "pip install -e '.[mirrors]'"
    monkeypatch.chdir(tmp_path)
    assert install_hint("mirrors") == f"pip install -e '{ROOT}[mirrors]'"


def test_without_a_checkout_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = ["torch", "mlflow-skinny; extra == 'mirrors'", 'wandb; extra == "mirrors"', "moto[s3]; extra == 'dev'"]
    found += ["datasets; extra == 'ppo'", "trl<1.13,>=1.12; extra == 'ppo'"]
    monkeypatch.setattr(extras, "requires", lambda name: found)
    assert install_hint("mirrors", tmp_path) == "pip install mlflow-skinny wandb"
    assert install_hint("ppo", tmp_path) == "pip install datasets 'trl<1.13,>=1.12'"


def test_every_hint_names_an_extra_that_exists_and_none_needs_an_index_that_lacks_the_project() -> None:
    files = [p for top in ("lines_sweep", "pipeline", "tasks", "search") for p in (ROOT / top).rglob("*.py")]
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    texts = {p: p.read_text(encoding="utf-8") for p in (*files, *pages)}
    named = {extra for text in texts.values() for extra in re.findall(r"install_hint\(['\"]([\w-]+)", text)}
    named |= {extra for text in texts.values() for extra in re.findall(r"'\.\[([\w-]+)\]'", text)}
    assert named and named <= EXTRAS.keys()
    assert [p for p, text in texts.items() if "install 'lines-sweep" in text] == []
