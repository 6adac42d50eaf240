"""Read pickles of training programs without running their code: objects of foreign classes are never made."""

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import ClassVar

import torch

#: Tied weights are saved under up to four names; a file that needs more memory than this is no model.
MOST_EXPANDED = 8
_SLACK = 1 << 20
_ZIP = b"PK\x03\x04"
#: Classes that a pickle may name besides torch's; each is found by one more look at its first bytes.
_MOST_CLASSES = 100
_CONVERT = "if you trust the file, load it and save its state dict with safetensors.torch.save_file"


class Foreign:
    """Stands for an object of a class that is not torch's: it takes what the pickle gives it, and keeps nothing."""

    name: ClassVar[str]

    def __new__(cls, *args: object) -> "Foreign":
        """Ignore the arguments."""
        return object.__new__(cls)

    def __init__(self, *args: object) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""

    @classmethod
    def refusal(cls) -> str:
        """Return why a model that needs this object is refused, and what to do."""
        return f"refused: reading this pickle would run code ({cls.name}); {_CONVERT}"


def read_pickle(path: Path, mapped: bool = False) -> object:
    """Read what `torch.save` wrote; objects of foreign classes (options, numbers of numpy) become `Foreign`.

    Args:
        path: of the file.
        mapped: leave the numbers of a zip archive on the disk until they are used.

    Raises:
        ValueError: if it is damaged, of another kind, or expands to much more than its size.
    """
    unpacked = _unpacked(path)
    check_expanded(path, unpacked)
    names = _foreign(path)
    try:
        with warnings.catch_warnings():  # torch warns of files that are refused below
            warnings.simplefilter("ignore")
            return _load(path, names, mapped and unpacked > 0)
    except Exception as error:  # a damaged pickle raises whatever its bytes ask for
        raise ValueError(f"{path}: {_why(error, names)}") from error


def check_expanded(path: Path, needed: int) -> None:
    """Check that a file does not expand to much more than its size, in memory or in a merge.

    Raises:
        ValueError: if it needs more than `MOST_EXPANDED` times its size.
    """
    size = path.stat().st_size
    if needed > MOST_EXPANDED * size + _SLACK:
        raise ValueError(
            f"{path}: a file of {size:,} bytes that expands to {needed:,}: its tensors are views of a few numbers; "
            "save them after .contiguous()"
        )


def _unpacked(path: Path) -> int:
    """Return the size of a zip archive's entries; 0 of other files."""
    with path.open("rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return 0
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except Exception as error:  # a damaged archive raises whatever its bytes ask for
        raise ValueError(f"{path}: {_why(error, [])}") from error


def _foreign(path: Path) -> list[str]:
    """Return the foreign names in a zip archive; in other files they are found while loading."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # damaged, or of the format before zip: `_load` gives the reason
        return []


def _load(path: Path, names: list[str], mapped: bool) -> object:
    """Load with a stand-in for each of `names`, to which those are added that loading meets."""
    kinds: dict[str, type[dict[object, object]] | type[list[object]]] = {}
    for _ in range(_MOST_CLASSES):
        try:
            with torch.serialization.safe_globals([(_stand_in(name, kinds.get(name)), name) for name in names]):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            if unknown := re.search(r"Unsupported global: GLOBAL (\S+) was not", str(error)):
                name = unknown[1] if "." in unknown[1] else f"builtins.{unknown[1]}"
                if name in names:
                    raise
                names.append(name)
            elif filled := re.search(r"Can only (\w+) .*got <class '.*foreign (\S+)'>", str(error)):
                kinds[filled[2]] = OrderedDict if filled[1].startswith("SETITEM") else list
            else:
                raise
    raise pickle.UnpicklingError(f"names more than {_MOST_CLASSES} classes")


def _stand_in(name: str, kind: type[dict[object, object]] | type[list[object]] | None) -> type[Foreign]:
    """Make the class that stands for a foreign one; of mappings and lists, which are filled, a plain one is kept."""
    members = {"name": name, **({"__new__": lambda cls, *args: kind()} if kind else {})}
    return type(f"foreign {name}", (Foreign,), members)


def _why(error: Exception, names: list[str]) -> str:
    """Explain torch's error to a user, and what to do."""
    if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"refused: reading this pickle would run code ({found[1]}); {_CONVERT}"
    if "TorchScript" in str(error):
        return f"a TorchScript program, not a state dict; {_CONVERT}"
    if "DTensor" in str(error):
        return "holds the shards of a distributed model (DTensor); save its full state dict"
    if "legacy .tar" in str(error):
        return "of a format before PyTorch 0.4; load it with an old version, and save it with a new one"
    if isinstance(error, pickle.UnpicklingError):
        more = f" (it names {', '.join(names[:3])})" if names else ""
        return f"refused: damaged, or a pickle of more than tensors{more}; {_CONVERT}"
    return "truncated, or not a file that torch.save wrote; fetch it again"
