"""Choose what is trained of a model, by the method of the spec and the model's family."""

from functools import partial

from torch import nn

from pipeline.checkpoints.whole_models import write_vision_tower
from pipeline.train.finetune.methods import METHODS
from pipeline.train.finetune.rates import rate_factors
from pipeline.train.finetune.spec import TEXT_FAMILIES, FinetuneRun
from pipeline.train.finetune.tuning import DenseTuning, Tuning, WriteModule, write_tower
from pipeline.train.lora import AdapterSettings, LoraTuning, check_rank
from pipeline.train.seeds import seed_of
from tasks.base import Backbone


def check_method(run: FinetuneRun, backbone: Backbone) -> None:
    """Check that the rank of LoRA fits the model.

    Raises:
        ValueError: if it does not; the model and the field are named.
    """
    if METHODS[run.method].low_rank:
        try:
            check_rank(backbone, run.params["rank"], _adapter_settings(backbone, "").layer_map)
        except ValueError as error:
            raise ValueError(f"{run.name}: params.{error}") from None


def tuning_of(backbone: Backbone, run: FinetuneRun, base: str, classifier: nn.Module | None = None) -> Tuning:
    """Return the tensors to train.

    Args:
        backbone: which holds the base.
        run: the method and its parameters.
        base: the spec's, which adapters name.
        classifier: around the backbone's module, if its head is trained too.
    """
    method = METHODS[run.method]
    if method.low_rank:
        settings = _adapter_settings(backbone, base)
        rank, scale = check_rank(backbone, run.params["rank"], settings.layer_map), run.params["scale"]
        assert isinstance(scale, float | int)
        return LoraTuning(backbone, rank, scale, seed_of("lora", run.settings.seed), settings)
    if backbone.family in TEXT_FAMILIES:
        from pipeline.train.finetune.language import dense_tuning  # transformers

        return dense_tuning(backbone, classifier, method, run.params)
    rates = method.rates(backbone.layer_map.num_blocks, run.params)
    names = [name for name, _ in backbone.module.named_parameters()]
    return DenseTuning(backbone.module, rate_factors(names, backbone.layer_map, rates), _files_of(backbone))


def _files_of(backbone: Backbone) -> WriteModule:
    if backbone.family != "vision":
        return write_tower
    from tasks.towers.backbone import VisionBackbone

    assert isinstance(backbone, VisionBackbone)
    return partial(write_vision_tower, backbone)


def _adapter_settings(backbone: Backbone, base: str) -> AdapterSettings:
    if backbone.family not in TEXT_FAMILIES:
        return AdapterSettings()
    from pipeline.train.finetune.language import adapter_settings  # transformers

    return adapter_settings(backbone, base)
