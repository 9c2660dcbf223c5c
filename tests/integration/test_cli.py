"""The commands on a real run: stopping and going on, evaluate, export, report, status, leaderboard."""

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from orchestrator import cli
from orchestrator.views.leaderboard import Leaderboard
from tests.empty_store import give_store
from tests.tournaments import losses, run, sft, times

ROOT = Path(__file__).parents[2]
SETTLED = "lineages/one/round-001"
RECIPE = """
import numpy, shutil, time
from pathlib import Path
from safetensors.numpy import load_file, save_file

def better(brief, report):
    while brief.round == 2 and not Path(__file__).with_name("go-on").exists():
        time.sleep(0.05)
    shutil.copytree(brief.seed_model, brief.output_dir, dirs_exist_ok=True)
    place = brief.output_dir / "model.safetensors"
    weights = load_file(place)
    if brief.round == 1:
        embedding = weights["model.embed_tokens.weight"]
        embedding[:] = 0.3 * numpy.random.default_rng(7).standard_normal(embedding.shape)
    else:
        weights["model.norm.weight"] /= 10
    place.unlink()  # which may be a link to the seed's own
    save_file(weights, place, metadata={"format": "pt"})
"""
"""Code that lies beside the config: a model that is less sure of itself in each round, the second once it may go on."""
BETTER = {"name": "better", "kind": "python", "entrypoint": "recipe:better"}


def process(*arguments: str | Path) -> subprocess.Popen[str]:
    """`tournament ARGUMENTS` as people start it."""
    command = [sys.executable, "-m", "orchestrator", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def tournament(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has imported what it needs."""
    out, errors = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.setattr("sys.argv", ["tournament", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    assert isinstance(exit_.value.code, int)
    return subprocess.CompletedProcess(arguments, exit_.value.code, out.getvalue(), errors.getvalue())


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


def stopped_and_ended(folder: Path, base: Path, inputs: Path, ray_address: str, competitor: dict[str, Any]) -> Ended:
    """Two rounds of one competitor."""
    config = {
        "name": "done",
        "data": {
            "source": str(inputs / "rows.jsonl"), "prompt": "{instruction} \n", "completion": "{response}",
            "max_tokens": 32, "validation": 120, "test": 60,
        },
        "lineages": [{"name": "one", "base": str(base)}],
        "rounds": 2,
        "budget": {"steps": 40},
        "competitors": [competitor],
        "evaluation": {"samples": 0},
        "cluster": {"address": ray_address},
    }  # fmt: skip
    path, run_dir = folder / "done.yaml", folder / "run"
    path.write_text(yaml.safe_dump(config))
    (folder / "recipe.py").write_text(RECIPE)
    give_store(folder)
    driver = process("run", path, "--run-dir", run_dir)
    deadline = time.monotonic() + 240
    while not (run_dir / SETTLED / "verdict.json").exists():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGTERM)
    _, errors = driver.communicate(timeout=120)
    status = tournament("status", run_dir).stdout
    before = times(run_dir / SETTLED)
    (folder / "go-on").touch()
    again = process("run", path, "--run-dir", run_dir)
    out, errors_again = again.communicate(timeout=240)
    ended = subprocess.CompletedProcess(again.args, again.returncode, out, errors_again)
    return Ended(path, run_dir, driver.returncode, errors, status, before, ended)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, inputs: Path, ray_address: str) -> Ended:
    """On a base that is too sure of itself, and better when it is less so."""
    folder = tmp_path_factory.mktemp("stopped")
    base = Path(shutil.copytree(inputs / "one", folder / "base"))
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 60
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    return stopped_and_ended(folder, base, inputs, ray_address, BETTER)


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
    assert "champion better@2" in ended.ended.stdout
    assert "report: " in ended.ended.stdout
    assert f" ui {ended.run_dir}" in ended.ended.stdout
    # The round that was settled was not touched again.
    before, after = ended.settled_then, times(ended.run_dir / SETTLED)
    settled = [name for name in before if "continuation" not in name]
    assert {name: after[name] for name in settled} == {name: before[name] for name in settled}


@pytest.mark.slow
def test_a_stopped_tournament_ends_as_one_that_was_not(inputs: Path, ray_address: str, tmp_path: Path):
    """Training goes on where it was."""
    stopped = stopped_and_ended(tmp_path, inputs / "one", inputs, ray_address, sft("full"))
    assert stopped.stopped_with == 3
    assert stopped.ended.returncode == 0, stopped.ended.stderr
    board = Leaderboard.read(stopped.run_dir / "leaderboard.json")
    assert losses(run(stopped.config, tmp_path / "whole")) == losses(board)


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
