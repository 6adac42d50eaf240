"""Comparison of a checkpoint's tensors with the parameters of a model."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

#: Names of buffers that are no weights: causal masks, positions, frequencies of rotary embeddings, and the count of an
#: averaged model.
_BUFFER = re.compile(
    r"(?:.*\.)?(?:(?:\w+_)?mask|tril|(?:position|token_type)_ids|(?:attn|attention)\.(?P<mask>bias)"
    r"|(?:attn|attention)\.masked_bias|(?:rotary_emb|rotary)\.(?:original_)?inv_freq|n_averaged)"
)


def is_buffer(name: str, tensor: Tensor) -> bool:
    """Return whether a tensor is a buffer that is no weight, by its name: it is never edited, and may be infinite.

    `attn.bias` is the mask of GPT-2 if it has at least two dimensions; a vector is a weight.
    """
    match = _BUFFER.fullmatch(name)
    return match is not None and (match["mask"] is None or tensor.ndim > 1)


def region(tensor: Tensor) -> tuple[object, ...]:
    """Return what two tensors have in common if they are one region of memory, read the same way: they are tied."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def first_names(names: Sequence[str]) -> str:
    """Return the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_tensors(
    state: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    source: str,
    others: Mapping[str, Sequence[str]] | None = None,
    hint: str = "",
) -> None:
    """Refuse a state dict that does not have exactly these names and shapes.

    Args:
        state: renamed to the model's names.
        shapes: of the model's parameters.
        source: where the tensors came from, for errors.
        others: further problems: their kind -> the tensors.
        hint: end of the error.

    Raises:
        ValueError: if tensors are missing, unexpected, mis-shaped, not floating-point or in `others`; the first names
            are given.
    """
    wrong = [
        f"{name} {list(state[name].shape)}, expected {list(shape)}"
        for name, shape in shapes.items()
        if name in state and state[name].shape != shape
    ]
    integers = [f"{n} {state[n].dtype}" for n in shapes if n in state and not state[n].is_floating_point()]
    missing, extra = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
    kinds = {"missing": missing, "unexpected": extra, "mis-shaped": wrong, "quantised": integers, **(others or {})}
    problems = [f"{len(names)} {kind} tensors ({'; '.join(names[:3])})" for kind, names in kinds.items() if names]
    if problems:
        raise ValueError(f"{source}: is not a checkpoint of this architecture: {', '.join(problems)}{hint}")
