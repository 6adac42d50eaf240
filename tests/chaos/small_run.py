"""A few chosen faults in one run on simulated hosts, for tests (see tests/chaos/run.py)."""

import random
from dataclasses import dataclass
from pathlib import Path

from small_run import Lines, write_spec

from chaos import faults
from chaos.hosts import Host
from chaos.ray_hosts import Driver, ray_hosts
from chaos.run import Answers, Chaos, Injected, spec_of


class StoppedForGood(faults.WorkerStopped):
    """A worker that never continues: the run only ends if others evaluate its shards."""

    lasts = (1e9, 1e9)


class FullUntilReported(faults.DiskFull):
    """The disk stays full until a worker has reported it; until then others are slow, or they would end the run."""

    def begin(self) -> None:
        """Fill the disk, and slow the other nodes."""
        super().begin()
        for other in self._others():
            other.slow(faults.Slowed.share)

    def end(self) -> None:
        """Free the disk, and let the other nodes run freely."""
        for other in self._others():
            other.quick()
        super().end()

    def _others(self) -> list[Host]:
        return [node for node in self.scene.cluster.nodes if node is not self.host]

    def over(self, passed: float) -> bool:
        return "no space left" in self.scene.driver.output()


#: In this order. The cut comes first, so that it ends before the run does; meanwhile there is one node.
KINDS = (
    faults.NetworkLongCut,
    faults.WorkerKilled,
    FullUntilReported,
    faults.DriverKilled,
    faults.NodeKilled,
    StoppedForGood,
)
_SAMPLES = 200


@dataclass
class Survived:
    """The folders of both runs, and the faults of the second."""

    undisturbed: Path
    run: Path
    chaos: Chaos
    output: str

    def of(self, kind: type[faults.Fault]) -> Injected:
        """Return the one fault of this kind."""
        (found,) = [s for s in self.chaos.injected if type(s.fault) is kind]
        return found


def survive(folder: Path, trials: int) -> Survived:
    """Make one run undisturbed in this process, and one on two nodes under faults.

    Raises:
        RunTooShortError: if it ends while a fault lasts, before the others: it needs more trials.
    """
    lines = Lines(folder, {})
    spec = write_spec(folder, spec_of(trials, _SAMPLES))
    status, output = lines("run", spec, "--out", folder / "undisturbed", "--no-cache", "--pool", "local")
    assert status == 0, output
    with ray_hosts(nodes=2) as cluster:
        driver = Driver(cluster, spec, folder / "run")
        scene = faults.Scene(cluster, driver, random.Random(0))
        chaos = Chaos(scene, KINDS, Answers(folder / "undisturbed").look())
        chaos.run()
    return Survived(folder / "undisturbed", folder / "run", chaos, driver.output())
