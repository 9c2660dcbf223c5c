"""MLflow itself: a store of runs behind a few plain calls. The only file that imports mlflow.

It is imported late, by `sync.py`: importing mlflow takes seconds. Each call raises whatever MLflow, its database or
its server raise; `MlflowTracker` is where that ends.
"""

import getpass
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from orchestrator.tracking.location import artifact_folder, linked, opening, sqlite_file
from orchestrator.tracking.points import Point
from orchestrator.tracking.tree import Dataset as Split
from orchestrator.tracking.tree import Model
from orchestrator.tracking.words import NOTE

T = TypeVar("T")
METRICS, PARAMS = 1000, 100
"""What one batch takes."""
COLUMNS = ("prompt", "completion")
CHAMPION = "champion"
"""The alias in the registry."""
SYSTEM_SECONDS = 10.0

for _name in ("alembic", "mlflow.store.db.utils", "mlflow.system_metrics.system_metrics_monitor"):
    logging.getLogger(_name).setLevel(logging.ERROR)  # migrations and outages: what matters of them we say ourselves


class MlflowStore:
    """One experiment in the store at `uri`, made where it is not there yet."""

    def __init__(self, uri: str, experiment: str, note: str) -> None:
        self.uri = uri
        with opening(uri):
            self.client = MlflowClient(uri, uri)
            self.experiment_id = self._experiment(experiment, note)

    def _experiment(self, name: str, note: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            folder = artifact_folder(self.uri)
            # The kind keeps the UI from asking whether this is about agents or about training.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            number = str(self.client.create_experiment(name, folder.as_uri() if folder else None, tags))
            self.client.set_experiment_tag(number, NOTE, linked(note, number))
            return number
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def has_run(self, run_id: str) -> bool:
        """Whether the run is there, and not in the bin."""
        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def find_run(self, identity: dict[str, str]) -> tuple[str, str] | None:
        """Id and status of the run with these tags."""
        words = " AND ".join(f"tags.`{key}` = {_quoted(value)}" for key, value in identity.items())
        found = self.client.search_runs([self.experiment_id], words, max_results=1)
        return (found[0].info.run_id, found[0].info.status) if found else None

    def create_run(self, name: str, parent: str | None, began_ms: int, tags: dict[str, str]) -> str:
        """A new run below `parent`; returns its id."""
        tags = {**tags, "mlflow.source.name": "tournament", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        run = self.client.create_run(self.experiment_id, start_time=began_ms, tags=tags, run_name=name)
        return str(run.info.run_id)

    def log_tags(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags."""
        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def log_params(self, run_id: str, params: dict[str, str]) -> None:
        """Set parameters. One never changes in MLflow: what the run has already stays as it is."""
        known = self.client.get_run(run_id).data.params
        for some in _chunks([Param(key, value) for key, value in params.items() if key not in known], PARAMS):
            self.client.log_batch(run_id, params=some)

    def log_points(self, run_id: str, points: list[Point]) -> None:
        """Add points of metrics; one that is there already is not doubled."""
        for some in _chunks([Metric(p.name, p.value, p.time_ms, p.step) for p in points], METRICS):
            self.client.log_batch(run_id, metrics=some)

    def log_splits(self, run_id: str, splits: list[Split]) -> None:
        """Name the data that a run used, by digest, without loading a row."""
        self.client.log_inputs(run_id, datasets=[_dataset_input(split) for split in splits])

    def log_file(self, run_id: str, path: Path) -> None:
        """Upload an artifact."""
        self.client.log_artifact(run_id, str(path))

    def set_status(self, run_id: str, status: str, ended_ms: int | None) -> None:
        """End a run, or take it up again."""
        if status == "RUNNING":
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status, ended_ms)

    def register(self, run_id: str, model: Model, is_newest: bool) -> str:
        """A version of a registered model that points at the champion's folder, and the alias on the newest."""
        name = f"name = {_quoted(model.name)}"
        if not self.client.search_registered_models(name):
            self.client.create_registered_model(model.name, model.model_tags, model.about)
        versions = self.client.search_model_versions(name)
        version = next((str(v.version) for v in versions if model.tags.items() <= v.tags.items()), None)
        if version is None:
            source, tags = self._source(run_id, model), model.tags
            made = self.client.create_model_version(
                model.name, source, run_id, tags, description=model.description, await_creation_for=0
            )
            version = str(made.version)
        if is_newest:
            self.client.set_registered_model_alias(model.name, CHAMPION, version)
        return version

    def _source(self, run_id: str, model: Model) -> str:
        """The folder; for a server, which takes no path of its clients' disks, a note in the run that names it."""
        if sqlite_file(self.uri) is not None:
            return model.path.as_uri()
        self.client.log_dict(run_id, {**model.tags, "weights": model.path.as_uri()}, f"{CHAMPION}/weights.json")
        return f"runs:/{run_id}/{CHAMPION}"

    def watch_host(self, run_id: str) -> Any:
        """Begin to log the driver's host (CPU, memory, disk, network, GPUs); `finish()` of the result ends it."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor  # needs psutil

        monitor = SystemMetricsMonitor(
            run_id, sampling_interval=SYSTEM_SECONDS, resume_logging=True, tracking_uri=self.uri
        )
        monitor.start()
        return monitor


def _dataset_input(split: Split) -> DatasetInput:
    dataset = Dataset(
        name=split.name,
        digest=split.digest[:12],  # MLflow takes 36 characters, and shows it beside the name
        source_type="local",
        source=json.dumps({"uri": split.path.as_uri()}),
        schema=json.dumps({"mlflow_colspec": [{"type": "string", "name": name, "required": True} for name in COLUMNS]}),
        profile=json.dumps({"num_rows": split.rows, "from": split.source, "sha256": split.digest}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", split.split)])


def _quoted(value: str) -> str:
    """A value in one of MLflow's filters, which know no escapes."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
