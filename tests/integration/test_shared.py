"""The same program on the real models and data that lie beside some checkouts."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.data import sources
from evaluation.data.splits import make_splits, read_split
from tests.tournaments import run, sft

SHARED = Path(__file__).parents[3] / "shared"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (SHARED / "models").is_dir(), reason=f"the real models and data are not at {SHARED}"),
]


@pytest.mark.parametrize("name", ["lamini", "flan_cot", "gsm8k", "superni15"])
def test_real_data_splits_without_a_prompt_on_two_sides(name: str, tmp_path: Path):
    source = str(SHARED / "data" / name / "train.jsonl")
    rows = sources.load(source, tmp_path)
    prompt = "{instruction}\n{input}\n" if "input" in rows.column_names else "{instruction}\n"
    manifest = make_splits(rows, prompt, "{output}", 500, 500, 17, tmp_path / "data", source)
    assert manifest.rows_read == len(rows)
    assert manifest.rows_read == sum(manifest.counts.values()) + sum(manifest.dropped.values())
    sides = [tmp_path / "data" / "train.parquet"]
    sides += [tmp_path / "data" / "held_out" / f"{split}.parquet" for split in ("validation", "proof", "test")]
    prompts = [{" ".join(row.prompt.casefold().split()) for row in read_split(side)} for side in sides]
    assert [len(read_split(side)) for side in sides[1:]] == [250, 250, 500]
    assert sum(map(len, prompts)) == len(set.union(*prompts))


@pytest.mark.slow
def test_a_real_base_on_real_data(write_config: Any, tmp_path: Path):
    config = write_config(
        [sft("full", learning_rate=3e-3), sft("lora", adapter={"method": "lora", "rank": 8}, learning_rate=5e-3)],
        data={
            "source": str(SHARED / "data" / "lamini" / "train.jsonl"),
            "prompt": "{instruction}\n",
            "completion": "{output}",
            "max_tokens": 128,
            "validation": 60,
            "test": 60,
        },
        lineages=[{"name": "stories260k", "base": str(SHARED / "models" / "stories260k")}],
        rounds=1,
        budget={"tokens": 15_000},
    )
    board = run(config, tmp_path / "run")
    base, first = board.lineages[0].rounds
    assert 3.5 < base.test_loss < 4.5
    assert first.dethroned
    assert first.test_loss < base.test_loss - 0.3
