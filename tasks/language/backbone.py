"""What all language models of transformers have in common as backbones: they are built, and checkpoints are read."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.configuration_utils import PreTrainedConfig

from tasks.base import LayerMap
from tasks.language.conversion import in_module_names
from tasks.language.experts import check_vocabulary
from tasks.language.models import check_config, inputs_fingerprint, model_folder, read_files, without_progress_bars
from tasks.language.tensor_names import TensorNames
from tasks.lora import WeightPart
from tasks.registry import check_options

#: Names of the largest number of input tokens in configurations.
_POSITIONS = ("max_encoder_position_embeddings", "max_position_embeddings")


@dataclass(frozen=True, slots=True)
class _Kind:
    """Two classes of transformers: one builds a family's models, the other knows its configurations."""

    what: str
    builder: Any
    knower: Any

    def fits(self, config: PreTrainedConfig) -> bool:
        return type(config) in self.knower._model_mapping


_KINDS = {
    "causal": _Kind("a causal language model", AutoModelForCausalLM, AutoModelForCausalLM),
    "seq2seq": _Kind("an encoder-decoder", AutoModelForSeq2SeqLM, AutoModelForSeq2SeqLM),
    "encoder": _Kind("an encoder", AutoModel, AutoModelForMaskedLM),
    "vision": _Kind("an image model", AutoModel, AutoModelForImageClassification),
}


class LanguageBackbone:
    """A language model on a device, and its tokenizer. All weights are edited, tied ones once.

    Attributes:
        inputs: content hash of configuration and tokenizer.
        context: largest number of input tokens; None without a bound.
    """

    family: str

    def __init__(
        self, model: str, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layer_map: LayerMap
    ) -> None:
        """Take a loaded module.

        Args:
            model: source of its configuration and tokenizer, for errors.
            module: on its device, in its dtype.
            tokenizer: of the model.
            layer_map: see blocks.py.
        """
        self.model_name, self.tokenizer, self.layer_map = model, tokenizer, layer_map
        self.inputs = inputs_fingerprint(model)
        self.module: nn.Module = module.requires_grad_(False).train(False)
        self._module = module
        self.dtype, self.device = module.dtype, module.device
        self.context = _context(module)
        self._names = TensorNames.of(module)
        self._vocabulary: Mapping[str, Tensor] | None = None

    def loaded(self, base: Mapping[str, Tensor], loading: "Loading") -> Self:
        """Return this backbone after setting how its experts are read.

        Args:
            base: the base's checkpoint.
            loading: with `shared`, experts may have more or fewer tokens than the base: only those of both change.
        """
        if loading.shared:
            selected = self.select(base, "base")
            self._vocabulary = {name: selected[name] for name in self._names.vocabulary}
        return self

    def select(self, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Select the parameters' tensors from a checkpoint of the whole or the bare model: see tensor_names.py."""
        return self._names.select(in_module_names(state, self._module, self._names), source, self._vocabulary)

    def weight_parts(self, modules: Iterable[str], source: str) -> Mapping[str, WeightPart]:
        """Find the weights that a LoRA adapter changes: one parameter a module."""
        return self._names.weight_parts(modules, source)

    def check_expert(self, folder: Path, source: str) -> None:
        """Check that a full checkpoint or an adapter with a tokenizer has the base's vocabulary.

        Raises:
            ValueError: if it has another; sizes and the first differing tokens are given.
        """
        check_vocabulary(folder, source, self.model_name, self.tokenizer, shared=self._vocabulary is not None)


def _context(module: PreTrainedModel) -> int | None:
    """Return the largest number of input tokens; relative positions and state-space models have none.

    Models such as RoBERTa number positions from the one after the padding token's.
    """
    found = [getattr(module.config, name, None) for name in _POSITIONS]
    longest = next((value for value in found if isinstance(value, int)), None)
    for name, table in module.named_modules():
        if isinstance(table, nn.Embedding) and table.num_embeddings == longest and "position" in name:
            return longest if table.padding_idx is None else longest - table.padding_idx - 1
    return longest


@dataclass(frozen=True, slots=True)
class Loading:
    """The options of `backbone.options` that all language models have.

    Attributes:
        trusted: whether the code in the model's folder may run.
        arguments: further arguments for transformers.
        shared: whether experts may have other numbers of tokens than the base.
    """

    trusted: bool = False
    shared: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any], more: Iterable[str] = ()) -> "Loading":
        """Read the options; `more` names the family's own, which it reads itself.

        Raises:
            ValueError: if an option is unknown or has the wrong type.
        """
        check_options("backbone.options", options, ("trust_remote_code", "attention", "vocabulary", *more))
        trusted, attention = options.get("trust_remote_code", False), options.get("attention")
        if not isinstance(trusted, bool):
            raise ValueError(f"backbone.options.trust_remote_code: must be true or false, got {trusted!r}")
        if attention is not None and not isinstance(attention, str):
            raise ValueError(f"backbone.options.attention: must be a name (sdpa, eager, ...), got {attention!r}")
        if (vocabulary := options.get("vocabulary", "equal")) not in ("equal", "shared"):
            raise ValueError(f"backbone.options.vocabulary: must be equal or shared, got {vocabulary!r}")
        return cls(trusted, vocabulary == "shared", {} if attention is None else {"attn_implementation": attention})


@contextmanager
def about_model() -> Iterator[None]:
    """Put the field in front of errors about a model's folder.

    Raises:
        ValueError: if the block raises one.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"backbone.model: {error}") from error


def empty_model(model: str, family: str, loading: Loading) -> PreTrainedModel:
    """Build a model of transformers without weights, on the meta device.

    Args:
        model: source of its configuration (see `model_folder`).
        family: causal, seq2seq, encoder or vision.
        loading: how.

    Raises:
        ValueError: if the folder does not exist, the model is of another family, or transformers cannot build it.
    """
    config, kind = _config(model, loading.trusted), _KINDS[family]
    if not loading.trusted and not kind.fits(config):
        raise ValueError(f"{model}: a model of type {config.model_type!r} is not {kind.what}{_hint(config)}")
    with torch.device("meta"):
        empty = read_files(
            model, lambda: kind.builder.from_config(config, trust_remote_code=loading.trusted, **loading.arguments)
        )
    assert isinstance(empty, PreTrainedModel)
    return empty


def _hint(config: PreTrainedConfig) -> str:
    fits = [family for family, kind in _KINDS.items() if kind.fits(config)]
    return f": set backbone.family: {' or '.join(fits)}" if fits else ""


def with_weights(
    empty: PreTrainedModel,
    state: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype,
    loading: Loading,
    without: Collection[str] = (),
) -> PreTrainedModel:
    """Build a model with the weights of a checkpoint, copied from `state`.

    Weights that the configuration ties are separate if the checkpoint has two different ones, as in transformers: of
    T5 1.1 the configuration does not show it.

    Args:
        empty: see `empty_model`.
        state: of the checkpoint.
        device: of the model.
        dtype: of the model.
        loading: how.
        without: modules to leave out, which transformers' computation allows for; others are not affected.

    Raises:
        ValueError: if the weights do not fit; errors call them "base".
    """
    # transformers warns of missing weights, so those that are left out are 0 until then.
    spare = {n: torch.zeros(p.shape) for n, p in empty.named_parameters() if n.partition(".")[0] in without}
    _leave_out(empty, without)
    names = TensorNames.of(empty)
    state = in_module_names(state, empty, names)
    for name in names.untied(state):
        _untie(empty, name)
    tensors = TensorNames.of(empty).select(state, "base") | spare
    with without_progress_bars():
        module = type(empty).from_pretrained(
            None, config=empty.config, state_dict=tensors, dtype=dtype, **loading.arguments
        )
    _leave_out(module, without)
    return _moved(module, device)


def _leave_out(module: nn.Module, names: Collection[str]) -> None:
    for name in names:
        if isinstance(getattr(module, name, None), nn.Module):
            setattr(module, name, None)


def _untie(module: nn.Module, name: str) -> None:
    owner, _, attribute = name.rpartition(".")
    tied = module.get_parameter(name)
    setattr(module.get_submodule(owner), attribute, nn.Parameter(torch.empty_like(tied)))


def _config(model: str, trusted: bool) -> PreTrainedConfig:
    folder = model_folder(model)
    check_config(model, folder)
    config = read_files(model, lambda: AutoConfig.from_pretrained(folder, trust_remote_code=trusted))
    assert isinstance(config, PreTrainedConfig)
    return config


def _moved(module: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Move to `device` with copies, since transformers keeps the state dict's own tensors if dtypes agree.

    The meta device keeps shapes only: a plan needs no memory for the weights. Tied weights stay one parameter there.
    """
    if device.type == "meta":
        moved: dict[nn.Parameter, nn.Parameter] = {}
        for owner in module.modules():
            for name, parameter in owner.named_parameters(recurse=False):
                known = moved.setdefault(parameter, nn.Parameter(parameter.to(device), requires_grad=False))
                setattr(owner, name, known)
        nn.Module.to(module, device)
        return module
    for parameter in module.parameters():
        parameter.data = parameter.data.to(device, copy=True)
    nn.Module.to(module, device)
    return module
