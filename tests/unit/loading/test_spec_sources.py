"""Proves that sources are parsed as they are written, and that one preparation resolves each exactly once."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_place import memory_place
from safetensors.torch import load_file, save
from small_soup import soup_spec, write_soup

from pipeline.checkpoints.files import locate
from pipeline.loading import spec_sources
from pipeline.loading.experts import load_checkpoints
from pipeline.loading.prepare import prepare
from pipeline.loading.spec_sources import SpecSources
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from pipeline.train.lora import LoraTuning
from tasks.embedded import checkpoint_path
from tasks.files import models as fetched
from tasks.files.sources import HubName, Source

CPU = torch.device("cpu")
COUNTED = (
    (Source, "parse", lambda source: source),
    (spec_sources, "locate", lambda source: source.text),
    (fetched, "_fetch", lambda url: url),
)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter[str]]:
    """Function -> source -> calls, of the functions that parse a source, locate its files, and download a URL."""
    monkeypatch.setattr(fetched, "fetched", {})
    counts: dict[str, Counter[str]] = {}
    for owner, name, text_of in COUNTED:
        counts[name] = Counter()
        monkeypatch.setattr(owner, name, counting(getattr(owner, name), counts[name], text_of))
    return counts


def counting(function: Callable[..., Any], calls: Counter[str], text_of: Callable[[Any], str]) -> Callable[..., Any]:
    def counted(source: Any, *args: Any) -> Any:
        calls[text_of(source)] += 1
        return function(source, *args)

    return counted


def run_of(experts: dict[str, str], **changes: Any) -> RunSpec:
    return parse_spec(
        {
            "name": "resolved",
            "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
            "base": "embedded/base",
            "experts": experts,
            "tasks": ["mnist"],
            "targets": dict.fromkeys(experts, "mnist"),
            "arms": {"fine-tuned": {"edit": "each_expert"}},
            "limits": {"val": 8, "test": 8},
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("hf:owner/repo/a.pt@v1", "hub", "owner/repo/a.pt@v1"),
        ("pretrained:openai", "tag", "openai"),
        ("embedded/base", "embedded", "base"),
        ("./embedded/base", "path", "./embedded/base"),
        ("s3://bucket/model.safetensors", "url", "s3://bucket/model.safetensors"),
        ("~/model.pt", "path", "~/model.pt"),
    ],
)
def test_a_source_has_one_kind(text: str, kind: str, name: str) -> None:
    assert Source.parse(text) == Source(text, kind, name)  # type: ignore[arg-type]


def test_a_repository_may_name_a_file_and_a_revision() -> None:
    source = Source.parse("hf:owner/repo/deep/a.pt@refs/pr/1")
    assert HubName.of(source) == HubName("owner/repo", "deep/a.pt", "refs/pr/1")
    with pytest.raises(ValueError, match=r"must be hf:OWNER/REPO\[@REVISION\]"):
        HubName.of(source, files=False)


def test_a_preparation_resolves_each_source_once(tmp_path: Path, counts: dict[str, Counter[str]]) -> None:
    place, state = memory_place(), load_file(checkpoint_path("mnist"))
    place.write("expert.safetensors", save(state))
    (tmp_path / "expert.safetensors").write_bytes(save(state))
    tuning = LoraTuning(load_checkpoints(run_of({"a": "unused"}), CPU)[0].backbone, rank=2, scale=1.0, seed=0)
    with torch.no_grad():
        for factor in tuning.trained.values():
            factor += 0.01
    (tmp_path / "adapter").mkdir()
    tuning.write(tmp_path / "adapter", torch.float32)
    experts = {
        "embedded": "embedded/mnist",
        "file": str(tmp_path / "expert.safetensors"),
        "url": f"{place.url}/expert.safetensors",
        "adapter": str(tmp_path / "adapter"),
    }
    run = run_of(experts)
    for calls in counts.values():
        calls.clear()
    identity = prepare(run, "cpu", lambda what, done, total: None)
    once = Counter(["embedded/base", *experts.values()])
    assert counts == {"parse": once, "locate": once, "_fetch": Counter([experts["url"]])}
    assert identity.checkpoints["file"] == identity.checkpoints["url"] == identity.checkpoints["embedded"]


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"components": {"ssm": 0.5}}, "arms.x.scaling.components.ssm: matches none of the .* attention .*, mlp "),
        (
            {"function": "grouped", "beta": 1, "params": {"factors": [1] * 9}},
            "arms.x.scaling.params.factors: must have at most",
        ),
    ],
)
def test_a_scaling_that_the_model_cannot_have_is_refused_before_workers_start(
    scaling: dict[str, Any], message: str
) -> None:
    run = run_of({"a": "embedded/mnist"}, arms={"x": {"merge": "sum", "scaling": scaling}})
    with pytest.raises(ValueError, match=message):
        prepare(run, "cpu", lambda what, done, total: None)


def test_policies_are_resolved_once_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: dict[str, Counter[str]]
) -> None:
    monkeypatch.chdir(write_soup(tmp_path))
    run = parse_spec(soup_spec())
    prepare(run, "cpu", lambda what, done, total: None)
    assert counts["locate"] == Counter([run.base, *run.experts.values()])
    assert [counts["parse"][source] for source in run.experts.values()] == [1, 1]
    arms = {"x": {"merge": {"method": "weighted", "lambdas": 3}, "scaling": {"components": {"norms": 0.5}}}}
    with pytest.raises(ValueError, match="arms.x.scaling.components.norms: matches none of the 28 edited .* mlp"):
        prepare(parse_spec(soup_spec(arms=arms)), "cpu", lambda what, done, total: None)


def test_a_tag_is_refused_for_an_expert() -> None:
    run = run_of({"a": "pretrained:openai"})
    with pytest.raises(ValueError, match="^experts.a: pretrained:openai: .* only `base` of a spec takes one"):
        SpecSources(run, run.experts).expert("a")


def test_a_name_of_the_hub_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="^hf:owner: must be hf:OWNER/REPO"):
        locate("hf:owner")
