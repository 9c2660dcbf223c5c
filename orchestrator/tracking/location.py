"""Where a tournament's MLflow store is, the command that serves its UI, and the addresses of its pages.

Nothing here imports MLflow.
"""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from cluster.store import LOCAL
from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.run_directory import RunDirectory

SQLITE = "sqlite:///"
CHART_FILTER = 'tags.chart = "rounds"'
"""Finds the runs that are lines of the chart: lineages and references."""
CHART_LINK, TREE_LINK = "{chart}", "{tree}"
"""Stand in a note for addresses that only the sender knows."""
TRAINING = {"workflowType": "machine_learning"}
"""In the UI's addresses: its side for training; it opens on the one for agents."""


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
    with LOCAL.locked(file.with_name(f"{file.name}.lock"), wait=True):
        with closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        yield


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


def run_path(experiment_id: str, run_id: str) -> str:
    """The address, below a server's root, of one run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{urlencode(TRAINING)}"


def linked(note: str, experiment_id: str) -> str:
    """A note with the addresses of the chart and the tree in it."""
    return note.replace(CHART_LINK, chart_path(experiment_id)).replace(TREE_LINK, tree_path(experiment_id))
