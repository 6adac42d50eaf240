"""Proves that an export is complete: its card's code runs, own vocabulary included; and that it is refused in time."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from own_models import CONFIG, write_images
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from pipeline.cli.main import app
from tasks import embedded
from tasks.vision.clip.architectures import create
from tasks.vision.clip.backbone import build

CPU = torch.device("cpu")


def lines(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(w) for w in words])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a user with a vocabulary of 2048 words, after a run in bfloat16; weights are random."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copy(embedded.model_config_path("tiny-vit").with_name("bpe_2048.txt.gz"), folder)
    config = CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"vocab_size": 2048}}
    (folder / "model.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    base = {n: t.clone() for n, t in create(str(folder / "model.json"), {}).model.state_dict().items()}
    save_file(base, folder / "base.safetensors")
    save_file({n: t * 1.05 if n.startswith("visual.") else t for n, t in base.items()}, folder / "tuned.safetensors")
    save_file({n: t * 1.1 if n.startswith("visual.") else t for n, t in base.items()}, folder / "far.safetensors")
    write_images(folder / "colours", "colours", 10, seed=0)
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LINES_SWEEP_CACHE", str(folder / "cache"))
        code, output = lines("run", folder / "spec.yaml", "--pool", "local", "--out", folder / "run")
        assert code == 0, output
        yield folder


def spec() -> dict[str, Any]:
    return {
        "name": "own vocabulary",
        "backbone": {"family": "open_clip", "model": "model.json", "precision": "bfloat16"},
        "base": "base.safetensors",
        "experts": {"colours": "tuned.safetensors", "far": "far.safetensors"},
        "tasks": {"colours": "./colours"},
        "targets": {"far": "colours"},
        "arms": {
            "half": {"edit": "colours", "scaling": {"alpha": 0.5}},
            "merged": {
                "merge": {"method": "weighted", "weights": {"far": 0.25}, "then": [{"step": "norm_match"}]},
                "scaling": {"components": {"mlp": 0.5}},
            },
            "random": {"merge": {"method": "dare", "seeds": 2}},
        },
    }


@pytest.fixture(scope="module")
def exported(user: Path) -> Path:
    code, output = lines("export", user / "run", "--arm", "half", "--expert", "colours", "-o", user / "exported")
    assert code == 0 and "wrote" in output, output
    return user / "exported"


def test_the_code_of_the_card_loads_model_and_vocabulary(user: Path, exported: Path) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code.group(1).replace("PATH/TO/THIS/FOLDER", str(exported)), names)  # noqa: S102 - a card of our own
    model, tokenizer = names["model"], names["tokenizer"]
    base = build(str(user / "model.json"), load_file(user / "base.safetensors"), CPU, torch.float32)
    tokens = tokenizer(["red", "a photo of a green"])
    assert torch.equal(tokens, base.text.tokenize(["red", "a photo of a green"])) and int(tokens.max()) < 2048
    torch.testing.assert_close(model.encode_text(tokens, normalize=True), base.text.encode(tokens))


def test_weights_are_those_of_the_recipe_in_the_runs_precision(user: Path, exported: Path) -> None:
    base, tuned = load_file(user / "base.safetensors"), load_file(user / "tuned.safetensors")
    found = load_file(exported / "open_clip_model.safetensors")
    name = "visual.conv1.weight"
    expected = base[name] + 0.5 * (tuned[name] - base[name])
    assert found[name].dtype == torch.bfloat16
    torch.testing.assert_close(found[name], expected.bfloat16())
    assert torch.equal(found["token_embedding.weight"], base["token_embedding.weight"])


def test_recipe_and_scores_are_beside_the_weights(user: Path, exported: Path) -> None:
    facts = json.loads((exported / "recipe.json").read_text())
    assert facts["alpha"] == 0.5 and [s["task"] for s in facts["scores"]] == ["colours"]
    with safe_open(exported / "open_clip_model.safetensors", "pt") as file:
        assert file.metadata()["recipe_id"] == facts["recipe_id"]


def test_coverage_counts_every_tensor_of_the_file(exported: Path) -> None:
    state = load_file(exported / "open_clip_model.safetensors")
    parts = {part["what"]: part for part in json.loads((exported / "recipe.json").read_text())["coverage"]}
    blocks = [t for n, t in state.items() if n.startswith("visual.transformer.resblocks.")]
    scaled = parts["scaled, in the blocks"]
    assert (scaled["tensors"], scaled["parameters"]) == (len(blocks), sum(t.numel() for t in blocks))
    kept = parts["outside the image tower, so they stay the base's"]
    assert set(kept["names"]) == {name for name in state if not name.startswith("visual.")}
    assert sum(part["tensors"] for part in parts.values()) == len(state)
    assert sum(part["parameters"] for part in parts.values()) == sum(t.numel() for t in state.values())


def test_the_card_names_the_experts_that_take_part(user: Path, exported: Path) -> None:
    edited = (exported / "README.md").read_text(encoding="utf-8")
    assert "An edited model" in edited and "- colours: `" in edited and "- far: `" not in edited
    assert str(user) not in edited + (exported / "recipe.json").read_text()
    assert yaml.safe_load(edited.split("---")[1])["pipeline_tag"] == "zero-shot-image-classification"
    code, output = lines("export", user / "run", "--arm", "merged", "-o", user / "merged")
    assert code == 0, output
    merged = (user / "merged" / "README.md").read_text(encoding="utf-8")
    assert "beta 0, component.mlp 0.5, then norm_match\n- experts:" in merged
    assert "A merged model" in merged and "(weight 0.25, fingerprint" in merged and "- colours: `" not in merged


def test_a_dry_run_lists_what_would_be_uploaded(user: Path) -> None:
    words = ("--arm", "half", "--expert", "colours", "-o", user / "dry", "--push", "me/model", "--dry-run")
    code, output = lines("export", user / "run", *words)
    assert code == 0 and "would upload open_clip_model.safetensors," in output and "uploaded:" not in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "half", "-o", "new", "--push", "model"], "--push model: must be OWNER/REPO"),
        (["--arm", "half", "-o", "new", "--dry-run"], "are used with --push OWNER/REPO only"),
        (["--arm", "hal", "--expert", "colours", "-o", "new"], "--arm hal: not in the run; did you mean 'half'?"),
        (["--arm", "half", "-o", "new"], "needs --expert; known: colours"),
        (["--arm", "random, seeds", "-o", "new"], "further seeds, of which none was chosen; export random"),
        (["--arm", "half", "--expert", "colours", "-o", "."], "exists already; give another folder"),
    ],
)
def test_what_cannot_be_exported_is_told(
    user: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(user)
    code, output = lines("export", "run", *words)
    assert code == 2 and message in output
    assert not (user / "new").exists()


def test_a_checkpoint_that_was_changed_since_is_refused(user: Path, tmp_path: Path) -> None:
    before = (user / "tuned.safetensors").read_bytes()
    state = load_file(user / "tuned.safetensors")
    save_file({n: t * 1.01 if n.startswith("visual.") else t for n, t in state.items()}, user / "tuned.safetensors")
    code, output = lines("export", user / "run", "--arm", "half", "--expert", "colours", "-o", tmp_path / "new")
    (user / "tuned.safetensors").write_bytes(before)
    assert code == 2 and "but the run used" in output
    assert not (tmp_path / "new").exists()
