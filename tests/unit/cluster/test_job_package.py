"""Proves what a job's package contains: the code, the spec with the job's paths, small files; and what is refused."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from published_sets import CIFAR10, folders
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from pipeline.cluster.jobs import package as job_package
from pipeline.cluster.jobs.client import Jobs
from pipeline.cluster.jobs.layout import ARGUMENTS, SPEC
from pipeline.cluster.jobs.package import Origin, Package, make_package
from pipeline.spec.load import load_spec
from tasks.base import TaskRequest
from tasks.vision.published.files import JOB
from tasks.vision.sources import image_source


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a spec and an expert next to it, and another expert elsewhere."""
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
    package = make_package(load_spec(path), Origin(path.parent, seen), {"out": "/run"}, scratch)
    return package, yaml.safe_load((package.working_dir / SPEC).read_text())


def test_files_below_the_specs_folder_keep_their_paths_and_others_get_one(place: Path) -> None:
    package, spec = packed(place)
    assert spec["experts"]["mnist"] == "experts/mnist.safetensors"
    outside = spec["experts"]["clipart"]
    assert outside.startswith("outside/") and outside.endswith("/clipart.safetensors")
    for name in spec["experts"].values():
        assert (package.working_dir / name).read_bytes() == b"w" * 1000
    assert package.size == 2000
    assert json.loads((package.working_dir / ARGUMENTS).read_text()) == {"out": "/run"}
    assert spec == packed(place)[1], "the same spec again: the journal of the first job is that of the second"


def test_the_code_is_sent_with_the_embedded_files_that_are_named_and_no_others(place: Path) -> None:
    package, _ = packed(place)
    assert [module.name for module in package.modules] == ["lines_sweep", "pipeline", "search", "tasks"]
    files = [path for module in package.modules for path in module.rglob("*") if path.is_file()]
    assert {p.name for p in files if p.suffix == ".safetensors"} == {"base.safetensors"}
    assert "mnist.parquet" in {p.name for p in files} and "tiny-vit.json" in {p.name for p in files}
    assert not [p for p in files if "__pycache__" in p.parts]
    own = sum(p.stat().st_size for p in files)
    assert own < 30 * 2**20


def test_an_embedded_language_model_is_sent_with_its_text_tasks_and_no_others(place: Path) -> None:
    (place / "here" / "animals").mkdir()
    experts = {"animals": "experts/mnist.safetensors"}
    backbone = {"family": "seq2seq", "model": "embedded/tiny-t5"}
    package, spec = packed(place, backbone=backbone, base="embedded/tiny-t5", experts=experts, tasks=["animals"])
    assert spec["tasks"]["animals"]["source"] == "embedded/animals", "not the folder of that name next to the spec"
    files = [path for module in package.modules for path in module.rglob("*") if path.is_file()]
    assert {p.parent.name for p in files if p.suffix == ".safetensors"} == {"tiny-t5"}
    assert {f"{p.parent.name}/{p.stem}" for p in files if p.suffix == ".parquet"} == {
        f"animals/{split}" for split in ("train", "val", "test")
    }
    assert "tokenizer.json" in {p.name for p in files if p.parent.name == "tiny-t5"}


def test_an_embedded_adapter_is_sent_whole(place: Path) -> None:
    package, _ = packed(place, experts={"mnist": "embedded/dinov2-small-mnist"})
    sent = {path.name for module in package.modules for path in module.rglob("dinov2-small-mnist/*")}
    assert sent == {"adapter_config.json", "adapter_model.safetensors"}


def test_what_the_cluster_sees_at_the_same_path_stays_there(place: Path) -> None:
    package, spec = packed(place, seen=(place / "elsewhere",))
    assert spec["experts"]["clipart"] == str(place / "elsewhere" / "clipart.safetensors")
    assert package.size == 1000


def test_links_of_one_name_to_files_of_one_folder_stay_two_files(place: Path) -> None:
    """As two checkpoints in the hub's cache: each is a link to a blob."""
    links = {}
    for name, content in (("mnist", b"a" * 10), ("clipart", b"b" * 10)):
        link, blob = place / "here" / name / "model.safetensors", place / "blobs" / name
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(content)
        link.parent.mkdir()
        link.symlink_to(blob)
        links[name] = str(link)
    package, spec = packed(place, experts=links)
    assert spec["experts"] == {name: f"{name}/model.safetensors" for name in links}
    for name, link in links.items():
        assert (package.working_dir / spec["experts"][name]).read_bytes() == Path(link).read_bytes()


def test_two_files_for_one_place_are_refused(place: Path) -> None:
    """The spec's folder may contain the folder of files from elsewhere, for example a copied job folder."""
    theirs = place / "here" / Origin(place / "here").place(str(place / "elsewhere" / "clipart.safetensors"))
    theirs.mkdir(parents=True)
    (theirs / "clipart.safetensors").write_bytes(b"v")
    experts = {"mnist": str(theirs / "clipart.safetensors"), "clipart": "../elsewhere/clipart.safetensors"}
    with pytest.raises(ValueError, match=r"clipart\.safetensors: has the same place .* as .*/clipart\.safetensors: r"):
        packed(place, experts=experts)
    (place / "here" / "lines-job").mkdir()
    (place / "here" / SPEC).write_bytes(b"v")
    with pytest.raises(ValueError, match=r"lines-job/spec\.yaml: has the same place .* as a file of the job itself"):
        packed(place, experts={"mnist": SPEC}, tasks=["mnist"])


def test_the_same_file_named_twice_is_sent_once(place: Path) -> None:
    twice = "experts/mnist.safetensors"
    package, spec = packed(place, experts={"mnist": twice, "clipart": twice})
    assert spec["experts"] == {"mnist": twice, "clipart": twice} and package.size == 1000


class Sent:
    """A stand-in for Ray's client: packs folders as the client does."""

    def __init__(self, folder: Path) -> None:
        self.names: dict[str, set[str]] = {}
        self.env: dict[str, str] = {}
        self._folder = folder

    def submit_job(self, runtime_env: Mapping[str, Any], **rest: Any) -> None:
        self.env = runtime_env["env_vars"]
        work, modules = runtime_env["working_dir"], runtime_env["py_modules"]
        for folder, excludes in [(work, get_runtime_env_default_excludes()), *((m, None) for m in modules)]:
            target = self._folder / f"{Path(folder).name}.zip"
            create_package(folder, target, include_gitignore=True, excludes=excludes)
            with zipfile.ZipFile(target) as packed:
                self.names[Path(folder).name] = {name for name in packed.namelist() if not name.endswith("/")}


def test_ray_sends_every_file_that_the_spec_names(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing image makes another test set, and other scores without an error."""
    images = [f"set/test/{c}/1.png" for c in ("cat", "venv", ".venv", ".git", "__pycache__")]
    code = ["my_tasks/__init__.py", "my_tasks/prompts.parquet", "my_tasks/head.safetensors", "my_tasks/b.txt"]
    lists = ["set/.gitignore", "set/test/.rayignore", "my_tasks/.gitignore", "my_tasks/__pycache__/b.pyc"]
    for name in (*images, *code, *lists):
        (place / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "project" / name).write_text("*.png\ncat/\n*.txt\n" if "ignore" in name else "")
    (place / "project" / "set").rename(place / "here" / "set")
    monkeypatch.syspath_prepend(str(place / "project"))
    package, _ = packed(place, ood={"own": {"source": "./set"}}, plugins=["my_tasks"])
    client = Sent(place)
    jobs = Jobs("http://127.0.0.1:8265", client)
    monkeypatch.setenv("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "set")
    jobs.submit("job", "/run", package, {})
    assert os.environ["RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES"] == "set"
    assert {name for name in client.names["work"] if name.startswith("set/")} == set(images)
    assert {f"my_tasks/{name}" for name in client.names["my_tasks"]} == set(code)
    for folder in (package.working_dir, *package.modules):
        there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        assert client.names[folder.name] == there
    monkeypatch.delenv("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES")
    jobs.submit("job", "/run", package, {})
    assert "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES" not in os.environ


def test_a_name_that_ray_would_not_unpack_is_refused(place: Path) -> None:
    (place / "here" / "set" / "cat").mkdir(parents=True)
    (place / "here" / "set" / "cat" / "a\\b.png").touch()
    with pytest.raises(ValueError, match=r"a\\b\.png: a name with a backslash cannot be sent .* rename it"):
        packed(place, ood={"own": {"source": "./set"}})


@pytest.mark.parametrize("name", ["lines_sweep", "pipeline", "search", "tasks"])
def test_a_plugin_next_to_the_spec_may_have_the_name_of_our_package(place: Path, name: str) -> None:
    """With the path as Ray sets it: the packages that are sent, then the job's folder, also the working directory."""
    (place / "here" / f"{name}.py").write_text("raise SystemExit('it was imported in place of ours')")
    package, spec = packed(place, plugins=[f"{name}.py"])
    client = Sent(place)
    jobs = Jobs("http://127.0.0.1:8265", client)
    jobs.submit("job", "/run", package, {})
    (package.working_dir / ARGUMENTS).write_text(json.dumps({"versions": {"torch": "none such"}}))
    path = os.pathsep.join(map(str, (package.modules[0].parent, package.working_dir)))
    words, env = [sys.executable, "-m", "pipeline.cli.job_entry"], {**os.environ, **client.env, "PYTHONPATH": path}
    found = subprocess.run(words, cwd=package.working_dir, env=env, capture_output=True, text=True)
    assert found.returncode == 2 and "error: the cluster has other versions" in found.stderr, found.stderr
    assert spec["plugins"] == [f"{name}.py"] and (package.working_dir / f"{name}.py").exists()


@pytest.mark.parametrize("name", ["random", "torch"])
def test_a_plugin_next_to_the_spec_may_not_have_the_name_of_an_installed_module(place: Path, name: str) -> None:
    (place / "here" / "mine").mkdir()
    for file in (f"{name}.py", f"mine/{name}.py"):
        (place / "here" / file).touch()
    with pytest.raises(
        ValueError, match=rf"plugins\.0: {name}\.py next to the spec would be imported in place of .*: rename it"
    ):
        packed(place, plugins=[f"{name}.py"])
    assert packed(place, plugins=[f"mine/{name}.py"])[1]["plugins"] == [f"mine/{name}.py"]


def test_a_published_set_is_read_from_the_jobs_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(place / "data", [name.removeprefix("a_") for name in CIFAR10], {"train": "train", "test": "test"})
    (place / "index.npy").touch()
    options = {"from": "folder", "root": str(place / "data"), "val_index": str(place / "index.npy")}
    task = {"source": "vision/CIFAR10", "options": {**options, "check_counts": False, "classes_by": "order"}}
    package, spec = packed(place, ood={"set": task})
    there = spec["ood"]["set"]["options"]
    assert there["root"].endswith("/data") and not Path(there["root"]).is_absolute()
    (place / "data").rename(place / "gone")
    monkeypatch.setenv(JOB, "1")
    monkeypatch.chdir(package.working_dir)
    assert len(image_source(TaskRequest("set", task["source"], {}, there)).class_names) == 10


def test_a_published_set_that_only_the_cluster_has_stays_as_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES_SWEEP_DATA", str(place / "nothing"))
    ood = {
        "bare": {"source": "vision/MNIST"},
        "root": {"source": "vision/SVHN", "options": {"root": "/on/the/cluster"}},
    }
    _, spec = packed(place, ood=ood)
    assert [task["options"] for task in spec["ood"].values()] == [{}, {"root": "/on/the/cluster"}]


def test_files_that_are_too_large_are_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_package, "MAX_BYTES", 1500)
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
