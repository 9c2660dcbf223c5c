"""What code and machine a run was made with, and how long drivers were at it."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterTrouble
from orchestrator import driver
from orchestrator.environment import seen
from orchestrator.record.spent import Spent
from tests.faked import FakedWorkers, faked_config, play


def commits(run: Path) -> list[str]:
    return [one["git_commit"] for one in seen(json.loads((run / "environment.json").read_text()))]


def test_other_code_that_goes_on_with_a_run_is_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(name: str, args: tuple[Any, ...]) -> None:
        if name == "compete":
            raise ClusterTrouble("stopped")

    config, run = faked_config(tmp_path), tmp_path / "run"
    for commit in ("a", "a", "b-dirty"):
        monkeypatch.setattr(driver, "environment", lambda commit=commit: {"git_commit": commit})
        with pytest.raises(ClusterTrouble, match="stopped"):
            play(config, run, FakedWorkers(fault=stop))
    assert commits(run) == ["a", "b-dirty"]
    before = Spent.read(run / "spent.json").wall_seconds
    assert play(config, run).is_finished
    monkeypatch.setattr(driver, "environment", lambda: {"git_commit": "c"})
    play(config, run)  # nothing is left to do
    assert commits(run) == ["a", "b-dirty"]
    assert Spent.read(run / "spent.json").wall_seconds > before > 0
    assert json.loads((run / "environment.json").read_text())["git_commit"] == "a"
