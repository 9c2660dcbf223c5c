"""MLflow as a view of the run directory: everything on record that MLflow does not have yet is sent there.

The only file that imports mlflow, and only once a tracker is opened. What was sent is remembered in mlflow.json;
what is found in the store is continued, so runs are never made twice. When the store is away the tournament
goes on, and the next sync sends what was missed.
"""

import hashlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from competitors.contract import Event
from orchestrator import tracking_view, tracking_words
from orchestrator.config import TournamentConfig
from orchestrator.leaderboard import State
from orchestrator.run_directory import RunDirectory
from orchestrator.supervise import Tail
from orchestrator.tracking_store import (
    Memory,
    Sent,
    artifact_folder,
    chart_path,
    memory_file,
    opening,
    shown,
    sqlite_file,
    store_uri,
)
from orchestrator.tracking_view import Model, Part, Point, View

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

T = TypeVar("T")
OPEN_RUNS = {"running": "RUNNING", "finished": "FINISHED", "stopped": "KILLED"}
"""What a run that is still under way is, by the tournament's state."""
NOTE = "mlflow.note.content"
SYSTEM_SECONDS = 10.0
ENVIRONMENT = {
    # MLflow's own patience is minutes per call; here the next sync is the retry.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Tracker:
    """Keeps MLflow up to date with one run directory. Its calls never raise for trouble with the store."""

    def __init__(self, config: TournamentConfig, run: RunDirectory) -> None:
        self.config, self.run = config, run
        self.uri = store_uri(config, run)
        self._memory = self._written = Memory.of(run, self.uri)
        self._client: MlflowClient | None = None
        self._seen: dict[str, tuple[object, ...]] = {}
        """Of each run that is up to date, the state of the files that it follows from."""
        self._over: set[str] = set()
        self._complaints: set[str] = set()
        self._monitor: Any = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the store ready before anything fans out, and the tournament's run with its host's metrics."""
        with self._lock:
            self._sync("running", "tournament")

    def sync(self, state: State) -> bool:
        """Send what is on record and was not sent yet. False, with a warning, when something could not be sent."""
        with self._lock:
            return self._sync(state, None)

    def close(self, state: State) -> None:
        """The last sync: what is still open ends as FINISHED, or as KILLED when the tournament was stopped."""
        with self._lock:
            if self._monitor is not None:
                self._monitor.finish()
                self._monitor = None
            self._sync(state, None)
            self._client = None

    def _sync(self, state: State, level: str | None) -> bool:
        failed: set[str] = set()
        rounds_over: set[str] = set()
        for part in tracking_view.parts(self.config, self.run, self._over):
            if level is not None and part.level != level:
                continue
            if part.level == "round" and tracking_view.is_over(self.run, *_round_of(part.key)):
                rounds_over.add(part.key)
            sign = (state, *map(_stamp, part.sources))
            if self._seen.get(part.key) == sign:
                continue
            try:
                view = part.build()
            except FileNotFoundError:  # an entry is being started over just now: the next sync meets it again
                failed.add(part.key)
                continue
            if self._guard(part.key, lambda part=part, view=view: self._send(part, view, state)):  # type: ignore[misc]
                self._seen[part.key] = sign
            elif self._client is None:
                return False
            else:
                failed.add(part.key)
        self._over |= {key for key in rounds_over if not any(f"{one}/".startswith(f"{key}/") for one in failed)}
        if state == "running" and self._monitor is None and "" in self._memory.runs:
            self._guard("system metrics", self._watch_host)
        return not failed

    def _guard(self, key: str, action: Callable[[], None]) -> bool:
        """Reach the store and do `action`; the one place where trouble with MLflow ends, as a warning and False.

        Trouble is anything that MLflow, its database, its server or its files can raise. If the store can still be
        reached, only `key` was refused and the others go on; if not, `_client` is None. Each is said once.
        """
        reached = False
        try:
            self._connect()
            reached = True
            action()
        except Exception as error:  # noqa: BLE001 - the libraries below share no base, and no run may end for a view
            self._client = None
            if reached and not self._guard("store", lambda: None):
                return False
            self._complain(key if reached else "store", error)
            return False
        finally:
            self._remember()
        self._complaints.discard(key)
        return True

    def _complain(self, key: str, error: Exception) -> None:
        if key in self._complaints:
            return
        self._complaints.add(key)
        text = " ".join(str(error).split())[:300] or type(error).__name__
        if key == "store":
            log.warning("MLflow at %s is away; the tournament goes on, and it is sent later: %s", shown(self.uri), text)
        else:
            log.warning("MLflow did not take %s: %s", key or "the tournament", text)

    def _remember(self) -> None:
        """Write mlflow.json where it would differ."""
        if self._memory is not self._written:
            self._memory.write(memory_file(self.run))
            self._written = self._memory

    def _connect(self) -> None:
        """A client of a store that answers, with our experiment in it. A store that lost our runs gets all again."""
        if self._client is not None:
            return
        client_class = _mlflow_client()
        with opening(self.uri):
            client: MlflowClient = client_class(self.uri, self.uri)
            experiment_id = self._experiment(client)
        top = self._memory.runs.get("")
        if experiment_id != self._memory.experiment_id or (top and not _is_there(client, top.run_id)):
            self._memory = Memory(uri=self.uri, experiment_id=experiment_id)
            self._seen, self._over = {}, set()
        if "store" in self._complaints:
            log.info("MLflow at %s is back", shown(self.uri))
        self._client = client
        if self._monitor is not None:  # its thread ends at the first error
            self._monitor.finish()
            self._monitor = None

    def _experiment(self, client: "MlflowClient") -> str:
        name = self.config.tracking.experiment or self.config.name
        found = client.get_experiment_by_name(name)
        if found is None:
            folder = artifact_folder(self.uri)
            # The kind keeps the UI from asking whether this is about agents or about training.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            number = str(client.create_experiment(name, folder.as_uri() if folder else None, tags))
            client.set_experiment_tag(number, NOTE, self._linked(tracking_words.about_experiment(), number))
            return number
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _send(self, part: Part, view: View, state: State) -> None:
        """Bring one run up to date."""
        from mlflow.entities import RunTag

        client = self._client
        assert client is not None
        sent = self._memory.runs.get(part.key) or self._adopt(part, view)
        run_id = sent.run_id
        note = self._linked(view.note, self._memory.experiment_id or "")
        tags = {name: value for name, value in (view.tags | {NOTE: note}).items() if value}
        hashes = {name: hashlib.sha256(value.encode()).hexdigest()[:12] for name, value in tags.items()}
        news = [RunTag(name, tags[name]) for name in tags if hashes[name] != sent.tags.get(name)]
        if news:
            client.log_batch(run_id, tags=news)
            self._update(part, tags=sent.tags | hashes)
        if not sent.params and view.params:
            self._send_params(run_id, view.params)
            self._update(part, params=True)
        if not sent.datasets and view.datasets:
            client.log_inputs(run_id, _inputs(view))
            self._update(part, datasets=True)
        self._send_points(part, view)
        if view.events is not None:
            self._send_events(part, view.events, view.attempt)
        for path in view.artifacts:
            if (stamp := str(_stamp(path))) != sent.artifacts.get(path.name):
                client.log_artifact(run_id, str(path))
                self._update(part, artifacts=self._memory.runs[part.key].artifacts | {path.name: stamp})
        if view.model is not None and sent.model_version is None:
            self._update(part, model_version=self._register(run_id, view.model))
        status = OPEN_RUNS[state] if view.status == "open" else view.status
        if status != sent.status:
            if status == "RUNNING":
                client.update_run(run_id, status=status)
            else:
                client.set_terminated(run_id, status, view.ended_ms)
            self._update(part, status=status)

    def _update(self, part: Part, **changes: Any) -> None:
        self._memory = self._memory.with_run(part.key, **changes)

    def _adopt(self, part: Part, view: View) -> Sent:
        """The run of this key that the store has already, or a new one."""
        client, experiment = self._client, self._memory.experiment_id
        assert client is not None
        assert experiment is not None
        identity = {"tournament.key": part.key or "tournament", "tournament.run_dir": str(self.run.root)}
        found = client.search_runs(
            [experiment], " AND ".join(f"tags.`{k}` = {_quoted(v)}" for k, v in identity.items()), max_results=1
        )
        if found:
            self._update(part, run_id=found[0].info.run_id, status=found[0].info.status)
            return self._memory.runs[part.key]
        tags = {"tournament": self.config.name, "tournament.level": part.level, **identity}
        tags |= {"mlflow.source.name": "tournament", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
        if part.parent is not None:
            tags["mlflow.parentRunId"] = self._memory.runs[part.parent].run_id
        run = client.create_run(experiment, start_time=view.began_ms, tags=tags, run_name=view.name)
        self._update(part, run_id=run.info.run_id)
        return self._memory.runs[part.key]

    def _send_params(self, run_id: str, params: dict[str, str]) -> None:
        """A parameter never changes in MLflow, so one that the store has already stays as it is."""
        from mlflow.entities import Param

        assert self._client is not None
        known = self._client.get_run(run_id).data.params
        for some in _chunks([Param(key, value) for key, value in params.items() if key not in known], 100):
            self._client.log_batch(run_id, params=some)

    def _send_points(self, part: Part, view: View) -> None:
        known = set(self._memory.runs[part.key].points)
        news = {f"{point.name}@{point.step}": point for point in view.points}
        if news.keys() - known:
            self._send_metrics(part, [point for name, point in news.items() if name not in known])
            self._update(part, points=sorted(known | news.keys()))

    def _send_events(self, part: Part, path: Path, attempt: int) -> None:
        """What a competitor has reported since; from the beginning when it was started over."""
        sent, tail = self._memory.runs[part.key], Tail(path)
        tail.offset = sent.events_offset if sent.attempt == attempt else 0
        events = tail.events()
        if (attempt, tail.offset) != (sent.attempt, sent.events_offset):
            self._send_metrics(part, [point for event in events for point in _event_points(event)])
            self._update(part, attempt=attempt, events_offset=tail.offset)

    def _send_metrics(self, part: Part, points: list[Point]) -> None:
        """In batches; a value that is no finite number is left out and named in a tag."""
        from mlflow.entities import Metric

        assert self._client is not None
        sent = self._memory.runs[part.key]
        metrics = [Metric(p.name, p.value, p.time_ms, p.step) for p in points if math.isfinite(p.value)]
        for some in _chunks(metrics, 1000):
            self._client.log_batch(sent.run_id, metrics=some)
        odd = sorted({p.name for p in points if not math.isfinite(p.value)} | set(sent.not_finite))
        if odd != sent.not_finite:
            self._client.set_tag(sent.run_id, "not finite", ", ".join(odd))
            self._update(part, not_finite=odd)

    def _register(self, run_id: str, model: Model) -> str:
        """A version of the registered model that points at the champion's folder, and the alias on it."""
        client = self._client
        assert client is not None
        if not client.search_registered_models(f"name = {_quoted(model.name)}"):
            client.create_registered_model(model.name, {"tournament": self.config.name}, model.about)
        versions = client.search_model_versions(f"name = {_quoted(model.name)}")
        same = [v.version for v in versions if all(v.tags.get(k) == t for k, t in model.tags.items())]
        source = model.path.as_uri()
        if not same and sqlite_file(self.uri) is None and model.path.is_absolute():
            # A server takes no local path as a source, so the run holds a note that says where the weights are.
            client.log_dict(run_id, {"weights": source, **model.tags}, "champion/where.json")
            source = f"runs:/{run_id}/champion"
        version = same[0] if same else client.create_model_version(
            model.name, source, run_id, model.tags, description=model.description, await_creation_for=0
        ).version
        client.set_registered_model_alias(model.name, "champion", str(version))
        return str(version)

    def _watch_host(self) -> None:
        """Log the driver's host (CPU, memory, disk, network, GPUs) to the tournament's run."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        run_id = self._memory.runs[""].run_id
        self._monitor = SystemMetricsMonitor(
            run_id, sampling_interval=SYSTEM_SECONDS, resume_logging=True, tracking_uri=self.uri
        )
        self._monitor.start()

    def _linked(self, note: str, experiment_id: str) -> str:
        return note.replace(tracking_words.CHART_LINK, chart_path(experiment_id))


def _mlflow_client() -> Any:
    """MLflow's client class, with MLflow made quiet and impatient first."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.pop("MLFLOW_RUN_ID", None)  # of whatever started us; it would become our run
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store.db.utils", "mlflow.system_metrics.system_metrics_monitor"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient


def _is_there(client: "MlflowClient", run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _inputs(view: View) -> list[Any]:
    """The view's data sets as MLflow's entities, without loading a row."""
    import json

    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(
                name=data.name,
                digest=data.digest[:32],  # MLflow takes 36 characters
                source_type="local",
                source=json.dumps({"uri": data.path.as_uri()}),
                profile=json.dumps({"num_rows": data.rows, "from": data.source, "sha256": data.digest}),
            ),
            [InputTag("mlflow.data.context", data.split)],
        )
        for data in view.datasets
    ]


def _event_points(event: Event) -> Iterator[Point]:
    """The metrics in one event, by tokens. A competitor of the user's own may report anything."""
    numbers = {k: float(v) for k, v in event.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    step = int(numbers.get("tokens", numbers.get("step", 0.0)))
    when = int(numbers.get("time", time.time()) * 1000)
    names = {"train_loss": "loss", "learning_rate": "learning_rate"}
    names |= {f"system/{key}": key for key in ("memory_megabytes", "gpu_memory_megabytes")}
    values = {name: numbers[key] for name, key in names.items() if key in numbers}
    if numbers.get("seconds") and "tokens" in numbers:
        values["tokens_per_second"] = numbers["tokens"] / numbers["seconds"]
    if event["event"] in ("step", "started", "ended"):
        yield from (Point(name, value, step, when) for name, value in values.items())


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _round_of(key: str) -> tuple[str, int]:
    lineage, _, number = key.rpartition("/")
    return lineage, int(number)


def _quoted(value: str) -> str:
    """A value in one of MLflow's filters, which know no escapes."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
