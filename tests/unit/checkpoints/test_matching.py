"""Proves that experts with other prefixes, heads, vocabularies and buffers give the merge of plain ones."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from merge_command import merge_sources, merge_states_of, output, save
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Tensor]
W = "attention.self.query.weight"
OPTIONS = ("--method=ties", "--alpha=0.5", "--beta=0.5")


def model(seed: int, base: State | None = None, vocabulary: int = 7) -> State:
    """A bare model of three blocks and an embedding; an expert is near its base."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"embeddings.weight": (vocabulary, 4), **{f"encoder.layer.{i}.{W}": (4, 4) for i in range(3)}, "norm": (4,)}
    drawn = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    return {n: (base[n] if base and base[n].shape == t.shape else 0) + t for n, t in drawn.items()}


BASE = model(0)
EXPERTS = model(1, BASE), model(2, BASE)
HEAD = {"classifier.weight": torch.ones(2, 4), "classifier.bias": torch.ones(2)}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> State:
    """The merge of the plain models."""
    folder = tmp_path_factory.mktemp("plain")
    assert merge_states_of(folder, BASE, *EXPERTS, options=OPTIONS)[0] == 0
    return output(folder)


def assert_equal(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


WRAPPED: dict[str, Callable[[State], dict[str, object]]] = {
    "plain": lambda s: {**s},
    "data parallel": lambda s: {**prefixed("module.", s)},
    "compiled": lambda s: {**prefixed("_orig_mod.", s)},
    "compiled data parallel": lambda s: {**prefixed("module._orig_mod.", s)},
    "compiled blocks": lambda s: {n.replace(W, f"_orig_mod.{W}"): t for n, t in s.items()},
    "lightning": lambda s: {"state_dict": prefixed("net.", s), "epoch": 3},
    "averaged": lambda s: {**prefixed("module.", s), "n_averaged": torch.tensor(5)},
    "averages besides": lambda s: {"state_dict": {**prefixed("model.", s), **prefixed("ema_model.", BASE)}},
    "deepspeed": lambda s: {"module": prefixed("module.", s)},
    "the model's prefix": lambda s: {**prefixed("bert.", s)},
    "a mask and positions": lambda s: {
        **s,
        "attn_mask": torch.full((2, 2), -math.inf),
        "position_ids": torch.arange(7),
    },
}


@pytest.mark.parametrize("how", WRAPPED)
def test_wrapped_experts_give_the_tensors_of_plain_ones(tmp_path: Path, plain: State, how: str) -> None:
    status, printed = merge_states_of(tmp_path, BASE, *map(WRAPPED[how], EXPERTS), options=OPTIONS)
    assert status == 0, printed
    assert_equal(output(tmp_path), plain)
    assert ("names are matched with the base's" in printed) == (how not in ("plain", "a mask and positions"))
    assert ("are averaged copies and left out" in printed) == (how == "averages besides")


@pytest.mark.parametrize("prefix", ["module.", "bert.", "model."])
@pytest.mark.parametrize("other", ["", "net."])
def test_the_base_keeps_its_names(tmp_path: Path, plain: State, prefix: str, other: str) -> None:
    experts = [prefixed(other, expert) for expert in EXPERTS]
    status, printed = merge_states_of(tmp_path, prefixed(prefix, BASE), *experts, options=OPTIONS)
    assert status == 0, printed
    assert_equal(output(tmp_path), prefixed(prefix, plain))
    assert f"names are matched with the base's ({other}embeddings.weight is {prefix}embeddings.weight)" in printed


def test_heads_of_base_and_experts(tmp_path: Path, plain: State) -> None:
    """The base was pre-trained with a head of its own, in front of the bare model is a prefix, and so in experts."""
    cls = {"cls.weight": torch.ones(7, 4)}
    base = {**prefixed("bert.", BASE), **cls}
    experts = [{**prefixed("bert.", expert), **HEAD} for expert in EXPERTS]
    status, printed = merge_states_of(tmp_path, base, *experts, options=OPTIONS)
    assert status == 2 and "not in" in printed and r"--exclude '^classifier'" in printed
    status, printed = merge_states_of(tmp_path, base, *experts, options=(*OPTIONS, "--exclude=^classifier"))
    assert status == 0 and "only in experts, and left out: 2 tensors" in printed
    assert_equal(output(tmp_path), {**prefixed("bert.", plain), **cls})
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata()["lines_sweep.exclude"] == "^classifier"
    status, printed = merge_states_of(tmp_path, BASE, *experts, options=(*OPTIONS, "--exclude=classifier"))
    assert status == 0, printed
    assert_equal(output(tmp_path), plain)


def test_another_vocabulary_stays_the_bases(tmp_path: Path) -> None:
    expert = model(1, BASE, vocabulary=8)
    status, printed = merge_states_of(tmp_path, BASE, expert)
    assert status == 2 and "embeddings.weight (8, 4) instead of (7, 4)" in printed
    assert r"--exclude '^embeddings'" in printed
    options = ("--method=single", "--scaling=constant", "--alpha=1", "--exclude=^embeddings")
    assert merge_states_of(tmp_path, BASE, expert, options=options)[0] == 0
    expected = {name: expert[name] for name in BASE} | {"embeddings.weight": BASE["embeddings.weight"]}
    for name, tensor in output(tmp_path).items():
        torch.testing.assert_close(tensor, expected[name])
    assert torch.equal(output(tmp_path)["embeddings.weight"], BASE["embeddings.weight"])


def test_what_only_one_expert_has_is_named_with_a_way_out(tmp_path: Path) -> None:
    without = {name: tensor for name, tensor in EXPERTS[1].items() if name != "norm"}
    status, printed = merge_states_of(tmp_path, BASE, EXPERTS[0], without)
    assert status == 2 and "1.pt: does not match" in printed and "missing: norm; --exclude '^norm'" in printed
    assert merge_states_of(tmp_path, BASE, EXPERTS[0], without, options=("--exclude=^norm$",))[0] == 0
    assert torch.equal(output(tmp_path)["norm"], BASE["norm"])


@pytest.mark.parametrize(
    ("regex", "message"),
    [("(", "is not a regular expression"), ("nothing", "matches no name"), ("", "leaves nothing to merge")],
)
def test_bad_regular_expressions(tmp_path: Path, regex: str, message: str) -> None:
    status, printed = merge_states_of(tmp_path, BASE, *EXPERTS, options=(f"--exclude={regex}",))
    assert status == 2 and "--exclude: " in printed and message in printed


def test_masks_of_infinity_are_the_bases(tmp_path: Path, plain: State) -> None:
    masks = {"attn_mask": torch.full((4, 4), -math.inf).triu(1), "encoder.layer.0.attn.bias": torch.ones(1, 1, 2, 2)}
    status, printed = merge_states_of(tmp_path, {**BASE, **masks}, {**EXPERTS[0], **masks}, EXPERTS[1], options=OPTIONS)
    assert status == 0, printed
    assert_equal(output(tmp_path), {**plain, **masks})
    status, printed = merge_states_of(tmp_path, BASE, {**EXPERTS[0], "norm": torch.full((4,), -math.inf)})
    assert status == 2 and "NaN or infinite values in norm" in printed


@pytest.mark.parametrize("prefix", ["", "model."])
def test_an_index_is_a_checkpoint(tmp_path: Path, plain: State, prefix: str) -> None:
    expert = prefixed(prefix, EXPERTS[0])
    names = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(expert)}
    for shard in set(names.values()):
        save_file({name: expert[name] for name in names if names[name] == shard}, tmp_path / shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    base, other = save(BASE, tmp_path / "base.safetensors"), save(EXPERTS[1], tmp_path / "b.pth.tar")
    status, printed = merge_sources(tmp_path, base, str(index), other, options=OPTIONS)
    assert status == 0, printed
    assert_equal(output(tmp_path), plain)
    index.write_text('{"weight_map": {}}')
    status, printed = merge_sources(tmp_path, base, str(index), options=OPTIONS)
    assert status == 2 and "model.safetensors.index.json must name files, got none" in printed


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_statistics_have_the_names_of_their_expert(tmp_path: Path, method: str) -> None:
    """`lines statistics` uses the names of the expert's checkpoint; those of an excluded head are not used."""
    weights = 1.0, 3.0
    options = [f"--method={method}", "--scaling=constant", "--alpha=1", "--exclude=classifier"]
    for i, (expert, weight) in enumerate(zip(EXPERTS, weights, strict=True)):
        state = {**expert, "classifier.weight": torch.ones(2, 4)}
        kind = {n: t for n, t in state.items() if n.endswith(W) or n == "classifier.weight" or method == "fisher"}
        of = {n: torch.full_like(t, weight) if method == "fisher" else weight * torch.eye(4) for n, t in kind.items()}
        options.append(f"--statistics={save(prefixed('net.', of), tmp_path / f's{i}.safetensors')}")
    experts = [prefixed("net.", {**expert, "classifier.weight": torch.ones(2, 4)}) for expert in EXPERTS]
    status, printed = merge_states_of(tmp_path, BASE, *experts, options=tuple(options))
    assert status == 0, printed
    for name in (f"encoder.layer.{i}.{W}" for i in range(3)):
        expected = (EXPERTS[0][name] + 3 * EXPERTS[1][name]) / 4
        torch.testing.assert_close(output(tmp_path)[name], expected, atol=1e-5, rtol=1e-5)
