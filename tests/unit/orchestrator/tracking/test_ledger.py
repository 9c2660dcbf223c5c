"""The memory of what MLflow was sent."""

import json
from pathlib import Path

import pytest

from orchestrator.record.run_directory import RunDirectory
from orchestrator.tracking.ledger import Ledger, ledger_file

URI = "sqlite:////store/mlflow.db"


def written(run: RunDirectory) -> Ledger:
    ledger = Ledger(uri=URI, experiment_id="7").with_run("", run_id="a").with_run("llama/1", run_id="b", points=["x@1"])
    return run.write(ledger, ledger_file(run))


def test_it_is_what_was_written(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    ledger = written(run)
    assert Ledger.of(run, URI) == ledger
    assert json.loads((tmp_path / "mlflow.json").read_text())["format"] == 1
    assert ledger.with_run("llama/1", status="FINISHED").runs["llama/1"].points == ["x@1"]
    assert ledger.runs["llama/1"].status == "RUNNING"


def test_another_store_was_sent_nothing(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert Ledger.of(run, URI) == Ledger(uri=URI)
    written(run)
    assert Ledger.of(run, "http://mlflow:5000") == Ledger(uri="http://mlflow:5000")


@pytest.mark.parametrize("text", ["", '{"format": 1, "uri"', "[]", '{"uri": "x"}', '{"format": 2, "uri": "x"}'])
def test_a_torn_or_another_versions_is_forgotten(tmp_path: Path, text: str) -> None:
    run = RunDirectory(tmp_path)
    ledger_file(run).write_text(text)
    assert Ledger.of(run, URI) == Ledger(uri=URI)
