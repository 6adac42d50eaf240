"""Proves that names are matched through prefixes, one to one, and left alone where that is not sure."""

import pytest
import torch

from tasks.name_matching import match_names, without_wrappers

WHOLE = {"bert.h.0.w": 2, "bert.h.1.w": 2, "bert.h.1.b": 3, "bert.emb.weight": 5, "cls.weight": 4}
BARE = {name.removeprefix("bert."): size for name, size in WHOLE.items() if name.startswith("bert.")}


def shapes(sizes: dict[str, int]) -> dict[str, torch.Size]:
    return {name: torch.Size([size]) for name, size in sizes.items()}


def prefixed(prefix: str, sizes: dict[str, int] = WHOLE) -> dict[str, int]:
    return {prefix + name: size for name, size in sizes.items()}


@pytest.mark.parametrize(
    ("given", "known", "partners"),
    [
        (WHOLE, WHOLE, {name: name for name in WHOLE}),
        (prefixed("module."), WHOLE, {name: f"module.{name}" for name in WHOLE}),
        (WHOLE, prefixed("module."), {f"module.{name}": name for name in WHOLE}),
        (prefixed("net."), prefixed("module."), {f"module.{name}": f"net.{name}" for name in WHOLE}),
        (prefixed("_orig_mod.module."), WHOLE, {name: f"_orig_mod.module.{name}" for name in WHOLE}),
        ({**prefixed("module."), "n_averaged": 1}, WHOLE, {name: f"module.{name}" for name in WHOLE}),
        (BARE, WHOLE, {f"bert.{name}": name for name in BARE}),
        (WHOLE, BARE, {name: f"bert.{name}" for name in BARE}),
        (prefixed("net.", BARE), WHOLE, {f"bert.{name}": f"net.{name}" for name in BARE}),
        (
            {"h.0._orig_mod.w": 2, "h.1._checkpoint_wrapped_module.w": 2},
            {"h.0.w": 2, "h.1.w": 2},
            {"h.0.w": "h.0._orig_mod.w", "h.1.w": "h.1._checkpoint_wrapped_module.w"},
        ),
        # A vocabulary of its own, and a head: the rest is matched.
        (
            {**prefixed("bert.", BARE | {"emb.weight": 6}), "classifier.weight": 2},
            BARE,
            {name: f"bert.{name}" for name in BARE},
        ),
    ],
)
def test_partners(given: dict[str, int], known: dict[str, int], partners: dict[str, str]) -> None:
    found = match_names(shapes(given), shapes(known))
    assert dict(found.names) == partners
    assert bool(found.note) == any(name != partner for name, partner in partners.items())


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({**prefixed("a."), **prefixed("b.")}, WHOLE),  # two models, none of them an average
        ({"w": 2, "v": 2}, {"encoder.w": 2, "encoder.v": 2, "decoder.w": 2, "decoder.v": 2}),
        ({"x.w": 7}, {"y.w": 2, "y.v": 2}),
        ({"x.head.w": 2, "p": 3, "q": 3}, {"head.w": 2, "a": 5, "b": 6}),  # one name of many
    ],
)
def test_names_stay_where_prefixes_are_not_sure(given: dict[str, int], known: dict[str, int]) -> None:
    assert match_names(shapes(given), shapes(known)).names == {}


def test_the_tower_of_a_clip_is_not_its_text_tower() -> None:
    """Both have a `transformer`; only the image tower has all of the expert's names."""
    text = {"transformer.resblocks.0.w": 2, "transformer.resblocks.1.w": 2, "logit_scale": 1}
    tower = {"transformer.resblocks.0.w": 2, "transformer.resblocks.1.w": 2, "conv1.weight": 9}
    found = match_names(shapes(tower), shapes(text | prefixed("visual.", tower)))
    assert dict(found.names) == {f"visual.{name}": name for name in tower}


@pytest.mark.parametrize(
    ("trained", "copy"), [("model.", "ema_model."), ("student.", "teacher."), ("net.", "net_ema.")]
)
def test_averaged_copies_under_a_prefix_are_named(trained: str, copy: str) -> None:
    found = match_names(shapes({**prefixed(copy), **prefixed(trained)}), shapes(WHOLE))
    assert dict(found.names) == {name: trained + name for name in WHOLE}
    assert sorted(found.copies) == sorted(prefixed(copy))


def test_wrappers_of_all_names_are_removed_except_known_parts() -> None:
    names = ["clip.visual.a", "clip.visual.b", "n_averaged"]
    assert list(without_wrappers(names, ["visual"])) == ["visual.a", "visual.b", "n_averaged"]
    assert list(without_wrappers(names)) == ["a", "b", "n_averaged"]
    assert list(without_wrappers(["a.b"])) == ["a.b"]
    assert list(without_wrappers(["a", "a.b"])) == ["a", "a.b"]
