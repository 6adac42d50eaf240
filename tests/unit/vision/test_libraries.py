"""Proves that what few models need is not imported with open_clip, and that what needs it still works."""

import subprocess
import sys

IMPORTS = """
import sys
import tasks.vision.image_models, tasks.vision.published.download, pipeline.workers.worker
assert not {"timm", "torch._dynamo", "transformers", "wandb"} & set(sys.modules), "imported"
"""
USES = """
import open_clip, torch, torchvision
assert torch.compiler.disable.__module__ == "torch.compiler"
image, token = torch.zeros(1, 3, 32, 32), torch.ones(1, 2, dtype=torch.long)
print(*open_clip.timm_model.TimmModel("resnet10t", 8).eval()(image).shape)
import transformers
small = transformers.BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8)
print(*open_clip.hf_model.HFTextEncoder("", 4, proj_type="linear", config=small, pretrained=False)(token).shape)
boxes, image = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.ones(1, 1, 8, 8)
print(torchvision.ops.roi_align(image, [boxes], 2).sum().item())
skipped = []
from tasks.vision.libraries import _disable
@_disable
def outside(x):
    skipped.append(torch.compiler.is_compiling())
    return x + 1
print(outside(torch.zeros(1)).item())
import torch._dynamo
print(outside(torch.ones(1)).item())
assert skipped == [False, False] and outside._torchdynamo_disable
import wandb
"""


def test_a_worker_imports_no_compiler_timm_transformers_or_wandb_and_all_work_later() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS + USES], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "8", "1", "4", "4.0", "1.0", "2.0"]), done.stderr
