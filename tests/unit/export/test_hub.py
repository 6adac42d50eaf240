"""Proves that cards name what the hub knows, and that uploads list, refuse and explain without losing the export."""

from pathlib import Path

import pytest
import yaml

from pipeline.export.hub import card_metadata, check_repository, push, uploads

SCORES = [{"task": "mnist", "metric": "accuracy", "value": 0.875}, {"task": "dtd", "metric": "accuracy", "value": 0.5}]


def test_metadata_names_models_of_the_hub_and_no_path() -> None:
    sources = ["hf:openai/clip-vit-base-patch32", "/home/me/cars.pt", "hf:org/dtd"]
    found = yaml.safe_load(card_metadata("merged", sources, "open_clip", "open_clip", SCORES))
    assert found["base_model"] == ["openai/clip-vit-base-patch32", "org/dtd"]
    assert (found["pipeline_tag"], found["library_name"]) == ("zero-shot-image-classification", "open_clip")
    [results] = found["model-index"]
    values = {r["dataset"]["name"]: r["metrics"][0]["value"] for r in results["results"]}
    assert values == {"mnist": 0.875, "dtd": 0.5} and found["metrics"] == ["accuracy"]
    plain = card_metadata("merged", ["/home/me/base.pt"], "transformers", "causal", [])
    assert "home" not in plain and "base_model" not in plain


@pytest.mark.parametrize("name", ["repo", "a/b/c", "owner/../x", "owner/a b"])
def test_a_name_that_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="--push"):
        check_repository(name)


def test_uploads_are_all_files_with_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "trunk").mkdir()
    (tmp_path / "trunk" / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("# card")
    assert uploads(tmp_path) == [("README.md", 6), ("trunk/config.json", 2)]


def test_without_a_hub_the_error_says_that_the_export_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"--push me/model: HF_HUB_OFFLINE is set: unset it, or upload .* later"):
        push(tmp_path, "me/model")
