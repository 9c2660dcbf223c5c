"""The table of trackers."""

from pathlib import Path

from orchestrator.tracking.json_lines import JsonLinesTracker
from orchestrator.tracking.metrics import Metrics
from orchestrator.tracking.sync import MlflowTracker
from orchestrator.tracking.trackers import trackers
from tests.fabricate import fabricate


def test_mlflow_is_always_there_and_first(tmp_path: Path) -> None:
    found = trackers(*fabricate(tmp_path / "demo", settled={}))
    assert [type(tracker) for tracker in found] == [MlflowTracker, Metrics]
    assert found[0].name == "MLflow"
    assert found[0].pause_seconds == 3


def test_json_lines_come_second_where_they_are_asked_for(tmp_path: Path) -> None:
    found = trackers(*fabricate(tmp_path / "demo", settled={}, settings={"tracking": {"json_lines": True}}))
    assert [type(tracker) for tracker in found] == [MlflowTracker, JsonLinesTracker, Metrics]
