"""Proves that the identity of a training's prompts has whole rows where a reward takes them."""

from pathlib import Path

import pytest
from small_ppo import read_ppo, write_ground
from tiny_language import tiny_tokenizer
from transformers import LlamaConfig

from pipeline.train.ppo.data import Data, load_data

ROWS = """

def solved(sources, completions, rows):
    return [float(row["note"] in text) for text, row in zip(completions, rows)]
"""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_ground(tmp_path_factory.mktemp("ground"))
    (folder / "own.py").write_text((folder / "own.py").read_text() + ROWS)
    return folder


def noted(ground: Path, tmp_path: Path, note: str, reward: str, **options: object) -> Data:
    """Read prompts with one more column."""
    folder = tmp_path / note
    folder.mkdir(exist_ok=True)
    for split in ("train", "val"):
        lines = (ground / "prompts" / f"{split}.jsonl").read_text().splitlines()
        (folder / f"{split}.jsonl").write_text("".join(f'{line[:-1]}, "note": "{note}"}}\n' for line in lines))
    rewards = {reward: {"source": f"{ground / 'own.py'}:{reward}", "options": options}}
    spec = read_ppo(tmp_path, ground, prompts={"source": str(folder)}, rewards=rewards)
    return load_data(spec, tiny_tokenizer(), LlamaConfig(max_position_embeddings=512))


def test_other_columns_count_only_if_a_reward_takes_rows(ground: Path, tmp_path: Path) -> None:
    plain = [noted(ground, tmp_path, note, "vowels").fingerprint for note in ("a", "b")]
    rows = [noted(ground, tmp_path, note, "solved").fingerprint for note in ("a", "b")]
    assert plain[0] == plain[1] and len({plain[0], *rows}) == 3


def test_a_missing_column_is_an_error_before_the_training(ground: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^rewards\.solved: options\.columns: a row has no answer: 'This package"):
        noted(ground, tmp_path, "a", "solved", columns=["answer"])
