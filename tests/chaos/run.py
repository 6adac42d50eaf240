"""Random faults in one run on a real cluster: the tables must equal those of an undisturbed run, byte for byte.

Hosts are network namespaces on this machine (`chaos.hosts`), with real Ray on them and a real driver. Faults
come as the run gets on, so that all of them fall into it. Prints the table of docs/internals/chaos.md. Needs root. Run:
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
#: Shards that this spec has for each trial; and seconds between two looks at the run.
_SHARDS_A_TRIAL, _TICK = len(TASKS), 0.2
#: Seconds without one answer, and without a fault that lasts, after which a run is given up.
_STUCK = 240.0


def spec_of(trials: int, samples: int = 500) -> dict[str, object]:
    """A search whose proposals depend on every score before them, and edits: shards of about a quarter of a second."""
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
    """Every table of a run: candidates, scores, samples; no column of them holds a time."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.parquet"))}


class Answers:
    """How many answers a run's journal holds; reads only what is new."""

    def __init__(self, run: Path) -> None:
        """There may be no journal yet."""
        self._path, self._read, self.count = run / "journal.jsonl", 0, 0

    def look(self) -> int:
        """The number by now."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            self.count += whole.count(b'{"record":"score"') + whole.count(b'{"record":"failure"')
        return self.count


@dataclass
class Struck:
    """A fault that had an effect, and what came of it."""

    fault: Fault
    began: float
    answers: int
    working: int
    ended: float | None = None
    next_answer: float | None = None
    host_works: float | None = None


class Chaos:
    """One run under faults, from its first command to its end."""

    def __init__(self, scene: Scene, kinds: Sequence[type[Fault]], answers: int) -> None:
        """Nothing has begun.

        Args:
            scene: cluster, driver and dice; the driver is not started yet.
            kinds: of the faults, in their order.
            answers: how many the whole run has.
        """
        self.scene = scene
        self._coming, self._many = list(kinds), len(kinds)
        self._due = [round(answers * (i + 1) / (1.1 * (len(kinds) + 1))) for i in range(len(kinds))]
        self._answers = Answers(scene.driver.out)
        self.struck: list[Struck] = []
        self.without_effect: Counter[str] = Counter()
        self.own_ends: list[str] = []
        self._moved = time.monotonic()

    def run(self) -> None:
        """Work the run to its end.

        Raises:
            RuntimeError: it stands still, or ends before all faults have come.
        """
        self.scene.driver.start()
        while not self._finished():
            self._look()
            self._mend()
            self.scene.cluster.tend()
            if self.scene.driver.status is not None:
                self.own_ends.append(self.scene.driver.said()[-2000:])
                self.scene.driver.start()
            if self._coming and self._answers.count >= self._due[self._many - len(self._coming)]:
                self._strike(self._coming[0])
            time.sleep(_TICK)
        self._look()
        self._mend(all_of_them=True)
        if len(self.struck) < self._many:
            raise RuntimeError(f"the run ended after {len(self.struck)} faults: give it more --trials")

    def _finished(self) -> bool:
        """Whether the driver has worked the run to its end, whatever failed in it."""
        return self.scene.driver.status in (0, 1) and (self.scene.driver.out / "provenance.json").exists()

    def _look(self) -> None:
        """Take note of answers, and of nodes that work again."""
        before, now = self._answers.count, time.monotonic()
        if self._answers.look() > before:
            self._moved = now
        lasting = any(s.ended is None for s in self.struck)
        if now - self._moved > _STUCK and not lasting:
            raise RuntimeError(f"no answer for {_STUCK:g} s; the driver says: {self.scene.driver.said()[-2000:]}")
        for struck in self.struck:
            if struck.next_answer is None and self._answers.count > struck.answers:
                struck.next_answer = now - struck.began
            nodes = [struck.fault.host] if struck.fault.of_node else self.scene.cluster.nodes
            if struck.ended is not None and struck.host_works is None and self.scene.cluster.answering(nodes):
                struck.host_works = now - struck.ended

    def _mend(self, all_of_them: bool = False) -> None:
        """End the faults whose time has passed; one that had no effect will come again."""
        for struck in list(self.struck):
            if struck.ended is None and (all_of_them or struck.fault.over(time.monotonic() - struck.began)):
                try:
                    struck.fault.end()
                except NoEffectError:
                    self.struck.remove(struck)
                    self.without_effect[struck.fault.kind] += 1
                    self._coming.append(type(struck.fault))
                struck.ended = time.monotonic()

    def _strike(self, kind: type[Fault]) -> None:
        """Have the next fault befall a node that is whole, or the head or the driver, if it can have an effect."""
        cluster = self.scene.cluster
        broken = {s.fault.host for s in self.struck if s.ended is None}
        whole = [node for node in cluster.nodes if node not in broken and cluster.has_ray(node)]
        if not kind.of_node:
            whole = [] if broken else [cluster.head]  # a new cluster would mend what is broken before its time
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
        self.struck.append(Struck(fault, now, self._answers.look(), working))
        print(
            f"{len(self.struck):4}/{self._many}  {kind.kind} (host {host.number}, {fault.seconds:.0f} s) "
            f"after {self._answers.count} answers",
            flush=True,
        )

    def _working(self, kind: type[Fault], host: Host) -> int:
        """How many shards are being scored by what is about to be hit."""
        return len(self.scene.cluster.answering([host] if kind.of_node else ()))


def drawn(faults: int, dice: random.Random) -> list[type[Fault]]:
    """Kinds of faults, from a deck that holds each as often as its odds say."""
    deck = [kind for kind, odds in ODDS.items() for _ in range(odds)]
    return dice.sample(deck * (1 + faults // len(deck)), faults)


def work_undisturbed(cluster: RayHosts, spec: Path, out: Path) -> int:
    """Work a run to its end; how many answers it has.

    Raises:
        RuntimeError: it fails.
    """
    driver = Driver(cluster, spec, out)
    driver.start()
    while driver.status is None:
        time.sleep(_TICK)
    if driver.status:
        raise RuntimeError(f"the undisturbed run failed: {driver.said()[-2000:]}")
    return Answers(out).look()


def check_equal(run: Path, undisturbed: Path) -> None:
    """Raises RuntimeError: a table differs, or a shard failed."""
    failures = json.loads((run / "provenance.json").read_text())["failures"]
    if failures:
        raise RuntimeError(f"{len(failures)} shards failed: {failures[0]}")
    mine, theirs = tables(run), tables(undisturbed)
    if mine != theirs:
        raise RuntimeError(f"tables differ: {[name for name in mine | theirs if mine.get(name) != theirs.get(name)]}")


def lines_of(chaos: Chaos) -> Iterator[str]:
    """The table of docs/internals/chaos.md."""
    yield "| fault | survived | next answer after, s: median, worst | host works again after, s: median, worst |"
    yield "|---|---|---|---|"
    for kind in ODDS:
        of_kind = [s for s in chaos.struck if type(s.fault) is kind]
        if of_kind:
            told = [_told(s.next_answer for s in of_kind), _told(s.host_works for s in of_kind)]
            yield f"| {kind.kind} | {len(of_kind)} | {' | '.join(told)} |"
    told = [_told(s.next_answer for s in chaos.struck), _told(s.host_works for s in chaos.struck)]
    yield f"| **all** | **{len(chaos.struck)}** | {' | '.join(told)} |"


def _told(seconds: Iterable[float | None]) -> str:
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
    """The command."""
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
        answers = work_undisturbed(cluster, spec, folder / "undisturbed")
        quiet = time.monotonic() - started
        print(f"undisturbed: {answers} shards in {quiet:.0f} s; seed {given.seed}", flush=True)
        driver = Driver(cluster, spec, folder / "run")
        chaos = Chaos(Scene(cluster, driver, dice), kinds, answers)
        chaos.run()
        check_equal(folder / "run", folder / "undisturbed")
        print("\n".join(lines_of(chaos)))
        working = sum(s.working for s in chaos.struck)
        print(
            f"tables equal, no failures: {len(chaos.struck)} faults in {time.monotonic() - started - quiet:.0f} s; "
            f"{working} shards were being scored where they struck; {driver.starts} starts of the same command; "
            f"{len(chaos.own_ends)} unexpected ends; without effect, not counted: {chaos.without_effect.total()}"
        )


if __name__ == "__main__":
    main()
