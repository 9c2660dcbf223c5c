"""A fabricated run with all that a tracker sends, and what is in its MLflow store."""

from pathlib import Path
from typing import Any

from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot, SnapshotReader
from orchestrator.tracking.location import store_uri
from tests.empty_store import give_store
from tests.fabricate import COMPETITORS, fabricate


def make(root: Path, lineages: tuple[str, ...] = ("llama",), **more: Any) -> tuple[TournamentConfig, RunDirectory]:
    """A small fabricated run with the logs, the leaderboard and the report that a real one has."""
    root.parent.mkdir(parents=True, exist_ok=True)
    give_store(root.parent)
    config, run = fabricate(root, lineages=lineages, **{"competitors": COMPETITORS[:2], **more})
    for brief in root.glob("lineages/*/round-*/*/brief.json"):
        brief.with_name("log.txt").write_text("out of memory\n")
    run.environment_file.write_text("{}")
    run.leaderboard_file.write_text("{}")
    run.report_file.write_text("<p>report</p>")
    return config, run


def snapshot_of(run: RunDirectory) -> Snapshot:
    """What is on record now."""
    return SnapshotReader(run).read()


def client_of(config: TournamentConfig, run: RunDirectory) -> Any:
    """A client of the run's store."""
    import mlflow

    uri = store_uri(config, run)
    return mlflow.MlflowClient(uri, uri)


def runs_of(config: TournamentConfig, run: RunDirectory) -> dict[str, Any]:
    """The store's runs by key."""
    client = client_of(config, run)
    experiment = client.get_experiment_by_name(config.tracking.experiment or config.name)
    found = client.search_runs([experiment.experiment_id], max_results=500)
    assert len({one.data.tags["tournament.key"] for one in found}) == len(found)
    return {one.data.tags["tournament.key"].removeprefix("tournament"): one for one in found}


def series(client: Any, one: Any, metric: str) -> list[tuple[int, float]]:
    """The points of a run's metric, by step."""
    return sorted((point.step, round(point.value, 6)) for point in client.get_metric_history(one.info.run_id, metric))
