"""Mutated checkpoints, LoRA adapters and index files: each is read, and merged where it can be."""

import io
import json
import random
import shutil
from pathlib import Path

import torch
import typer
from safetensors.torch import load_file, save, save_file
from torch import Tensor

import pipeline.checkpoints.merge_files  # noqa: F401 - so that children need not import it
from fuzz.formats import in_json, in_pickle, in_safetensors, in_zip
from fuzz.mutations import mutate_bytes
from fuzz.oracle import verdict
from fuzz.sandbox import Check, Fault, Limits
from pipeline.checkpoints.files import locate
from pipeline.checkpoints.lora import read_adapter
from pipeline.cli.main import app
from pipeline.cli.merge import merge
from tasks.lora import WeightPart

_WIDTH, _BLOCKS, _RANK = 8, 3, 2
#: Of a call without --recipe, which alone looks at it.
_CONTEXT = typer.Context(typer.main.get_command(app))


class Checkpoints:
    """A small transformer as base and expert in every format, sharded too, and an adapter of it.

    One file of one of them is changed; then both are merged, or the adapter becomes a task vector.
    """

    name, share, batch = "checkpoints", 1_400, 25
    limits = Limits()

    def prepare(self, folder: Path) -> None:
        """Write every kind of source, and one untouched base."""
        base, expert = _state(0), _state(1)
        save_file(base, folder / "good.safetensors")
        for kind, path in {"st": "a/model.safetensors", "st2": "b/pytorch_model.bin"}.items():
            (folder / kind / path).parent.mkdir(parents=True)
        save_file(expert, folder / "st" / "a" / "model.safetensors", {"format": "pt"})
        torch.save(expert, folder / "st2" / "b" / "pytorch_model.bin")
        for name, content, options in (
            ("zip/a/expert.pt", expert, {}),
            ("old/a/expert.pth", expert, {"_use_new_zipfile_serialization": False}),
            ("wrapped/a/expert.pt", {"state_dict": expert, "epoch": 3}, {}),
            ("lightning/a/expert.ckpt", {"state_dict": _prefixed(expert), "optimizer": [{"lr": 0.1}], "step": 3}, {}),
            ("types/a/expert.bin", _of_many_types(expert), {}),
        ):
            (folder / name).parent.mkdir(parents=True)
            torch.save(content, folder / name, **options)
        _write_shards(folder / "shards" / "a", expert, ".safetensors")
        _write_shards(folder / "bins" / "a", expert, ".bin")
        _write_adapter(folder / "lora" / "a", ".safetensors")
        _write_adapter(folder / "lora-bin" / "a", ".bin")

    def open(self, prepared: Path) -> Check:
        """Return the cases: one file of one source is changed, and the source is used."""
        kinds = sorted(p.name for p in prepared.iterdir() if p.is_dir())
        return lambda seed, folder: _case(seed, folder, prepared, kinds)


def _case(seed: int, folder: Path, prepared: Path, kinds: list[str]) -> str:
    dice = random.Random(f"checkpoints {seed}")
    kind = dice.choice(kinds)
    (source,) = (prepared / kind).iterdir()
    model = folder / "model"
    shutil.copytree(source, model)
    changed = dice.choice(sorted(model.iterdir()))
    changed.write_bytes(_mutated(changed.name, changed.read_bytes(), dice))
    files = list(model.iterdir())
    given = files if len(files) == 1 else [path for path in files if path.name.endswith(".index.json")]
    place = given[0] if given and dice.random() < 0.6 else model
    names = [changed.name, str(model), place.name, "good.safetensors"]
    if kind.startswith("lora"):
        return verdict(lambda: _apply(str(place if place.is_dir() else model)), names)
    good, output = str(prepared / "good.safetensors"), folder / "merged.safetensors"
    base, expert = (good, str(place)) if dice.random() < 0.6 else (str(place), good)
    found = verdict(lambda: merge(_CONTEXT, str(output), base, [expert], alpha="0.5"), names)
    if found == "accepted" and not all(bool(t.float().isfinite().all()) for t in load_file(output).values()):
        raise Fault("wrong", "the merged model is not finite")
    return found


def _mutated(name: str, data: bytes, dice: random.Random) -> bytes:
    if dice.random() < 0.35:
        return mutate_bytes(data, dice)
    if name.endswith(".json"):
        return in_json(data, dice)
    if name.endswith(".safetensors"):
        return in_safetensors(data, dice)
    return in_zip(data, dice) if data.startswith(b"PK") else in_pickle(data, dice)


def _apply(source: str) -> None:
    """Read an adapter as an expert of a run is read."""
    adapter = read_adapter(locate(source))
    shapes = {f"{m}.weight": torch.Size((_WIDTH, _WIDTH)) for m in adapter.factors}
    adapter.task_vector({m: WeightPart(f"{m}.weight") for m in adapter.factors}, shapes)


def _state(seed: int) -> dict[str, Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"visual.conv1.weight": (_WIDTH, 3, 2, 2), "logit_scale": ()}
    for block in range(_BLOCKS):
        stem = f"visual.transformer.resblocks.{block}"
        shapes |= {f"{stem}.mlp.c_fc.weight": (_WIDTH, _WIDTH), f"{stem}.ln_1.bias": (_WIDTH,)}
    state = {name: torch.randn(shape, generator=numbers) for name, shape in shapes.items()}
    state["visual.ln_post.bias"] = torch.randn(_WIDTH, generator=numbers).half()
    return {**state, "positions": torch.arange(4)}


def _prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model._orig_mod.{name}": tensor for name, tensor in state.items()}


def _of_many_types(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same names with other types, two tensors of one storage, and one that is no copy of its rows."""
    types = (torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float16)
    changed = {n: t.to(types[i % 4]) if t.is_floating_point() else t for i, (n, t) in enumerate(state.items())}
    first, *others = [name for name, tensor in state.items() if tensor.shape == (_WIDTH, _WIDTH)]
    wide = state[first][:1].expand(_WIDTH, _WIDTH)
    return {**changed, others[0]: changed[first], others[1]: wide, "mask": torch.ones(4, dtype=torch.bool)}


def _write_shards(folder: Path, state: dict[str, Tensor], suffix: str) -> None:
    folder.mkdir(parents=True)
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    places = {}
    for number in range(2):
        part = {name: tensor for i, (name, tensor) in enumerate(state.items()) if i % 2 == number}
        name = f"{stem}-0000{number + 1}-of-00002{suffix}"
        (folder / name).write_bytes(_bytes_of(part, suffix))
        places |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 1234}, "weight_map": places}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index, indent=2))


def _write_adapter(folder: Path, suffix: str) -> None:
    folder.mkdir(parents=True)
    numbers = torch.Generator().manual_seed(2)
    state = {}
    for module in ("layers.0.q_proj", "layers.1.q_proj"):
        for side, shape in (("A", (_RANK, _WIDTH)), ("B", (_WIDTH, _RANK))):
            state[f"base_model.model.{module}.lora_{side}.weight"] = torch.randn(shape, generator=numbers)
    config = {
        "peft_type": "LORA", "r": _RANK, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none",
        "rank_pattern": {"layers.0.q_proj": _RANK}, "alpha_pattern": {"q_proj": 3}, "use_rslora": False,
        "fan_in_fan_out": False, "init_lora_weights": True, "peft_version": "0.17.0", "modules_to_save": None,
        "lora_dropout": 0.1, "task_type": "CAUSAL_LM", "use_dora": False, "base_model_name_or_path": "x/y",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    (folder / f"adapter_model{suffix}").write_bytes(_bytes_of(state, suffix))


def _bytes_of(state: dict[str, Tensor], suffix: str) -> bytes:
    if suffix == ".safetensors":
        return save(state, {"format": "pt"})
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()
