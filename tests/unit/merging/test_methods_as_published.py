"""Proves that methods give what their authors' formulas give, restated here in numpy over whole flattened vectors."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from merge_methods import combine
from numpy.typing import NDArray
from torch import Tensor

from pipeline.merging.methods.base import Experts
from pipeline.merging.methods.sparse import uniform

Array = NDArray[np.float64]
SHAPES = {"weight": (9, 12), "tall": (14, 6), "bias": (9,), "kernel": (2, 3, 2, 2)}


def draw(count: int, seed: int = 0, scale: float = 0.02) -> Experts:
    """Return experts of SHAPES whose entries are normal; a tenth of the first one's are 0."""
    generator = torch.Generator().manual_seed(seed)

    def one(size: float) -> dict[str, Tensor]:
        return {n: size * torch.randn(shape, generator=generator) for n, shape in SHAPES.items()}

    deltas = [one(scale * (i + 1)) for i in range(count)]
    deltas[0]["weight"][:, 0] = 0
    return Experts(deltas, one(1))


def wide(experts: Experts, name: str) -> list[Array]:
    return [delta[name].double().numpy() for delta in experts.deltas]


def flattened(experts: Experts) -> Array:
    return np.stack([np.concatenate([d[name].double().numpy().ravel() for name in SHAPES]) for d in experts.deltas])


def flat(vector: Mapping[str, Tensor]) -> Array:
    return np.concatenate([vector[name].double().numpy().ravel() for name in SHAPES])


def close(found: Tensor, expected: Array) -> bool:
    return bool(np.allclose(found.double().numpy(), expected, rtol=2e-5, atol=5e-6 * np.abs(expected).max()))


# --- Iso-CTS


def iso_cts(matrices: Sequence[Array], common: float) -> Array:
    """Fill matrices of singular vectors column by column, as algorithm 2 of Marczak et al. has it."""
    count, rank = len(matrices), min(matrices[0].shape)
    size = rank - round((rank - int(rank * common)) / count) * count
    own = (rank - size) // count
    u, s, v = np.linalg.svd(sum(matrices), full_matrices=False)
    left, values, right = np.zeros_like(u), np.zeros(rank), np.zeros_like(v)
    shared = u[:, :size]
    for i, matrix in enumerate(matrices):
        part = slice(i * own, (i + 1) * own)
        ui, si, vi = np.linalg.svd(matrix - shared @ shared.T @ matrix, full_matrices=False)
        left[:, part], values[part], right[part] = ui[:, :own], si[:own], vi[:own]
    left[:, count * own :], values[count * own :], right[count * own :] = shared, s[:size], v[:size]
    (p, _, q), (x, _, y) = (np.linalg.svd(m, full_matrices=False) for m in (left, right))
    return (p @ q) @ np.diag(np.full(rank, values.mean())) @ (x @ y)


@pytest.mark.parametrize(("count", "common"), [(2, 0.8), (3, 0.5), (3, 0.0), (3, 1.0), (1, 0.8)])
def test_iso_cts(count: int, common: float) -> None:
    experts = draw(count)
    found = combine("iso_cts", experts, common=common)
    for name in ("weight", "tall"):
        assert close(found[name], iso_cts(wide(experts, name), common)), name
    for name in ("bias", "kernel"):
        assert close(found[name], sum(wide(experts, name)) / count), name


def test_iso_cts_of_low_rank_experts_has_their_rank() -> None:
    """Directions within rounding of 0 are no directions: two experts of rank 1 give a matrix of rank 2."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(8, 1, generator=generator) @ torch.randn(1, 10, generator=generator) for _ in range(2)]
    values = torch.linalg.svdvals(combine("iso_cts", Experts([{"w": part} for part in parts]))["w"])
    assert values[:2].tolist() == pytest.approx([torch.linalg.svdvals(sum(parts))[:2].mean().item()] * 2, rel=1e-4)
    assert float(values[2:].max()) < 1e-5


# --- PCB-Merging


def clipped(rows: Array, low: float, high: float) -> Array:
    size, ordered = rows.shape[1], np.sort(rows, axis=1)
    return np.clip(rows, ordered[:, [int(size * low)]], ordered[:, [int(size * (1 - high) - 1)]])


def normalised(rows: Array) -> Array:
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    return (rows - low) / (high - low)


def pcb(vectors: Array, keep: float) -> Array:
    """Compute over (experts, entries), as the function PCB_merge of the authors' code."""
    magnitudes = clipped(np.abs(vectors), 1e-4, 1e-4)
    scores = np.exp(len(vectors) * normalised(magnitudes) ** 2) * np.tanh(vectors * vectors.sum(0))
    shares = normalised(clipped(scores, 1 - keep / 100, 0))
    return (np.sign(vectors) * magnitudes * shares).sum(0) / np.maximum(shares.sum(0), 1e-12)


@pytest.mark.parametrize(("count", "keep"), [(3, 10), (2, 40), (4, 95), (1, 100)])
def test_pcb(count: int, keep: float) -> None:
    """With 95 percent the least score is below 0."""
    experts = draw(count, scale=0.3)
    whole, expected = flat(combine("pcb", experts, keep=keep)), pcb(flattened(experts), keep)
    assert whole == pytest.approx(expected, rel=1e-4, abs=1e-6)


# --- EMR-Merging


def emr(experts: Experts, row: int) -> dict[str, Array]:
    """Elect, mask and rescale, as the function emr_merge of the authors' code: means of parameters are added up."""
    found, own, other = {}, 0.0, 0.0
    for name in SHAPES:
        entries = np.stack(wide(experts, name))
        sign = np.where(entries.mean(0) > 0, 1, -1)
        unified = np.max(np.abs(entries) * (entries * sign > 0), axis=0) * sign
        found[name] = unified * (entries[row] * sign > 0)
        own += np.abs(entries[row]).mean()
        other += np.abs(found[name]).mean()
    return {name: part * (own / other) for name, part in found.items()}


@pytest.mark.parametrize(("count", "row"), [(3, 0), (3, 2), (2, 1), (1, 0)])
def test_emr(count: int, row: int) -> None:
    experts = draw(count)
    found, expected = combine("emr", experts, expert=row), emr(experts, row)
    assert all(close(found[name], expected[name]) for name in SHAPES)
    assert count > 1 or all(torch.allclose(found[n], experts.deltas[0][n]) for n in SHAPES)


def test_emr_takes_the_place_in_the_run() -> None:
    experts = draw(3)
    pair = Experts([experts.deltas[0], experts.deltas[2]], experts.base)
    found, expected = combine("emr", experts, (1, 0, 1), expert=2), combine("emr", pair, expert=1)
    assert all(torch.equal(found[name], expected[name]) for name in SHAPES)
    with pytest.raises(ValueError, match="the place of an expert that takes part, one of 0, 2, got 1"):
        combine("emr", experts, (1, 0, 1), expert=1)


# --- WUDI-Merging


def wudi(matrices: Sequence[Array], steps: int, rate: float) -> Array:
    """Take Adam's steps (Kingma & Ba, algorithm 1) down the loss of the authors' code, term by term."""
    merged = sum(matrices)
    mean, square = np.zeros_like(merged), np.zeros_like(merged)
    for step in range(1, steps + 1):
        gradient = sum(2 * (merged - m) @ m.T @ m / np.square(m).sum() for m in matrices)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        merged = merged - rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return merged


def test_wudi() -> None:
    experts = draw(3)
    found = combine("wudi", experts, steps=40, lr=1e-3)
    for name in ("weight", "tall"):
        expected = wudi(wide(experts, name), 40, 1e-3)
        assert np.allclose(found[name].numpy(), expected, atol=1e-5), name
        assert np.abs(expected - sum(wide(experts, name))).max() > 0.02
    assert not found["bias"].any() and not found["kernel"].any()


# --- KnOTS


def knots(experts: Experts, keep: float, mean: bool, kept: Mapping[str, Array]) -> dict[str, Array]:
    """Align, drop, trim, elect and merge over one flattened vector, as the authors' SVDMerger and ties_masking."""
    bases, rows = {}, []
    for name in SHAPES:
        entries = np.stack(wide(experts, name))
        bases[name] = np.eye(1)
        if entries.ndim == 3:
            u, s, v = np.linalg.svd(np.concatenate(list(entries), axis=1), full_matrices=False)
            bases[name] = u[:, s > 1e-5]
            entries = np.stack(np.split((s[:, None] * v)[s > 1e-5], len(entries), axis=1))
        rows.append((entries * kept.get(name, 1)).reshape(len(entries), -1))
    vectors = np.concatenate(rows, axis=1)
    size = vectors.shape[1]
    least = np.sort(np.abs(vectors), axis=1)[:, [size - int(size * keep / 100) - 1]]
    trimmed = np.where(np.abs(vectors) >= least, vectors, 0)
    sign = np.sign(trimmed.sum(0))
    sign[sign == 0] = np.sign(sign.sum())
    chosen = np.where(np.where(sign > 0, trimmed > 0, trimmed < 0), trimmed, 0)
    merged = chosen.sum(0) / (np.maximum((chosen != 0).sum(0), 1) if mean else 1)
    parts = dict(zip(SHAPES, np.split(merged, np.cumsum([r.shape[1] for r in rows])[:-1]), strict=True))
    return {
        name: bases[name] @ part.reshape(bases[name].shape[1], -1) if len(SHAPES[name]) == 2 else part
        for name, part in parts.items()
    }


@pytest.mark.parametrize(("count", "keep", "aggregate"), [(3, 20, "mean"), (2, 60, "sum")])
def test_knots(count: int, keep: float, aggregate: str) -> None:
    experts = draw(count)
    found = combine("knots", experts, keep=keep, aggregate=aggregate)
    expected = knots(experts, keep, aggregate == "mean", {})
    assert all(close(found[name].reshape(expected[name].shape), expected[name]) for name in SHAPES)


def test_knots_drops_coordinates_first() -> None:
    experts = draw(2)
    sizes = {"weight": (9, 12), "tall": (12, 6), "bias": (9,), "kernel": (2, 3, 2, 2)}
    kept = {
        name: np.stack([(uniform(5, i, name, torch.Size(size)) >= 0.25).double().numpy() / 0.75 for i in range(2)])
        for name, size in sizes.items()
    }
    found, expected = combine("knots", experts, keep=50, drop=0.25, seed=5), knots(experts, 50, True, kept)
    assert all(close(found[name].reshape(expected[name].shape), expected[name]) for name in SHAPES)


def test_knots_counts_only_what_adapters_change() -> None:
    """What is 0 in all experts would raise the number of coordinates that stay."""
    left = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, 1.5])
    first, second = torch.outer(left, torch.tensor([1.0, 3.0])), torch.outer(left.flip(0), torch.tensor([-2.0, 0.5]))
    base = {"w": torch.zeros(6, 2), "other": torch.zeros(50, 50), "norm": torch.zeros(9)}
    experts = Experts([base | {"w": first}, base | {"w": second}], base)
    found = combine("knots", experts, keep=25)
    assert torch.linalg.matrix_rank(found["w"]) <= 2 and bool(found["w"].any())
    assert all(torch.allclose(found[n], combine("knots", experts, keep=100)[n]) for n in ("other", "norm"))
    small = Experts([{"w": first}, {"w": second}])
    assert torch.equal(found["w"], combine("knots", small, keep=25)["w"])
