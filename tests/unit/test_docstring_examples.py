"""Proves that the examples in docstrings give the results that they show."""

import doctest
import importlib

import pytest

#: Modules with examples; add yours.
MODULES = [
    "deploy.site.fields",
    "deploy.site.repository",
    "lines_sweep.merging",
    "pipeline.checkpoints.blocks",
    "pipeline.checkpoints.checkpoint",
    "pipeline.checkpoints.files",
    "pipeline.cluster.capacity",
    "pipeline.cluster.jobs.client",
    "pipeline.merging.scaling",
    "pipeline.merging.task_vectors",
    "pipeline.parameters",
    "pipeline.plan.plan",
    "pipeline.plan.soups",
    "pipeline.recipe",
    "pipeline.records.gate",
    "pipeline.spec.generation",
    "pipeline.spec.load",
    "pipeline.spec.repeat",
    "search.greedy",
    "search.intervals",
    "search.names",
    "search.objectives",
    "search.pareto",
    "search.sampling",
    "search.significance",
    "search.space",
    "search.winners_curse",
    "tasks.base",
    "tasks.embedded",
    "tasks.files.sources",
    "tasks.language.rewards.loading",
    "tasks.plugins",
    "tasks.registry",
    "tasks.stats",
    "tasks.vision.classification",
    "tasks.vision.images",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert attempted and not failed
