"""Proves that adapters of image towers are read by the names of old and new versions of transformers."""

import json
from pathlib import Path

import pytest
import torch
from tiny_tower import PREPROCESSING

from tasks.towers.backbone import VisionBackbone, build

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
#: A projection's name in an adapter by transformers 4, and in the module of transformers 5.
OLD = "encoder.layer.1.attention.attention.query"


@pytest.fixture(scope="module", params=["vit", "dinov2"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VisionBackbone:
    from transformers import AutoConfig, AutoModel

    folder: Path = tmp_path_factory.mktemp("tower")
    model = AutoModel.from_config(AutoConfig.for_model(request.param, **SIZES, intermediate_size=32))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    return build(str(folder), model.state_dict(), torch.device("cpu"), torch.float32, {})


@pytest.mark.parametrize("prefix", ["", "{kind}."])
def test_names_of_files_are_the_modules(backbone: VisionBackbone, prefix: str) -> None:
    """Peft with transformers 4 wrote them; of a classifier, with the prefix of its tower."""
    kind = backbone.module.base_model_prefix
    (own,) = (name for name, _ in backbone.module.named_modules() if name.endswith("1.attention.q_proj"))
    names = [prefix.format(kind=kind) + name for name in (OLD, own)]
    parts = backbone.weight_parts(names, "adapter")
    assert [parts[name].parameter for name in names] == [f"{own}.weight"] * 2


def test_what_is_no_linear_module_is_named(backbone: VisionBackbone) -> None:
    with pytest.raises(ValueError, match=r"adapter: changes encoder\.layer\.1\.nothing: not a linear module"):
        backbone.weight_parts([OLD, "encoder.layer.1.nothing"], "adapter")
