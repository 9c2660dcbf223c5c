"""Same config, same result: two runs in two folders differ in nothing but times, submissions' hashes included."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.in_process import InProcessWorkers
from tests.tournaments import make_inputs, run, sft, write_tournament

ROOT = Path(__file__).parents[3]
TIMES = {"train_seconds", "wall_seconds", "device_seconds", "train_tokens_per_second"}
LORA = {"method": "lora", "rank": 4}
FEW = [sft("full"), sft("lora", adapter=LORA)]
MANY = [
    *FEW,
    sft("carried", **{"continue": True, "score_weights": "tail_average", "schedule_spans": "lineage"}),
    sft("dora", adapter={"method": "dora", "rank": 2, "target_modules": ["q_proj", "v_proj", "up_proj"]}),
    sft("pissa", adapter={"method": "pissa", "rank": 4}),
    sft("ia3", adapter={"method": "ia3"}),
    {"name": "mix", "kind": "soup", "of": ["full", "lora", "carried"]},
    {"name": "greedy", "kind": "soup", "method": "greedy"},
    {"name": "dared", "kind": "soup", "method": "dare_ties"},
    {"name": "control", "kind": "unchanged"},
]


def board(config: Path, run_dir: Path, hash_seed: int) -> str:
    """What a run leaves in a process of its own, where sets have another order."""
    command = [sys.executable, "-m", "tests.driver_in_process", str(config), str(run_dir)]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return timeless(run_dir)


def timeless(run_dir: Path) -> str:
    """leaderboard.json without times, each entry with a hash."""
    board = json.loads((run_dir / "leaderboard.json").read_text())
    entries = [entry for row in board["lineages"][0]["rounds"] for entry in row["entries"]]
    # A greedy soup may keep one model, of which it is a copy then.
    assert {entry["status"] for entry in entries if entry["competitor"] != "greedy"} == {"scored"}
    assert all(entry["submission_sha256"] for entry in entries)
    return json.dumps(_timeless(board), indent=1)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_two_runs_leave_the_same_leaderboard(tmp_path: Path):
    changes: dict[str, Any] = {"rounds": 1, "budget": {"steps": 6}, "evaluation": {"samples": 0}}
    config = write_tournament(make_inputs(tmp_path), tmp_path, FEW, **changes)
    places = tmp_path / "one" / "run", tmp_path / "another place" / "run of it"
    for place in places:
        run(config, place, InProcessWorkers(trainers=1, evaluators=0))
    one, other = map(timeless, places)
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "changes"),
    [
        pytest.param(MANY, {"evolution": {"replace": 0.3}}, id="many"),
        pytest.param(
            FEW,
            {"budget": {"total_tokens": 4_000}, "rounds": 3, "allocation": {"share": 0.05, "several_lines": False}},
            id="allocated",
        ),
    ],
)
def test_two_processes_leave_the_same_leaderboard(tmp_path: Path, field: list[dict[str, Any]], changes: dict[str, Any]):
    config = write_tournament(make_inputs(tmp_path), tmp_path, field, **changes)
    one = board(config, tmp_path / "one" / "run", hash_seed=1)
    other = board(config, tmp_path / "another place" / "run of it", hash_seed=2)
    assert one == other
