"""Proves that norms, angles, sign conflicts and subspaces of task vectors are those of their definitions, by block."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.inspection.rows import EXPERTS, PAIRS, expert_rows, pair_rows
from pipeline.inspection.subspaces import overlaps, subspace
from pipeline.inspection.vectors import OpenedExperts
from pipeline.inspection.weight_tables import weight_figures, weight_tables
from pipeline.inspection.weights import Weights, measure_weights
from pipeline.merging import parameter_pieces
from pipeline.merging.low_rank import LowRank, LowRankDelta
from tasks.base import LayerMap

MAP = LayerMap({"b.0.w": 0, "b.1.w": 1, "b.2.w": 2, "b.2.bias": 2}, 3)


def measured(base: Mapping[str, Tensor], experts: Mapping[str, Mapping[str, Tensor]], rank: int = 1) -> Weights:
    shapes = {name: tensor.shape for name, tensor in base.items()}
    return measure_weights(OpenedExperts(MAP, shapes, base, experts), rank, lambda what, done, total: None)


def test_known_norms_cosines_conflicts_and_overlaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parameter_pieces, "PIECE", 3)  # tensors are cut
    base = {"head": torch.tensor([2.0]), **{n: torch.ones(2, 2) for n in ("b.0.w", "b.1.w", "b.2.w")}}
    base["b.2.bias"] = torch.zeros(2)
    zero = {name: torch.zeros_like(tensor) for name, tensor in base.items()}
    first = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    a = {**zero, "b.0.w": first, "b.1.w": first, "b.2.bias": torch.tensor([4.0, 0.0])}
    b = {**zero, "b.0.w": -first, "b.1.w": torch.tensor([[0.0, 0.0], [0.0, 4.0]]), "head": torch.tensor([1.0])}
    found = measured(base, {e: {n: base[n] + d[n] for n in base} for e, d in (("a", a), ("b", b))})
    assert found.norm().tolist() == pytest.approx([34**0.5, 26**0.5])
    assert found.relative(slice(0, 1)).tolist() == [0, 0.5]  # ||head|| is 2
    assert found.relative(slice(1, 2)).tolist() == [1.5, 1.5]  # ||ones(2, 2)|| is 2
    assert found.cosines()[0, 1] == pytest.approx(-9 / (34 * 26) ** 0.5)
    assert [found.cosines(slice(g, g + 1))[0, 1] for g in (1, 2)] == pytest.approx([-1, 0])
    assert found.sign_conflicts()[0, 1] == 1  # one entry is changed by both, to opposite sides
    assert found.sign_conflicts(slice(2, 3))[0, 1].item() != found.sign_conflicts(slice(2, 3))[0, 1].item()  # NaN: none
    assert [found.overlap[g, 0, 1] for g in (1, 2)] == pytest.approx([1, 0])
    assert np.isnan(found.overlap[[0, 3], 0, 1]).all()  # no block, and b does not change the last
    rows = pair_rows(found)
    assert [row["part"] for row in rows] == ["all", "outside", "1", "2", "3"] and rows[-1]["cosine"] is None
    assert set(rows[0]) == set(PAIRS.names) and set(expert_rows(found)[0]) == set(EXPERTS.names)
    assert [len(table.rows) for table in weight_tables(found)] == [2, 1, 4] and len(weight_figures(found)) == 2


@pytest.mark.filterwarnings("error")
def test_an_adapter_is_measured_as_the_whole_model_that_it_makes() -> None:
    torch.manual_seed(0)
    base = {name: torch.randn(12, 10) for name in ("head", "b.0.w", "b.2.w")}
    base["b.1.w"] = torch.randn(12, 10, 2, 2)  # a convolution, which no adapter changes
    base["b.2.bias"] = torch.randn(2)
    shapes = {name: tensor.shape for name, tensor in base.items()}
    low = [LowRankDelta({n: LowRank(torch.randn(12, 2), torch.randn(2, 10)) for n in ("b.0.w", "b.2.w")}, shapes)]
    low += [LowRankDelta({"b.0.w": LowRank(torch.randn(12, 3), torch.randn(3, 10))}, shapes)]
    adapters = measured(base, dict(zip("ab", low, strict=True)), rank=4)
    whole = measured(base, {e: {n: base[n] + d[n] for n in base} for e, d in zip("ab", low, strict=True)}, rank=4)
    for name in ("base", "products", "overlap", "chance", "energy"):
        np.testing.assert_allclose(getattr(adapters, name), getattr(whole, name), rtol=1e-4, atol=1e-4)
    assert adapters.energy[1].tolist() == pytest.approx([1, 1])  # 2 and 3 directions have it all
    assert np.isnan(adapters.overlap[2:, 0, 1]).all()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = CliRunner().invoke(app, ["inspect", "examples/demo.yaml", "--out", str(tmp_path / "file")])
    assert found.exit_code == 2 and "file is not a folder: give another --out" in " ".join(found.output.split())


def test_leading_directions_of_a_large_matrix_are_those_of_an_exact_decomposition() -> None:
    u, v = (torch.linalg.qr(torch.randn(n, 8, generator=torch.Generator().manual_seed(n)))[0] for n in (300, 280))
    matrix = u @ torch.diag(torch.arange(8, 0, -1).float()) @ v.T
    before = torch.random.get_rng_state()
    found = subspace(matrix, 4)
    assert found is not None and torch.equal(torch.random.get_rng_state(), before)
    assert found.energy == pytest.approx((64 + 49 + 36 + 25) / 204, rel=1e-4)
    exact = subspace(LowRank(u[:, :4], v[:, :4].T), 4)
    assert overlaps([found, exact, None])[:2, :2].ravel().tolist() == pytest.approx([1, 1, 1, 1], abs=1e-4)
    shifted = subspace(LowRank(u[:, 2:6], v[:, 2:6].T), 4)
    assert overlaps([exact, shifted])[0, 1] == pytest.approx(0.5, abs=1e-5)  # two of four directions


@pytest.mark.parametrize(("value", "message"), [(0.0, "experts.a: has the weights"), (np.nan, "experts.a: b.0.w: NaN")])
def test_experts_without_a_change_or_with_nan_are_named(value: float, message: str) -> None:
    base = {"b.0.w": torch.ones(2, 2)}
    with pytest.raises(ValueError, match=message):
        measured(base, {"a": {"b.0.w": base["b.0.w"] + value}})
