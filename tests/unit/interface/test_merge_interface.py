"""Proves that merges in memory have the bits of `lines merge`, for states, modules and files, and change no input."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import lines_sweep as lines
from pipeline.checkpoints.merge_files import merge_files
from pipeline.checkpoints.prepared_merge import MergeSources
from pipeline.merging.methods import METHODS
from pipeline.recipe import Recipe

BLOCKS = r"blocks\.(\d+)\."


def model(seed: int) -> dict[str, Tensor]:
    dice = torch.Generator().manual_seed(seed)
    shapes = {"embed.weight": (7, 4), **{f"blocks.{i}.fc.weight": (4, 4) for i in range(3)}, "head.bias": (4,)}
    return {name: torch.randn(shape, generator=dice) for name, shape in shapes.items()}


BASE, EXPERTS = model(0), [model(1), model(2)]


@pytest.mark.parametrize(
    ("method", "scaling", "alpha", "beta", "params", "then"),
    [
        ("sum", "linear", "auto", 0.5, {}, ["norm_match", ("norm_match", {"by": "whole"})]),
        ("ties", "quadratic", 0.3, 0.4, {"keep": 40.0}, []),
        ("slerp", "linear", None, 0.0, {}, []),
        ("tsvm", "sqrt", 0.5, 0.5, {}, []),
        ("dare", "constant", 0.7, 0.0, {"drop": 0.5}, []),
    ],
)
def test_a_merge_in_memory_has_the_bits_of_the_commands_file(
    method: str,
    scaling: str,
    alpha: float | str | None,
    beta: float,
    params: dict[str, float],
    then: list,
    tmp_path: Path,
) -> None:
    before = {name: tensor.clone() for name, tensor in BASE.items()}
    found = lines.merge(
        BASE, EXPERTS, method=method, scaling=scaling, alpha=alpha, beta=beta, params=params, then=then, blocks=BLOCKS
    )
    for name, state in {"base": BASE, "a": EXPERTS[0], "b": EXPERTS[1]}.items():
        save_file(state, tmp_path / f"{name}.safetensors")
    places = [str(tmp_path / f"{name}.safetensors") for name in ("base", "a", "b")]
    recipe = Recipe.make(method, scaling, 1 if alpha is None else alpha, beta, (), params)
    recipe = recipe.followed_by((step, {}) if isinstance(step, str) else step for step in then)
    merge_files(MergeSources(places[0], places[1:], blocks=BLOCKS), recipe, tmp_path / "merged.safetensors")
    written = load_file(tmp_path / "merged.safetensors")
    assert found.keys() == BASE.keys() and all(torch.equal(found[name], written[name]) for name in BASE)
    assert all(torch.equal(BASE[name], tensor) for name, tensor in before.items())
    assert all(found[name].data_ptr() != BASE[name].data_ptr() for name in BASE)


def test_an_edit_is_the_papers_formula() -> None:
    found = lines.edit(BASE, EXPERTS[0], alpha=0.25, blocks=BLOCKS)
    for name, theta0 in BASE.items():
        depth = {"blocks.1": 0.5, "blocks.2": 1.0}.get(name[:8], 0.0)
        wanted = theta0 + (0.25 + 0.75 * depth) * (EXPERTS[0][name] - theta0)
        torch.testing.assert_close(found[name], wanted)


class Tied(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList(nn.Linear(4, 4, dtype=torch.bfloat16) for _ in range(3))
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight


def test_modules_files_and_names_mix_and_tied_weights_count_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="lines_sweep")
    base, one, two = Tied(0), Tied(1), Tied(2)
    torch.save(two.state_dict(), tmp_path / "two.pt")
    found = lines.merge(base, {"one": one, "two": tmp_path / "two.pt"}, alpha="auto", blocks=BLOCKS)
    assert found.keys() == base.state_dict().keys() and found["blocks.0.weight"].dtype == torch.bfloat16
    assert found["head.weight"] is found["embed.weight"]
    Tied(3).load_state_dict(found)
    assert any("other names of tied tensors" in message for message in caplog.messages)


def test_float8_is_computed_as_bfloat16_and_quantised_states_are_refused() -> None:
    base = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in BASE.items()}
    wide = {name: tensor.bfloat16() for name, tensor in base.items()}
    found = lines.edit(base, EXPERTS[0], alpha=0.5, blocks=BLOCKS)
    wanted = lines.edit(wide, EXPERTS[0], alpha=0.5, blocks=BLOCKS)
    assert all(torch.equal(found[name], wanted[name]) and found[name].dtype == torch.bfloat16 for name in wanted)
    packed = {"blocks.0.fc.weight": torch.ones(4, 4, dtype=torch.int8), "blocks.0.fc.SCB": torch.ones(4)}
    with pytest.raises(ValueError, match=r"expert: blocks\.0\.fc\.weight .*int8"):
        lines.edit(BASE, {**EXPERTS[0], **packed}, alpha=0.5, blocks=BLOCKS)


@pytest.mark.parametrize("at", ["embed.weight", "blocks.0.fc.weight", "head.bias"])
@pytest.mark.parametrize("model", ["base", "a", "b"])
def test_files_are_checked_wherever_the_merge_reads_them_or_not(model: str, at: str, tmp_path: Path) -> None:
    """The first block has coefficient 0, expert b has no weight, and heads are left out."""
    for name, state in {"base": BASE, "a": EXPERTS[0], "b": EXPERTS[1]}.items():
        bad = {at: torch.full_like(state[at], torch.inf)} if name == model else {}
        save_file({**state, **bad}, tmp_path / f"{name}.safetensors")
    base, *experts = (tmp_path / f"{name}.safetensors" for name in ("base", "a", "b"))
    with pytest.raises(ValueError, match=rf"/{model}\.safetensors: NaN or infinite values in {at}: "):
        lines.merge(base, experts, method="weighted", weights=[0.5, 0], alpha=0, beta=1, blocks=BLOCKS, exclude="head")


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.propagates])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_entry_is_found_where_only_the_result_is_checked(method: str, value: float, tmp_path: Path) -> None:
    weights = [1, 0] if method == "single" else [1, 1]
    for bad in ("base", "a") if method == "single" else ("base", "a", "b"):
        for at in ("blocks.0.fc.weight", "blocks.1.fc.weight"):  # coefficients 0 and 0.5
            for name, state in {"base": BASE, "a": EXPERTS[0], "b": EXPERTS[1]}.items():
                changed = {**state, at: state[at].clone()}
                changed[at][1, 2] = value if name == bad else changed[at][1, 2]
                save_file(changed, tmp_path / f"{name}.safetensors")
            base, *experts = (tmp_path / f"{name}.safetensors" for name in ("base", "a", "b"))
            with pytest.raises(ValueError, match=rf"/{bad}\.safetensors: NaN or infinite values in {at}: "):
                lines.merge(base, experts, method=method, weights=weights, alpha=0, beta=1, blocks=BLOCKS)


def test_what_does_not_fit_is_named() -> None:
    wrong = {**EXPERTS[0], "head.bias": torch.zeros(9)}
    with pytest.raises(ValueError, match="two.*head.bias"):
        lines.merge(BASE, {"one": EXPERTS[0], "two": wrong}, blocks=BLOCKS)
    with pytest.raises(ValueError, match="method.*did you mean 'ties'"):
        lines.merge(BASE, EXPERTS, method="tie", blocks=BLOCKS)
    with pytest.raises(ValueError, match=r"experts\[1\].*head\.bias"):
        lines.merge(BASE, [EXPERTS[0], {**EXPERTS[1], "head.bias": torch.full((4,), torch.nan)}], blocks=BLOCKS)
    with pytest.raises(ValueError, match="^method weighted: needs weights, one for each expert$"):
        lines.merge(BASE, EXPERTS, method="weighted", blocks=BLOCKS)
    with pytest.raises(ValueError, match="^statistics: the method sum needs none$"):
        lines.merge(BASE, EXPERTS, statistics=["a.safetensors"], blocks=BLOCKS)
    with pytest.raises(ValueError, match=r"^exclude: '\(' is not a regular expression"):
        lines.merge(BASE, EXPERTS, exclude="(", blocks=BLOCKS)
    with pytest.raises(ValueError, match="choose another method, alpha or beta$"):
        lines.merge(BASE, EXPERTS, method="zero", blocks=BLOCKS)
    with pytest.raises(AttributeError, match="has no attribute 'merges'"):
        lines.merges  # noqa: B018
