"""What the tests of evaluation/ are made of, beside tests/tiny.py."""

import hashlib
import os
from pathlib import Path
from typing import Any

from evaluation.data.splits import Row
from evaluation.evaluator import ScoringJob
from tests.tiny import tiny_rows

ROWS = [Row(str(i), r["instruction"] + " \n", r["response"]) for i, r in enumerate(tiny_rows(23))]


def tiny_adapter(folder: Path, base: Path, config: Any = None, std: float = 0.5, seed: int = 1, **lora: Any) -> Path:
    """An adapter over `base`, LoRA unless `config` says otherwise, whose weights are drawn at random."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    settings = {"r": 2, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM"} | lora
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config or LoraConfig(**settings))
    for _, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=std)
    wrapped.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    return folder


def held_out(
    folder: Path, validation: list[Row] = ROWS[:12], test: list[Row] = ROWS[12:], proof: list[Row] = ROWS[5:9]
) -> Path:
    """A folder with the held-out splits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True, parents=True)
    for name, rows in (("validation", validation), ("proof", proof), ("test", test)):
        columns = {key: [getattr(row, key) for row in rows] for key in ("row_id", "prompt", "completion")}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def job(tmp_path: Path, model: Path, **changes: Any) -> ScoringJob:
    """A job over `held_out(tmp_path / "held_out")` whose result goes to `tmp_path / "out"`."""
    settings = {
        "name": "m",
        "model": model,
        "tokenizer": model,
        "held_out": tmp_path / "held_out",
        "max_tokens": 64,
        "batch_tokens": 256,
        "out": tmp_path / "out",
    } | changes
    return ScoringJob(**settings)


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def inodes(folder: Path) -> dict[int, str]:
    """Names of a folder's files by what lies behind them on the disk."""
    return {os.stat(file).st_ino: file.name for file in folder.rglob("*") if file.is_file()}
