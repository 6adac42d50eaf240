"""A run of rewards on a tiny random Llama: two policies as LoRA adapters, two rewards as plain functions."""

from pathlib import Path
from typing import Any

import yaml
from tiny_language import TEMPLATE, write_adapter, write_prompts, write_tiny_llama

REWARDS = '''"""Rewards of a test: of a completion, or of a completion and its prompt."""


def brevity(prompts, completions):
    return [-sum(map(ord, c)) / 100 for c in completions]


def vowels(prompts, completions):
    return [sum(c.count(v) for v in "aeiou") / (1 + len(c)) + 0.001 * len(p) for p, c in zip(prompts, completions)]
'''


def write_soup(folder: Path, policies: tuple[str, ...] = ("brief", "open")) -> Path:
    """Write the files that `soup_spec` names: sft/, policies/NAME/, prompts/, rewards.py."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_llama(folder / "sft")
    write_prompts(folder / "prompts")
    for seed, name in enumerate(policies):
        write_adapter(folder / "policies" / name, folder / "sft", seed=seed + 1)
    (folder / "rewards.py").write_text(REWARDS)
    return folder


def soup_spec(**changes: Any) -> dict[str, Any]:
    """Return a spec of a plain soup and LiNeS with controls: three points along lambda, all scored on test."""
    soup = {"method": "weighted", "lambdas": 3}
    spec: dict[str, Any] = {
        "name": "small-soup",
        "backbone": {"family": "causal", "model": "sft"},
        "base": "sft",
        "experts": {"brief": "policies/brief", "open": "policies/open"},
        "generation": {
            "prompts": {"source": "prompts", "template": TEMPLATE},
            "max_new_tokens": 6,
            "batch_size": 4,
        },
        "tasks": {"brief": "rewards.py:brevity", "open": "rewards.py:vowels"},
        "arms": {
            "soup": {"merge": soup, "test": "every"},
            "LiNeS": {
                "merge": soup,
                "scaling": {"function": "linear", "alpha": 1.0, "beta": 1.0},
                "test": "every",
            },
        },
        "controls": ["uniform", "reversed"],
        "resources": {"pool": "local"},
    }
    return {**spec, **changes}


def write_soup_spec(folder: Path, **changes: Any) -> Path:
    """Write the spec to a file next to the files it names."""
    path = folder / f"{changes.get('name', 'small-soup')}.yaml"
    path.write_text(yaml.safe_dump(soup_spec(**changes), sort_keys=False))
    return path
