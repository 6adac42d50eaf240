"""Read one file into named tensors: safetensors, and pickles without running any of their code."""

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tasks.tensors import first_names

#: Keys under which training programs save the state dict.
_WRAPPERS = ("state_dict", "model")
_PICKLES = (".pt", ".pth", ".bin")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a `.safetensors`, `.pt`, `.pth` or `.bin` file onto the CPU.

    Raises:
        ValueError: if it is empty, damaged, of another kind, a pickle that needs code, or not a state dict.
    """
    if path.suffix not in (".safetensors", *_PICKLES):
        raise ValueError(f"{path}: must end in .safetensors, {', '.join(_PICKLES)}, got {path.suffix!r}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: truncated or not a safetensors file ({error}); fetch it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():  # torch warns of files that are refused below
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: {_why(error)}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return _checked(path, content)


def _why(error: Exception) -> str:
    """Explain torch's error to a user, and what to do."""
    convert = "if you trust the file, load it and save its state dict with safetensors.torch.save_file"
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"refused: reading this pickle would run code ({found.group(1)}); {convert}"
    if "TorchScript" in str(error):
        return f"a TorchScript program, not a state dict; {convert}"
    if isinstance(error, pickle.UnpicklingError):
        return f"refused: damaged, or a pickle of more than tensors; {convert}"
    return "truncated, or not a file that torch.save wrote; fetch it again"


def _checked(path: Path, content: object) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold a state dict, got {type(content).__name__}")
    strange = [f"{k!r} ({type(v).__name__})" for k, v in content.items() if not isinstance(v, Tensor)]
    if strange:
        raise ValueError(
            f"{path}: must hold tensors by name, got also {first_names(strange)}; "
            f"known wrappers are {', '.join(map(repr, _WRAPPERS))}"
        )
    return {str(name): tensor.detach() for name, tensor in content.items()}
