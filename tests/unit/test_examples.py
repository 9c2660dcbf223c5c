"""The programs that the examples and the experiments enter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.tiny import tiny_model, tiny_rows

ROOT = Path(__file__).parents[2]


def test_a_plain_loop_says_that_its_budget_holds_no_step(tmp_path: Path):
    rows = tiny_rows()
    columns = {
        "prompt": [next(iter(row.values())) for row in rows],
        "completion": [[*row.values()][-1] for row in rows],
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    brief = {"output_dir": str(tmp_path / "out"), "budget": {"tokens": 40}, "max_tokens": 64, "random_seed": 1}
    brief |= {"seed_model": str(tiny_model(tmp_path / "seed")), "train_data": str(tmp_path / "rows.parquet")}
    (tmp_path / "brief.json").write_text(json.dumps(brief))
    told = {"BRIEF": str(tmp_path / "brief.json"), "BRIEF_PROGRESS_FILE": str(tmp_path / "progress.jsonl")}
    told |= {"LEARNING_RATE": "1e-3", "OMP_NUM_THREADS": "1"}

    def run(**more: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(ROOT / "configs/examples/plain-pytorch/train.py")]
        return subprocess.run(command, env=os.environ | told | more, capture_output=True, text=True, check=False)

    of_16 = run()
    assert of_16.returncode == 1
    assert of_16.stderr.splitlines()[-1].startswith("the budget holds no step of 16 rows")
    assert not (tmp_path / "out").exists()
    assert run(ROWS_PER_STEP="1").returncode == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert events.count("step") > 1
