"""The weights in an ONNX file: the few fields of its format that are needed, read by protobuf.

The package onnx is not needed. Numbers of fields are those of onnx.proto, which never change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from torch import Tensor

_PACKAGE = "lines_sweep_onnx"
_INT, _TEXT, _BYTES, _MESSAGE = 3, 9, 12, 11
#: Message -> field -> (number, type, repeated, message of the field).
_FIELDS: Mapping[str, Mapping[str, tuple[int, int, bool, str]]] = {
    "Tensor": {
        "dims": (1, _INT, True, ""),
        "data_type": (2, _INT, False, ""),
        "name": (8, _TEXT, False, ""),
        "raw_data": (9, _BYTES, False, ""),
    },
    "Node": {"input": (1, _TEXT, True, ""), "name": (3, _TEXT, False, ""), "op_type": (4, _TEXT, False, "")},
    "Graph": {"node": (1, _MESSAGE, True, "Node"), "initializer": (5, _MESSAGE, True, "Tensor")},
    "Model": {"graph": (7, _MESSAGE, False, "Graph")},
}
_FLOAT = 1  # TensorProto.FLOAT


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: its name is the path of the module that made it, such as /encoder/layer.0/fc1/MatMul."""

    name: str
    kind: str
    inputs: Sequence[str]


@dataclass(frozen=True)
class OnnxFile:
    """The content of a file.

    Attributes:
        weights: float32 tensors by name.
        nodes: in their order.
    """

    weights: Mapping[str, Tensor]
    nodes: Sequence[Node]


def read_onnx(path: Path) -> OnnxFile:
    """Read the float32 weights and the nodes of a file.

    Raises:
        ValueError: if it is not ONNX, or its weights lie in another file.
    """
    model = message("Model")()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"{path}: not an ONNX file ({error})") from error
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == _FLOAT]
    weights = {tensor.name: _tensor(path, tensor) for tensor in floats}
    return OnnxFile(weights, [Node(n.name, n.op_type, tuple(n.input)) for n in model.graph.node])


def _tensor(path: Path, tensor: Any) -> Tensor:
    shape, values = tuple(tensor.dims), np.frombuffer(tensor.raw_data, dtype="<f4")
    if values.size != int(np.prod(shape)):
        raise ValueError(f"{path}: {tensor.name}: {values.size} numbers in the file for the shape {shape}")
    return torch.from_numpy(values.reshape(shape).copy())


@cache
def message(name: str) -> Any:
    """Return the class of a message: Model, Graph, Node or Tensor."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    for kind, fields in _FIELDS.items():
        described = file.message_type.add(name=kind)
        for field, (number, of, repeated, inner) in fields.items():
            label = 3 if repeated else 1
            described.field.add(
                name=field, number=number, type=of, label=label, type_name=f".{_PACKAGE}.{inner}" if inner else None
            )
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
