"""A journal that is still written, read on from where the last reading ended: never the same byte twice, no lock."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.messages import Failure, ShardScore
from pipeline.records.append_log import Record, parse_line
from pipeline.records.journal import FILE_NAME, History, ShardKey, take_record

#: Bytes read in one step.
_STEP = 16 * 2**20
#: The end of what was read is looked at again before more is read: another journal may have taken the file's place.
_CHECKED = 64
#: Answers kept for people to look at.
_LATEST = 12


@dataclass
class WorkerTally:
    """What one worker has done.

    Attributes:
        shards: answers, failures included.
        failures: how many of them.
        seconds: (rebuilding weights, evaluating).
    """

    shards: int = 0
    failures: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)

    def add(self, answer: ShardScore | Failure) -> None:
        """Count an answer."""
        self.shards += 1
        if isinstance(answer, Failure):
            self.failures += 1
            return
        (rebuilding, evaluating), (more, longer) = self.seconds, answer.seconds
        self.seconds = rebuilding + more, evaluating + longer


@dataclass
class Seen:
    """What a journal holds so far.

    Attributes:
        history: as `read_history` gives it.
        work: worker -> what it did.
        latest: the last answers, the newest last.
    """

    history: History = field(default_factory=History)
    work: dict[str, WorkerTally] = field(default_factory=dict)
    latest: deque[ShardScore | Failure] = field(default_factory=lambda: deque(maxlen=_LATEST))

    @property
    def failures(self) -> dict[ShardKey, Failure]:
        """Those that stand, by request, the newest last."""
        return self.history.answers.failures

    def take(self, record: Record, path: Path) -> None:
        """Add the next record."""
        answer = take_record(self.history, record, path)
        if answer is not None:
            self.work.setdefault(answer.worker, WorkerTally()).add(answer)
            self.latest.append(answer)


class Tail:
    """The journal of a run, followed."""

    def __init__(self) -> None:
        """Start before its first byte."""
        self._start()

    def _start(self) -> None:
        self.seen = Seen()
        self.offset = 0
        self._end = b""

    def advance(self, folder: Path) -> bool:
        """Read on, at most some megabytes; whether anything was there. A last line without its end waits for it.

        Args:
            folder: the run's; the same journal each time, or one that begins with what was read.

        Raises:
            ValueError: damaged, or of another version.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(self.offset - len(self._end))
            if file.read(len(self._end)) != self._end:
                self._start()
                file.seek(0)
            data = file.read(_STEP)
            # A line may be longer than a step.
            while b"\n" not in data and (more := file.read(_STEP)):
                data += more
        whole = data[: data.rfind(b"\n") + 1]
        taken = 0
        try:
            for line in whole.split(b"\n")[:-1]:
                self.seen.take(_record(path, line), path)
                taken += len(line) + 1
        finally:  # at a damaged line: what came before it is not taken again
            self.offset += taken
            self._end = (self._end + whole[:taken])[-_CHECKED:]
        return bool(whole)


def _record(path: Path, line: bytes) -> Record:
    try:
        return parse_line(line)
    except ValueError as error:
        raise ValueError(f"{path}: a line is damaged: {line[:80]!r}") from error
