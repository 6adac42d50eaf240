"""Proves that classes whose prompts have the same tokens are refused by name, and that cut prompts are named."""

import unicodedata

import pytest
import torch

from tasks.base import TaskRequest
from tasks.vision.classification import zero_shot
from tasks.vision.clip.architectures import create
from tasks.vision.clip.backbone import OpenClipBackbone, build
from tasks.vision.heads import SamePrompts, text_head
from tasks.vision.images import ImageRecord

COMPOSED, APART = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
LONG = "very " * 80


@pytest.fixture(scope="module")
def backbone() -> OpenClipBackbone:
    state = create("embedded/tiny-vit", {}).model.state_dict()
    return build("embedded/tiny-vit", state, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        (COMPOSED, APART, "they differ in Unicode form only"),
        ("ｃａｔ", "cat", "they differ in Unicode form only"),
        ("red disc", "red  disc", "they differ in spaces only"),
        ("yellow", " yellow ", "they differ in spaces only"),
        ("R&D", "R&amp;D", "they differ in HTML entities only"),
        ("cat", "Cat", "they differ in case only"),
        (LONG + "red light", LONG + "green light", r"they are cut after \d+ tokens"),
    ],
)
def test_classes_with_the_same_tokens_are_refused(backbone: OpenClipBackbone, one: str, other: str, why: str) -> None:
    with pytest.raises(SamePrompts) as caught:
        text_head(backbone.text, ["dog", one, other], ["a {} here", "some {}"])
    assert repr(one) in str(caught.value) and repr(other) in str(caught.value)
    assert caught.match(f"have the same tokens in every prompt, because {why}: give them different names")


def test_the_error_names_the_task(backbone: OpenClipBackbone) -> None:
    with pytest.raises(ValueError, match="tasks.mine: drawn: the classes 'red disc' and 'red  disc' have the same"):
        zero_shot(TaskRequest("mine", "drawn"), backbone, Drawn())


class Drawn:
    name, fingerprint = "drawn", "drawn"
    class_names = ("red disc", "red  disc")
    templates = ("a {}",)

    def records(self) -> dict[str, list[ImageRecord]]:
        return {}


@pytest.mark.parametrize(
    "names", [["C++", "C#", "C"], ["{red}", "100% green", "青い 🟦", "red"], ["missile", "missile"]]
)
def test_odd_names_and_equal_ones_are_the_sources_choice(backbone: OpenClipBackbone, names: list[str]) -> None:
    assert len(text_head(backbone.text, names, ["a {}"]).weights_KD) == len(names)


def test_a_template_that_tells_two_classes_apart_suffices(backbone: OpenClipBackbone) -> None:
    head = text_head(backbone.text, ["cat", "dog"], ["{}", LONG + "{}"])
    assert not torch.equal(head.weights_KD[0], head.weights_KD[1])
    assert head.cut == [LONG + "cat", LONG + "dog"]
    assert head.warnings()[0].startswith("2 prompts are cut, because the text tower reads no more of them: 'very very")


def test_a_prompt_that_just_fits_is_not_cut(backbone: OpenClipBackbone) -> None:
    length = backbone.text.tokenize(["x"]).shape[1]
    fits = " ".join(["1"] * (length - 2))  # a digit is a token
    assert int(backbone.text.tokenize([fits])[0, -1]) != 0
    assert text_head(backbone.text, [fits, "dog"], ["{}"]).cut == []
    assert text_head(backbone.text, [fits + " 1", "dog"], ["{}"]).cut == [fits + " 1"]
