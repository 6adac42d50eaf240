"""A journal that is being written, read in steps: each byte once, and without a lock."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.messages import Failure, ShardScore
from pipeline.records.append_log import Record, damaged_line, read_lines, record_at
from pipeline.records.journal import FILE_NAME, DamagedRecord, History, ShardKey, take_record

#: Bytes read in a step.
_STEP = 16 * 2**20
#: Bytes before the offset that are compared first: another journal may have replaced the file.
_CHECKED = 64
#: Number of last answers to show.
_LATEST = 12


@dataclass
class WorkerTally:
    """The work of one worker.

    Attributes:
        shards: number of answers, failures included.
        failures: number of failures.
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
class TailState:
    """The contents of a journal so far.

    Attributes:
        history: as `read_history` returns it.
        work: worker -> its work.
        latest: the last answers, the newest last.
    """

    history: History = field(default_factory=History)
    work: dict[str, WorkerTally] = field(default_factory=dict)
    latest: deque[ShardScore | Failure] = field(default_factory=lambda: deque(maxlen=_LATEST))

    @property
    def failures(self) -> dict[ShardKey, Failure]:
        """The failures that were not scored later, the newest last."""
        return self.history.answers.failures

    def take(self, record: Record, path: Path) -> None:
        """Add the next record of the journal."""
        answer = take_record(self.history, record, path)
        if answer is not None:
            self.work.setdefault(answer.worker, WorkerTally()).add(answer)
            self.latest.append(answer)


class Tail:
    """Follows the journal of a run."""

    def __init__(self) -> None:
        """Start at the first byte."""
        self._start()

    def _start(self) -> None:
        self.state = TailState()
        self.offset = self._lines = 0
        self._end = b""

    def advance(self, folder: Path) -> bool:
        """Read the next complete lines, at most some megabytes, and return whether there were any.

        Args:
            folder: the run's folder; a journal that does not start with what was read is read from its beginning.

        Raises:
            ValueError: if the journal is damaged or of another version.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(self.offset - len(self._end))
            if file.read(len(self._end)) != self._end:
                self._start()
                file.seek(0)
            whole = read_lines(file, _STEP)
        taken = 0
        try:
            for line in whole.split(b"\n")[:-1]:
                self._take(path, line)
                taken += len(line) + 1
                self._lines += 1
        finally:  # before a damaged line too, so that nothing is taken twice
            self.offset += taken
            self._end = (self._end + whole[:taken])[-_CHECKED:]
        return bool(whole)

    def _take(self, path: Path, line: bytes) -> None:
        number = self._lines + 1
        try:
            self.state.take(record_at(path, number, line), path)
        except DamagedRecord as error:
            raise damaged_line(path, number, error) from error
