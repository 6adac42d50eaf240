"""Merging a Llama by us and by mergekit: wall and CPU seconds, peak memory, and the largest difference of tensors.

Experts of random weights near a base; 134 M parameters unless --layers and --width say otherwise. Each merge runs in a
process of its own, ours and mergekit's in turn; files are in the page cache. "command" is `lines merge` against
`mergekit-yaml`, whole processes. "files" is `merge_files` against `run_merge`, and "memory" is `lines_sweep.merge`
against mergekit's executor of the tensors that are planned (`plan_in_memory` around it fails with pydantic 2.14), both
the first merge after all imports, in forks of two processes. Torch has one thread; ours uses threads for pieces too.

Run, with the python of an environment that has mergekit 0.1.5:
python -m benchmarks.merge --mergekit VENV/bin/python --json merge.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.merge_cases import CASES, Models, largest_difference

RUNS = 3
_OURS = """
import json, sys
from pathlib import Path
from pipeline.checkpoints.merge_files import MergeSources, merge_files
from pipeline.cli.merge_options import parsed_params
from pipeline.recipe import Recipe
method, params, weights, base, experts, out = json.loads(sys.argv[1])
recipe = Recipe.make(method, "constant", 1, 0, tuple(weights), parsed_params(method, "constant", params))
run = lambda: merge_files(MergeSources(base, experts), recipe, Path(out))
"""
_OURS_IN_MEMORY = """
import json, sys
from lines_sweep.merging import merge
from pipeline.cli.merge_options import parsed_params
method, params, weights, base, experts, out = json.loads(sys.argv[1])
given = {"method": method, "scaling": "constant", "alpha": 1, "weights": weights}
run = lambda: merge(base, experts, params=parsed_params(method, "constant", params), **given)
"""
_THEIRS = """
import json, sys
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
import mergekit.merge_methods
content, out = json.loads(sys.argv[1])
config = MergeConfiguration.model_validate(content)
options = MergeOptions(copy_tokenizer=False, write_model_card=False)
run = lambda: run_merge(config, out, options)
"""
_THEIRS_IN_MEMORY = (
    _THEIRS
    + """
from mergekit.architecture import get_architecture_info
from mergekit.graph import Executor
from mergekit.io.tasks import LoaderCache
from mergekit.merge import _model_out_config
from mergekit.plan import MergePlanner
def run():
    found = get_architecture_info(config, options)
    LoaderCache().setup(options=options)
    planner = MergePlanner(config, found, options=options, out_model_config=_model_out_config(config, found))
    planner._plan()
    names = {task: weight.name for weight, task in planner._tensors}
    return {names[task]: tensor for task, tensor in Executor(list(names)).run(quiet=True)}
"""
)
#: A small process of its own: what a process starts inherits its peak memory.
_TIMED = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
_, status, used = os.wait4(process.pid, 0)
print(json.dumps([time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
sys.exit(bool(status))
"""
#: Memory counts pages of mapped files, through which mergekit reads, and the result if it is in memory.
_SERVE = """
import gc, os, time, traceback
def memory(what):
    return int(open("/proc/self/status").read().split(what + ":")[1].split()[0])
def measured():
    open("/proc/self/clear_refs", "w").write("5")
    before, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    made = run()
    return [time.perf_counter() - wall, time.process_time() - cpu, (memory("VmHWM") - before) / 1024]
gc.collect()
gc.freeze()
for cache in sys.stdin:
    os.environ["LINES_SWEEP_CACHE"] = cache.strip()
    if not (child := os.fork()):
        try:
            print(json.dumps(measured()), flush=True)
        except Exception:
            traceback.print_exc()
        os._exit(0)
    os.waitpid(child, 0)
    print("end", flush=True)
os._exit(0)
"""
_UNITS = ("wall", "cpu", "memory")
Figures = tuple[float, float, float]


class Comparison:
    """Both programs on the same models."""

    def __init__(self, models: Models, mergekit: str) -> None:
        """Take the models, and the python of an environment with mergekit."""
        self._models, self._python = models, mergekit
        self.outputs = (models.folder / "ours", models.folder / "theirs")

    def pair(self, method: str, how: str, servers: "Servers") -> tuple[Callable[[], Figures], Callable[[], Figures]]:
        """Return what measures ours and theirs: wall and CPU seconds, peak memory in MiB."""
        out, other = map(str, self.outputs)
        case = CASES[method]
        ours, theirs = self._models.ours(case, out), self._models.theirs(method, other)
        if how == "files":
            return servers.start(sys.executable, _OURS, ours), servers.start(self._python, _THEIRS, theirs)
        if how == "memory":
            mine = servers.start(sys.executable, _OURS_IN_MEMORY, ours)
            return mine, servers.start(self._python, _THEIRS_IN_MEMORY, theirs)
        config = self._models.folder / "config.yml"
        config.write_text(json.dumps(json.loads(theirs)[0]))
        program = [str(Path(self._python).with_name("mergekit-yaml")), str(config), other]
        program += ["--no-copy-tokenizer", "--no-write-model-card"]
        lines = [sys.executable, "-c", "from pipeline.cli.main import main; main()", *self._models.command(case, out)]
        return (lambda: _command(lines), lambda: _command(program))


def _command(words: list[str]) -> Figures:
    with tempfile.TemporaryDirectory() as cache:  # in which no fingerprint is known
        env = _environment() | {"LINES_SWEEP_CACHE": cache}
        done = subprocess.run(
            [sys.executable, "-c", _TIMED, *words], capture_output=True, text=True, env=env, check=False
        )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    wall, cpu, peak = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu, peak


class Servers(ExitStack):
    """Processes that import once, and end with this."""

    def start(self, python: str, code: str, argument: str) -> Callable[[], Figures]:
        """Start one, and return what measures a merge in a fork of it."""
        words = [python, "-c", code + _SERVE, argument]
        server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment())
        assert server.stdin and server.stdout
        self.enter_context(server)
        asked, answers = server.stdin, server.stdout

        def measure() -> Figures:
            with tempfile.TemporaryDirectory() as cache:
                print(cache, file=asked, flush=True)
                last = line = answers.readline()
                while line not in ("end\n", ""):
                    last, line = line, answers.readline()
            if not last.startswith("["):
                raise RuntimeError(f"{python}: the merge failed: see above")
            wall, cpu, peak = json.loads(last)
            return wall, cpu, peak

        return measure


def _environment() -> dict[str, str]:
    """Return that of a user: byte code is written, as installed programs have it; torch has one thread."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {"OMP_NUM_THREADS": "1"}


def compare(comparison: Comparison, method: str, how: str, runs: int) -> dict[str, list[float]]:
    """Measure in turn, and print the medians of both sides, and of their ratios pair by pair."""
    with Servers() as servers:
        mine, theirs = comparison.pair(method, how, servers)
        pairs = [(mine(), theirs()) for _ in range(runs)]
    found, shown = {}, []
    for place, unit in enumerate(_UNITS):
        each = [statistics.median(pair[side][place] for pair in pairs) for side in (0, 1)]
        ratio = statistics.median(pair[0][place] / pair[1][place] for pair in pairs)
        found[unit] = [*each, ratio]
        shown.append(f"{unit} {each[0]:.4g} / {each[1]:.4g} = {ratio:.2f}")
    print(f"{method}, {how}: {'; '.join(shown)}", flush=True)
    return found


def main() -> None:
    """Write the models, and compare every method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", required=True, help="python of an environment with mergekit 0.1.5")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32", "float16"])
    parser.add_argument("--shard", default="1GB", help="size of a file of weights at most")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--how", nargs="*", default=["command", "files", "memory"])
    parser.add_argument("--methods", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--folder", type=Path, help="keep the models here; by default they are deleted")
    parser.add_argument("--json", type=Path, help="write the figures here, for benchmarks.merge_chart")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        models = Models((options.folder or Path(name)) / options.dtype, options.experts, options.dtype)
        models.write(options.layers, options.width, options.shard)
        comparison, found = Comparison(models, options.mergekit), {}
        print("ours / mergekit = ratio; seconds and MiB", flush=True)
        for method in options.methods:
            found[method] = {how: compare(comparison, method, how, options.runs) for how in options.how}
            if {"command", "files"} & set(options.how):
                same = "own draws" if CASES[method].draws else largest_difference(*comparison.outputs)
                print(f"{method}: {same}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
