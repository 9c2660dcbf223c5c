"""How far the estimate of `plan` lies from the peak memory that training really takes, on a CPU.

Each case trains two steps in a fresh process. Run with `-s` for the table.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from competitors.sft.recipe import SftRecipe
from orchestrator.planning.memory import estimate
from orchestrator.planning.model_shape import describe_base
from tests.tiny import WORDS, tiny_model

BIG = {"hidden": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12}  # 91M parameters
SLIM = {"hidden": 384, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 6}  # 24M

LORA = {"method": "lora", "rank": 64}
ADAFACTOR = {"optimizer": "adafactor", "optimizer_args": {"scale_parameter": False, "relative_step": False}}
CASES: dict[str, tuple[dict[str, Any], int, int, dict[str, Any]]] = {
    "full, AdamW": (BIG, 64, 1, {}),
    "full, Adafactor": (BIG, 64, 1, ADAFACTOR),
    "full, AdamW, averaged": (BIG, 64, 1, {"score_weights": "tail_average", "tail": 0.9}),
    "9 of 12 layers frozen": (BIG, 64, 1, {"freeze": ["embed_tokens", "layers.[0-8]"]}),
    "LoRA r64": (BIG, 64, 1, {"adapter": LORA}),
    "PiSSA r32": (BIG, 128, 2, {"adapter": {"method": "pissa", "rank": 32}}),
    "2,048 tokens": (SLIM, 512, 4, {}),
    "2,048 tokens, checkpointed": (SLIM, 512, 4, {"gradient_checkpointing": True}),
    "2,048 tokens, LoRA": (SLIM, 512, 4, {"adapter": LORA}),
    "1,536 tokens, IA3": (SLIM, 384, 4, {"adapter": {"method": "ia3"}}),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("bases")
    shared = {"vocab_size": 8000, "max_position_embeddings": 1024}
    return {shape["hidden"]: tiny_model(folder / str(shape["hidden"]), **shape, **shared) for shape in (BIG, SLIM)}


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_near_the_measured_peak(name: str, bases: dict[int, Path], tmp_path: Path):
    shape, max_tokens, batch_size, settings = CASES[name]
    half = " ".join(WORDS[i % len(WORDS)] for i in range(max_tokens // 2))
    rows = {"prompt": [f"{half} {WORDS[i % 20]}" for i in range(64)], "completion": [f"{half} {half}"] * 64}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    recipe = {"name": "a", "kind": "sft", "learning_rate": 1e-4, "checkpoints": 0, "batch_size": batch_size, **settings}
    seed = bases[shape["hidden"]]
    job = {"seed": str(seed), "data": str(tmp_path / "rows.parquet"), "max_tokens": max_tokens, "recipe": recipe}
    command = [sys.executable, "-m", "tests.benchmarks.train_in_process", str(tmp_path / "out"), json.dumps(job)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    shutil.rmtree(tmp_path / "out")
    measured = json.loads(answer.stdout.splitlines()[-1])["peak"]
    base = describe_base(str(seed), Path.cwd())
    assert base is not None
    guess = estimate(SftRecipe.model_validate(recipe), base, max_tokens, on_gpu=False)
    error = guess.total / measured - 1
    print(f"\n| {name} | {guess.total:.2f} | {measured:.2f} | {error:+.0%} |")
    assert abs(error) < 0.3
