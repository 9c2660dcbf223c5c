"""What tests of several kinds make: rows, recipes of kind sft, trained entries, weights."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from cluster.resources import Resources
from competitors.contract import Allowance, Brief
from competitors.events import Event, read_events, reporter
from competitors.sft.recipe import SftRecipe
from tests.tiny import tiny_rows


def rows_file(path: Path, count: int = 60) -> Path:
    """Training rows as every brief names them."""
    rows = tiny_rows(count)
    prompts = [row["instruction"] + " \n" for row in rows]
    pq.write_table(pa.table({"prompt": prompts, "completion": [row["response"] for row in rows]}), path)
    return path


def brief_in(folder: Path, seed_model: Path, train_data: Path) -> Brief:
    """A brief whose entry lies in `folder`."""
    out = folder / "entry" / "submission"
    out.mkdir(parents=True)
    return Brief(
        tournament="t", lineage="l", round=1, competitor="a", seed_model=seed_model, seed_sha256="0",
        seed_continuation=None, train_data=train_data, max_tokens=64, budget=Allowance(steps=10), progress=(0.0, 0.5),
        output_dir=out, random_seed=7, resources=Resources(gpus=0),
    )  # fmt: skip


def sft_recipe(**settings: Any) -> SftRecipe:
    """A recipe that learns the rows in a few steps."""
    return SftRecipe.model_validate(
        {"name": "a", "kind": "sft", "learning_rate": 0.01, "batch_size": 4, "warmup": 0} | settings
    )


def run(brief: Brief, **settings: Any) -> list[Event]:
    """Train; what was reported."""
    from competitors.sft.training import train

    train(brief, sft_recipe(**settings), reporter(brief.progress_file))
    return read_events(brief.progress_file)


def steps(events: list[Event]) -> list[Event]:
    """Of the events those that tell of a step."""
    return [event for event in events if event.event == "step"]


def beside(brief: Brief, folder: Path, **changes: Any) -> Brief:
    """The same brief for an entry in a folder of its own."""
    (folder / "submission").mkdir(parents=True)
    return brief.model_copy(update={"output_dir": folder / "submission"} | changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a submission."""
    return load_file(next(folder.glob("*.safetensors")))
