"""Runs all single-machine benchmarks in turn, for docs/internals/benchmarks.md: python -m benchmarks."""

import subprocess
import sys

import torch

for module in (
    "benchmarks.rebuild",
    "benchmarks.combine",
    "benchmarks.sweep",
    "benchmarks.lm_eval",
    "benchmarks.encoder",
    "benchmarks.first_block",
    "benchmarks.ranking",
    *(["benchmarks.gpu"] if torch.cuda.is_available() else []),
):
    print(f"== {module}", flush=True)
    subprocess.run([sys.executable, "-m", module], check=True)
