"""MLflow as an observer: everything on record that MLflow does not have yet is sent there.

What was sent is remembered in the ledger; what is found in the store is continued, so that no run is made twice.
When the store is away the tournament goes on, and what was missed is sent later.
"""

import hashlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.store import looks_of
from cluster.text import plain
from competitors.events import EventReader
from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.events import State, TournamentEnded, TournamentEvent
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import SnapshotReader
from orchestrator.tracking import tree, words
from orchestrator.tracking.ledger import Ledger, Sent, ledger_file
from orchestrator.tracking.location import linked, shown, store_uri
from orchestrator.tracking.points import Point, of_event
from orchestrator.tracking.tree import Model, Part, View

if TYPE_CHECKING:
    from orchestrator.tracking.mlflow_store import MlflowStore

log = logging.getLogger(__name__)

OPEN_RUNS: dict[State, str] = {"running": "RUNNING", "finished": "FINISHED", "stopped": "KILLED"}
"""What a run that is still under way is, by the tournament's state."""
STORE = "the store"
REMEMBER_SECONDS = 5.0
"""How often mlflow.json is written at most while much is sent: it names all runs, so it grows with them."""
REPORT_SECONDS = 600.0
"""How often the report, of megabytes, is sent at most before the end."""
ENVIRONMENT = {
    # MLflow's own patience is minutes for each call; here the next time is the retry.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MlflowTracker:
    """Keeps MLflow up to date with one run directory. Trouble with the store is never raised; other trouble is.

    Its calls may come from any thread, one at a time.
    """

    name = "MLflow"
    pause_seconds = 3.0

    def __init__(self, config: TournamentConfig, run: RunDirectory) -> None:
        self.run, self.uri = run, store_uri(config, run)
        self.tournament, self.experiment = config.name, config.tracking.experiment or config.name
        self._reader = SnapshotReader(run)
        self._ledger = self._written = Ledger.of(run, self.uri)
        self._store: MlflowStore | None = None
        self._monitor: Any = None
        self._seen: dict[str, tuple[object, ...]] = {}
        """Of each run that is up to date: what it followed from."""
        self._complaints: set[str] = set()
        self._remembered = self._report_due = 0.0
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the store ready before anything fans out, and in it the tournament's run."""
        with self._lock:
            self._sync("running", only_top=True)

    def hear(self, events: Sequence[TournamentEvent]) -> None:
        """Send what is new on record, whatever happened; the tournament's end is the end of all runs."""
        ended = [event.state for event in events if isinstance(event, TournamentEnded)]
        if ended:
            self.close(ended[-1])
        else:
            self.sync("running")

    def sync(self, state: State) -> bool:
        """Send what is on record and was not sent yet. False, with a warning, when something could not be sent."""
        with self._lock:
            return self._sync(state)

    def close(self, state: State) -> None:
        """The last time: what is still open ends as FINISHED, or as KILLED when the tournament was stopped."""
        with self._lock:
            self._stop_monitor()
            self._sync(state)
            self._stop_monitor()
            self._store = None

    def _sync(self, state: State, only_top: bool = False) -> bool:
        try:
            return self._send_all(state, only_top)
        finally:
            self._remember()

    def _send_all(self, state: State, only_top: bool) -> bool:
        if self._store is None and not self._guard(STORE, lambda: None):
            return False
        failed: set[str] = set()
        for part in tree.parts(self._reader.read()):
            if only_top and part.level != "tournament":
                break
            # The looks of the files before what is in them: what comes later is met again.
            follows = (state, part.sources, *map(looks_of, part.files))
            if self._seen.get(part.key) == follows:
                continue
            if part.parent in failed or (part.parent is not None and part.parent not in self._ledger.runs):
                failed.add(part.key)
            elif self._guard(part.key, partial(self._send, part, part.build(), state)):
                self._seen[part.key] = follows
            else:
                failed.add(part.key)
                if self._store is None:
                    return False
        if state == "running" and self._monitor is None and "" in self._ledger.runs:
            self._guard("system metrics", self._watch_host)
        return not failed

    def _guard(self, key: str, action: Callable[[], None]) -> bool:
        """Reach the store and do `action`: the one place where trouble with MLflow ends, as a warning and False.

        Trouble is whatever MLflow, its database, its server or its disk raise. After it `_store` is None if the
        store is away; if it answers, only `key` was refused, and the rest goes on. Each is said once.
        """
        reached = False
        try:
            self._connect()
            reached = True
            action()
        except Exception as error:  # noqa: BLE001 - these libraries' errors share no base; a view must not end a run
            self._store = None
            if not reached or self._guard(STORE, lambda: None):
                self._complain(key if reached else STORE, error)
            return False
        finally:
            if time.monotonic() > self._remembered + REMEMBER_SECONDS:
                self._remember()
        self._complaints.discard(key)
        return True

    def _complain(self, key: str, error: Exception) -> None:
        if key in self._complaints:
            return
        self._complaints.add(key)
        text = plain(error) or type(error).__name__
        if key == STORE:
            log.warning("MLflow at %s is away; the tournament goes on, and it is sent later: %s", shown(self.uri), text)
        else:
            log.warning("MLflow at %s did not take %s: %s", shown(self.uri), key or "the tournament", text)

    def _connect(self) -> None:
        """Reach the store. One that has lost our runs is sent everything again."""
        if self._store is not None:
            return
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.environ.pop("MLFLOW_RUN_ID", None)  # of whatever started us: it would become our parent
        from orchestrator.tracking.mlflow_store import MlflowStore

        store = MlflowStore(self.uri, self.experiment, words.about_experiment())
        top = self._ledger.runs.get("")
        if store.experiment_id != self._ledger.experiment_id or (top and not store.has_run(top.run_id)):
            self._ledger = Ledger(uri=self.uri, experiment_id=store.experiment_id)
            self._seen = {}
        self._stop_monitor()  # its thread ends at the first error
        self._store = store
        if STORE in self._complaints:
            self._complaints.discard(STORE)
            log.warning("MLflow at %s is back", shown(self.uri))

    def _remember(self) -> None:
        """Write mlflow.json where it would differ."""
        if self._ledger is not self._written:
            self.run.write(self._ledger, ledger_file(self.run))
            self._written = self._ledger
        self._remembered = time.monotonic()

    def _update(self, key: str, **changes: Any) -> Sent:
        self._ledger = self._ledger.with_run(key, **changes)
        return self._ledger.runs[key]

    def _send(self, part: Part, view: View, state: State) -> None:
        """Bring one run up to date."""
        store, key = self._reached, part.key
        sent = self._ledger.runs.get(key) or self._adopt(part, view)
        self._send_tags(key, view)
        if not sent.params and view.params:
            store.log_params(sent.run_id, view.params)
            self._update(key, params=True)
        if not sent.datasets and view.datasets:
            store.log_splits(sent.run_id, view.datasets)
            self._update(key, datasets=True)
        self._send_points(key, view.points)
        if view.progress is not None:
            self._send_progress(key, view.progress, view.attempt)
        for path in view.artifacts:
            looks = looks_of(path)
            if path == self.run.report_file and state == "running" and time.monotonic() < self._report_due:
                continue
            if looks is not None and str(tuple(looks)) != self._ledger.runs[key].artifacts.get(path.name):
                store.log_file(sent.run_id, path)
                self._update(key, artifacts=self._ledger.runs[key].artifacts | {path.name: str(tuple(looks))})
                if path == self.run.report_file:
                    self._report_due = time.monotonic() + REPORT_SECONDS
        if view.model is not None and sent.model_version is None:
            self._update(key, model_version=store.register(sent.run_id, view.model, self._is_newest(view.model)))
        status = OPEN_RUNS[state] if view.status == "open" else view.status
        if status != sent.status:
            store.set_status(sent.run_id, status, view.ended_ms)
            self._update(key, status=status)

    def _is_newest(self, model: Model) -> bool:
        """Whether no later champion of its lineage is registered: one that was refused at first may come late."""
        lineage, round_ = model.tags["lineage"], int(model.tags["round"])
        known = [key.split("/") for key, one in self._ledger.runs.items() if one.model_version is not None]
        return all(int(key[1]) <= round_ for key in known if key[0] == lineage)

    def _adopt(self, part: Part, view: View) -> Sent:
        """The run of this key that the store has already, or a new one."""
        identity = {"tournament.key": part.key or "tournament", **self.run.identity}
        found = self._reached.find_run(identity)
        if found is not None:
            return self._update(part.key, run_id=found[0], status=found[1])
        parent = None if part.parent is None else self._ledger.runs[part.parent].run_id
        tags = {"tournament": self.tournament, "tournament.level": part.level, "tournament.run_dir": str(self.run.root)}
        tags |= identity
        return self._update(part.key, run_id=self._reached.create_run(view.name, parent, view.began_ms, tags))

    def _send_tags(self, key: str, view: View) -> None:
        sent = self._ledger.runs[key]
        note = linked(view.note, self._reached.experiment_id)
        tags = {name: value for name, value in {**view.tags, words.NOTE: note}.items() if value}
        digests = {name: hashlib.sha256(value.encode()).hexdigest()[:12] for name, value in tags.items()}
        news = {name: tags[name] for name in tags if digests[name] != sent.tags.get(name)}
        if news:
            self._reached.log_tags(sent.run_id, news)
            self._update(key, tags=sent.tags | digests)

    def _send_points(self, key: str, points: list[Point]) -> None:
        known = set(self._ledger.runs[key].points)
        news = {name: point for point in points if (name := f"{point.name}@{point.step}") not in known}
        if news:
            run_id = self._ledger.runs[key].run_id
            self._reached.log_points(run_id, [p for p in news.values() if math.isfinite(p.value)])
            self._leave_out(key, [f"{p.name} is {p.value}" for p in news.values() if not math.isfinite(p.value)])
            self._update(key, points=sorted(known | news.keys()))

    def _send_progress(self, key: str, path: Path, attempt: int) -> None:
        """What a competitor has reported since; from the beginning when it was started over."""
        sent = self._ledger.runs[key]
        reader, before = EventReader(path, offset=sent.events_offset if sent.attempt == attempt else 0), -1
        while reader.offset != before:
            before = reader.offset
            points = [point for event in reader.read() for point in of_event(event)]
            self._reached.log_points(sent.run_id, points)
            self._leave_out(key, reader.complaints())
            if (attempt, reader.offset) != (sent.attempt, sent.events_offset):
                sent = self._update(key, attempt=attempt, events_offset=reader.offset)

    def _leave_out(self, key: str, what: Sequence[str]) -> None:
        """Name in a tag what is no number that a metric can have."""
        sent = self._ledger.runs[key]
        known = list(dict.fromkeys([*sent.left_out, *what]))
        if known != sent.left_out:
            self._reached.log_tags(sent.run_id, {"left_out": words.fitted("; ".join(known), words.VALUE_LIMIT)})
            self._update(key, left_out=known)

    @property
    def _reached(self) -> "MlflowStore":
        assert self._store is not None
        return self._store

    def _watch_host(self) -> None:
        self._monitor = self._reached.watch_host(self._ledger.runs[""].run_id)

    def _stop_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
