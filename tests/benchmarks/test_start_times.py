"""How long each kind takes from placement to its first training step, in a fresh process and in a warm one.

Placement is when a worker is asked for, which is free; the first step is the entry's `started` event. Cold
counts the start of the process and its imports; warm is the median of entries in a process that has run one of
the kind before.
"""

import asyncio
import re
import statistics
import time
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cluster.on_ray.connect import connected
from cluster.on_ray.ray_workers import RayWorkers
from cluster.resources import Shape
from competitors.builtin.bases import build
from competitors.contract import Allowance, Brief, Ingredient
from competitors.entry import compete
from competitors.events import read_events
from competitors.kinds import Recipe
from orchestrator.config.loading import load_config
from orchestrator.driver import WORKER_ENVIRONMENT
from orchestrator.planning.preparation import make_data

ROOT = Path(__file__).parents[2]
STORIES = ROOT.parent / "shared" / "models" / "stories15m"
WARM = 3

# A kind is added by a line; it is measured with `workers`, `cpus` and as a gang as its resources say.
KINDS: dict[str, dict[str, Any]] = {
    "sft full": {"kind": "sft", "learning_rate": 1e-3},
    "sft lora": {"kind": "sft", "learning_rate": 1e-3, "adapter": {"method": "lora", "rank": 8}},
    "python": {"kind": "python", "entrypoint": "tests.recipes:returns_the_seed"},
    "unchanged": {"kind": "unchanged"},
    "command": {"kind": "command", "run": "python train.py", "folder": str(ROOT / "configs/examples/plain-pytorch")}
    | {"environment": {"LEARNING_RATE": 1e-3}},
    "soup": {"kind": "soup"},
    "search": {"kind": "search", "space": {"learning_rate": [1e-3, 2e-3]}, "trials": 2},
    "gang of 2, ZeRO-2": {"kind": "sft", "learning_rate": 1e-3, "deepspeed": "zero2", "resources": {"workers": 2}},
}


def brief(folder: Path, seed_model: Path, train_data: Path, recipe: Recipe, number: int) -> Brief:
    """An entry that tokenises what the quickstart would and ends after its first step (a search needs more)."""
    own_loop = recipe.kind in ("search", "command")
    budget = Allowance(tokens=3_000) if own_loop else Allowance(tokens=40_000, seconds=0.001)
    return Brief(
        tournament="start-times", lineage="one", round=1, competitor=recipe.name, seed_model=seed_model,
        seed_sha256="", seed_continuation=None, train_data=train_data, max_tokens=96,
        budget=budget, progress=(0.0, 1.0), random_seed=number,
        output_dir=folder / "submission",
        resources=recipe.resources.model_copy(update={"gpus": 0.0}),
    )  # fmt: skip


async def start_seconds(workers: RayWorkers, entry: Brief, recipe: Recipe) -> float:
    """From asking for a worker to the first step of one entry."""
    held = recipe.resources
    shape = Shape("trainer", held.cpus, 0, held.memory_gb, held.workers, recipe.is_gang)
    entry.output_dir.parent.mkdir(parents=True)
    asked = time.time()
    submission = await workers.call(shape, compete, entry, recipe)
    assert submission.status == "delivered", submission.reason
    started = next(event.time for event in read_events(entry.progress_file) if event.event == "started")
    return float(started - asked)


def ingredients(scratch: Path) -> list[Ingredient]:
    """What the full recipe has handed in before."""
    folders = sorted((scratch / "sft-full").iterdir())
    return [
        Ingredient(label=f"{f.name}@1", folder=f / "submission", form="full", seed_sha256="", continuation=None)
        for f in folders
    ]


async def measure(scratch: Path, seed_model: Path, train_data: Path) -> dict[str, list[float]]:
    """Seconds to the first step by kind: the cold one, then the warm ones."""
    seconds: dict[str, list[float]] = {}
    for label, settings in KINDS.items():
        name = re.sub(r"\W+", "-", label)
        recipe: Recipe = TypeAdapter(Recipe).validate_python({"name": name, **settings})
        workers = RayWorkers(WORKER_ENVIRONMENT)  # one for each kind: its processes have run nothing else
        try:
            warm = 1 if recipe.is_gang else WARM
            entries = [brief(scratch / name / str(i), seed_model, train_data, recipe, i) for i in range(1 + warm)]
            if recipe.kind == "soup":
                entries = [entry.model_copy(update={"ingredients": ingredients(scratch)}) for entry in entries]
            seconds[label] = [await start_seconds(workers, entry, recipe) for entry in entries]
        finally:
            workers.close()
    return seconds


def test_start_times(tmp_path: Path):
    config = ROOT / "configs" / "quickstart.yaml"
    make_data(load_config(config), config, tmp_path / "data")
    build("tiny-bpe", tmp_path / "tiny-bpe", steps=1)
    models = {"tiny-bpe": tmp_path / "tiny-bpe"} | ({"stories15m": STORIES} if STORIES.is_dir() else {})
    with connected("local"):
        for name, model in models.items():
            found = asyncio.run(measure(tmp_path / f"of-{name}", model, tmp_path / "data" / "train.parquet"))
            print(f"\nseconds from placement to the first step, {name}")
            for label, (cold, *warm) in found.items():
                print(
                    f"  {label:17} cold {cold:5.2f}   warm {statistics.median(warm):5.2f}   (each {warm[0]:.2f}"
                    + "".join(f", {value:.2f}" for value in warm[1:])
                    + ")"
                )
