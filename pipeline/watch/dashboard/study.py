"""Optuna studies rebuilt from a run's journal for Optuna Dashboard: one for each search of an arm."""

import threading
import warnings
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import TrialState, create_trial

from pipeline.plan.groups import Group
from pipeline.run.selection import Candidate
from pipeline.watch.dashboard.server import local_server
from pipeline.watch.follow.survey import PendingCandidate, Survey, label
from tasks.extras import install_hint

MISSING = f"Optuna Dashboard is not installed: {install_hint('dashboard')}"
_Entry = Candidate | PendingCandidate


class Studies:
    """The studies of one run in memory, updated by each survey of it."""

    def __init__(self) -> None:
        """Start without studies."""
        self.storage: BaseStorage = InMemoryStorage()
        self._known: dict[str, tuple[Study, list[dict[str, Any]]]] = {}

    def __call__(self, survey: Survey) -> None:
        """Add the new candidates of a survey."""
        entries: dict[str, list[_Entry]] = {}
        judged: list[_Entry] = [c for candidates in survey.judged.values() for c in candidates]
        for entry in [*judged, *survey.pending]:
            if entry.group.space.dims:
                entries.setdefault(label(entry.group), []).append(entry)
        for name, candidates in entries.items():
            self._update(name, sorted(candidates, key=lambda entry: entry.proposal.number))

    def _update(self, name: str, entries: list[_Entry]) -> None:
        points: list[dict[str, Any]] = [dict(entry.proposal.point) for entry in entries]
        study, known = self._known.get(name) or (None, [])
        if study is not None and (points[: len(known)] != known or _overtaken(study, entries)):
            # The search continued differently after a loss, or a failed candidate was scored.
            optuna.delete_study(study_name=name, storage=self.storage)
            study, known = None, []
        if study is None:
            study = _new_study(name, entries[0].group, self.storage)
        for entry in entries[len(known) :]:
            point, space = dict(entry.proposal.point), entry.group.space.optuna()
            study.add_trial(create_trial(state=TrialState.RUNNING, params=point, distributions=space))
        self._known[name] = study, points
        trials = study.get_trials(deepcopy=False)
        for entry, trial in zip(entries, trials, strict=True):
            if isinstance(entry, Candidate) and not trial.state.is_finished():
                self._finish(trial._trial_id, entry)

    def _finish(self, trial_id: int, candidate: Candidate) -> None:
        self.storage.set_trial_user_attr(trial_id, "recipe", candidate.recipe_id)
        if candidate.failure:
            self.storage.set_trial_user_attr(trial_id, "failure", candidate.failure)
        self.storage.set_trial_state_values(trial_id, _state(candidate), candidate.values)


def _state(entry: _Entry) -> TrialState:
    if isinstance(entry, PendingCandidate):
        return TrialState.RUNNING
    if entry.stopped is not None:
        return TrialState.PRUNED
    return TrialState.FAIL if entry.values is None else TrialState.COMPLETE


def _overtaken(study: Study, entries: list[_Entry]) -> bool:
    """Return whether a finished trial has another state now: Optuna cannot change it."""
    trials = study.get_trials(deepcopy=False)
    return any(t.state.is_finished() and t.state != _state(e) for e, t in zip(entries, trials, strict=False))


def _new_study(name: str, group: Group, storage: BaseStorage) -> Study:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        directions = [StudyDirection.MAXIMIZE] * len(group.objectives)
        study = optuna.create_study(study_name=name, storage=storage, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(group.objectives))
    finally:
        optuna.logging.set_verbosity(level)
    study.set_user_attr("sampler", group.search.sampler)
    return study


def study_server(studies: Studies, port: int) -> Any:
    """Return a server of Optuna Dashboard on the studies, read only.

    Raises:
        ImportError: if it is not installed.
        OSError: if the port is not available.
    """
    import optuna_dashboard

    return local_server(optuna_dashboard.wsgi(studies.storage), port)


def serve(server: Any) -> threading.Thread:
    """Serve in a thread until the server is shut down."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return thread
