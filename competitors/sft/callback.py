"""What happens between the steps of kind `sft`: the budget, reports, checkpoints, averages, and being stopped.

In a gang all of it is decided by worker 0 and told to the others: they have to take part in gathering weights,
and their clocks differ.
"""

import time
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from competitors.sft import collectives
from competitors.sft.trainer import RecipeTrainer

REPORT_SECONDS = 0.25
"""At most so often: reading the loss waits for the GPU, and nobody watches faster."""


class BudgetCallback(TrainerCallback):  # type: ignore[misc]
    """Keeps the budget from the first step, reports, saves checkpoints, follows the tail average."""

    def __init__(self, trainer: RecipeTrainer) -> None:
        self.trainer, self.clock = trainer, trainer.clock
        self.checkpoints_done = 0
        self.steps_unreported = 0
        self.reported = 0.0
        self.is_time_to_report = False
        self.is_stopped = False
        self.trunk_saved = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The budget starts here: loading and tokenising are not charged."""
        trainer = self.trainer
        trainer.take_over()
        trainer.loss_sum = torch.zeros((), device=trainer.args.device)
        self.trunk_saved = trainer.done > 0 and trainer.brief.continuation_dir.is_dir()
        self._agree()
        trainer.meter.start(trainer.done_seconds)
        spent = trainer.meter.spent(trainer.done)
        self.checkpoints_done = int(spent * (trainer.recipe.checkpoints + 1))
        self.races = sorted(fraction for fraction in trainer.brief.race_at if fraction > spent)
        if trainer.done == 0 or trainer.brief.attempt > 1:
            done = {"tokens": trainer.meter.tokens(trainer.done), "step": trainer.done}
            trainer.report({"event": "started", **done, "seconds": trainer.done_seconds})

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After the weights have changed and before the learning rate follows the clock."""
        self._agree()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each optimizer step."""
        trainer, step = self.trainer, self.trainer.step
        recipe, meter = trainer.recipe, trainer.meter
        spent, ended = meter.spent(step), meter.is_spent(step)
        if trainer.accelerator.optimizer_step_was_skipped:  # in float16: the budget is spent all the same
            trainer.lr_scheduler.step()
        self._report_step(step)
        if self.is_stopped:
            control.should_training_stop = True
            return
        if spent > 1 - recipe.tail:
            if recipe.score_weights == "tail_average":
                trainer.follow_average()
            elif recipe.score_weights == "cool_down" and not self.trunk_saved:
                trainer.save_trunk(step)
                self.trunk_saved = True
        if trainer.watch is not None:
            trainer.watch(trainer, 1.0 if ended else spent)
        if ended:
            control.should_training_stop = True
            return
        crossed = [fraction for fraction in self.races if spent >= fraction]
        is_due = spent * (recipe.checkpoints + 1) >= self.checkpoints_done + 1
        if is_due or crossed:
            self.checkpoints_done = int(spent * (recipe.checkpoints + 1))
            self.races = self.races[len(crossed) :]
            self._save_checkpoint(step, crossed)

    def _save_checkpoint(self, step: int, crossed: list[float]) -> None:
        trainer = self.trainer
        folder = trainer.brief.output_dir / f"checkpoint-{step}"
        trainer.save_to(folder)
        trainer.save_resume()
        for fraction in crossed:
            trainer.report({"event": "checkpoint", "step": step, "fraction": fraction, "folder": folder.name})

    def _agree(self) -> None:
        """What depends on a clock or a file: one worker looks."""
        now = time.monotonic()
        is_time = now - self.reported >= REPORT_SECONDS
        is_stopped = is_time and collectives.rank() == 0 and self.trainer.brief.stop_file.exists()
        self.clock.now, is_time_told, is_stopped_told = collectives.from_first([now, float(is_time), float(is_stopped)])
        self.is_time_to_report, self.is_stopped = bool(is_time_told), bool(is_stopped_told)

    def _report_step(self, step: int) -> None:
        trainer = self.trainer
        self.steps_unreported += 1
        if not (self.is_time_to_report or trainer.meter.is_spent(step)):
            return
        event = {
            "event": "step",
            "step": step,
            "tokens": trainer.meter.tokens(step),
            "seconds": round(trainer.meter.seconds, 3),
            "loss": collectives.mean(float(trainer.loss_sum)) / self.steps_unreported,
            "learning_rate": trainer.lr_scheduler.get_last_lr()[0],
        }
        event["memory_megabytes"] = psutil.Process().memory_info().rss // 2**20
        if torch.cuda.is_available():
            event["gpu_memory_megabytes"] = torch.cuda.max_memory_allocated() // 2**20
        trainer.report(event)
        trainer.loss_sum = torch.zeros_like(trainer.loss_sum)
        self.steps_unreported, self.reported = 0, self.clock.now
