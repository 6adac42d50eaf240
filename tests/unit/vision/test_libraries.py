"""Proves that torch's compiler is not imported with open_clip, and that what needs it still works."""

import subprocess
import sys

IMPORTS = """
import sys
import tasks.vision.image_models, tasks.vision.published.download, pipeline.workers.worker
assert not {"torch._dynamo", "wandb"} & set(sys.modules), "imported"
"""
USES = """
import open_clip.timm_model, torch, torchvision
assert open_clip.timm_model.timm and torch.compiler.disable.__module__ == "torch.compiler"
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


def test_a_worker_imports_neither_the_compiler_nor_wandb_and_both_work_later() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS + USES], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["4.0", "1.0", "2.0"]), done.stderr
