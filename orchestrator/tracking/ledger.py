"""Where a tournament's MLflow store is, how to open its UI, and the memory of what was sent there (mlflow.json).

Nothing here imports MLflow.
"""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from cluster.records import Record
from orchestrator.config import TournamentConfig
from orchestrator.record.run_directory import RunDirectory
from orchestrator.tracking.words import CHART_FILTER, CHART_LINK

SQLITE = "sqlite:///"
NOTE = "mlflow.note.content"
"""The tag that MLflow's UI shows as the description."""
TRAINING = {"workflowType": "machine_learning"}
"""In the UI's addresses: its side for training; it opens on the one for agents."""


class Sent(Record):
    """What one MLflow run has been sent."""

    run_id: str
    status: str = "RUNNING"
    tags: dict[str, str] = {}
    """A short hash of each value: notes are long."""
    params: bool = False
    datasets: bool = False
    points: list[str] = []
    """`metric@step` of what has a place in the tree."""
    artifacts: dict[str, str] = {}
    """Size and time of each file, to send it again when it has changed."""
    attempt: int = 0
    events_offset: int = 0
    """How far into progress.jsonl."""
    not_finite: list[str] = []
    model_version: str | None = None


class Memory(Record):
    """mlflow.json: what is in the store, so that nothing is sent twice. Losing it does no harm but for time."""

    uri: str
    experiment_id: str | None = None
    runs: dict[str, Sent] = {}

    @classmethod
    def of(cls, run: RunDirectory, uri: str) -> "Memory":
        """What was sent to the store at `uri`; nothing, when the last one was another or the file is broken."""
        try:
            memory = cls.read_if_there(memory_file(run))
        except ValueError:  # from another version of this program: it is only a memory of what can be found again
            memory = None
        return memory if memory is not None and memory.uri == uri else cls(uri=uri)

    def with_run(self, key: str, **changes: Any) -> "Memory":
        """The memory with changes to one run."""
        sent = self.runs.get(key)
        changed = sent.model_copy(update=changes) if sent else Sent(**changes)
        return self.model_copy(update={"runs": {**self.runs, key: changed}})


def memory_file(run: RunDirectory) -> Path:
    """mlflow.json of a run directory."""
    return run.root / "mlflow.json"


def store_uri(config: TournamentConfig, run: RunDirectory) -> str:
    """The store of this tournament: the config's, or a SQLite file beside the run directory.

    A relative SQLite path starts there too, not in the working folder, so that every later command finds it.
    """
    uri = config.tracking.uri
    if uri is None:
        return f"{SQLITE}{run.root.parent / 'mlflow.db'}"
    if uri.startswith(SQLITE):
        return f"{SQLITE}{run.root.parent / uri.removeprefix(SQLITE)}"
    return uri.rstrip("/")


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store; None for other stores."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def artifact_folder(uri: str) -> Path | None:
    """Where the artifacts of a SQLite store lie; a server has its own place."""
    file = sqlite_file(uri)
    return None if file is None else file.parent / "mlflow-artifacts"


def shown(uri: str) -> str:
    """The URI without a user name and password in it."""
    parts = urlsplit(uri)
    return uri if "@" not in parts.netloc else uri.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1)


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """While a SQLite store is opened, and perhaps made, nobody else may: its migrations fail side by side.

    Also finds out within seconds whether it can be written; MLflow itself would try for minutes.
    """
    file = sqlite_file(uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file.with_name(file.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        flock(lock, LOCK_EX)
        with closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        yield
    finally:
        os.close(lock)


def chart_path(experiment_id: str) -> str:
    """The address, below a server's root, of the chart of lineages and references.

    Sorted by anything but the date the UI shows the runs side by side; else they hide below the tournament's.
    """
    keys = {"searchFilter": CHART_FILTER, "orderByKey": "metrics.`test_loss`", "orderByAsc": "true"}
    query = urlencode({**keys, "compareRunsMode": "CHART", **TRAINING}, quote_via=quote)
    return f"#/experiments/{experiment_id}/runs?{query}"


def tree_path(experiment_id: str) -> str:
    """The address, below a server's root, of the experiment's table of runs: the tree, first rounds first."""
    query = urlencode({"orderByKey": "attributes.start_time", "orderByAsc": "true", **TRAINING})
    return f"#/experiments/{experiment_id}/runs?{query}"


def linked(note: str, experiment_id: str) -> str:
    """A note with the address of the chart in it."""
    return note.replace(CHART_LINK, chart_path(experiment_id))


def ui_argv(config: TournamentConfig, run: RunDirectory, port: int = 5000) -> list[str]:
    """The command that serves the MLflow UI of this run's store; for a store that is a server, just its address."""
    uri = store_uri(config, run)
    if uri.startswith(("http://", "https://")):
        return [uri]
    folder = artifact_folder(uri)
    return [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri),
        *(("--artifacts-destination", str(folder)) if folder else ()),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]


def ui_path(config: TournamentConfig, run: RunDirectory) -> str:
    """The address, below the UI's root, of this tournament's run; of the UI's start where nothing was sent yet."""
    memory = Memory.of(run, store_uri(config, run))
    top = memory.runs.get("")
    return "" if top is None else f"#/experiments/{memory.experiment_id}/runs/{top.run_id}?{urlencode(TRAINING)}"
