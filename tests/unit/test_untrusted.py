"""What comes from others (specs, checkpoints, runs) runs no code, leads to no other file, and ends in an error."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.text import Text
from safetensors.torch import save_file
from small_run import Lines

from pipeline.checkpoints.checkpoint import read_checkpoint
from pipeline.console import console, plain
from pipeline.records.append_log import read_records
from pipeline.spec.load import SpecError, load_spec, parse_spec
from pipeline.spec.user_code import list_user_code

SPEC: dict[str, Any] = {
    "name": "small",
    "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
    "base": "embedded/base",
    "experts": {"mnist": "embedded/mnist"},
    "tasks": ["mnist"],
    "arms": {"sum": {"merge": "sum"}},
}
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
MERGED = "m0: &m0 {x: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 10)}]}}\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "at most 100,000 values"),
        (MERGED, "at most 100,000 values"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply or contain themselves"),
        ("a: !!python/object/apply:os.system ['touch /tmp/x']", "not valid YAML"),
        ("a: !!python/name:os.system", "not valid YAML"),
        ("x" * (5 * 2**20), "at most 4 MiB"),
    ],
)
def test_yaml_that_is_endless_or_names_code(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(SpecError, match=said):
        load_spec(tmp_path / "spec.yaml")


def test_an_error_shows_no_more_of_a_value_than_can_be_read() -> None:
    with pytest.raises(SpecError) as error:
        parse_spec({**SPEC, "shard_size": "9" * 100_000})
    assert "shard_size" in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("name", ["../escape", "a/b", "..", ".hidden", "/etc/passwd", "a\x1b[2J", "a\n", "<b>", "a\\b"])
@pytest.mark.parametrize("field", ["name", "tasks", "arms", "experts"])
def test_names_that_become_files_are_names(field: str, name: str) -> None:
    values: dict[str, Any] = {
        "name": name,
        "tasks": {name: "embedded/mnist"},
        "arms": {name: {"merge": "sum"}},
        "experts": {name: "embedded/mnist"},
    }
    with pytest.raises(SpecError, match="must begin with a letter"):
        parse_spec({**SPEC, field: values[field]})


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/secret.safetensors", "a/../../b.safetensors", ""])
def test_an_index_names_files_beside_it_alone(tmp_path: Path, shard: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"w": torch.ones(1)}, tmp_path / "secret.safetensors")
    index = {"weight_map": {"w": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="must name files beside it"):
        read_checkpoint(str(folder))


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was-run",))

    torch.save({"w": torch.ones(1), "x": Code()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="refused"):
        read_checkpoint(str(tmp_path / "model.pt"))
    assert not (tmp_path / "was-run").exists()


def test_a_journal_of_somebody_else_ends_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"record": ' + "[" * 100_000 + "\n")
    with pytest.raises(ValueError, match="line 1 is damaged"):
        list(read_records(tmp_path / "journal.jsonl"))


def test_the_code_that_a_spec_names_is_told() -> None:
    spec = parse_spec(
        {
            **SPEC,
            "plugins": ["my_tasks.sets", "/home/me/more.py"],
            "backbone": {**SPEC["backbone"], "options": {"trust_remote_code": True}},
        }
    )
    assert list_user_code(spec) == [
        "backbone.options.trust_remote_code: code of the model's repository",
        "plugins: my_tasks.sets",
        "plugins: /home/me/more.py",
    ]
    assert list_user_code(parse_spec(SPEC)) == []


def test_code_of_lm_evals_tasks_is_told(tmp_path: Path) -> None:
    def named(**options: object) -> list[str]:
        task = {"source": "lm_eval/mine", "options": {"include_path": str(tmp_path), **options}}
        return list_user_code(parse_spec({**SPEC, "ood": {"mine": task}}))

    assert named() == [f"ood.mine.options.include_path: {tmp_path}"]
    assert named(confirm_run_unsafe_code=False) == named()
    assert named(confirm_run_unsafe_code=True) == [
        *named(),
        "ood.mine.options.confirm_run_unsafe_code: code that the model writes",
    ]


def test_validate_tells_of_code_before_it_runs_and_can_be_had_without(tmp_path: Path) -> None:
    lines = Lines(tmp_path, {"mnist": tmp_path})
    (tmp_path / "more.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\nraise ValueError('and then')\n")
    spec = lines.spec(experts={"mnist": "embedded/mnist"}, tasks=["mnist"], plugins=["more.py"])
    status, said = lines("validate", spec, "--no-code")
    assert status == 0 and f"not run: plugins: {tmp_path / 'more.py'}" in said
    assert not (tmp_path / "was-run").exists()
    status, said = lines("validate", spec)
    assert status == 2 and (tmp_path / "was-run").exists()
    assert 0 <= said.find("this spec runs code with your rights: plugins") < said.find("and then")


def test_nothing_that_is_printed_steers_the_terminal() -> None:
    with console.capture() as shown:
        console.print(Text("a\tb\x1b[2J\x1b]0;title\x07\r\x9b1m\u202eé"))
    assert not set("\x1b\x07\r\x9b\u202e") & set(shown.get()) and "é" in shown.get()
    assert plain("a\tb\n\x1b[2J\x1b]0;title\x07é\r") == "a\tb\n[2J]0;titleé"
