"""A few chosen faults in one run on hosts of their own, for tests: see tests/chaos/run.py."""

import random
from dataclasses import dataclass
from pathlib import Path

from small_run import Lines, write_spec

from chaos import faults
from chaos.ray_hosts import Driver, ray_hosts
from chaos.run import Answers, Chaos, Struck, spec_of


class StoppedForGood(faults.WorkerStopped):
    """Its shards are answered by others, or the run never ends."""

    lasts = (1e9, 1e9)


class FullUntilTold(faults.DiskFull):
    """As long as it takes a worker to come upon it, on a busy machine too."""

    def over(self, passed: float) -> bool:
        return "no space left" in self.scene.driver.said()


#: In this order. The cut comes first, so that it is healed before the run ends; while it lasts there is one node.
KINDS = (
    faults.NetworkLongCut,
    faults.WorkerKilled,
    FullUntilTold,
    faults.DriverKilled,
    faults.NodeKilled,
    StoppedForGood,
)
_TRIALS, _SAMPLES = 24, 200


@dataclass
class Survived:
    """Both runs' folders, and what befell the second."""

    undisturbed: Path
    run: Path
    chaos: Chaos
    said: str

    def of(self, kind: type[faults.Fault]) -> Struck:
        """The one fault of that kind."""
        (found,) = [s for s in self.chaos.struck if type(s.fault) is kind]
        return found


def survive(folder: Path) -> Survived:
    """One run undisturbed in this process, one on two nodes under faults."""
    lines = Lines(folder, {})
    spec = write_spec(folder, spec_of(_TRIALS, _SAMPLES))
    status, output = lines("run", spec, "--out", folder / "undisturbed", "--no-cache", "--pool", "local")
    assert status == 0, output
    with ray_hosts(nodes=2) as cluster:
        driver = Driver(cluster, spec, folder / "run")
        scene = faults.Scene(cluster, driver, random.Random(0))
        chaos = Chaos(scene, KINDS, Answers(folder / "undisturbed").look())
        chaos.run()
    return Survived(folder / "undisturbed", folder / "run", chaos, driver.said())
