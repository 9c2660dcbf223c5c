"""One trial of a search, in a process of its own: train on the trial's part of the budget, be compared on the way.

At each mark, a share of the trial's part, the model that would be handed in is scored on the slice. Where that
is the best of the whole search so far, it is saved: what a search has to show when it is ended early.
"""

import gc
import time
from collections.abc import Callable, Sequence
from math import inf, isfinite
from pathlib import Path

import torch

from cluster.errors import Forfeit
from cluster.on_ray.gpu_memory import stay_within
from competitors.contract import Brief
from competitors.events import reporter
from competitors.sft.recipe import SftRecipe
from competitors.sft.sharding import exchanged
from competitors.sft.slice_loss import mean_loss, read_rows
from competitors.sft.stream import Counts
from competitors.sft.trainer import RecipeTrainer
from competitors.sft.training import train

Passed = Callable[[int, float], None]
"""Called at a mark with the number of marks passed and the slice's loss; what it raises ends the trial."""


def run_trial(
    brief: Brief,
    recipe: SftRecipe,
    held_back: Counts,
    marks: Sequence[float],
    best: Path,
    passed: Passed | None,
    exchange: Callable[[], None] = lambda: None,
) -> float:
    """Train as `train` does, without the rows of the slice, and report each mark as an event `mark`.

    `best` is a file with the lowest loss of the search so far. `passed` says at the last mark that the trial is
    over; without it the training hands in, and its last mark is not saved twice. After `exchange` the search
    has what lies in the trial's folder, and the trial has what `best` says now. Raises Forfeit when the
    loss is no number. Returns the last loss, in nats.
    """
    stay_within(brief.resources.gpus_where(False))
    gc.collect()  # the process may have run another trial before
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    brief.output_dir.mkdir(parents=True)
    rows = read_rows(brief.train_data, held_back)
    report, done, loss = reporter(brief.progress_file), 0, inf

    def exchanged_files(trainer: RecipeTrainer) -> None:
        """Off the trial's clock: one beside the search pays for none."""
        began = time.monotonic()
        exchange()
        trainer.meter.leave_out(time.monotonic() - began)

    def watch(trainer: RecipeTrainer, spent: float) -> None:
        nonlocal done, loss
        reached = sum(spent >= mark for mark in marks)
        if reached <= done:
            return
        done = reached
        step = trainer.step
        event = {"event": "mark", "step": step, "tokens": trainer.meter.tokens(step), "fraction": spent}
        with exchanged(trainer.holding.held(), trainer.average), trainer.accelerator.autocast():
            loss = mean_loss(trainer.model, trainer.processing_class, *rows, brief.max_tokens)
            if not isfinite(loss):
                report(event)
                raise Forfeit(f"its loss was {loss} after {spent:.0%} of its part of the budget")
            exchanged_files(trainer)
            saved = brief.output_dir.parent / f"checkpoint-{step}"
            if loss < read_best(best) and (passed is not None or spent < 1):
                trainer.save_to(saved)
        exchanged_files(trainer)  # the model is there before anybody hears of it
        report({**event, "loss": loss} | ({"folder": saved.name} if saved.exists() else {}))
        exchanged_files(trainer)
        if passed is not None:
            passed(done, loss)

    # Checkpoints are saved at the marks, and only where they are the best.
    train(brief, recipe.model_copy(update={"checkpoints": 0}), report, watch, held_back)
    return loss


def read_best(path: Path) -> float:
    """The number in the file, or infinity while there is none."""
    return float(path.read_text()) if path.exists() else inf
