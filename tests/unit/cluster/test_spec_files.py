"""Proves which values of a spec are files of this machine, and that a spec can be moved to other paths."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from published_sets import writers
from small_run import small_spec
from small_soup import soup_spec

from pipeline.cluster.files.bundle import PIECE, Stream, content_digest, unpack
from pipeline.cluster.files.spec_files import NamedFile, moved, named_files
from pipeline.spec.load import load_spec, parse_spec
from pipeline.spec.run import RunSpec
from tasks.base import TaskRequest
from tasks.files.cache import cache_root
from tasks.vision.sources import image_source

WRITERS = writers()


def sent(named: NamedFile, folder: Path) -> str:
    """Unpack a bundle as a node does; returns the path there."""
    bundle = named.bundle()
    pieces = (Stream(bundle).read(start) for start in range(0, bundle.size, PIECE))
    unpack(bundle, content_digest(bundle), pieces, folder)
    return str(folder / bundle.name)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def vision(name: str, **options: Any) -> RunSpec:
    task = {"source": f"vision/{name}", "options": {"check_counts": False, **options}}
    spec = small_spec({"clipart": Path("embedded/clipart")}, tasks={"clipart": "clipart", "set": task})
    return parse_spec(spec)


def test_embedded_names_hubs_and_urls_are_not_files() -> None:
    spec = small_spec({"clipart": Path("hf:owner/repo"), "mnist": Path("embedded/mnist")})
    spec |= {"base": "s3://bucket/base.pt", "plugins": ["json"]}
    assert named_files(parse_spec(spec)) == {}


def test_of_a_task_of_lm_eval_the_folder_of_its_yaml_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its source is a name, also where a folder of that name exists; the path is relative to the spec's folder."""
    for name in ("lm_eval/arc_easy/x.yaml", "mine/x.yaml"):
        touch(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    spec = small_spec({"clipart": Path("embedded/clipart")}, limits={})
    spec |= {"tasks": {"clipart": {"source": "lm_eval/arc_easy", "options": {"include_path": "mine"}}}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    found = load_spec(tmp_path / "spec.yaml")
    assert found.tasks["clipart"].source == "lm_eval/arc_easy"
    assert named_files(found) == {
        ("tasks", "clipart", "options", "include_path"): NamedFile(str(tmp_path / "mine"), "tree")
    }


def test_checkpoints_folders_plugins_and_absolute_options_are_files(tmp_path: Path) -> None:
    for name in ("base/model.safetensors", "e.pt", "set/test/cat/1.png", "vit.json", "mine.py"):
        touch(tmp_path / name)
    options = {"list": str(touch(tmp_path / "list.txt")), "gone": "/nowhere", "templates": "set"}
    spec = small_spec({"clipart": tmp_path / "e.pt"})
    spec |= {"base": str(tmp_path / "base"), "plugins": [str(tmp_path / "mine.py")], "limits": {}}
    spec |= {"backbone": {"family": "open_clip", "model": str(tmp_path / "vit.json")}}
    spec |= {"tasks": {"clipart": "clipart"}, "ood": {"own": {"source": str(tmp_path / "set"), "options": options}}}
    assert named_files(parse_spec(spec)) == {
        ("base",): NamedFile(str(tmp_path / "base"), "model"),
        ("experts", "clipart"): NamedFile(str(tmp_path / "e.pt"), "model"),
        ("backbone", "model"): NamedFile(str(tmp_path / "vit.json"), "model"),
        ("plugins", 0): NamedFile(str(tmp_path / "mine.py"), "tree"),
        ("ood", "own", "source"): NamedFile(str(tmp_path / "set"), "tree"),
        ("ood", "own", "options", "list"): NamedFile(str(tmp_path / "list.txt"), "tree"),
    }


def test_a_run_of_rewards_names_its_prompts_functions_and_reward_models(tmp_path: Path) -> None:
    for name in ("sft/config.json", "policies/brief/a", "policies/open/a", "prompts/val.jsonl", "judge/config.json"):
        touch(tmp_path / name)
    touch(tmp_path / "rewards.py")
    judge = {"source": "reward/classifier", "options": {"model": "judge"}}
    (tmp_path / "spec.yaml").write_text(str(soup_spec(tasks={"brief": "rewards.py:brevity", "open": judge})))
    spec = load_spec(tmp_path / "spec.yaml")
    found = named_files(spec)
    assert found["tasks", "brief", "source"] == NamedFile(str(tmp_path / "rewards.py"), "tree", suffix=":brevity")
    assert found["tasks", "open", "options", "model"] == NamedFile(str(tmp_path / "judge"), "model")
    assert found["generation", "prompts", "source"] == NamedFile(str(tmp_path / "prompts"), "model")
    assert found["base",] == found["backbone", "model"] == NamedFile(str(tmp_path / "sft"), "model")
    there = moved(spec, {("tasks", "brief", "source"): "/cache/rewards.py:brevity", ("base",): "/cache/sft"})
    assert (there.tasks["brief"].source, there.base) == ("/cache/rewards.py:brevity", "/cache/sft")


@pytest.mark.parametrize("kind", ["language", "vision"])
def test_a_model_that_was_built_here_is_sent_despite_its_embedded_name(kind: str) -> None:
    built = touch(cache_root() / kind / "small" / "config.json").parent
    spec = small_spec({"clipart": Path("embedded/small")}, tasks=["clipart"])
    assert named_files(parse_spec(spec)) == {("experts", "clipart"): NamedFile(str(built), "model")}


def test_open_clips_folders_keep_their_prefix(tmp_path: Path) -> None:
    touch(tmp_path / "open_clip_config.json")
    backbone = {"family": "open_clip", "model": f"local-dir:{tmp_path}"}
    spec = small_spec({"clipart": Path("embedded/clipart")}, tasks=["clipart"], backbone=backbone)
    assert named_files(parse_spec(spec)) == {
        ("backbone", "model"): NamedFile(str(tmp_path), "model", prefix="local-dir:"),
    }


@pytest.mark.parametrize("name", WRITERS)
def test_a_published_set_is_whole_in_the_part_of_the_root_that_is_sent(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "data")
    touch(tmp_path / "data" / "another set" / "1.png")
    spec = vision(name, root=str(tmp_path / "data"))
    files = named_files(spec)
    place, named = ("tasks", "set", "options", "root"), files["tasks", "set", "options", "root"]
    there = moved(spec, {place: sent(named, tmp_path / "node")})
    assert list(files) == [place] and not (tmp_path / "node" / "data" / "another set").exists()
    mine, its = (
        image_source(TaskRequest("set", s.tasks["set"].source, {}, s.tasks["set"].options)) for s in (spec, there)
    )
    assert mine.class_names == its.class_names
    digests = [{k: [r.digest for r in v] for k, v in source.records().items()} for source in (mine, its)]
    assert digests[0] == digests[1] and digests[0]["test"]


def test_a_published_set_without_a_root_is_found_where_data_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINES_SWEEP_DATA", str(tmp_path))
    WRITERS["MNIST"](tmp_path)
    found = named_files(vision("MNIST"))
    assert found == {("tasks", "set", "options", "root"): NamedFile(str(tmp_path), "tree", "MNIST/raw")}


def test_a_published_set_that_is_not_here_is_not_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster may have it; a run there reports missing files."""
    monkeypatch.setenv("LINES_SWEEP_DATA", str(tmp_path))
    assert named_files(vision("MNIST")) == named_files(vision("MNIST", root="/on/the/cluster")) == {}


def test_a_moved_spec_is_the_same_in_all_other_fields() -> None:
    spec = parse_spec(small_spec({"clipart": Path("embedded/clipart"), "mnist": Path("e.pt")}))
    there = moved(spec, {("experts", "mnist"): "/cache/e.pt"})
    assert there.experts["mnist"] == "/cache/e.pt"
    assert there.model_copy(update={"experts": spec.experts}) == spec
