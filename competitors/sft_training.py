"""The training behind kind `sft`: model, optimizer, schedule, the budget's callback, and what is handed in.

What is scored and what is continued are two things. `score_weights: last` hands in the trunk itself,
`tail_average` the mean of the weights over the round's tail (Polyak & Juditsky 1992; LAWA, Kaddour 2022),
`cool_down` the trunk cooled to a rate of zero over the tail. The continuation is always the trunk.
"""

import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from peft.optimizers import create_loraplus_optimizer
from transformers import AutoConfig, AutoTokenizer, TrainerCallback, set_seed
from transformers.optimization import get_scheduler
from trl import SFTConfig, SFTTrainer

from cluster.storage import writing
from competitors import continuation
from competitors.budget import VIRTUAL_STEPS, Meter, rate_factor
from competitors.contract import Brief, Report
from competitors.sft import SftRecipe
from competitors.sft_model import (
    compute_dtype,
    load_model,
    on_gpu,
    refuse_unable,
    save_adapter,
    train_in_float32,
)
from competitors.stream import Stream, prepare

log = logging.getLogger(__name__)

REPORT_SECONDS = 0.25
"""At most so often: reading the loss waits for the GPU, and nobody watches faster."""


def train(brief: Brief, recipe: SftRecipe, report: Report) -> None:
    """Train on the brief's data within its budget and leave the submission in its output folder."""
    refuse_unable(brief, recipe)
    set_seed(brief.random_seed)
    torch.set_num_threads(max(1, int(brief.resources.cpus)))
    tokenizer = AutoTokenizer.from_pretrained(brief.seed_model)
    model = load_model(brief, recipe)
    went_on = brief.seed_continuation if recipe.continue_ else None
    seen = _take_over_trunk(went_on, model, brief, recipe, report) if went_on else None
    stream = prepare(
        brief.train_data,
        tokenizer,
        brief.max_tokens,
        brief.budget,
        recipe.batch_size * recipe.gradient_accumulation,
        recipe.packing,
        brief.random_seed,
        seen,
    )
    meter = Meter(brief.budget, stream.tokens_after)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = training_arguments(brief, recipe, stream.steps, scratch)
        trainer = RecipeTrainer(
            model=model,
            args=arguments,
            train_dataset=stream.sequences,
            processing_class=tokenizer,
            brief=brief,
            recipe=recipe,
            meter=meter,
            stream=stream,
            seen=seen,
            report=report,
            went_on=went_on,
        )
        trainer.train()
    trainer.hand_in()


def training_arguments(brief: Brief, recipe: SftRecipe, steps: int, scratch: str) -> SFTConfig:
    """What TRL and transformers are told. Saving, reporting and the schedule's end are ours."""
    dtype = compute_dtype(brief, recipe)
    return SFTConfig(
        output_dir=scratch,
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        learning_rate=recipe.learning_rate,
        optim=recipe.optimizer,
        optim_args=",".join(f"{k}={v}" for k, v in recipe.optimizer_args.items()) or None,
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        gradient_checkpointing=recipe.gradient_checkpointing,
        packing=recipe.packing,
        max_length=brief.max_tokens,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=not on_gpu(brief),
        use_liger_kernel=recipe.liger,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
        shuffle_dataset=False,
        dataloader_drop_last=True,
        seed=brief.random_seed,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )


def _take_over_trunk(folder: Path, model: Any, brief: Brief, recipe: SftRecipe, report: Report) -> Any:
    """Go on from the seed's trunk and its place in the data; returns the rows' seen counts or None."""
    import pyarrow.parquet as pq

    if recipe.adapter is not None:
        _note(report, "starts a new adapter on the seed: takes over its place in the data only")
    elif (why := continuation.load_trunk(folder, model)) is not None:
        _note(report, f"starts from the seed's scored weights, not its trunk: {why}")
    return continuation.load_seen(folder, pq.read_metadata(brief.train_data).num_rows)


def _note(report: Report, text: str) -> None:
    log.info(text)
    report({"event": "note", "text": text})


class RecipeTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with our schedule, the budget's callback and our way to hand in."""

    def __init__(
        self,
        *,
        brief: Brief,
        recipe: SftRecipe,
        meter: Meter,
        stream: Stream,
        seen: Any,
        report: Report,
        went_on: Path | None,
        **trainer: Any,
    ) -> None:
        self.brief, self.recipe, self.meter, self.stream = brief, recipe, meter, stream
        self.seen, self.report, self.went_on = seen, report, went_on
        self.average: dict[str, torch.Tensor] = {}
        self.averaged = 0
        self.loss_sum = torch.zeros(())
        super().__init__(**trainer)
        train_in_float32(self.model)
        self.add_callback(Keeper(self))

    def create_optimizer(self, model: Any = None) -> Any:
        """The recipe's optimizer, with the state that the seed's trunk left where it fits."""
        adapter = self.recipe.adapter
        if adapter is not None and adapter.lora_plus_ratio:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            settings |= {"loraplus_lr_ratio": adapter.lora_plus_ratio, "loraplus_weight_decay": self.args.weight_decay}
            # LoRA+ (Hayou et al. 2024): B learns faster than A. transformers leaves an optimizer that is there.
            self.optimizer = create_loraplus_optimizer(model or self.model, kind, **settings)
        optimizer = super().create_optimizer(model)
        if self.went_on is not None and self.recipe.adapter is None:
            why = continuation.load_optimizer(self.went_on, self.model, optimizer, self.recipe.optimizer)
            _note(self.report, f"starts with a fresh optimizer: {why}" if why else "goes on with the seed's optimizer")
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """A learning-rate schedule over the budget (not over steps), spanning the round or the lineage."""
        recipe = self.recipe
        extra = dict(recipe.schedule_args)
        if recipe.schedule == "warmup_stable_decay":
            extra["num_decay_steps"] = round(float(extra.pop("decay", 0.2)) * VIRTUAL_STEPS)
        warmup = round(recipe.warmup * VIRTUAL_STEPS)
        inner = get_scheduler(recipe.schedule, _throwaway_optimizer(), warmup, VIRTUAL_STEPS, extra)
        position = self.brief.progress if recipe.schedule_spans == "lineage" else (0.0, 1.0)
        cool_down = recipe.tail if recipe.score_weights == "cool_down" else 0.0

        def factor(step: int) -> float:
            return rate_factor(inner.lr_lambdas[0], position, self.meter.spent(step), cool_down)

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass; adds its share of the step's loss up for the report."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self.loss_sum = self.loss_sum + loss.detach()
        return loss

    def follow_average(self) -> None:
        """Take the current weights into the running mean over the round's tail."""
        self.averaged += 1
        for name, parameter in continuation.named_trainable(self.model).items():
            value = parameter.detach().float()
            if name in self.average:
                self.average[name] += (value - self.average[name]) / self.averaged
            else:
                self.average[name] = value.clone()

    def save_trunk(self, step: int) -> None:
        """Leave the continuation as the weights and the optimizer are now."""
        seen = np.zeros(self.stream.rows, np.int64) if self.seen is None else self.seen.copy()
        np.add.at(seen, self.stream.order[: int(self.stream.rows_after[step])], 1)
        folder, name = self.brief.continuation_dir, self.recipe.optimizer
        full = self.recipe.adapter is None
        continuation.save(folder, self.model, self.optimizer, name, full, self.state.global_step, seen)

    def hand_in(self) -> None:
        """Write the submission: the weights that the recipe wants scored."""
        step = self.state.global_step
        if self.recipe.score_weights != "cool_down":
            self.save_trunk(step)
        if self.averaged:
            with torch.no_grad():
                for name, parameter in continuation.named_trainable(self.model).items():
                    parameter.copy_(self.average[name])
        self.save_to(self.brief.output_dir)
        seconds, tokens = self.meter.seconds, self.meter.tokens(step)
        self.report({"event": "ended", "step": step, "tokens": tokens, "seconds": seconds})

    def save_to(self, folder: Path) -> None:
        """Write the model or adapter into `folder`, whole or not at all."""
        model = self.accelerator.unwrap_model(self.model)
        with writing(folder) as temporary:
            if self.recipe.adapter is not None:
                save_adapter(model, temporary)
                return
            # Trained in float32, stored in the seed's own dtype, so that rounds do not grow the model.
            stored = AutoConfig.from_pretrained(self.brief.seed_model).dtype or torch.float32
            state = {k: v.to(stored) if v.is_floating_point() else v for k, v in model.state_dict().items()}
            model.save_pretrained(temporary, state_dict=state)
            config = json.loads((temporary / "config.json").read_text())
            config["dtype"] = str(stored).removeprefix("torch.")  # transformers writes the trained one
            (temporary / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


class Keeper(TrainerCallback):  # type: ignore[misc]
    """Keeps the budget from the first step, reports, saves checkpoints, follows the tail average."""

    def __init__(self, trainer: RecipeTrainer) -> None:
        self.trainer = trainer
        self.checkpoints_done = 0
        self.steps_unreported = 0
        self.reported = 0.0
        self.trunk_saved = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The budget starts here: loading and tokenising are not charged."""
        self.trainer.loss_sum = torch.zeros((), device=self.trainer.model.device)
        self.trainer.meter.start()
        self.trainer.report({"event": "started", "tokens": 0, "step": 0})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each optimizer step."""
        trainer, step = self.trainer, state.global_step
        recipe, meter = trainer.recipe, trainer.meter
        spent, ended = meter.spent(step), meter.is_spent(step)
        self._report_step(step)
        if spent > 1 - recipe.tail:
            if recipe.score_weights == "tail_average":
                trainer.follow_average()
            elif recipe.score_weights == "cool_down" and not self.trunk_saved:
                trainer.save_trunk(step)
                self.trunk_saved = True
        if ended:
            control.should_training_stop = True
        elif spent * (recipe.checkpoints + 1) >= self.checkpoints_done + 1:
            self.checkpoints_done = int(spent * (recipe.checkpoints + 1))
            trainer.save_to(trainer.brief.output_dir / f"checkpoint-{step}")

    def _report_step(self, step: int) -> None:
        trainer = self.trainer
        self.steps_unreported += 1
        now = time.monotonic()
        if now - self.reported < REPORT_SECONDS and not trainer.meter.is_spent(step):
            return
        event = {
            "event": "step",
            "step": step,
            "tokens": trainer.meter.tokens(step),
            "seconds": round(trainer.meter.seconds, 3),
            "loss": float(trainer.loss_sum) / self.steps_unreported,
            "learning_rate": trainer.lr_scheduler.get_last_lr()[0],
        }
        event["memory_megabytes"] = psutil.Process().memory_info().rss // 2**20
        if torch.cuda.is_available():
            event["gpu_memory_megabytes"] = torch.cuda.max_memory_allocated() // 2**20
        trainer.report(event)
        trainer.loss_sum = torch.zeros_like(trainer.loss_sum)
        self.steps_unreported, self.reported = 0, now


def _throwaway_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
