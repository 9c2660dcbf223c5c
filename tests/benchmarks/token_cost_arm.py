"""Trains one recipe in a process of its own, by ours or by TRL's own trainer, and prints what it cost as a JSON line.

python -m tests.benchmarks.token_cost_arm FOLDER ours|trl '{"seed": …, "data": …, "max_tokens": …, "recipe": {…}}'
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from cluster.resources import Resources
from competitors.contract import Allowance, Brief
from competitors.sft import callback
from competitors.sft.recipe import SftRecipe
from competitors.sft.training import train
from tests.benchmarks.train_in_process import peak_gb
from tests.plain_trl import losses, stream_of, train_plainly


def ours(brief: Brief, recipe: SftRecipe) -> dict[str, Any]:
    """What a round's entry runs."""
    callback.REPORT_SECONDS = 0.0
    began, ended, found = 0.0, 0.0, []

    def report(event: dict[str, Any]) -> None:
        nonlocal began, ended
        if event["event"] == "started":
            began = time.monotonic()
        elif event["event"] == "step":
            ended = time.monotonic()
            found.append(event["loss"])

    train(brief, recipe, report)
    return {"losses": found, "seconds": ended - began}


class Watch(TrainerCallback):  # type: ignore[misc]
    """When TRL's steps begin and end."""

    began = ended = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """The first begins."""
        self.began = time.monotonic()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """The latest ends."""
        self.ended = time.monotonic()


def theirs(brief: Brief, recipe: SftRecipe) -> dict[str, Any]:
    """TRL's trainer on the same rows."""
    watch = Watch()
    trainer = train_plainly(brief, recipe, str(brief.output_dir), callbacks=[watch])
    return {"losses": losses(trainer), "seconds": watch.ended - watch.began}


def main(folder: Path, arm: str, job: dict[str, Any]) -> None:
    """Losses, seconds from the first step to the last, real tokens, and the process's peak memory in GB."""
    brief = Brief(
        tournament="t", lineage="l", round=1, competitor="a", seed_model=job["seed"], seed_sha256="0",
        seed_continuation=None, train_data=job["data"], max_tokens=job["max_tokens"], progress=(0.0, 1.0),
        budget=Allowance(steps=job["steps"]), output_dir=folder / "submission", random_seed=7,
        resources=Resources(gpus=0, cpus=2),
    )  # fmt: skip
    brief.output_dir.mkdir(parents=True)
    recipe = SftRecipe.model_validate(job["recipe"])
    found = (ours if arm == "ours" else theirs)(brief, recipe)
    peak = peak_gb()
    print(json.dumps(found | {"tokens": int(stream_of(brief, recipe).tokens_after[-1]), "peak": peak}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
