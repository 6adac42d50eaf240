"""Proves that statistics of batches are averaged, never extrapolated, so that a merged ResNet's logits are finite."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.checkpoints.merge_files import merge_files
from pipeline.checkpoints.prepared_merge import MergeSources
from pipeline.merging.methods import METHODS
from pipeline.recipe import Recipe
from tasks.batch_norm import is_statistic
from tests.support.tiny_resnet import TinyResNet, trained

BLOCKS = r"layers\.(\d+)\."
MEAN, VAR = "layers.1.bn.running_mean", "stem.1.running_var"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> MergeSources:
    folder = tmp_path_factory.mktemp("resnets")
    for place in range(3):
        save_file(trained(place).state_dict(), folder / f"{place}.safetensors")
    base, *experts = (str(folder / f"{place}.safetensors") for place in range(3))
    return MergeSources(base, experts, blocks=BLOCKS)


def states(sources: MergeSources) -> list[dict[str, Tensor]]:
    return [load_file(source) for source in (sources.base, *sources.experts)]


def merge(sources: MergeSources, recipe: Recipe, out: Path) -> dict[str, Tensor]:
    merge_files(sources, recipe, out)
    return load_file(out)


def mixed(parts: list[dict[str, Tensor]], factors: tuple[float, ...], name: str) -> Tensor:
    return sum(f * part[name].double() for f, part in zip(factors, parts, strict=True)).float()


@pytest.mark.parametrize(
    ("recipe", "outside", "last"),
    [
        (Recipe.make("sum", "constant", "auto"), (0, 0.5, 0.5), (0, 0.5, 0.5)),
        (Recipe.make("average", "constant", 1), (0, 0.5, 0.5), (0, 0.5, 0.5)),
        (Recipe.make("sum", "linear", 0.1, 0.2), (0.8, 0.1, 0.1), (0.4, 0.3, 0.3)),
        (Recipe.make("sum", alpha=0.4, params={"component.norms": 0.5}), (0.2, 0.4, 0.4), (0.6, 0.2, 0.2)),
        (Recipe.make("sum", "linear", 1, 5), (0, 0.5, 0.5), (0, 0.5, 0.5)),
        (Recipe.make("average", "linear", -0.5, 0.9), (1, 0, 0), (0.6, 0.2, 0.2)),
        (Recipe.make("weighted", "constant", 1, 0, (0.6, 0.2)), (0.2, 0.6, 0.2), (0.2, 0.6, 0.2)),
        (Recipe.make("weighted", "constant", 1, 0, (-0.5, 0.0)), (1, 0, 0), (1, 0, 0)),
        (Recipe.make("single", "linear", 0.3, 0.7, (0, 1)), (0.7, 0, 0.3), (0, 0, 1)),
        (Recipe.make("ties", "constant", "auto"), (0, 0.5, 0.5), (0, 0.5, 0.5)),
        (Recipe.make("sum", "constant", "auto").followed_by([("norm_match", {})]), (0, 0.5, 0.5), (0, 0.5, 0.5)),
    ],
)
def test_a_statistic_is_a_convex_combination(
    sources: MergeSources, tmp_path: Path, recipe: Recipe, outside: tuple[float, ...], last: tuple[float, ...]
) -> None:
    found = merge(sources, recipe, tmp_path / "out.safetensors")
    parts = states(sources)
    assert torch.allclose(found[VAR], mixed(parts, outside, VAR), atol=1e-6)
    assert torch.allclose(found[MEAN], mixed(parts, last, MEAN), atol=1e-6)


@pytest.mark.parametrize("method", [n for n, m in METHODS.items() if not m.needs and n != "zero"])
def test_logits_are_finite_however_far_the_merge_goes(sources: MergeSources, tmp_path: Path, method: str) -> None:
    one = dict.fromkeys(("single", "nearswap", "arcee_fusion"), (0, 1))
    weights = (one | {"weighted": (2, -1.5)}).get(method, ())
    found = merge(sources, Recipe.make(method, "linear", 2, 1, weights), tmp_path / "out.safetensors")
    assert all(bool((t >= 0).all()) for n, t in found.items() if n.endswith("running_var"))
    module = TinyResNet()
    module.load_state_dict(found)
    assert bool(module.eval()(torch.randn(4, 3, 8, 8)).isfinite().all())


def test_statistics_take_no_part_in_the_method(sources: MergeSources, tmp_path: Path) -> None:
    """A threshold, alpha and the constants are those of the parameters alone, however large the variances are."""
    plain = merge(sources, Recipe.make("ties", "equal_norm:linear", "auto", 0.5), tmp_path / "plain.safetensors")
    large = []
    for place, state in enumerate(states(sources)):
        large.append(str(tmp_path / f"{place}.safetensors"))
        save_file({n: t * 1e6 if is_statistic(n) else t for n, t in state.items()}, large[-1])
    found = merge(
        MergeSources(large[0], large[1:], blocks=BLOCKS), Recipe.make("ties", "equal_norm:linear", "auto", 0.5),
        tmp_path / "large.safetensors",
    )  # fmt: skip
    assert all(torch.equal(found[n], t) for n, t in plain.items() if not is_statistic(n))


def test_coverage_counts_every_tensor_once(sources: MergeSources, tmp_path: Path) -> None:
    written = merge_files(sources, Recipe.make("sum", "linear", 1, 1), tmp_path / "out.safetensors")
    base = states(sources)[0]
    assert sum(part.tensors for part in written.coverage) == len(base)
    assert sum(part.parameters for part in written.coverage) == sum(t.numel() for t in base.values())
    by_what = {part.what: set(part.names) for part in written.coverage}
    assert by_what["averaged, as statistics of batches"] == {n for n in base if is_statistic(n)}
    assert by_what["no weights, so they stay the base's"] == {n for n in base if n.endswith("num_batches_tracked")}
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        stored = json.loads(file.metadata()["lines_sweep.coverage"])
    assert stored == [part.to_json() for part in written.coverage]
