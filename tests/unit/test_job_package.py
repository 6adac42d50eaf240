"""What a job takes along: the code, the spec with paths of the job's own, the small files; and what it refuses to."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import job_package
from pipeline.job_entry import ARGUMENTS, SPEC
from pipeline.job_package import Origin, Package, pack
from pipeline.job_versions import check_versions, versions_here
from pipeline.jobs_client import jobs_url
from pipeline.spec_load import load_spec
from pipeline.submit_command import _place, _variables

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a spec and an expert beside it, and another expert elsewhere."""
    for name in ("here/experts/mnist.safetensors", "elsewhere/clipart.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"w" * 1000)
    return tmp_path


def packed(place: Path, seen: tuple[Path, ...] = (), **changes: Any) -> tuple[Package, dict[str, Any]]:
    spec = {
        "name": "small",
        "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
        "base": "embedded/base",
        "experts": {"mnist": "experts/mnist.safetensors", "clipart": "../elsewhere/clipart.safetensors"},
        "tasks": ["mnist", "clipart"],
        "arms": {"sum": {"merge": "sum"}},
        **changes,
    }
    path = place / "here" / "spec.yaml"
    path.write_text(yaml.safe_dump(spec))
    scratch = place / f"scratch-{len(list(place.iterdir()))}"
    package = pack(load_spec(path), Origin(path.parent, seen), {"out": "/run"}, scratch)
    return package, yaml.safe_load((package.working_dir / SPEC).read_text())


def test_files_keep_their_place_beside_the_spec_and_others_get_one(place: Path) -> None:
    package, spec = packed(place)
    assert spec["experts"]["mnist"] == "experts/mnist.safetensors"
    outside = spec["experts"]["clipart"]
    assert outside.startswith("outside/") and outside.endswith("/clipart.safetensors")
    for name in spec["experts"].values():
        assert (package.working_dir / name).read_bytes() == b"w" * 1000
    assert package.files == 2000
    assert json.loads((package.working_dir / ARGUMENTS).read_text()) == {"out": "/run"}
    assert spec == packed(place)[1], "the same spec again: the journal of the first job is that of the second"


def test_the_code_is_sent_with_the_embedded_files_that_are_named_and_no_others(place: Path) -> None:
    package, _ = packed(place)
    assert [module.name for module in package.modules] == ["pipeline", "search", "tasks"]
    files = [path for module in package.modules for path in module.rglob("*") if path.is_file()]
    assert {p.name for p in files if p.suffix == ".safetensors"} == {"base.safetensors"}
    assert "mnist.parquet" in {p.name for p in files} and "tiny-vit.json" in {p.name for p in files}
    assert not [p for p in files if "__pycache__" in p.parts]
    own = sum(p.stat().st_size for p in files)
    assert own < 30 * 2**20


def test_what_the_cluster_sees_at_the_same_path_stays_there(place: Path) -> None:
    package, spec = packed(place, seen=(place / "elsewhere",))
    assert spec["experts"]["clipart"] == str(place / "elsewhere" / "clipart.safetensors")
    assert package.files == 1000


def test_files_that_are_too_large_are_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_package, "MOST", 1500)
    with pytest.raises(ValueError, match=r"experts\.mnist: .*/experts/mnist.safetensors \(0 MiB\).*too much.*--seen"):
        packed(place)


def test_a_plugin_that_is_not_installed_is_sent_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place / "project" / "my_tasks"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('nothing of it is run here')")
    (place / "here" / "more.py").write_text("")
    monkeypatch.syspath_prepend(str(place / "project"))
    package, spec = packed(place, plugins=["my_tasks.sets", "more.py", "json"])
    assert package.modules[-1].name == "my_tasks" and (package.modules[-1] / "__init__.py").exists()
    assert spec["plugins"] == ["my_tasks.sets", "more.py", "json"] and (package.working_dir / "more.py").exists()


def test_other_versions_are_named_and_missing_ones_of_ours_are_no_matter() -> None:
    ours = {"python": "3.11", "torch": "2.15.0", "numpy": "2.4.0", "peft": "not installed"}
    check_versions({**ours, "peft": "0.21"}, ours)
    with pytest.raises(ValueError) as error:
        check_versions({"python": "3.12", "torch": "2.15.0"}, ours)
    assert "python 3.12 (submitted from 3.11), numpy not installed (submitted from 2.4.0)" in str(error.value)
    assert set(versions_here()) > {"python", "torch", "optuna"}


def test_a_job_looks_at_the_versions_before_it_imports_anything(tmp_path: Path) -> None:
    """As the cluster's Python may have none of the packages: this one has no site-packages at all."""
    (tmp_path / ARGUMENTS).parent.mkdir()
    (tmp_path / ARGUMENTS).write_text(json.dumps({"versions": {"torch": "2.15.0"}, "out": "/run", "arguments": []}))
    words = [sys.executable, "-S", "-m", "pipeline.job_entry"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert found.returncode == 2
    assert "error: the cluster has other versions" in found.stderr and "torch not installed" in found.stderr


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://10.0.0.1:8265", "http://10.0.0.1:8265"),
        ("https://ray.example.org", "https://ray.example.org:443"),
        ("head", "http://head:8265"),
        ("head:9000/", "http://head:9000"),
        ("[::1]:8265", "http://[::1]:8265"),
        ("auto", "http://127.0.0.1:8265"),
    ],
)
def test_addresses(address: str, url: str) -> None:
    assert jobs_url(address) == url


@pytest.mark.parametrize("address", ["ray://head:10001", "os://head", "", "http://", "head:port", "http://me:pw@head"])
def test_what_is_no_address_of_a_dashboard(address: str) -> None:
    with pytest.raises(ValueError, match="must be that of a Ray dashboard"):
        jobs_url(address)


def test_a_relative_folder_would_be_gone_with_the_job() -> None:
    assert _place(None, "demo") == "~/lines-runs/demo"
    assert _place("s3://bucket/runs", "demo") == "s3://bucket/runs"
    with pytest.raises(ValueError, match="was given with a user or a password") as error:
        _place("s3://me:hunter2@bucket/runs", "demo")
    assert "hunter2" not in str(error.value)
    for out in ("runs/demo", "./demo", ""):
        with pytest.raises(ValueError, match="must be a URL .* or a full path on the cluster's head"):
            _place(out, "demo")


def test_secrets_do_not_travel_with_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:9000")
    assert (
        _variables(["AWS_ENDPOINT_URL", "A=b=c"]).items()
        >= {"AWS_ENDPOINT_URL": "http://store:9000", "A": "b=c"}.items()
    )
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "password", "GOOGLE_APPLICATION_CREDENTIALS"):
        with pytest.raises(ValueError, match=f"--env {name}: looks like a secret"):
            _variables([f"{name}=abc123"])
    with pytest.raises(ValueError, match="has a password in its URL") as error:
        _variables(["PROXY=http://me:hunter2@proxy"])
    assert "hunter2" not in str(error.value)
    with pytest.raises(ValueError, match="is not set here"):
        _variables(["NOT_SET_ANYWHERE"])
