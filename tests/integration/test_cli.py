"""The commands on a real run: stopping and going on, evaluate, export, report, status, leaderboard."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.views.leaderboard import Leaderboard
from tests.tournaments import losses, run, sft, times

ROOT = Path(__file__).parents[2]
SETTLED = "lineages/one/round-001"


def tournament(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@dataclass(frozen=True)
class Ended:
    """A tournament that was stopped when its first round had ended, and went on to its end."""

    config: Path
    run_dir: Path
    stopped_with: int
    stopped_saying: str
    status_then: str
    settled_then: dict[str, int]
    ended: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, inputs: Path, ray_address: str) -> Ended:
    """Two rounds."""
    folder = tmp_path_factory.mktemp("stopped")
    config = {
        "name": "done",
        "data": {
            "source": str(inputs / "rows.jsonl"), "prompt": "{instruction} \n", "completion": "{response}",
            "max_tokens": 32, "validation": 120, "test": 60,
        },
        "lineages": [{"name": "one", "base": str(inputs / "one")}],
        "rounds": 2,
        "budget": {"steps": 40},
        "competitors": [sft("full")],
        "evaluation": {"samples": 0},
        "cluster": {"address": ray_address},
    }  # fmt: skip
    path, run_dir = folder / "done.yaml", folder / "run"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "orchestrator", "run", str(path), "--run-dir", str(run_dir)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    deadline = time.monotonic() + 240
    while not (run_dir / SETTLED / "verdict.json").exists():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGTERM)
    _, errors = driver.communicate(timeout=120)
    status = tournament("status", run_dir).stdout
    before = times(run_dir / SETTLED)
    again = tournament("run", path, "--run-dir", run_dir)
    return Ended(path, run_dir, driver.returncode, errors, status, before, again)


@pytest.fixture(scope="module")
def finished(ended: Ended) -> Path:
    """The run directory of a finished tournament."""
    assert ended.ended.returncode == 0, ended.ended.stderr
    return ended.run_dir


def test_a_stopped_tournament_goes_on(ended: Ended):
    assert ended.stopped_with == 3
    assert "go on with the same command: " in ended.stopped_saying
    assert f"run {ended.config} --run-dir {ended.run_dir}" in ended.stopped_saying
    assert "Traceback" not in ended.stopped_saying
    assert "done: stopped" in ended.status_then
    assert ended.ended.returncode == 0, ended.ended.stderr
    assert "champion full@2" in ended.ended.stdout
    assert "report: " in ended.ended.stdout
    assert f" ui {ended.run_dir}" in ended.ended.stdout
    # The round that was settled was not touched again.
    before, after = ended.settled_then, times(ended.run_dir / SETTLED)
    settled = [name for name in before if "continuation" not in name]
    assert {name: after[name] for name in settled} == {name: before[name] for name in settled}


@pytest.mark.slow
def test_a_stopped_tournament_ends_as_one_that_was_not(ended: Ended, finished: Path, tmp_path: Path):
    board = Leaderboard.read(finished / "leaderboard.json")
    assert losses(run(ended.config, tmp_path / "whole")) == losses(board)


def test_running_a_finished_directory_changes_nothing_and_says_so(finished: Path):
    before = times(finished)
    result = tournament("run", finished.parent / "done.yaml", "--run-dir", finished)
    assert result.returncode == 0
    assert "finished already: nothing to do" in result.stdout
    assert times(finished) == before


def test_leaderboard_prints_what_lies_in_the_file(finished: Path):
    printed = json.loads(tournament("leaderboard", finished, "--json").stdout)
    assert printed == json.loads((finished / "leaderboard.json").read_text())
    text = tournament("leaderboard", finished).stdout
    assert "winner" in text
    assert "takes the title" in text


def test_evaluate_scores_a_champion_as_the_tournament_did(finished: Path):
    board = json.loads((finished / "leaderboard.json").read_text())
    champion = finished / "lineages/one/round-002/champion"
    result = json.loads(tournament("evaluate", finished, champion, "--json").stdout)
    recorded = board["lineages"][0]["rounds"][2]
    assert result["scorecard"]["validation"]["loss"] == pytest.approx(recorded["validation_loss"], rel=1e-6)
    assert result["scorecard"]["test"]["loss"] == pytest.approx(recorded["test_loss"], rel=1e-6)
    (ours,) = result["against"]
    assert ours["improvement"] == pytest.approx(0, abs=1e-7)


def test_export_writes_a_model_that_plain_transformers_loads(finished: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    result = tournament("export", finished, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    AutoTokenizer.from_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    board = json.loads((finished / "leaderboard.json").read_text())
    assert f"{board['lineages'][0]['rounds'][2]['test_loss']:.4f}" in card
    again = tournament("export", finished, tmp_path / "out")
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_plan_checks_the_placement_on_a_cluster(write_config: Any, ray_address: str):
    config = write_config([sft("fits"), sft("too-big", resources={"cpus": 64})])
    result = tournament("plan", config, "--address", ray_address, "--json")
    assert result.returncode == 0, result.stderr
    placement = json.loads(result.stdout)["placement"]
    reason = "competitors[too-big] asks for 64 CPU, which this cluster can never hold: it has 1 node of 2 CPU"
    assert placement == [reason]
    refused = tournament("run", config, "--run-dir", config.parent / "big")
    assert refused.returncode == 1
    assert refused.stderr == f"error: {reason}\n"
    assert not (config.parent / "big/data").exists()  # before rows are split and models are brought
