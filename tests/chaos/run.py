"""Inject random faults into one run on a real cluster: its tables must equal an undisturbed run's, byte for byte.

Hosts are network namespaces on this machine (`chaos.hosts`), with real Ray and a real driver. Faults are spread over
the run by its progress, so that all of them fall into it. Prints the table of the chaos page. Needs root. Run:
PYTHONPATH=tests python -m chaos.run [--faults 100] [--seed 0]
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from chaos.faults import ODDS, Fault, NoEffectError, Scene
from chaos.hosts import Host
from chaos.ray_hosts import Driver, RayHosts, ray_hosts

TASKS = ("mnist", "fashion", "kana", "greek")
#: Shards of this spec for each trial, and seconds between two checks of the run.
_SHARDS_A_TRIAL, _TICK = len(TASKS), 0.2
#: Seconds without an answer, while no fault is active, after which the run is stopped as stuck.
_STUCK = 240.0


def spec_of(trials: int, samples: int = 500) -> dict[str, object]:
    """Return a spec with edits and a search whose proposals depend on every earlier score; 0.25 s a shard."""
    scaling = {"function": "linear", "alpha": {"range": [0, 1]}, "beta": {"range": [0, 1]}}
    search = {"sampler": "tpe", "trials": trials, "in_flight": 8}
    return {
        "name": "chaos",
        "backbone": {"family": "open_clip", "model": "embedded/tiny-vit"},
        "base": "embedded/base",
        "experts": {task: f"embedded/{task}" for task in TASKS},
        "tasks": list(TASKS),
        "limits": {"val": samples, "test": samples},
        "arms": {
            "sum": {"merge": "sum", "scaling": scaling, "search": search, "select": {"maximise": "mean"}},
            "edit": {"edit": "each_expert", "scaling": {"function": "sqrt", "beta": "1 - alpha", "alpha": 0.5}},
        },
    }


def tables(run: Path) -> dict[str, bytes]:
    """Return every table of a run as bytes; none of them holds a time."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.parquet"))}


class Answers:
    """Counts the answers in a run's journal, reading only new lines."""

    def __init__(self, run: Path) -> None:
        """Watch a run whose journal may not exist yet."""
        self._path, self._read, self.count = run / "journal.jsonl", 0, 0

    def look(self) -> int:
        """Return the number of answers so far."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            self.count += whole.count(b'{"record":"score"') + whole.count(b'{"record":"failure"')
        return self.count


class RunTooShortError(RuntimeError):
    """A run ended before all faults had been injected."""


@dataclass
class Injected:
    """A fault that had an effect, and when the run recovered."""

    fault: Fault
    began: float
    answers: int
    working: int
    ended: float | None = None
    next_answer: float | None = None
    host_works: float | None = None


class Chaos:
    """One run under faults, from its first start to its end."""

    def __init__(self, scene: Scene, kinds: Sequence[type[Fault]], answers: int) -> None:
        """Spread the faults over the run.

        Args:
            scene: cluster, driver and random generator; the driver is not started yet.
            kinds: the kinds of the faults, in order.
            answers: number of answers in the whole run.
        """
        self.scene = scene
        self._coming, self._many = list(kinds), len(kinds)
        self._due = [round(answers * (i + 1) / (1.1 * (len(kinds) + 1))) for i in range(len(kinds))]
        self._answers = Answers(scene.driver.out)
        self.injected: list[Injected] = []
        self.without_effect: Counter[str] = Counter()
        self.unexpected_ends: list[str] = []
        self._moved = time.monotonic()

    def run(self) -> None:
        """Run to the end.

        Raises:
            RunTooShortError: if it ends before all faults have been injected.
            RuntimeError: if the run is stuck.
        """
        self.scene.driver.start()
        while not self._finished():
            self._look()
            self._end_faults()
            self.scene.cluster.tend()
            if self.scene.driver.status is not None:
                self.unexpected_ends.append(self.scene.driver.output()[-2000:])
                self.scene.driver.start()
            if self._coming and self._answers.count >= self._due[self._many - len(self._coming)]:
                self._inject(self._coming[0])
            time.sleep(_TICK)
        self._look()
        self._end_faults(all_of_them=True)
        if len(self.injected) < self._many:
            raise RunTooShortError(f"the run ended after {len(self.injected)} faults: give it more --trials")

    def _finished(self) -> bool:
        """Whether the run is complete, with or without failures."""
        return self.scene.driver.status in (0, 1) and (self.scene.driver.out / "provenance.json").exists()

    def _look(self) -> None:
        """Record new answers, and nodes that work again."""
        before, now = self._answers.count, time.monotonic()
        if self._answers.look() > before:
            self._moved = now
        lasting = any(s.ended is None for s in self.injected)
        if now - self._moved > _STUCK and not lasting:
            raise RuntimeError(
                f"no answer for {_STUCK:g} s; output of the driver: {self.scene.driver.output()[-2000:]}"
            )
        for injected in self.injected:
            if injected.next_answer is None and self._answers.count > injected.answers:
                injected.next_answer = now - injected.began
            nodes = [injected.fault.host] if injected.fault.of_node else self.scene.cluster.nodes
            if injected.ended is not None and injected.host_works is None and self.scene.cluster.answering(nodes):
                injected.host_works = now - injected.ended

    def _end_faults(self, all_of_them: bool = False) -> None:
        """End the faults whose time has passed; one without effect is injected again."""
        for injected in list(self.injected):
            if injected.ended is None and (all_of_them or injected.fault.over(time.monotonic() - injected.began)):
                try:
                    injected.fault.end()
                except NoEffectError:
                    self.injected.remove(injected)
                    self.without_effect[injected.fault.kind] += 1
                    self._coming.append(type(injected.fault))
                injected.ended = time.monotonic()

    def _inject(self, kind: type[Fault]) -> None:
        """Inject the next fault into a healthy node, the head or the driver, if it can have an effect."""
        cluster = self.scene.cluster
        broken = {s.fault.host for s in self.injected if s.ended is None}
        whole = [node for node in cluster.nodes if node not in broken and cluster.has_ray(node)]
        if not kind.of_node:
            whole = [] if broken else [cluster.head]  # a new cluster would end other faults early
        if not whole:
            return
        host = self.scene.dice.choice(whole)
        fault, working = kind(self.scene, host), self._working(kind, host)
        try:
            fault.begin()
        except NoEffectError:
            self.without_effect[kind.kind] += 1
            return
        now = time.monotonic()
        self._coming.pop(0)
        self.injected.append(Injected(fault, now, self._answers.look(), working))
        print(
            f"{len(self.injected):4}/{self._many}  {kind.kind} (host {host.number}, {fault.seconds:.0f} s) "
            f"after {self._answers.count} answers",
            flush=True,
        )

    def _working(self, kind: type[Fault], host: Host) -> int:
        """Return how many shards are being scored by the target."""
        return len(self.scene.cluster.answering([host] if kind.of_node else ()))


def drawn(faults: int, dice: random.Random) -> list[type[Fault]]:
    """Draw kinds of faults without replacement from a deck that holds each by its odds."""
    deck = [kind for kind, odds in ODDS.items() for _ in range(odds)]
    return dice.sample(deck * (1 + faults // len(deck)), faults)


def run_undisturbed(cluster: RayHosts, spec: Path, out: Path) -> int:
    """Run without faults and return the number of answers.

    Raises:
        RuntimeError: if the run fails.
    """
    driver = Driver(cluster, spec, out)
    driver.start()
    while driver.status is None:
        time.sleep(_TICK)
    if driver.status:
        raise RuntimeError(f"the undisturbed run failed: {driver.output()[-2000:]}")
    return Answers(out).look()


def check_equal(run: Path, undisturbed: Path) -> None:
    """Compare two runs.

    Raises:
        RuntimeError: if a table differs, or a shard failed.
    """
    failures = json.loads((run / "provenance.json").read_text())["failures"]
    if failures:
        raise RuntimeError(f"{len(failures)} shards failed: {failures[0]}")
    mine, theirs = tables(run), tables(undisturbed)
    if mine != theirs:
        raise RuntimeError(f"tables differ: {[name for name in mine | theirs if mine.get(name) != theirs.get(name)]}")


def lines_of(chaos: Chaos) -> Iterator[str]:
    """Yield the lines of the table on the chaos page."""
    yield "| fault | survived | next answer after, s: median, worst | host works again after, s: median, worst |"
    yield "|---|---|---|---|"
    for kind in ODDS:
        of_kind = [s for s in chaos.injected if type(s.fault) is kind]
        if of_kind:
            cells = [_summary(s.next_answer for s in of_kind), _summary(s.host_works for s in of_kind)]
            yield f"| {kind.kind} | {len(of_kind)} | {' | '.join(cells)} |"
    cells = [_summary(s.next_answer for s in chaos.injected), _summary(s.host_works for s in chaos.injected)]
    yield f"| **all** | **{len(chaos.injected)}** | {' | '.join(cells)} |"


def _summary(seconds: Iterable[float | None]) -> str:
    found = [s for s in seconds if s is not None]
    return f"{statistics.median(found):.1f}, {max(found):.1f}" if found else "-"


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True)
        yield given
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser()
    options.add_argument("--faults", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--nodes", type=int, default=3)
    options.add_argument("--trials", type=int, help="candidates of the search; else 3 for each fault")
    options.add_argument("--out", type=Path, help="a new folder to keep both runs in")
    given = options.parse_args()
    dice = random.Random(given.seed)
    kinds = drawn(given.faults, dice)
    started = time.monotonic()
    with _folder(given.out) as folder, ray_hosts(given.nodes) as cluster:
        spec = folder / "spec.yaml"
        spec.write_text(yaml.safe_dump(spec_of(given.trials or 3 * given.faults), sort_keys=False))
        answers = run_undisturbed(cluster, spec, folder / "undisturbed")
        quiet = time.monotonic() - started
        print(f"undisturbed: {answers} shards in {quiet:.0f} s; seed {given.seed}", flush=True)
        driver = Driver(cluster, spec, folder / "run")
        chaos = Chaos(Scene(cluster, driver, dice), kinds, answers)
        chaos.run()
        check_equal(folder / "run", folder / "undisturbed")
        print("\n".join(lines_of(chaos)))
        working = sum(s.working for s in chaos.injected)
        print(
            f"tables equal, no failures: {len(chaos.injected)} faults in {time.monotonic() - started - quiet:.0f} s; "
            f"{working} shards were in evaluation when hit; {driver.starts} starts of the same command; "
            f"{len(chaos.unexpected_ends)} unexpected ends; without effect, not counted: {chaos.without_effect.total()}"
        )


if __name__ == "__main__":
    main()
