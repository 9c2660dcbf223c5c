"""What a token costs beside TRL's own SFTTrainer, on the same rows and recipe in one run.

Each arm trains in a process of its own, so that its peak memory is its own. Run with `-s` for the figures.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
STEPS = 20
CASES: dict[str, tuple[str, dict[str, Any], float, float]] = {
    "full, 16 rows": ("stories15m", {"batch_size": 16}, 2.0, 0.5),
    "full, 4 x 4 rows": ("stories15m", {"batch_size": 4, "gradient_accumulation": 4}, 2.0, 0.8),
    "LoRA r16, 16 rows": (
        "stories15m",
        {"batch_size": 16, "adapter": {"method": "lora", "rank": 16}, "learning_rate": 1e-3},
        2.0,
        0.5,
    ),
    "260k, 1 row": ("stories260k", {"batch_size": 1}, 1.0, 1.1),
}
"""Base, recipe, at least so many times TRL's real tokens a second, at most this share of its peak memory."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LaMini's training rows, as a brief has them."""
    source = SHARED / "data" / "lamini" / "train.jsonl"
    if not source.is_file():
        pytest.skip("needs LaMini and stories15m beside the project")
    found = [json.loads(line) for line in source.read_text().splitlines()]
    path = tmp_path_factory.mktemp("rows") / "train.parquet"
    columns = {"prompt": [row["instruction"] + "\n" for row in found], "completion": [row["output"] for row in found]}
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("name", CASES)
def test_a_token_beside_trl(name: str, rows: Path, tmp_path: Path):
    base, settings, times, share = CASES[name]
    recipe = {
        "name": "a", "kind": "sft", "learning_rate": 3e-4, "schedule": "constant", "warmup": 0, "checkpoints": 0,
    } | settings  # fmt: skip
    seed = str(SHARED / "models" / base)
    job = json.dumps({"seed": seed, "data": str(rows), "max_tokens": 256, "steps": STEPS, "recipe": recipe})
    arms = {}
    for arm in ("trl", "ours"):
        command = [sys.executable, "-m", "tests.benchmarks.token_cost_arm", str(tmp_path / arm), arm, job]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        arms[arm] = json.loads(answer.stdout.splitlines()[-1])
    ours, trl = arms["ours"], arms["trl"]
    assert len(ours["losses"]) == len(trl["losses"]) == STEPS
    assert ours["tokens"] == trl["tokens"]
    apart = max(abs(a - b) for a, b in zip(ours["losses"], trl["losses"], strict=True))
    speed = {arm: found["tokens"] / found["seconds"] for arm, found in arms.items()}
    print(
        f"\n{name} on {base}: {speed['ours']:,.0f} real tokens/s, TRL {speed['trl']:,.0f} "
        f"({speed['ours'] / speed['trl']:.2f} x); peak {ours['peak']:.2f} GB, TRL {trl['peak']:.2f} "
        f"({ours['peak'] / trl['peak']:.2f} x); losses {apart:.1e} apart"
    )
    assert apart < 1e-5
    assert speed["ours"] >= times * speed["trl"]
    assert ours["peak"] <= share * trl["peak"]
