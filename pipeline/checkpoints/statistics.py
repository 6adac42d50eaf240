"""Read the statistics of experts that a method needs (`Method.needs`) from files."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from pipeline.checkpoints.checkpoint import Checkpoint
from pipeline.checkpoints.lazy import Renamed, open_checkpoint
from pipeline.checkpoints.readers import safetensors_errors
from pipeline.merging.methods.base import OF_SEVERAL, Method
from tasks.tensors import first_names

_KINDS = {"fisher": "diagonal Fisher information", "gram": "products X^T X of the inputs of linear layers"}
_KIND, _EXPERT, _SAMPLES = "lines_sweep.kind", "lines_sweep.expert", "lines_sweep.samples"


def origin(kind: str, expert: str, samples: int) -> dict[str, str]:
    """Return the metadata of a file of statistics: kind, fingerprint of the expert's checkpoint, most images."""
    return {_KIND: kind, _EXPERT: expert, _SAMPLES: str(samples)}


def check_sources(name: str, method: Method, sources: Sequence[str], num_experts: int) -> None:
    """Check that there is a file for each expert if method `name` needs statistics; reads none.

    Raises:
        ValueError: if there are too many or too few, one does not exist, or the method cannot be used with files.
    """
    if not method.needs and sources:
        raise ValueError(f"--statistics: the method {name} needs none")
    if method.needs in OF_SEVERAL:
        raise ValueError(
            f"--method {name}: learns from data: put it in a spec, and export its result with `lines export`"
        )
    if method.needs and len(sources) != num_experts:
        raise ValueError(
            f"--statistics: the method {name} needs the {_KINDS[method.needs]}: one file for each of {num_experts} "
            f"experts, in their order, got {len(sources)}; `lines statistics SPEC --kind {method.needs}` makes them"
        )
    for source in sources:
        if (path := Path(source)).suffix != ".safetensors" or not path.is_file():
            raise ValueError(f"--statistics: must be a .safetensors file that exists, got {source}")


def open_statistics(
    method: Method,
    sources: Sequence[str],
    experts: Sequence[Checkpoint],
    base: Mapping[str, Tensor],
    names: Sequence[Mapping[str, str]] = (),
    left_out: Collection[str] = (),
) -> list[Checkpoint]:
    """Open the statistics that `method` needs, one file for each expert; their tensors stay on the disk.

    Args:
        method: that is used.
        sources: files of `lines statistics`, in the experts' order, checked by `check_sources`.
        experts: that are merged.
        base: the edited tensors of the base.
        names: for each expert, its own names -> the base's; () if they are the same.
        left_out: names of tensors that are not merged: their statistics are not used.

    Raises:
        ValueError: if they are of another model, or their metadata name another kind or expert.
    """
    check = {"fisher": _check_fisher, "gram": _check_gram}
    found = []
    for source, expert, ours in zip(sources, experts, names or [{}] * len(experts), strict=False):
        _check_origin(source, method.needs, expert)
        opened = open_checkpoint(source)
        renamed = {ours.get(n, n): n for n in opened.state if ours.get(n, n) not in left_out}
        found.append(replace(opened, state=Renamed.of(opened.state, renamed)))
        check[method.needs](source, found[-1].state, base)
        if found[-1].state.keys() != found[0].state.keys():
            raise ValueError(f"{source}: must have the names that {sources[0]} has: were they made by one command?")
    return found


def _check_origin(source: str, kind: str, expert: Checkpoint) -> None:
    """Check kind and expert of a file; one without metadata, which a user may have made, is accepted."""
    with safetensors_errors(Path(source)), safe_open(source, "pt") as file:
        metadata = file.metadata() or {}
    if metadata.get(_KIND, kind) != kind:
        raise ValueError(f"{source}: must be of kind {kind}, got {metadata[_KIND]}; see `lines statistics --kind`")
    if metadata.get(_EXPERT, expert.fingerprint) != expert.fingerprint:
        raise ValueError(
            f"{source}: is of another expert than {expert.source}; give one file for each --expert, in their order"
        )


def _check_fisher(source: str, statistics: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    """Check that there is an entry for each entry of the base, and none is negative."""
    missing = [name for name in base if name not in statistics]
    if missing:
        raise ValueError(
            f"{source}: has nothing for {first_names(missing)}: its names must be those of the checkpoints"
        )
    bad = [n for n, t in base.items() if statistics[n].shape != t.shape or bool((statistics[n] < 0).any())]
    if bad:
        raise ValueError(f"{source}: must be of the base's shapes and not negative; it is not in {first_names(bad)}")


def _check_gram(source: str, statistics: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    """Check that there is (I, I) for some matrices (O, I) of the base."""
    unknown = [name for name in statistics if name not in base]
    if unknown or not statistics:
        what = f"{first_names(unknown)} in {source} are not in the base" if unknown else f"{source} holds no tensors"
        raise ValueError(f"--statistics: {what}: its names must be those of weight matrices of the checkpoints")
    bad = [n for n, t in statistics.items() if base[n].ndim != 2 or t.shape != (base[n].shape[1],) * 2]
    if bad:
        raise ValueError(
            f"{source}: must be (inputs, inputs) for a weight of (outputs, inputs); it is not in {first_names(bad)}"
        )
