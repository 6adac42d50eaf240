"""The layout of a .safetensors file: a header of names, types and places, then the numbers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

#: Types by the format's names, in the order in which its own writer lays tensors out, the last first.
TYPES = {"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8}
TYPES |= {"F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn}
TYPES |= {"I16": torch.int16, "U16": torch.uint16, "F16": torch.float16, "BF16": torch.bfloat16}
TYPES |= {"I32": torch.int32, "U32": torch.uint32, "F32": torch.float32, "C64": torch.complex64}
TYPES |= {"F64": torch.float64, "I64": torch.int64, "U64": torch.uint64}
_NAMES = {dtype: name for name, dtype in TYPES.items()}
_ORDER = {dtype: place for place, dtype in enumerate(TYPES.values())}
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where the numbers of a tensor are.

    Attributes:
        path: of the file.
        start: offset of the first byte.
        kind: type by the format's name.
        shape: of the tensor.
    """

    path: Path
    start: int
    kind: str
    shape: torch.Size


def read_places(path: Path) -> dict[str, Place]:
    """Return the place of every tensor of a file that is known to be sound, in the order of their places."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: Place(path, 8 + length + entry["data_offsets"][0], entry["dtype"], torch.Size(entry["shape"]))
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    }


def header_of(outline: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int], int]:
    """Return the header of a new file, the offset of each tensor, and the size of the file.

    Raises:
        ValueError: if the format has no such type.
    """
    if unknown := [f"{name} ({t.dtype})" for name, t in outline.items() if t.dtype not in _NAMES]:
        raise ValueError(f".safetensors files hold no numbers of the type of {unknown[0]}")
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    starts, end = {}, 0
    for name in sorted(outline, key=lambda name: (-_ORDER[outline[name].dtype], name)):
        tensor, start = outline[name], end
        starts[name], end = start, start + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: len(header) + start for name, start in starts.items()}, len(header) + end
