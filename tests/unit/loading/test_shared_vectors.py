"""Proves that workers of a machine share vectors of the same bits as their own, and read again what has changed."""

import gc
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_run import small_spec
from torch import Tensor

from pipeline.checkpoints.files import locate
from pipeline.loading import experts as reading
from pipeline.loading import shared_vectors
from pipeline.loading.experts import load_checkpoints
from pipeline.loading.shared_vectors import load_flat
from pipeline.merging.flat import Flat
from pipeline.spec.load import parse_spec
from pipeline.spec.run import RunSpec
from tasks.files.shared_memory import IS_AVAILABLE

CPU = torch.device("cpu")


def scaled(factor: float) -> dict[str, Tensor]:
    """Return the base with its image tower times a factor."""
    base = load_file(locate("embedded/base").weights[0])
    return {name: factor * tensor if name.startswith("visual.") else tensor for name, tensor in base.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(scaled(1.01), tmp_path / "expert.safetensors")
    return tmp_path / "expert.safetensors"


@pytest.fixture
def spec(path: Path) -> RunSpec:
    return parse_spec(small_spec({"digits": path}, tasks=["digits"], resources={"pool": "ray"}))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which each expert is added whose file is read."""
    names: list[str] = []
    read = reading._read
    monkeypatch.setattr(reading, "_read", lambda name, *rest: names.append(name) or read(name, *rest))
    return names


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def maps() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:lines-")


@pytest.mark.skipif(not IS_AVAILABLE, reason="the system has no memory files")
def test_the_second_worker_maps_what_the_first_has_read(spec: RunSpec, path: Path, reads: list[str]) -> None:
    model, experts = load_checkpoints(spec, CPU)
    (expert,) = experts
    del reads[:]
    workers = [(model, list(experts)) for model, experts in (load_flat(spec, CPU) for _ in range(2))]
    assert reads == ["digits"] and maps() == 4
    for its_model, (its_expert,) in workers:
        assert same(its_model.base.tensors, model.base.tensors) and its_model.fingerprint == model.fingerprint
        assert same(its_expert.delta, expert.delta) and its_expert.fingerprint == expert.fingerprint
        assert its_expert.name == "digits" and its_expert.statistics == {}
    path.write_bytes(path.read_bytes())  # other times: it may be another expert
    load_flat(spec, CPU)[1].__next__()
    assert reads == ["digits", "digits"]
    del workers, its_model, its_expert
    gc.collect()
    assert maps() == 0, "the memory is freed with its last user"


def test_a_single_worker_and_a_system_without_such_memory_keep_their_own(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (expert,) = load_checkpoints(spec, CPU)[1]
    single = spec.model_copy(update={"resources": spec.resources.changed(None, 1)})
    model, experts = load_flat(single, CPU)
    (own,) = experts
    assert same(own.delta, expert.delta) and maps() == 0 and isinstance(model.base.tensors, Flat)

    def refuse(key: str, create: object) -> None:
        raise OSError("no memory files")

    monkeypatch.setattr(shared_vectors, "shared_memory", refuse)
    with caplog.at_level(logging.WARNING):
        (own,) = load_flat(spec, CPU)[1]
    assert same(own.delta, expert.delta) and own.fingerprint == expert.fingerprint
    assert [r.message for r in caplog.records].count(
        "each worker of this machine keeps base and task vectors of its own: no memory files"
    ) == 1


def write(folder: Path, factor: float) -> str:
    """Write a checkpoint beside a link without its file, as in a snapshot of the hub's cache that was pruned."""
    folder.mkdir()
    save_file(scaled(factor), folder / "model.safetensors")
    (folder / "tokenizer.json").symlink_to(folder / "gone")
    return str(folder)


@pytest.mark.parametrize("stamped", [True, False])
def test_checkpoints_without_a_file_or_without_stamps_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamped: bool
) -> None:
    places = [write(tmp_path / str(factor), factor) for factor in (1.0, 1.01, 1.02)]
    if not stamped:
        monkeypatch.setattr(shared_vectors, "stamps", lambda paths: [])
    experts = {"digits": Path(places[1]), "letters": Path(places[2])}
    made = small_spec(experts, tasks=["digits"], targets=dict.fromkeys(experts, "digits"), resources={"pool": "ray"})
    models, (first, *_) = zip(*(load_flat(parse_spec(made | {"base": base}), CPU) for base in places[:2]), strict=True)
    assert not same(models[0].base.tensors, models[1].base.tensors)
    digits, letters = first
    assert not same(digits.delta, letters.delta) and digits.fingerprint != letters.fingerprint
