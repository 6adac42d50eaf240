"""Proves that files of training programs give the trained weights, and that the averages in them are named."""

import argparse
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.checkpoints.checkpoint import read_checkpoint

STATE = {"h.0.w": torch.arange(4.0), "h.1.w": torch.ones(4), "step": torch.tensor(3)}
EMA = {name: tensor + 1 for name, tensor in STATE.items()}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
LIGHTNING: dict[str, Any] = {
    "epoch": 3,
    "pytorch-lightning_version": "2.4.0",
    "loops": {},
    "callbacks": {"ModelCheckpoint": {"best": torch.ones(2)}},
    "optimizer_states": [OPTIMIZER],
    "lr_schedulers": [],
    "hyper_parameters": {"lr": 1e-3, "args": argparse.Namespace(a=1), "folder": PurePosixPath("a/b")},
}

#: What a program saves, and whether the file holds an average besides.
FILES: dict[str, tuple[object, bool]] = {
    "pytorch's tutorial": (
        {"epoch": 3, "model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER, "loss": torch.tensor(0.5)},
        False,
    ),
    "lightning": ({**LIGHTNING, "state_dict": STATE}, False),
    "deepspeed": ({"module": STATE, "buffer_names": [], "optimizer": None, "param_shapes": []}, False),
    "timm": ({"state_dict": STATE, "state_dict_ema": EMA, "optimizer": OPTIMIZER, "metric": 1.0}, True),
    "deit": ({"model": STATE, "model_ema": EMA, "optimizer": OPTIMIZER, "epoch": 1}, True),
    "dino": ({"teacher": EMA, "student": STATE, "epoch": 1}, True),
    "an average first": ({"ema": EMA, "net": STATE}, True),
    "net": ({"net": STATE, "optimizer": OPTIMIZER}, False),
    "network": ({"network": STATE}, False),
    "an unknown name": ({"weights": STATE, "optimizer": OPTIMIZER, "step": 4}, False),
    "wrappers in wrappers": ({"state_dict": {"model": OrderedDict(STATE)}, "ema": {"model": EMA}}, True),
    "options": ({"model": STATE, "args": argparse.Namespace(lr=1)}, False),
    "a number of numpy": ({"model": STATE, "best": np.float64(0.5)}, False),
    "random states": ({"model": STATE, "rng": {"torch": torch.get_rng_state()}, "np": np.arange(3)}, False),
}


def save_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, save_legacy])
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".pth.tar"])
@pytest.mark.parametrize("name", FILES)
def test_the_trained_weights_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, suffix: str, save: Callable[[object, Path], None]
) -> None:
    content, average = FILES[name]
    path = tmp_path / f"a{suffix}"
    save(content, path)
    with caplog.at_level(logging.WARNING):
        found = read_checkpoint(str(path)).state
    assert found.keys() == STATE.keys() and all(torch.equal(found[n], STATE[n]) for n in STATE)
    assert (f"{path}: read" in caplog.text and "an average of the weights, such as EMA" in caplog.text) == average


def test_an_average_alone_is_read_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"ema_state_dict": EMA, "optimizer": OPTIMIZER}, tmp_path / "a.pt")
    with caplog.at_level(logging.WARNING):
        found = read_checkpoint(str(tmp_path / "a.pt")).state
    assert torch.equal(found["h.0.w"], EMA["h.0.w"])
    assert "read 'ema_state_dict', an average of the weights such as EMA: the file holds no others" in caplog.text


def test_several_models_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"generator": STATE, "discriminator": EMA}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a.pt: holds several models: 'generator', 'discriminator'; load"):
        read_checkpoint(str(tmp_path / "a.pt"))


WAS_RUN: list[object] = []


class Kept:
    """An object with a state that unpickling sets."""

    def __init__(self) -> None:
        self.value = {"a": [1]}

    def __setstate__(self, state: object) -> None:
        WAS_RUN.append(state)


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_objects_of_other_classes_are_never_made(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    save({"model": STATE, "args": Kept(), "code": [Kept(), {"deep": Kept()}]}, tmp_path / "a.pt")
    assert read_checkpoint(str(tmp_path / "a.pt")).state.keys() == STATE.keys()
    assert WAS_RUN == []
    save({"model": {**STATE, "h.2.w": Kept()}}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"b.pt: refused: reading this pickle would run code \(.*Kept\); if you trust"):
        read_checkpoint(str(tmp_path / "b.pt"))
    save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c.pt: refused: .*\(.*torch.nn.modules.container.Sequential\)"):
        read_checkpoint(str(tmp_path / "c.pt"))
    assert WAS_RUN == []


class Options(dict):  # type: ignore[type-arg]
    """A mapping of options, as Lightning's AttributeDict and mmengine's Config are."""


class Steps(list):  # type: ignore[type-arg]
    """A list with a class of its own."""


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_foreign_mappings_and_lists_are_skipped(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    options = {"args": Options(a=1, b=Options(c=Kept())), "steps": Steps([1, 2]), "seen": defaultdict(list, {"a": [1]})}
    save({"model": STATE, **options}, tmp_path / "a.pt")
    found = read_checkpoint(str(tmp_path / "a.pt")).state
    assert found.keys() == STATE.keys() and all(torch.equal(found[n], STATE[n]) for n in STATE)
    assert WAS_RUN == []


def test_a_state_dict_with_more_than_tensors_is_refused_as_before(tmp_path: Path) -> None:
    content: dict[str, Tensor | object] = {**STATE, "options": {"a": torch.ones(2)}}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="must hold tensors by name, got also 'options'"):
        read_checkpoint(str(tmp_path / "a.pt"))
