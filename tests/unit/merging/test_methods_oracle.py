"""Proves the values that each merge method gives, equation 2 against the oracle's figures, and the errors of both."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import Experts, resolve_weights
from pipeline.merging.scaling import LayerSizes
from pipeline.merging.task_vectors import NamedTensors, layer_sizes, resolve_alpha, task_vector
from tasks.base import LayerMap

ORACLE = Path(__file__).parents[2] / "data" / "oracle"
VECTORS = [{"a": torch.tensor([1.0, -2.0])}, {"a": torch.tensor([4.0, 8.0])}, {"a": torch.tensor([-3.0, 0.0])}]


@pytest.fixture(scope="module")
def oracle_deltas() -> list[dict[str, Tensor]]:
    base = NamedTensors("base", load_file(ORACLE / "base.safetensors"))
    files = [ORACLE / f"finetuned_{i}.safetensors" for i in range(3)]
    return [task_vector(base, NamedTensors(f.name, load_file(f))) for f in files]


@pytest.mark.parametrize(
    ("method", "weights", "expected"),
    [
        ("zero", (1, 1, 1), [0, 0]),
        ("single", (0, 1, 0), [4, 8]),
        ("sum", (1, 1, 1), [2, 6]),
        ("sum", (1, 1, 0), [5, 6]),
        ("average", (1, 1, 0), [2.5, 3]),
        ("weighted", (0.5, 0.25, 0), [1.5, 1]),
    ],
)
def test_values(method: str, weights: tuple[float, ...], expected: list[float]) -> None:
    assert METHODS[method].combine(Experts(VECTORS), weights, {})["a"].tolist() == expected


def test_sum_equals_the_oracle_bit_for_bit(oracle_deltas: list[dict[str, Tensor]]) -> None:
    combined = METHODS["sum"].combine(Experts(oracle_deltas), (1, 1, 1), {})
    expected = load_file(ORACLE / "sum.safetensors")
    assert combined.keys() == expected.keys()
    assert all(torch.equal(combined[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("method", "weights", "message"),
    [
        ("single", (1, 1, 0), "single: takes one expert, got 2: choose by --expert"),
        ("single", (0, 0.5, 0), "single: weights select experts and must be 0 or 1"),
        ("sum", (1, 2, 1), "the method 'weighted' takes any"),
        ("average", (0, 0, 0), "average: weights must select at least one"),
    ],
)
def test_weights_that_a_method_cannot_use(method: str, weights: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        METHODS[method].check(weights, {})


def test_weights_default_to_one_each() -> None:
    assert resolve_weights((), 3) == (1, 1, 1)
    with pytest.raises(ValueError, match="one for each of 3 experts, got 2"):
        resolve_weights((1, 0), 3)


def test_alpha_of_a_plain_sum_equals_the_oracle(oracle_deltas: list[dict[str, Tensor]]) -> None:
    combined = METHODS["sum"].combine(Experts(oracle_deltas), (1, 1, 1), {})
    expected = json.loads((ORACLE / "oracle.json").read_text())["alpha_heuristic"]["sum"]
    assert resolve_alpha("auto", oracle_deltas, combined) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("keep", ["ties_k20_mean", "ties_k20_sum", "consensus_l0.4_k1", "consensus_l0.4_k2"])
def test_alpha_of_another_method_equals_the_oracle(keep: str, oracle_deltas: list[dict[str, Tensor]]) -> None:
    """tau_sum is the plain sum, whatever was trimmed, elected or masked in tau_MTL."""
    expected = json.loads((ORACLE / "oracle.json").read_text())["alpha_heuristic"][keep]
    combined = load_file(ORACLE / f"{keep}.safetensors")
    assert resolve_alpha("auto", oracle_deltas, combined) == pytest.approx(expected, rel=1e-6)


@given(st.integers(1, 5), st.floats(0.1, 10), st.sampled_from([("auto", 1), ("auto_l2", 2)]))
def test_alpha_by_its_definition(count: int, factor: float, norm: tuple[str, int]) -> None:
    word, order = norm
    deltas = [{"a": torch.tensor([1.0, -2.0]), "b": torch.full((2, 2), float(i))} for i in range(count)]
    merged = {"a": torch.tensor([factor, 0.0]), "b": torch.zeros(2, 2)}
    numerator = torch.cat([count * deltas[0]["a"].double(), torch.full((4,), float(sum(range(count)))).double()])
    expected = float(numerator.norm(order)) / (count * float(merged["a"].norm(order)))
    assert resolve_alpha(word, deltas, merged) == pytest.approx(expected, rel=1e-6)


def test_alpha_that_is_not_defined() -> None:
    zeros = {"a": torch.zeros(2)}
    with pytest.raises(ValueError, match="the combined task vector is 0 everywhere"):
        resolve_alpha("auto", VECTORS, zeros)
    with pytest.raises(ValueError, match="must be a number, 'auto' or 'auto_l2', got 'auot'"):
        resolve_alpha("auot", VECTORS, VECTORS[0])
    with pytest.raises(ValueError, match="at least one expert"):
        resolve_alpha("auto", [], VECTORS[0])


def test_task_vectors_are_float32_differences() -> None:
    base = NamedTensors("base.pt", {"w": torch.tensor([1.0], dtype=torch.bfloat16)})
    delta = task_vector(base, NamedTensors("expert.pt", {"w": torch.tensor([1.001], dtype=torch.float64)}))
    assert delta["w"].dtype == torch.float32
    assert delta["w"].item() == pytest.approx(0.001, rel=1e-3)


def test_another_architecture_is_refused_with_first_names() -> None:
    base = NamedTensors("base.pt", {f"layer{i}": torch.zeros(2) for i in range(6)})
    expert = NamedTensors("expert.pt", {"layer0": torch.zeros(3), "head": torch.zeros(1)})
    message = (
        "expert.pt: does not match base.pt: missing: layer1, layer2, layer3 and 2 more; not in base.pt: head; "
        "of another shape: layer0 (3,) instead of (2,)"
    )
    with pytest.raises(ValueError) as raised:
        task_vector(base, expert)
    assert str(raised.value) == message


def test_layer_sizes_count_parameters() -> None:
    tensors = {"stem": torch.zeros(2, 3), "b.0.w": torch.zeros(4), "b.1.w": torch.zeros(5), "b.1.v": torch.zeros(())}
    assert layer_sizes(LayerMap.from_pattern(tensors, r"b\.(\d+)\."), tensors) == LayerSizes(6, (4, 6))
