"""The commands on a real run: stopping and going on, evaluate, export, report, status, leaderboard."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import sft
from tests.integration.test_tournament import losses, run, snapshot

ROOT = Path(__file__).parents[2]


def tournament(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_a_stopped_tournament_goes_on_to_the_same_end(write_config: Any, tmp_path: Path):
    config = write_config([sft("slow", batch_size=16), sft("fast")], budget={"steps": 60})
    whole = run(config, tmp_path / "whole")

    command = [sys.executable, "-m", "orchestrator", "run", str(config), "--run-dir", str(tmp_path / "stopped")]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    landed = tmp_path / "stopped/lineages/one/round-001/verdict.json"
    deadline = time.monotonic() + 240
    while not landed.exists():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGTERM)
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 3
    assert "go on with the same command: " in errors
    assert f"run {config} --run-dir {tmp_path / 'stopped'}" in errors
    assert "Traceback" not in errors
    status = tournament("status", tmp_path / "stopped")
    assert "tiny: stopped" in status.stdout
    before = snapshot(tmp_path / "stopped" / "lineages/one/round-001")
    resumed = run(config, tmp_path / "stopped")
    assert resumed.state == "finished"
    assert losses(resumed) == losses(whole)
    # The round that was settled was not touched again.
    after = snapshot(tmp_path / "stopped" / "lineages/one/round-001")
    assert {name: after[name] for name in before if "continuation" not in name} == {
        name: before[name] for name in before if "continuation" not in name
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, inputs: Path, ray_address: str) -> Path:
    """A finished tournament of two lineages and one round."""
    import yaml

    folder = tmp_path_factory.mktemp("finished")
    config = {
        "name": "done",
        "data": {
            "source": str(inputs / "rows.jsonl"), "prompt": "{instruction} \n", "completion": "{response}",
            "max_tokens": 32, "validation": 60, "test": 60,
        },
        "lineages": [{"name": n, "base": str(inputs / n)} for n in ("one", "two")],
        "rounds": 1,
        "budget": {"steps": 40},
        "competitors": [sft("lora", adapter={"method": "lora", "rank": 4}), sft("full")],
        "selection": {"resamples": 300},
        "cluster": {"address": ray_address},
    }  # fmt: skip
    path = folder / "done.yaml"
    path.write_text(yaml.safe_dump(config))
    result = tournament("run", path, "--run-dir", folder / "run")
    assert result.returncode == 0, result.stderr
    assert "champion full@1" in result.stdout
    assert "report: " in result.stdout
    assert f" ui {folder / 'run'}" in result.stdout
    return folder / "run"


def test_running_a_finished_directory_changes_nothing_and_says_so(finished: Path):
    before = snapshot(finished)
    result = tournament("run", finished.parent / "done.yaml", "--run-dir", finished)
    assert result.returncode == 0
    assert "finished already: nothing to do" in result.stdout
    assert snapshot(finished) == before


def test_leaderboard_prints_what_lies_in_the_file(finished: Path):
    printed = json.loads(tournament("leaderboard", finished, "--json").stdout)
    assert printed == json.loads((finished / "leaderboard.json").read_text())
    text = tournament("leaderboard", finished).stdout
    assert "winner" in text
    assert "takes the title" in text


def test_evaluate_scores_a_champion_as_the_tournament_did(finished: Path):
    board = json.loads((finished / "leaderboard.json").read_text())
    champion = finished / "lineages/one/round-001/champion"
    result = json.loads(tournament("evaluate", finished, champion, "--json").stdout)
    recorded = board["lineages"][0]["rounds"][1]
    assert result["scorecard"]["validation"]["loss"] == pytest.approx(recorded["validation_loss"], rel=1e-6)
    assert result["scorecard"]["test"]["loss"] == pytest.approx(recorded["test_loss"], rel=1e-6)
    ours, other = result["against"]
    assert ours["improvement"] == pytest.approx(0, abs=1e-9)
    assert other["champion_validation_loss"] == board["lineages"][1]["rounds"][1]["validation_loss"]
    assert "the champion's (full@1)" in tournament("evaluate", finished, champion).stdout


def test_evaluate_takes_an_adapter_on_the_base_it_names(finished: Path):
    entry = finished / "lineages/one/round-001/lora"
    result = json.loads(tournament("evaluate", finished, entry / "submission", "--json").stdout)
    recorded = json.loads((entry / "scorecard.json").read_text())
    assert result["scorecard"]["validation"]["loss"] == pytest.approx(recorded["validation"]["loss"], rel=1e-6)


def test_evaluate_refuses_what_is_no_model(finished: Path, tmp_path: Path):
    result = tournament("evaluate", finished, tmp_path)
    assert result.returncode == 1
    assert "holds neither a full model nor a PEFT adapter" in result.stderr


def test_export_writes_a_model_that_plain_transformers_loads(finished: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    refused = tournament("export", finished, tmp_path / "out")
    assert refused.returncode == 1
    assert "--lineage" in refused.stderr
    result = tournament("export", finished, tmp_path / "out", "--lineage", "two")
    assert result.returncode == 0, result.stderr
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    AutoTokenizer.from_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    board = json.loads((finished / "leaderboard.json").read_text())
    assert f"{board['lineages'][1]['rounds'][1]['test_loss']:.4f}" in card
    again = tournament("export", finished, tmp_path / "out", "--lineage", "two")
    assert again.returncode == 1
    assert "is there already" in again.stderr


def test_report_is_written_again_from_the_record(finished: Path):
    before = (finished / "report.html").read_text()
    (finished / "report.html").unlink()
    assert tournament("report", finished).returncode == 0
    assert (finished / "report.html").read_text() == before


def test_plan_checks_the_placement_on_a_cluster(write_config: Any, ray_address: str):
    config = write_config([sft("fits"), sft("too-big", resources={"cpus": 64})])
    result = tournament("plan", config, "--address", ray_address, "--json")
    assert result.returncode == 0, result.stderr
    placement = json.loads(result.stdout)["placement"]
    reason = "competitors[too-big] asks for 64 CPU, which this cluster can never hold: it has 1 node of 2 CPU"
    assert placement == [reason]
    refused = tournament("run", config, "--run-dir", config.parent / "big")
    assert refused.returncode == 3
    assert reason in refused.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "nonsense"])
def test_a_cluster_that_does_not_answer_is_one_line(address: str, write_config: Any, tmp_path: Path):
    config = write_config([sft("a")])
    result = tournament("run", config, "--run-dir", tmp_path / "run", "--address", address)
    assert result.returncode == 1
    assert address in result.stderr
    assert result.stderr.count("\n") == 1
