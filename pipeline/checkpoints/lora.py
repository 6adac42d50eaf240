"""Read LoRA adapters as peft saves them (Hu et al., 2022): from files to a low-rank task vector.

Shape legend: O rows (outputs) of a weight, I its columns (inputs), R rank.
"""

import math
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.checkpoints.checkpoint import check_finite, fingerprint, read_state
from pipeline.checkpoints.files import CheckpointFiles
from pipeline.merging.low_rank import LowRank, LowRankDelta, stacked
from tasks.files.json_files import read_object
from tasks.lora import WeightPart
from tasks.tensors import first_names

_NAME = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
#: Fields of adapter_config.json that make an adapter more than scale * B A on a frozen base.
_MORE_THAN_LORA = (
    "use_dora",
    "modules_to_save",
    "lora_bias",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
#: Initialisations that leave the base's weights unchanged; PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA rewrite them, so that
#: their factors are no change of the spec's base.
_PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica")
#: The output of an nn.MultiheadAttention, which peft wraps as a whole. Up to this version peft adds its change twice,
#: in training and in merging (its pull request 3774): its files mean 2 * scale * B A.
_ATTENTION_OUTPUT = ".base_layer.out_proj"
_TWICE_UP_TO = (0, 21, 2)
_MERGE_HELP = "load it with peft, call merge_and_unload() and save_pretrained(FOLDER), and give that folder"


@dataclass(frozen=True, slots=True)
class Adapter:
    """The factors of an adapter.

    Attributes:
        source: as the user wrote it.
        factors: module name, without peft's prefix -> its change, including scales.
    """

    source: str
    factors: Mapping[str, LowRank]

    def task_vector(self, parts: Mapping[str, WeightPart], shapes: Mapping[str, torch.Size]) -> LowRankDelta:
        """Return the task vector over a model's parameters.

        Args:
            parts: the place of each module's weight (`tasks.lora.TakesAdapters.weight_parts`).
            shapes: of all parameters.

        Raises:
            ValueError: if factors have another shape than their weight.
        """
        found: dict[str, list[LowRank]] = {}
        for module, factor in self.factors.items():
            part = parts[module]
            rows, *columns = shapes[part.parameter]
            if factor.shape != (rows // part.count, *columns):
                raise ValueError(
                    f"{self.source}: {module}: its factors give {tuple(factor.shape)}, but its weight has "
                    f"{(rows // part.count, *columns)}: was it trained on another architecture?"
                )
            found.setdefault(part.parameter, []).append(_among_rows(factor, part))
        return LowRankDelta({name: stacked(factors) for name, factors in found.items()}, shapes)


def _among_rows(factor: LowRank, part: WeightPart) -> LowRank:
    """Return the change of the whole parameter: 0 in the rows of its other parts, of the same rank."""
    if part.count == 1:
        return factor
    rows = factor.b.shape[0]
    b = factor.b.new_zeros(part.count * rows, factor.b.shape[1])
    b[part.index * rows : (part.index + 1) * rows] = factor.b
    return LowRank(b, factor.a)


def adapter_fingerprint(delta: LowRankDelta) -> str:
    """Hash the factors with their scales, by parameter name: 16 hexadecimal digits."""
    sides = {f"{name}.{side}": getattr(f, side) for name, f in delta.factors.items() for side in ("a", "b")}
    return fingerprint(sides)


def read_adapter(files: CheckpointFiles) -> Adapter:
    """Read an adapter; no code of its files is ever run.

    Args:
        files: of an adapter, from `files.locate`.

    Raises:
        ValueError: if it is not readable, not plain LoRA of linear modules, incomplete, or not finite; the source and
            the field or the first names are given.

    Example:
        >>> adapter = read_adapter(locate("policies/helpful"))
        >>> adapter.factors["model.layers.0.self_attn.q_proj"].b.shape  # (O, R)
        torch.Size([2048, 16])
    """
    assert files.adapter_config is not None
    state = read_state(files)
    adapter = adapter_of(files, state)
    check_finite(files.label, state)
    if bad := [module for module, factor in adapter.factors.items() if not bool(factor.b.isfinite().all())]:
        raise ValueError(
            f"{files.label}: {files.adapter_config.name}: r and lora_alpha make {first_names(bad)} infinite"
        )
    return adapter


def adapter_of(files: CheckpointFiles, state: Mapping[str, Tensor]) -> Adapter:
    """Make an adapter of the tensors of its file, whose values are not looked at.

    Raises:
        ValueError: as `read_adapter`, but for values that are not finite.
    """
    assert files.adapter_config is not None
    source = files.label
    config = _read_config(source, files.adapter_config)
    if strange := [f"{name} {tensor.dtype}" for name, tensor in state.items() if not tensor.is_floating_point()]:
        raise ValueError(f"{source}: must hold real floating-point numbers, got {first_names(strange)}; {_MERGE_HELP}")
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if (match := _NAME.fullmatch(name)) is None:
            raise ValueError(f"{source}: holds {name}, which is no factor of a linear module; {_MERGE_HELP}")
        pairs.setdefault(match["module"], {})[match["side"]] = tensor
    if not pairs:
        raise ValueError(f"{source}: holds no factors")
    return Adapter(source, {module: _factor(source, module, sides, config) for module, sides in pairs.items()})


def _read_config(source: str, path: Path) -> dict[str, Any]:
    config = read_object(path, f"{source}: {path.name}")
    if (kind := config.get("peft_type")) != "LORA":
        raise ValueError(f"{source}: {path.name}: peft_type: must be LORA, got {reprlib.repr(kind)}; {_MERGE_HELP}")
    for field, rule, value in _faults(config):
        raise ValueError(f"{source}: {path.name}: {field}: must be {rule}, got {reprlib.repr(value)}; {_MERGE_HELP}")
    return config


def _faults(config: Mapping[str, Any]) -> Iterator[tuple[str, str, object]]:
    """Yield (field, rule, value) of each setting that is not plain LoRA."""
    yield from ((field, "unset", config[field]) for field in _MORE_THAN_LORA if config.get(field))
    if (bias := config.get("bias", "none")) != "none":
        yield "bias", "none", bias
    if (start := config.get("init_lora_weights", True)) not in _PLAIN_STARTS:
        yield "init_lora_weights", "one that leaves the base's weights as they are", start
    for field in ("r", "lora_alpha"):
        if not _is_positive(value := config.get(field)):
            yield field, "a positive number", value
    for field in ("rank_pattern", "alpha_pattern"):
        if not _is_pattern(value := config.get(field) or {}):
            yield field, "a mapping of regular expressions to positive numbers", value


def _is_pattern(value: object) -> bool:
    try:
        return isinstance(value, dict) and all(re.compile(k) and _is_positive(v) for k, v in value.items())
    except (re.error, RecursionError, OverflowError):
        return False


def _is_positive(value: object) -> bool:
    try:
        return isinstance(value, int | float) and 0 < float(value) < math.inf
    except OverflowError:
        return False


def _factor(source: str, module: str, sides: Mapping[str, Tensor], config: Mapping[str, Any]) -> LowRank:
    """Scale B and A of one module, as peft does: by alpha / R, or alpha / sqrt(R) for rank-stabilised LoRA."""
    if set(sides) != {"A", "B"}:
        raise ValueError(
            f"{source}: {module}: must have lora_A and lora_B, got lora_{' and lora_'.join(sorted(sides))}"
        )
    a_RI, b_OR = sides["A"], sides["B"]
    if a_RI.ndim != 2 or b_OR.ndim != 2:
        raise ValueError(f"{source}: {module}: LoRA of a convolution is not supported; {_MERGE_HELP}")
    # peft applies the configuration of an attention to its output.
    named = module.removesuffix(_ATTENTION_OUTPUT)
    rank = _by_pattern(config.get("rank_pattern"), named, config["r"])
    if not a_RI.shape[0] == b_OR.shape[1] == rank:
        got = f"A of {tuple(a_RI.shape)} and B of {tuple(b_OR.shape)}"
        raise ValueError(f"{source}: {module}: must have the rank {rank:g} of its configuration, got {got}")
    alpha = _by_pattern(config.get("alpha_pattern"), named, config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    if named != module:
        scale *= _times(source, config)
    b, a = b_OR.float() * scale, a_RI.float()
    b, a = (a.t(), b.t()) if config.get("fan_in_fan_out") else (b, a)
    # Products depend on the memory layout of their factors: copies have one layout, whatever their file.
    return LowRank(*(t.clone(memory_format=torch.contiguous_format) for t in (b, a)))


def _times(source: str, config: Mapping[str, Any]) -> int:
    """Return how often the peft that wrote a file adds the change of an attention's output; old ones leave no version.

    Raises:
        ValueError: if that is not known for the version.
    """
    version = str(config.get("peft_version") or "0")
    if tuple(map(int, re.findall(r"\d+", version)[:3])) <= _TWICE_UP_TO:
        return 2
    known = ".".join(map(str, _TWICE_UP_TO))
    raise ValueError(
        f"{source}: changes the output of nn.MultiheadAttention, and was written by peft {version}: up to {known} peft "
        f"adds that change twice, and it is not known for later ones; {_MERGE_HELP}"
    )


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: float) -> float:
    """Return the value of the first pattern that matches the end of the module's name, as in peft."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module):
            return float(value)
    return default
