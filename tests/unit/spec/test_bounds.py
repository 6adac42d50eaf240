"""Proves that every whole number of a spec has a bound, so that none can fill the memory or take for ever."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.spec.run import RunSpec
from pipeline.train.finetune.spec import FinetuneSpec
from pipeline.train.ppo.spec import PpoSpec

#: The seed of a run is only hashed, so it may be any number.
UNBOUNDED = {"RunSpec.seed"}


def unbounded(schema: Any, path: str) -> Iterator[str]:
    """Yield the paths of whole numbers without a highest value."""
    if isinstance(schema, list):
        for part in schema:
            yield from unbounded(part, path)
    if isinstance(schema, dict):
        if schema.get("type") == "integer" and not schema.keys() & {"maximum", "exclusiveMaximum"}:
            yield path
        for key, part in schema.items():
            inner = key if key not in ("properties", "anyOf", "oneOf", "$defs", "items", "prefixItems") else ""
            yield from unbounded(part, ".".join(filter(None, (path, inner))))


@pytest.mark.parametrize("kind", [RunSpec, FinetuneSpec, PpoSpec])
def test_every_whole_number_has_a_highest_value(kind: type[BaseModel]) -> None:
    assert set(unbounded(kind.model_json_schema(), kind.__name__)) - UNBOUNDED == set()
