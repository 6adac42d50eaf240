"""Proves that the specs of Figure 4 and of its small twin are valid, and that training and sweep agree."""

from pathlib import Path

import pytest

from pipeline.plan.plan import make_plan
from pipeline.spec.load import load_spec
from pipeline.train.ppo.spec import load_ppo_spec, runs_of

EXAMPLES = Path(__file__).parents[3] / "examples"
PAIRS = {
    "paper": ("ppo-reddit.yaml", "figure4.yaml", "runs/paper-ppo-reddit"),
    "rewarded-soups": ("ppo.yaml", "soups.yaml", "runs/rewarded-soups/models"),
}


@pytest.mark.parametrize("folder", PAIRS)
def test_training_and_sweep_agree(folder: str) -> None:
    training, sweep, models = PAIRS[folder]
    ppo, soups = load_ppo_spec(EXAMPLES / folder / training), load_spec(EXAMPLES / folder / sweep)
    assert soups.base == soups.backbone.model == f"{models}/sft"
    assert soups.experts == {run.name: f"{models}/policies/{run.name}" for run in runs_of(ppo)}
    assert soups.generation is not None
    theirs, ours = ppo.prompts, soups.generation.prompts
    assert (theirs.source, theirs.template, theirs.max_source_tokens) == (
        ours.source,
        ours.template,
        ours.max_source_tokens,
    )
    assert soups.generation.max_new_tokens == ppo.max_new_tokens
    rewards = {run.name: ppo.rewards[run.reward] for run in runs_of(ppo)}
    assert {n: (r.source, r.options) for n, r in rewards.items()} == {
        n: (t.source, t.options) for n, t in soups.tasks.items()
    }


def test_figure_4_is_as_the_paper_says() -> None:
    ppo = load_ppo_spec(EXAMPLES / "paper" / "ppo-reddit.yaml")
    assert (ppo.lora.r, ppo.lora.alpha, ppo.lora.dropout) == (64, 128, 0.05)
    assert ppo.sft is not None and ppo.sft.steps * ppo.sft.batch_size == 2 * 14_900
    assert all(1.9 < r.settings.updates * r.settings.batch_size / 14_900 < 2 for r in runs_of(ppo))
    assert [entry.source for entry in ppo.rewards.values()] == ["reward/gpt2-summary", "reward/bart-faithful"]
    spec = load_spec(EXAMPLES / "paper" / "figure4.yaml")
    assert spec.generation is not None and spec.generation.prompts.limits["test"] == 1000
    found = {g.arm: [g.recipe(p) for p in g.space.grid()] for g in make_plan(spec).searched}
    assert [len(recipes) for recipes in found.values()] == [11, 11, 11, 11]
    lines = found["Rewarded Soups + LiNeS"]
    assert {(r.scaling, r.alpha, r.beta) for r in lines} == {("linear", 1, 1)}
