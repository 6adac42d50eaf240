"""How language models are trained: the depth of every parameter, and the files of the result."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from pipeline.checkpoints.whole_models import write_transformers
from pipeline.recipe import ParamValue
from pipeline.train.finetune.methods import FinetuneMethod
from pipeline.train.finetune.tuning import DenseTuning
from pipeline.train.lora import AdapterSettings
from tasks.base import Backbone, LayerMap
from tasks.files.sources import Source
from tasks.language.backbone import LanguageBackbone
from tasks.language.blocks import encoder_decoder_map
from tasks.language.models import model_folder

_TASK_TYPES = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "encoder": "FEATURE_EXTRACTION"}


def _whole_map(backbone: Backbone) -> LayerMap:
    """Return the blocks of all stacks, whichever of them a run scales."""
    module = backbone.module
    assert isinstance(module, PreTrainedModel)
    return encoder_decoder_map(module, "both") if backbone.family == "seq2seq" else backbone.layer_map


def adapter_settings(backbone: Backbone, base: str) -> AdapterSettings:
    """Return what an adapter's configuration says of a model that was read from `base`, a source of the spec."""
    source, name = Source.parse(base), base
    if source.kind == "hub":
        name = source.name.partition("@")[0]
    elif source.kind == "embedded":
        name = str(model_folder(source))
    return AdapterSettings(_whole_map(backbone), name, _TASK_TYPES[backbone.family])


def language_rates(backbone: Backbone, method: FinetuneMethod, params: Mapping[str, ParamValue]) -> Mapping[str, float]:
    """Return parameter name -> factor of the learning rate. Both stacks of an encoder-decoder have depths of their own.

    Embeddings, of tokens and of positions, have the rate of the first block; all others outside the blocks (the last
    norm, the output layer, a pooler) that of the last.
    """
    layer_map, module = _whole_map(backbone), backbone.module
    block_rates = method.rates(layer_map.num_blocks, params)
    tables = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Embedding)}
    last = layer_map.num_blocks - 1

    def place(name: str) -> int:
        return layer_map.blocks.get(name, 0 if name in tables or "embed" in name else last)

    return {name: block_rates[place(name)] for name, _ in module.named_parameters()}


@dataclass(frozen=True, slots=True)
class LanguageFiles:
    """Writes a model of transformers with its tokenizer, as `from_pretrained` reads them."""

    backbone: LanguageBackbone

    def __call__(self, folder: Path, module: nn.Module, dtype: torch.dtype) -> None:
        """Write weights that are rounded to `dtype`, configuration and tokenizer."""
        assert isinstance(module, PreTrainedModel)
        write_transformers(folder, module, dtype)
        self.backbone.tokenizer.save_pretrained(str(folder))


def dense_tuning(
    backbone: Backbone, classifier: nn.Module | None, method: FinetuneMethod, params: Mapping[str, ParamValue]
) -> DenseTuning:
    """Train a language model's own weights, and the head of a classifier around it at the full rate."""
    factors, own = language_rates(backbone, method, params), backbone.module
    assert isinstance(backbone, LanguageBackbone)
    if classifier is None:
        return DenseTuning(own, factors, LanguageFiles(backbone))
    known = {id(p): factors[name] for name, p in own.named_parameters()}
    every = {name: known.get(id(p), 1.0) for name, p in classifier.named_parameters()}
    return DenseTuning(classifier, every, LanguageFiles(backbone))
