"""A run followed by a thread, which updates the contents of its page every second or two."""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pipeline.records.journal import FILE_NAME
from pipeline.storage.run_folder import run_folder
from pipeline.watch.dashboard.figures import LiveFigures, draw
from pipeline.watch.dashboard.page import PageState, details, drawings, status
from pipeline.watch.follow.interim_tables import interim_tables
from pipeline.watch.follow.run_view import RunView, view_run
from pipeline.watch.follow.survey import Survey, Surveyor
from pipeline.watch.follow.tail import Tail
from pipeline.watch.progress_file import DriverStatus, read_status
from tasks.files.object_store import is_url

log = logging.getLogger(__name__)
#: Seconds between two looks at a folder, and at a store, from which each look downloads what the run has added.
_PACE, _STORE_PACE = 2.0, 15.0
#: After slow work comes a rest of this many times its duration, to leave the run's machine to the run.
REST = 8
#: Seconds without news after which the run seems to have stopped.
_SILENCE = 60.0
#: Seconds over which the rate is measured if the driver does not report it.
_WINDOW = 60.0


class _Paced:
    """The times of slow work that is done only after news, and takes a small part of the time."""

    def __init__(self) -> None:
        self._due, self._done = 0.0, -1

    def due(self, news: int) -> bool:
        """Return whether to do the work now; `news` grows with the journal."""
        return news != self._done and time.monotonic() >= self._due

    def did(self, news: int, started: float) -> None:
        """Record that the work was done."""
        now = time.monotonic()
        self._due, self._done = now + REST * (now - started), news


class Live:
    """One run. `run` works in a thread; others read `page`, `state` and `figures`."""

    def __init__(self, place: str, on_survey: Callable[[Survey], None] = lambda survey: None) -> None:
        """Prepare to follow a run.

        Args:
            place: the run's folder, a path or a URL.
            on_survey: called with each new survey of the run's candidates.
        """
        self.place, self._on_survey = place, on_survey
        self._pace = _STORE_PACE if is_url(place) else _PACE
        self._tail = Tail()
        self._view: RunView | None = None
        self._survey: Survey | None = None
        self._drawn = LiveFigures()
        self._surveys, self._drawings = _Paced(), _Paced()
        self._changed = 0.0
        self._counts: deque[tuple[float, int]] = deque()
        self._trouble = ""
        self.figures = b"[]"
        self._version = 0
        self.page = PageState(place, self._tail.state, DriverStatus(), "waiting")
        self.state = self._encode(self.page)

    def run(self, stop: threading.Event) -> None:
        """Follow the run until `stop` is set."""
        while not stop.is_set():
            self.look()
            stop.wait(self._pace)

    def look(self) -> None:
        """Update the page once; an error is shown on it."""
        try:
            with run_folder(self.place) as folder:
                self._read(folder)
                driver = read_status(folder)
                if self._view is not None:
                    self._update(folder, self._view)
            self.page = self._page(driver)
        except Exception as error:  # a page that stops would look like a run that does
            log.debug("%s cannot be shown", self.place, exc_info=True)
            trouble = f"{type(error).__name__}: {error}"
            self.page = PageState(self.place, self._tail.state, DriverStatus(), "quiet", trouble=trouble)
        self.state = self._encode(self.page)

    def _read(self, folder: Path) -> None:
        """Read the journal to its end."""
        first = self._tail.offset == 0
        while self._tail.advance(folder):
            self._changed = (folder / FILE_NAME).stat().st_mtime if first else time.time()
        before, self._view = self._view, view_run(self._tail.state.history, self._view)
        if self._view is not None and self._view is not before:
            self._surveyor = Surveyor(self._view.plan)
        self._counts.append((time.monotonic(), len(self._tail.state.history.answers)))
        while self._counts[-1][0] - self._counts[0][0] > _WINDOW:
            self._counts.popleft()

    def _update(self, folder: Path, view: RunView) -> None:
        """Survey the candidates and draw the figures, each if it is due."""
        started, news = time.monotonic(), self._tail.offset
        if self._surveys.due(news):
            self._survey = self._surveyor.survey(view.ledger, self._tail.state.history.proposals)
            self._on_survey(self._survey)
            self._surveys.did(news, started)
        started = time.monotonic()
        if self._drawings.due(news) and self._survey is not None and self._survey.candidates:
            self._draw(folder, view)
            self._drawings.did(news, started)

    def _draw(self, folder: Path, view: RunView) -> None:
        try:
            with interim_tables(folder, view, self._tail.state.history) as tables:
                self._drawn = draw(tables)
                self.figures = json.dumps(drawings(self._drawn.figures)).encode()
                self._trouble = ""
        except ValueError as error:  # such as missing prompts of a run with rewards
            self._trouble = f"the figures cannot be drawn: {error}"
        self._version += 1

    def _page(self, driver: DriverStatus) -> PageState:
        quiet_for = min(driver.age, time.time() - self._changed)
        state = "running" if quiet_for < _SILENCE else "quiet"
        if self._view is None:
            state = "waiting"
        elif self._tail.state.history.finished:
            state = "finished"
        expected = self._view.expected if self._view else 0
        page = PageState(self.place, self._tail.state, driver, state, quiet_for, self._rate(driver), expected)
        page.survey, page.arms, page.trouble = self._survey, self._drawn.arms, self._trouble
        return page

    def _rate(self, driver: DriverStatus) -> float:
        """Return the driver's rate, or else the rate of the last minute."""
        if driver.alive and driver.rate:
            return driver.rate
        (since, first), (now, last) = self._counts[0], self._counts[-1]
        return (last - first) / (now - since) if now > since else 0.0

    def _encode(self, page: PageState) -> bytes:
        """Return the JSON that the page fetches; its `figures` grows whenever there are new ones."""
        parts = {"status": status(page), "details": details(page)}
        about = {"title": page.name, "state": page.state, "figures": self._version, "pace": self._pace}
        counts = {"done": page.done, "expected": page.total, "failures": len(page.failures)}
        return json.dumps({**about, **counts, "html": parts}).encode()
