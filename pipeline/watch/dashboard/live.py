"""A run followed from a thread: what its page shows, brought up to date every second or two."""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pipeline.records.journal import FILE_NAME
from pipeline.storage.run_folder import run_folder
from pipeline.watch.dashboard.figures import Drawn, draw
from pipeline.watch.dashboard.page import Look, details, drawings, status
from pipeline.watch.follow.interim_tables import tables_now
from pipeline.watch.follow.run_view import Opened, opened
from pipeline.watch.follow.survey import Survey, Surveyor
from pipeline.watch.follow.tail import Tail
from pipeline.watch.progress_file import Said, read_said
from tasks.files.object_store import is_url

log = logging.getLogger(__name__)
#: Seconds between two looks at a folder, and at a store, from which each look fetches what the run has added.
_PACE, _STORE_PACE = 2.0, 15.0
#: Whatever takes long is done again after so many times as long: watching must not take the run's machine from it.
_REST = 8
#: Nothing heard for so many seconds: the run has stopped, as far as can be told.
_SILENCE = 60.0
#: Seconds over which the rate is measured where the driver does not tell it.
_WINDOW = 60.0


class _Paced:
    """Something costly that is done only when there is news, and never most of the time."""

    def __init__(self) -> None:
        self._due, self._seen = 0.0, -1

    def due(self, news: int) -> bool:
        """Whether to do it now; `news` grows with all that there is to see."""
        return news != self._seen and time.monotonic() >= self._due

    def did(self, news: int, began: float) -> None:
        """It was done, since `began`."""
        now = time.monotonic()
        self._due, self._seen = now + _REST * (now - began), news


class Live:
    """One run; `run` works in a thread, and what it leaves in `state` and `figures` is read by others."""

    def __init__(self, place: str, told: Callable[[Survey], None] = lambda survey: None) -> None:
        """Look at nothing yet.

        Args:
            place: of the run: a path or a URL.
            told: called with each new survey of the run's candidates.
        """
        self.place, self._told = place, told
        self._pace = _STORE_PACE if is_url(place) else _PACE
        self._tail = Tail()
        self._opened: Opened | None = None
        self._survey: Survey | None = None
        self._drawn = Drawn()
        self._surveys, self._drawings = _Paced(), _Paced()
        self._heard = 0.0
        self._counts: deque[tuple[float, int]] = deque()
        self._trouble = ""
        self.figures = b"[]"
        self._version = 0
        self.shown = Look(place, self._tail.seen, Said(), "waiting")
        self.state = self._state(self.shown)

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop` is set."""
        while not stop.is_set():
            self.look()
            stop.wait(self._pace)

    def look(self) -> None:
        """Look once; what cannot be read is told on the page."""
        try:
            with run_folder(self.place) as folder:
                self._read(folder)
                said = read_said(folder)
                if self._opened is not None:
                    self._study(folder, self._opened)
            self.shown = self._seen(said)
        except Exception as error:  # a page that stood still would pass for a run that does
            log.debug("%s cannot be shown", self.place, exc_info=True)
            trouble = f"{type(error).__name__}: {error}"
            self.shown = Look(self.place, self._tail.seen, Said(), "quiet", trouble=trouble)
        self.state = self._state(self.shown)

    def _read(self, folder: Path) -> None:
        """Read on to the end of the journal."""
        first = self._tail.offset == 0
        while self._tail.advance(folder):
            self._heard = (folder / FILE_NAME).stat().st_mtime if first else time.time()
        before, self._opened = self._opened, opened(self._tail.seen.history, self._opened)
        if self._opened is not None and self._opened is not before:
            self._surveyor = Surveyor(self._opened.plan)
        self._counts.append((time.monotonic(), len(self._tail.seen.history.answers)))
        while self._counts[-1][0] - self._counts[0][0] > _WINDOW:
            self._counts.popleft()

    def _study(self, folder: Path, opened: Opened) -> None:
        """Survey the candidates and draw the figures, each where it is time to."""
        history, began, news = self._tail.seen.history, time.monotonic(), self._tail.offset
        if self._surveys.due(news):
            self._survey = self._surveyor.survey(opened.ledger, history.proposals)
            self._told(self._survey)
            self._surveys.did(news, began)
        began = time.monotonic()
        if self._drawings.due(news) and self._survey is not None and self._survey.candidates:
            self._draw(folder, opened)
            self._drawings.did(news, began)

    def _draw(self, folder: Path, opened: Opened) -> None:
        try:
            with tables_now(folder, opened.plan, opened.ledger, self._tail.seen.history) as tables:
                self._drawn = draw(tables)
                self.figures = json.dumps(drawings(self._drawn.figures)).encode()
                self._trouble = ""
        except ValueError as error:  # as where a run of rewards has lost its prompts
            self._trouble = f"the figures cannot be drawn: {error}"
        self._version += 1

    def _seen(self, said: Said) -> Look:
        quiet_for = min(said.age, time.time() - self._heard)
        state = "running" if quiet_for < _SILENCE else "quiet"
        if self._opened is None:
            state = "waiting"
        elif self._tail.seen.history.finished:
            state = "finished"
        expected = self._opened.expected if self._opened else 0
        looked = Look(self.place, self._tail.seen, said, state, quiet_for, self._rate(said), expected)
        looked.survey, looked.colours, looked.trouble = self._survey, self._drawn.colours, self._trouble
        return looked

    def _rate(self, said: Said) -> float:
        """As the driver says it; where it does not, what came in the last minute."""
        if said.alive and said.rate:
            return said.rate
        (since, first), (now, last) = self._counts[0], self._counts[-1]
        return (last - first) / (now - since) if now > since else 0.0

    def _state(self, look: Look) -> bytes:
        """As the page fetches it; `figures` grows when there are new ones."""
        parts = {"status": status(look), "details": details(look)}
        about = {"title": look.name, "state": look.state, "figures": self._version, "pace": self._pace}
        counts = {"done": look.done, "expected": look.total, "failures": len(look.failures)}
        return json.dumps({**about, **counts, "html": parts}).encode()
