"""Run every test in four processes at once, each with a HOME of its own, since Ray keeps a token there.

Tests of clusters and pools mostly wait, so those that compute run beside them, and give way when both want a core. The
output of a process is printed when it ends. Run by
`make test`: python tests/parts.py
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "tests"
#: These break clusters or wait for them; only they start or join a Ray that others could find.
CLUSTERS = """chaos_nodes cluster driver_killed driver_stopped loopback mirrors network_cut nodes permitted_cores
ray_metrics shipping submit token watching"""
#: These train or merge.
COMPUTING = """convnext_run derived_arms export finetune finetune_language_run formats interface learned lm_eval_run
lora_experts notebooks paper"""


@dataclass
class Part:
    """A process of pytest.

    Attributes:
        name: for its output.
        words: what it runs.
        niceness: added to that of this process.
    """

    name: str
    words: list[str]
    niceness: int = 0
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        home = BUILD / self.name
        home.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1"}
        # Without compiled files each of the hundreds of commands and workers compiles torch, Ray and the rest again.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = ["nice", "-n", str(self.niceness), sys.executable, "-m", "pytest", "--durations=15", *self.words]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)

    @property
    def _log(self) -> Path:
        return BUILD / f"{self.name}.txt"

    def show(self, seconds: float) -> None:
        print(self._log.read_text(errors="replace"))
        print(f"{self.name}: ended after {seconds:.0f} s with status {self.process.returncode}", flush=True)


def files(names: str) -> list[str]:
    """Return files of integration tests.

    Raises:
        FileNotFoundError: if one has been renamed or removed.
    """
    found = [Path("tests", "integration", f"test_{name}.py") for name in names.split()]
    if missing := [path for path in found if not (ROOT / path).is_file()]:
        raise FileNotFoundError(f"{Path(__file__).name} names {missing[0]}")
    return list(map(str, found))


def main() -> int:
    """Return the exit status: 0 if every test passed."""
    clusters, computing = files(CLUSTERS), files(COMPUTING)
    others = [f"--ignore={path}" for path in (*clusters, *computing)]
    waiting = [
        Part("clusters", clusters),
        Part("pools", ["tests/contracts"]),
        Part("runs", ["tests/integration", *others]),
        Part("computing", ["tests/unit", *computing], niceness=5),
    ]
    start, status = time.monotonic(), 0
    print(f"four processes run the tests: {', '.join(part.name for part in waiting)}", flush=True)
    for part in waiting:
        part.start()
    try:
        while waiting:
            time.sleep(0.5)
            for part in [part for part in waiting if part.process.poll() is not None]:
                part.show(time.monotonic() - start)
                status |= part.process.returncode
                waiting.remove(part)
    finally:
        for part in waiting:
            part.process.terminate()
    return status


if __name__ == "__main__":
    sys.exit(main())
