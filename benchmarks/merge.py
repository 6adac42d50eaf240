"""Merging a Llama in bfloat16 on disk by `lines merge` and by mergekit: wall and CPU seconds, and peak memory.

Three experts of random weights near a base; 134 M parameters unless --layers and --width say otherwise. Each merge runs
in a process of its own, ours and mergekit's in turn; files are in the page cache. "command" is the whole process, "API"
what `merge_files` and mergekit's `run_merge` take after all imports. Torch has one thread; ours also uses threads for
pieces. Run: python -m benchmarks.merge --mergekit VENV/bin/python, of an environment with mergekit 0.1.5
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor

RUNS = 3
_VOCABULARY = 32_000
_OURS = """
import json, sys, time
from pathlib import Path
from pipeline.checkpoints.merge_files import MergeSources, merge_files
from pipeline.cli.merge import _params
from pipeline.recipe import Recipe
method, params, weights, base, experts, out = json.loads(sys.argv[1])
recipe = Recipe.make(method, "constant", 1, 0, tuple(weights), _params(method, "constant", params))
run = lambda: merge_files(MergeSources(base, experts), recipe, Path(out))
"""
_THEIRS = """
import json, sys, time, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
import mergekit.merge_methods
content, out = json.loads(sys.argv[1])
config = MergeConfiguration.model_validate(content)
run = lambda: run_merge(config, out, MergeOptions(copy_tokenizer=False, write_model_card=False))
"""
#: A small process of its own: what a process starts inherits its peak memory.
_TIMED = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, used = os.wait4(process.pid, 0)
print(json.dumps([time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
sys.exit(bool(status))
"""
_MEASURE = """
def memory(what):
    return int(open("/proc/self/status").read().split(what + ":")[1].split()[0])
open("/proc/self/clear_refs", "w").write("5")
before, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
run()
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, (memory("VmHWM") - before) / 1024]))
"""


@dataclass(frozen=True)
class Case:
    """One method under both programs' names and parameters."""

    ours: str
    params: tuple[str, ...]
    theirs: str
    parameters: dict[str, float]
    weights: tuple[float, ...] = (0.5, 0.3, 0.2)


CASES = {
    "linear": Case("weighted", (), "linear", {}),
    "task_arithmetic": Case("weighted", (), "task_arithmetic", {}),
    "ties": Case("ties", ("trim=tensor", "keep=20"), "ties", {"density": 0.2}),
    "dare_linear": Case("dare", ("drop=0.9", "rescale=l1"), "dare_linear", {"density": 0.1}),
    "breadcrumbs": Case("breadcrumbs", ("keep=10", "top=1"), "breadcrumbs", {"density": 0.1, "gamma": 0.01}),
    "slerp": Case("slerp", ("t=0.3",), "slerp", {}, (1, 1, 0)),
}


def write_model(folder: Path, base: dict[str, Tensor] | None, seed: int, layers: int, width: int) -> dict[str, Tensor]:
    """Write a Llama, or one near `base`, in shards with its configuration; return its tensors."""
    generator = torch.Generator().manual_seed(seed)
    hidden = width * 8 // 3 // 64 * 64
    shapes = {"model.embed_tokens.weight": (_VOCABULARY, width), "lm_head.weight": (_VOCABULARY, width)}
    shapes["model.norm.weight"] = (width,)
    for i in range(layers):
        place = f"model.layers.{i}"
        shapes |= {f"{place}.self_attn.{n}_proj.weight": (width, width) for n in "qkvo"}
        shapes |= {f"{place}.mlp.{n}_proj.weight": (hidden, width) for n in ("gate", "up")}
        shapes[f"{place}.mlp.down_proj.weight"] = (width, hidden)
        shapes |= {f"{place}.{n}_layernorm.weight": (width,) for n in ("input", "post_attention")}
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        state[name] = (0.02 * noise if base is None else base[name] + 0.001 * noise).bfloat16()
    folder.mkdir()
    save_torch_state_dict(state, folder, max_shard_size="1GB")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": _VOCABULARY}
    config |= {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": layers, "dtype": "bfloat16"}
    config |= {"num_attention_heads": width // 64, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    return state


def ours(case: Case, folder: Path) -> tuple[list[str], str]:
    """Return the arguments of `lines merge`, and those of the API as JSON."""
    experts = [str(folder / f"expert_{i}") for i in range(3)]
    words = ["--base", str(folder / "base"), *(word for expert in experts for word in ("--expert", expert))]
    words += [word for weight in case.weights for word in ("--weight", str(weight))]
    words += [
        "--method",
        case.ours,
        "--scaling",
        "constant",
        "--alpha",
        "1",
        "-o",
        f"{folder / 'ours'}/",
        "--overwrite",
    ]
    words += [word for param in case.params for word in ("--param", param)]
    api = json.dumps([case.ours, case.params, case.weights, str(folder / "base"), experts, str(folder / "ours")])
    return words, api


def theirs(case: Case, folder: Path) -> str:
    """Return mergekit's configuration, and its output, as JSON."""
    chosen = [(i, weight) for i, weight in enumerate(case.weights) if weight]
    models = [
        {"model": str(folder / f"expert_{i}"), "parameters": {"weight": weight, **case.parameters}}
        for i, weight in chosen
    ]
    config: dict[str, object] = {"merge_method": case.theirs, "models": models, "dtype": "bfloat16"}
    if case.theirs == "slerp":
        config |= {"base_model": models[0]["model"], "parameters": {"t": 0.3}}
    elif case.theirs != "linear":
        config["base_model"] = str(folder / "base")
    return json.dumps([config, str(folder / "theirs")])


def command(words: list[str]) -> tuple[float, float, float]:
    """Run a process; return its wall and CPU seconds, and its peak memory in MiB."""
    return _measured([sys.executable, "-c", _TIMED, *words])


def api(python: str, code: str, argument: str) -> tuple[float, float, float]:
    """Run code of one side in a process; return what the merge itself took."""
    return _measured([python, "-c", code + _MEASURE, argument])


def _measured(words: list[str]) -> tuple[float, float, float]:
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    wall, cpu, peak = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu, peak


def compare(name: str, case: Case, folder: Path, mergekit: str, runs: int) -> None:
    """Print the medians of both sides, and their ratio pair by pair."""
    lines = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "merge"]
    words, ours_api = ours(case, folder)
    their_api = theirs(case, folder)
    config = folder / "config.yml"
    config.write_text(json.dumps(json.loads(their_api)[0]))
    program = [str(Path(mergekit).with_name("mergekit-yaml")), str(config), str(folder / "theirs")]
    program += ["--no-copy-tokenizer", "--no-write-model-card"]
    for what, mine, other in (
        ("command", lambda: command([*lines, *words]), lambda: command(program)),
        ("API", lambda: api(sys.executable, _OURS, ours_api), lambda: api(mergekit, _THEIRS, their_api)),
    ):
        pairs = []
        for _ in range(runs):
            pairs.append((mine(), other()))
            assert list((folder / "ours").glob("*.safetensors")) and list((folder / "theirs").glob("*.safetensors"))
        show(f"{name}, {what}", pairs)


def show(what: str, pairs: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> None:
    """Print one row."""
    figures = []
    for i, unit in enumerate(("s", "s CPU", "MiB")):
        mine, other = (statistics.median(pair[side][i] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(pair[0][i] / pair[1][i] for pair in pairs)
        figures.append(f"{mine:.4g} / {other:.4g} {unit} = {ratio:.2f}")
    print(f"{what:24} {'; '.join(figures)}", flush=True)


def main() -> None:
    """Write the models, and compare every method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mergekit", required=True, help="python of an environment with mergekit 0.1.5")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--methods", nargs="*", default=list(CASES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = write_model(folder / "base", None, 0, options.layers, options.width)
        for i in range(3):
            write_model(folder / f"expert_{i}", base, 1 + i, options.layers, options.width)
        print(f"{sum(t.numel() for t in base.values()):,} parameters; ours / mergekit", flush=True)
        for method in options.methods:
            compare(method, CASES[method], folder, options.mergekit, options.runs)


if __name__ == "__main__":
    main()
