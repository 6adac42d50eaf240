"""Proves that tied tensors count once: pickles and .safetensors files of one model give a merge of the same bits."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.merge_files import MergedFile, merge_files
from pipeline.checkpoints.prepared_merge import MergeSources
from pipeline.checkpoints.tied import count_once, tied_names
from pipeline.merging.methods import METHODS
from pipeline.merging.methods.base import OF_SEVERAL
from pipeline.recipe import Recipe

TABLE, HEAD = "transformer.wte.weight", "lm_head.weight"
SCALINGS = ("linear", "reversed:linear", "uniform:linear", "equal_norm:linear")

State = dict[str, Tensor]


def model(seed: int, scale: float = 0.1) -> State:
    """A language model's state dict, in the order of the module; the head is the table."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        start = torch.Generator().manual_seed(sum(shape))
        return torch.randn(shape, generator=start) + scale * torch.randn(shape, generator=generator)

    state = {TABLE: random(12, 4)}
    for block in range(3):
        state |= {f"transformer.h.{block}.mlp.weight": random(5, 4), f"transformer.h.{block}.ln.bias": random(5)}
    return {**state, HEAD: state[TABLE]}


def as_pickle(state: State, path: Path) -> str:
    torch.save(state, path.with_suffix(".bin"))
    return str(path.with_suffix(".bin"))


def as_safetensors(state: State, path: Path) -> str:
    """Write one name of the tied tensor, as transformers does."""
    save_file({n: t for n, t in state.items() if n != HEAD}, path.with_suffix(".safetensors"))
    return str(path.with_suffix(".safetensors"))


Write = Callable[[State, Path], str]


def merged(
    folder: Path, recipe: Recipe, write_base: Write, write_experts: Sequence[Write], statistics: Sequence[str] = ()
) -> tuple[State, MergedFile]:
    folder.mkdir()
    base = write_base(model(0, 0), folder / "base")
    experts = [write(model(i + 1), folder / f"expert{i}") for i, write in enumerate(write_experts)]
    written = merge_files(MergeSources(base, experts, statistics), recipe, folder / "out.safetensors")
    return load_file(folder / "out.safetensors"), written


def assert_same_bits(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert {*first} - {HEAD} == {*second} - {HEAD}
    assert all(torch.equal(first[name], second[name]) for name in first if name != HEAD)


def statistics_of(kind: str, folder: Path) -> list[str]:
    paths = []
    for seed in (5, 6):
        state = model(seed, 1.0)
        fisher = {n: t.square() for n, t in state.items() if n != HEAD}
        gram = {n: t.T @ t for n, t in state.items() if t.ndim == 2 and n != HEAD}
        paths.append(str(folder / f"{kind}{seed}.safetensors"))
        save_file({"fisher": fisher, "gram": gram}[kind], paths[-1])
    return paths


@pytest.mark.parametrize(
    ("name", "scaling"),
    [
        *((n, "linear") for n, m in METHODS.items() if n != "zero" and m.needs not in OF_SEVERAL),
        *(("sum", scaling) for scaling in SCALINGS if scaling != "linear"),
    ],
)
def test_every_method_gives_the_bits_of_safetensors(tmp_path: Path, name: str, scaling: str) -> None:
    one = dict.fromkeys(("single", "nearswap", "arcee_fusion"), (0, 1))
    weights = (one | {"weighted": (0.3, 0.6)}).get(name, ())
    recipe = Recipe.make(name, scaling, "auto", 0.5, weights)
    needs = METHODS[name].needs
    statistics = statistics_of(needs, tmp_path) if needs else ()
    stored, one = merged(tmp_path / "a", recipe, as_safetensors, [as_safetensors] * 2, statistics)
    pickled, both = merged(tmp_path / "b", recipe, as_pickle, [as_pickle] * 2, statistics)
    assert one.merged.alpha == both.merged.alpha and one.merged.sizes == both.merged.sizes
    assert_same_bits(stored, pickled)
    assert torch.equal(pickled[HEAD], pickled[TABLE]) and HEAD not in stored


@pytest.mark.parametrize("method", ["sum", "ties", "dare"])
@pytest.mark.parametrize("pickled_base", [False, True])
@pytest.mark.parametrize("pickled_experts", [(True, True), (False, False), (True, False)])
def test_base_and_experts_may_be_of_different_formats(
    tmp_path: Path, method: str, pickled_base: bool, pickled_experts: tuple[bool, bool]
) -> None:
    recipe = Recipe.make(method, "linear", "auto", 0.5)
    expected, _ = merged(tmp_path / "a", recipe, as_safetensors, [as_safetensors] * 2)
    formats = [as_pickle if pickled else as_safetensors for pickled in pickled_experts]
    found, _ = merged(tmp_path / "b", recipe, as_pickle if pickled_base else as_safetensors, formats)
    assert_same_bits(expected, found)
    assert (HEAD in found) == pickled_base
    assert not pickled_base or torch.equal(found[HEAD], found[TABLE])


def test_alpha_is_that_of_the_storage(tmp_path: Path) -> None:
    """TIES keeps 1 + 20 % of 48 + 3 * 25 entries; a second name would make it 1 + 20 % of 48 + 48 + 3 * 25."""
    recipe = Recipe.make("ties", "constant", 1)
    state, written = merged(tmp_path / "a", recipe, as_pickle, [as_pickle])
    assert written.merged.sizes.outside == 48 and written.merged.sizes.blocks == (25, 25, 25)
    changed = sum(int((state[n] != t).sum()) for n, t in model(0, 0).items() if n != HEAD)
    assert changed == int((48 + 75) * 0.2) + 1


def test_tied_tensors_that_are_not_edited_are_written_under_both_names(tmp_path: Path) -> None:
    state, _ = merged(tmp_path / "a", Recipe.make("sum", "linear", 0, 1), as_pickle, [as_pickle] * 2)
    assert list(state) != [] and torch.equal(state[HEAD], model(0, 0)[TABLE]) and torch.equal(state[TABLE], state[HEAD])


def test_equal_values_are_not_tied_and_expanded_ones_are_other_tensors() -> None:
    table = torch.zeros(4, 4)
    state = {"a": table, "b": table.clone(), "c": table, "d": table.T[:2], "e": table.view(16), "f": torch.empty(0)}
    assert tied_names({**state, "g": torch.empty(0)}) == [["a", "c"]]


def test_copies_in_an_expert_must_agree_where_the_base_ties(tmp_path: Path) -> None:
    def copied(change: float) -> Write:
        def write(state: State, path: Path) -> str:
            save_file({**state, HEAD: state[TABLE] + change}, path.with_suffix(".safetensors"))
            return str(path.with_suffix(".safetensors"))

        return write

    recipe = Recipe.make("ties", "linear", "auto", 0.5)
    expected, _ = merged(tmp_path / "a", recipe, as_safetensors, [as_safetensors] * 2)
    found, _ = merged(tmp_path / "b", recipe, as_pickle, [copied(0), as_pickle])
    assert_same_bits(expected, found)
    message = rf"expert0.safetensors: {TABLE} and {HEAD} differ, but are one tensor in .*base.bin"
    with pytest.raises(ValueError, match=message):
        merged(tmp_path / "c", recipe, as_pickle, [copied(0.5), as_pickle])
    assert not (tmp_path / "c" / "out.safetensors").exists()


def test_a_head_that_the_base_does_not_tie_is_merged_by_itself(tmp_path: Path) -> None:
    def untied(state: State, path: Path) -> str:
        return as_pickle({**state, HEAD: state[TABLE] + 1}, path)

    found, written = merged(tmp_path / "a", Recipe.make("single", "constant", 1), untied, [as_pickle])
    assert torch.allclose(found[HEAD], model(1)[TABLE], atol=1e-6) and written.merged.sizes.outside == 96


def test_the_name_that_all_experts_have_stays() -> None:
    """`safetensors.torch.save_model` keeps the first name in the order of the alphabet, not the module's."""
    table = torch.ones(2)
    base = Checkpoint("base.bin", {TABLE: table, HEAD: table}, "")
    expert = Checkpoint("expert.safetensors", {HEAD: torch.zeros(2)}, "")
    once = count_once(base, [expert])
    assert list(once.base.state) == [HEAD] and once.tied == {TABLE: HEAD}


def test_coverage_names_what_counts_once(tmp_path: Path) -> None:
    _, written = merged(tmp_path / "a", Recipe.make("sum", "linear", 1, 1), as_safetensors, [as_pickle])
    found = {part.what: (part.tensors, part.parameters, part.names) for part in written.coverage}
    assert found == {
        "scaled, in the blocks": (6, 75, ()),
        "scaled, outside the blocks": (1, 48, ()),
        "other names of tied tensors, which count once": (1, 0, (HEAD,)),
    }


@pytest.mark.slow
def test_transformers_and_torch_load_what_is_written(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=12, n_positions=6)
    torch.manual_seed(0)
    modules = [GPT2LMHeadModel(config) for _ in range(3)]
    sources = []
    for place, module in enumerate(modules):
        torch.save(module.state_dict(), tmp_path / f"{place}.bin")
        module.save_pretrained(tmp_path / str(place))
        sources.append(str(tmp_path / str(place)))
    recipe = Recipe.make("ties", "linear", "auto", 0.5)
    (tmp_path / "merged").mkdir()
    out, stored = tmp_path / "merged" / "model.safetensors", tmp_path / "stored.safetensors"
    merge_files(MergeSources(str(tmp_path / "0.bin"), [str(tmp_path / "1.bin"), sources[2]]), recipe, out)
    merge_files(MergeSources(sources[0], sources[1:]), recipe, stored)
    state = load_file(out)
    assert_same_bits(load_file(stored), state)
    modules[0].load_state_dict(state, strict=True)
    config.save_pretrained(tmp_path / "merged")
    loaded, info = GPT2LMHeadModel.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(loaded.lm_head.weight, state[TABLE]) and loaded.lm_head.weight is loaded.transformer.wte.weight
