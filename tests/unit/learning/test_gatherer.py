"""Proves that what methods need is computed once, kept under a key of all it depends on, and reported with its cost."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from damage import flip
from learning_parts import Embedded
from safetensors.torch import load_file, save_file

from pipeline.checkpoints.lazy import StoredTensors
from pipeline.learning.coefficients import RULES, LearningSettings, learn
from pipeline.learning.gatherer import Gatherer, by_block
from pipeline.learning.inputs import overwrite
from pipeline.learning.statistics import fisher
from pipeline.merging.methods import METHODS
from pipeline.parameters import resolve
from pipeline.recipe import Recipe
from tasks.base import LayerMap, NonFiniteOutput

SHORT = {"steps": 2, "batch_size": 4}
NEEDY = {**dict.fromkeys(("fisher", "regmean", "regmean_pp"), {"samples": 4}), "adamerging": SHORT, "atlas": SHORT}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path_factory.mktemp("decoded")))
        yield Embedded.load("mnist", "fashion")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _own_cache: None) -> Path:
    monkeypatch.setenv("LINES_SWEEP_CACHE", str(tmp_path))
    return tmp_path / "statistics"


def gatherer(embedded: Embedded, **changes: object) -> Gatherer:
    identity = replace(embedded.identity, **changes)
    return Gatherer(embedded.spec, embedded.backbone, embedded.tasks, identity)


def gather(made: Gatherer, embedded: Embedded, method: str, weights=(1, 1), **params):
    params = resolve(METHODS[method].parameters, NEEDY[method] | params)
    return made(method, embedded.experts, weights, params)


def count(files: Path) -> int:
    return len(list(files.glob("*.safetensors")))


def test_every_method_that_needs_something_is_covered() -> None:
    assert {name for name, method in METHODS.items() if method.needs} == NEEDY.keys()


@pytest.mark.parametrize("method", NEEDY)
class TestGatherer:
    def test_gives_each_expert_what_the_method_combines(self, embedded: Embedded, files: Path, method: str) -> None:
        found = gather(gatherer(embedded), embedded, method)
        experts = replace(embedded.experts, statistics=found)
        params = resolve(METHODS[method].parameters, NEEDY[method])
        combined = METHODS[method].combine(experts, (1, 1), params)
        assert combined.keys() == embedded.experts.deltas[0].keys()
        assert all(bool(t.isfinite().all()) and t.dtype == torch.float32 for t in combined.values())

    def test_another_worker_reads_what_the_first_has_computed(
        self, embedded: Embedded, files: Path, method: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = gatherer(embedded), gatherer(embedded)
        once = gather(first, embedded, method)
        written = {path: path.stat().st_mtime_ns for path in files.glob("*.safetensors")}
        again = gather(second, embedded, method)
        assert {path: path.stat().st_mtime_ns for path in files.glob("*.safetensors")} == written
        assert all(torch.equal(a[n], b[n]) for a, b in zip(once, again, strict=True) for n in a)
        recipe = Recipe.make(method, params=NEEDY[method])
        assert first.note(recipe) == second.note(recipe) and first.note(recipe)["seconds"] > 0

    def test_an_expert_of_weight_0_has_no_part(self, embedded: Embedded, files: Path, method: str) -> None:
        made = gatherer(embedded)
        found = gather(made, embedded, method, (0, 1))
        assert len(found[0]) == 0 and len(found[1]) > 0
        assert list(
            made.note(Recipe.make(method, weights=(0, 1), params=NEEDY[method])).get("coefficients", ["fashion"])
        ) == ["fashion"]


@pytest.mark.parametrize("method", ["fisher", "regmean_pp", "adamerging"])  # one of each way of gathering
def test_data_checkpoints_and_numerics_are_in_the_key(embedded: Embedded, files: Path, method: str) -> None:
    identity, experts = embedded.identity, ("mnist", "fashion")
    other = [
        {"numerics": "other"},
        {"checkpoints": {**identity.checkpoints, "base": "other"}},
        {"checkpoints": {**identity.checkpoints, **dict.fromkeys(experts, "other")}},
        {"tasks": {**identity.tasks, **dict.fromkeys(experts, ("other", 40, 10))}},
        {"tasks": {n: (data, 39, 10) for n, (data, _, _) in identity.tasks.items()}},
    ]
    gather(gatherer(embedded), embedded, method)
    each = count(files)
    for i, changes in enumerate(other):
        gather(gatherer(embedded, **changes), embedded, method)
        assert count(files) == (i + 2) * each, changes
    gather(gatherer(embedded, tasks={n: (d, v, 99) for n, (d, v, _) in identity.tasks.items()}), embedded, method)
    assert count(files) == (len(other) + 1) * each, "test data have no part in it"


def test_statistics_are_those_of_the_expert_on_its_own_task(embedded: Embedded, files: Path) -> None:
    """Not of the base, nor of what the module held before."""
    found = gather(gatherer(embedded), embedded, "fisher")
    for i, name in enumerate(("mnist", "fashion")):
        overwrite(
            embedded.backbone,
            embedded.experts.base,
            [(embedded.experts.deltas[i], dict.fromkeys(embedded.experts.base, 1.0))],
        )
        expected = fisher(embedded.backbone, embedded.tasks[name], 4)
        assert all(torch.equal(found[i][n], expected[n]) for n in expected)


def test_merges_that_share_experts_share_their_statistics(embedded: Embedded, files: Path) -> None:
    gather(gatherer(embedded), embedded, "fisher", (1, 0))
    gather(gatherer(embedded), embedded, "fisher")
    assert count(files) == 2
    gather(gatherer(embedded), embedded, "fisher", samples=5)
    assert count(files) == 4


def test_the_note_holds_cost_and_coefficients_by_block(embedded: Embedded, files: Path) -> None:
    made = gatherer(embedded)
    found = gather(made, embedded, "adamerging", granularity="layer")
    note = made.note(Recipe.make("adamerging", params={**SHORT, "granularity": "layer"}))
    assert note.keys() == {"seconds", "peak_bytes", "coefficients"} and note["coefficients"].keys() == {
        "mnist",
        "fashion",
    }
    row = note["coefficients"]["fashion"]
    assert len(row) == 9 and row[0] == pytest.approx(found[1]["proj"].item(), abs=1e-5)
    assert row[8] == pytest.approx(found[1]["transformer.resblocks.7.ln_1.weight"].item(), abs=1e-5)


def test_a_recipe_that_needs_nothing_has_no_note(embedded: Embedded) -> None:
    assert gatherer(embedded).note(Recipe.make("sum")) == {} == gatherer(embedded).note(Recipe.make("zero"))


def test_blocks_are_told_by_the_mean_of_their_matrices() -> None:
    shapes = {"a": torch.Size([2, 2]), "b": torch.Size([4, 2]), "bias": torch.Size([2]), "out": torch.Size([2])}
    values = {"a": 0.2, "b": 0.4, "bias": 9.0, "out": 0.5}
    layers = LayerMap({"a": 0, "b": 0, "bias": 0}, 1)
    assert by_block({n: torch.tensor(v) for n, v in values.items()}, shapes, layers) == pytest.approx([0.5, 0.3])


def test_tensors_of_a_file_are_read_one_by_one(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    save_file(state, tmp_path / "x.safetensors")
    file = StoredTensors([tmp_path / "x.safetensors"])
    assert set(file) == set(state) and len(file) == 2 and "c" not in file
    assert all(torch.equal(file[n], load_file(tmp_path / "x.safetensors")[n]) for n in state)
    with pytest.raises(KeyError, match="c"):
        file["c"]


def test_what_diverged_is_not_learned_again_for_the_next_shard(
    embedded: Embedded, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[str] = []
    monkeypatch.setattr("pipeline.learning.gatherer.learn", lambda *args: learned.append("") or learn(*args))
    made = gatherer(embedded)
    for _ in range(2):
        with pytest.raises(NonFiniteOutput, match="NaN or infinite gradient at step 1"):
            gather(made, embedded, "atlas", lr=1e30)
    assert len(learned) == 1 and count(files) == 0
    gather(made, embedded, "atlas")
    assert len(learned) == 2, "another recipe is another matter"


def test_a_task_that_experts_share_counts_once(embedded: Embedded, files: Path) -> None:
    """As for a soup: the same coefficients as from one task alone."""
    shared = embedded.spec.model_copy(update={"targets": {"fashion": "mnist"}})
    found = gather(Gatherer(shared, embedded.backbone, embedded.tasks, embedded.identity), embedded, "atlas")
    settings = LearningSettings(**resolve(METHODS["atlas"].parameters, NEEDY["atlas"]))
    task = embedded.tasks["mnist"]
    expected = learn(embedded.backbone, [task], embedded.experts, RULES["atlas"], settings)
    assert [{n: c.item() for n, c in row.items()} for row in found] == expected


def test_a_damaged_statistic_is_computed_again(
    embedded: Embedded, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    once = [{n: t.clone() for n, t in part.items()} for part in gather(gatherer(embedded), embedded, "fisher")]
    for path in files.glob("*.safetensors"):
        flip(path, -1, bit=6)
    again = gather(gatherer(embedded), embedded, "fisher")
    assert all(torch.equal(a[n], b[n]) for a, b in zip(once, again, strict=True) for n in a)
    assert caplog.text.count("it is made again") == len(embedded.experts.deltas)
