"""What a method needs to know of each expert's data, from files: see `Method.needs`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.lazy import open_checkpoint
from pipeline.merging.methods.base import Method

_KINDS = {"fisher": "diagonal Fisher information", "gram": "products X^T X of the inputs of linear layers"}
_KIND, _EXPERT, _SAMPLES = "lines_sweep.kind", "lines_sweep.expert", "lines_sweep.samples"


def origin(kind: str, expert: str, samples: int) -> dict[str, str]:
    """The metadata of a file of statistics: their kind, the fingerprint of the expert's checkpoint, images at most."""
    return {_KIND: kind, _EXPERT: expert, _SAMPLES: str(samples)}


def check_sources(name: str, method: Method, sources: Sequence[str], num_experts: int) -> None:
    """There is a file for each expert where method `name` needs any; reads none.

    Raises:
        ValueError: there are too many or too few, one does not exist, or the method cannot be used with files.
    """
    if not method.needs and sources:
        raise ValueError(f"--statistics: the method {name} needs none")
    if method.needs == "learned":
        raise ValueError(f"--method {name}: learns from data: put it in a spec, and `lines export` what it gives")
    if method.needs and len(sources) != num_experts:
        raise ValueError(
            f"--statistics: the method {name} needs the {_KINDS[method.needs]}: one file for each of {num_experts} "
            f"experts, in their order, got {len(sources)}; `lines statistics SPEC --kind {method.needs}` makes them"
        )
    for source in sources:
        if (path := Path(source)).suffix != ".safetensors" or not path.is_file():
            raise ValueError(f"--statistics: must be a .safetensors file that exists, got {source}")


def open_statistics(
    method: Method, sources: Sequence[str], experts: Sequence[Checkpoint], base: Mapping[str, Tensor]
) -> list[Checkpoint]:
    """The statistics that `method` needs, one file an expert; their tensors stay on the disk.

    Args:
        method: says what it needs.
        sources: as `check_sources` lets pass, in the experts' order, as `lines statistics` writes them.
        experts: that are merged.
        base: the edited tensors of the base.

    Raises:
        ValueError: they are not of this model, or say themselves that they are of another kind or expert.
    """
    check = {"fisher": _check_fisher, "gram": _check_gram}
    found = []
    for source, expert in zip(sources, experts, strict=False):
        _check_origin(source, method.needs, expert)
        found.append(open_checkpoint(source))
        check[method.needs](source, found[-1].state, base)
        if found[-1].state.keys() != found[0].state.keys():
            raise ValueError(f"{source}: must have the names that {sources[0]} has: were they made by one command?")
    return found


def _check_origin(source: str, kind: str, expert: Checkpoint) -> None:
    """Files without metadata, which a user may have made, are taken for what they are given as."""
    with safe_open(source, "pt") as file:
        said = file.metadata() or {}
    if said.get(_KIND, kind) != kind:
        raise ValueError(f"{source}: must be of kind {kind}, got {said[_KIND]}; see `lines statistics --kind`")
    if said.get(_EXPERT, expert.fingerprint) != expert.fingerprint:
        raise ValueError(
            f"{source}: is of another expert than {expert.source}; give one file for each --expert, in their order"
        )


def _check_fisher(source: str, statistics: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    """One entry for each entry of the base, none negative."""
    missing = [name for name in base if name not in statistics]
    if missing:
        raise ValueError(f"{source}: has nothing for {_some(missing)}: its names must be those of the checkpoints")
    bad = [n for n, t in base.items() if statistics[n].shape != t.shape or bool((statistics[n] < 0).any())]
    if bad:
        raise ValueError(f"{source}: must be of the base's shapes and not negative; it is not in {_some(bad)}")


def _check_gram(source: str, statistics: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    """For some matrices (O, I) of the base, (I, I)."""
    unknown = [name for name in statistics if name not in base]
    if unknown or not statistics:
        what = f"{_some(unknown)} in {source} are not in the base" if unknown else f"{source} holds no tensors"
        raise ValueError(f"--statistics: {what}: its names must be those of weight matrices of the checkpoints")
    bad = [n for n, t in statistics.items() if base[n].ndim != 2 or t.shape != (base[n].shape[1],) * 2]
    if bad:
        raise ValueError(
            f"{source}: must be (inputs, inputs) for a weight of (outputs, inputs); it is not in {_some(bad)}"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
