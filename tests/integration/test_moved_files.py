"""Proves that workers which read a run's files at other places hold what the run says, path names in it or not."""

from pathlib import Path

import pytest
from small_soup import write_soup, write_soup_spec

from pipeline.cluster.files.bundle import PIECE, Stream, content_digest, pack, unpack
from pipeline.cluster.files.spec_files import moved, named_files
from pipeline.spec.load import load_spec
from pipeline.spec.run import RunSpec
from pipeline.workers.completion_worker import make_policy_worker
from pipeline.workers.reward_worker import make_scorer


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    """Its architecture is a path too, which is a part of a run's identity."""
    return load_spec(write_soup_spec(write_soup(tmp_path / "driver")))


def at_another_place(spec: RunSpec, node: Path) -> RunSpec:
    places = {}
    for i, (place, named) in enumerate(named_files(spec).items()):
        parcel = pack(Path(named.path), named.kind, named.below)
        pieces = (Stream(parcel).read(start) for start in range(0, parcel.size, PIECE))
        unpack(parcel, content_digest(parcel), pieces, node / str(i))
        places[place] = f"{named.prefix}{node / str(i) / parcel.name}{named.suffix}"
    return moved(spec, places)


def test_policies_and_rewards_are_those_of_the_run(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    there = at_another_place(spec, tmp_path / "node")
    first = make_policy_worker("w", spec).info()
    scored = {task: mark for task, (mark, _, _) in first.tasks.items()}
    (tmp_path / "driver").rename(tmp_path / "gone")
    assert make_policy_worker("w", spec, fetch=lambda asked: there).info() == first
    for task in spec.tasks:
        make_scorer("s", spec, task, scored[task], fetch=lambda asked: there)


def test_rewards_of_other_prompts_are_refused(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    there = at_another_place(spec, tmp_path / "node")
    assert there.generation is not None
    (Path(there.generation.prompts.source) / "val.jsonl").write_text('{"source": "another one"}\n' * 4)
    scored = {task: mark for task, (mark, _, _) in make_policy_worker("w", spec).info().tasks.items()}
    with pytest.raises(ValueError, match="not those that were prepared"):
        make_scorer("s", spec, "brief", scored["brief"], fetch=lambda asked: there)
