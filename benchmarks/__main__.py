"""All benchmarks, one after the other: the figures of docs/internals/benchmarks.md. Run: python -m benchmarks."""

import subprocess
import sys

import torch

for module in (
    "benchmarks.rebuild",
    "benchmarks.combine",
    "benchmarks.sweep",
    *(["benchmarks.gpu"] if torch.cuda.is_available() else []),
):
    print(f"== {module}", flush=True)
    subprocess.run([sys.executable, "-m", module], check=True)
