"""The training behind kind `sft`: model, optimizer, schedule, and what is handed in. The same for one worker and
for each worker of a gang; what happens between the steps is in keeper.py.

What is scored and what is continued are two things. `score_weights: last` hands in the trunk itself,
`tail_average` the mean of the weights over the round's tail (Polyak & Juditsky 1992; LAWA, Kaddour 2022),
`cool_down` the trunk cooled to a rate of zero over the tail. The continuation is always the trunk.
"""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.optimizers import create_loraplus_optimizer
from transformers import AutoConfig, AutoTokenizer, set_seed
from transformers.optimization import get_scheduler
from trl import SFTConfig, SFTTrainer

from cluster.errors import Forfeit
from cluster.records import Record
from cluster.storage import writing
from competitors import continuation, ranks, zero
from competitors.budget import VIRTUAL_STEPS, Meter, rate_factor
from competitors.contract import Brief, Report
from competitors.keeper import Clock, Keeper
from competitors.sft import SftRecipe
from competitors.sft_model import compute_dtype, load_model, on_gpu, refuse_unable, save_adapter, train_in_float32
from competitors.sharding import Tensors, exchanged, holding, named_trainable
from competitors.stream import Counts, Stream, prepare

log = logging.getLogger(__name__)


class Resume(Record):
    """resume.json, beside a continuation: where a gang that lost a worker goes on."""

    step: int
    seconds: float
    averaged: int
    """Over how many steps the weights in average.safetensors are averaged; 0: there are none."""


Watch = Callable[["RecipeTrainer", float], None]
"""Called after each optimizer step with the share of the budget that is spent, 1 after the last."""


def train(
    brief: Brief, recipe: SftRecipe, report: Report, watch: Watch | None = None, held_back: Counts | None = None
) -> None:
    """Train on the brief's data within its budget and leave the submission in its output folder.

    In a gang every worker calls it, within one torch.distributed group; worker 0's `report` is heard. Raises
    Forfeit when the budget holds no step, the recipe cannot run here, or the tournament stops the entry.
    The rows numbered in `held_back` are not trained on. What `watch` raises ends the training.
    """
    refuse_unable(brief, recipe)
    torch.set_num_threads(max(1, int(brief.resources.cpus)))
    tokenizer = AutoTokenizer.from_pretrained(brief.seed_model)
    went_on = brief.seed_continuation if recipe.continue_ else None
    sequences_per_step = recipe.batch_size * recipe.gradient_accumulation * recipe.resources.workers
    seen = _seen_before(went_on, brief) if went_on else None
    stream = prepare(
        brief.train_data,
        tokenizer,
        brief.max_tokens,
        brief.budget,
        sequences_per_step,
        recipe.packing,
        brief.random_seed,
        seen,
        held_back,
    )
    resume = Resume.read_if_there(_resume_folder(brief) / "resume.json") if recipe.is_gang else None
    done = resume.step if resume else 0
    with tempfile.TemporaryDirectory() as scratch:
        if recipe.deepspeed is not None:
            _join_deepspeed(on_gpu(brief))
        # Made before the model: it is what tells transformers to load it in ZeRO-3's shards.
        arguments = training_arguments(brief, recipe, stream.steps - done, scratch)
        set_seed(brief.random_seed)
        model = load_model(brief, recipe)
        if went_on and not resume:
            _take_over_trunk(went_on, model, recipe, report)
        if resume:
            why = continuation.load_weights(_resume_folder(brief), model)
            assert why is None, why
            _note(report, f"a worker was lost: goes on from step {done}")
        rows = range(done * sequences_per_step, len(stream.sequences))
        trainer = RecipeTrainer(
            model=model,
            args=arguments,
            train_dataset=stream.sequences.select(rows) if done else stream.sequences,
            processing_class=tokenizer,
            brief=brief,
            recipe=recipe,
            stream=stream,
            seen=seen,
            report=report,
            went_on=went_on,
            resume=resume,
            watch=watch,
        )
        trainer.train()
    if trainer.keeper.is_stopped:
        raise Forfeit(brief.stop_file.read_text().strip() or "was stopped")
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
        deepspeed=zero.configuration(recipe),
        ddp_backend="gloo" if recipe.is_gang and not on_gpu(brief) else None,
    )


def _join_deepspeed(gpu: bool) -> None:
    """Have DeepSpeed use the group that this worker is in; it would do so only once a model is loaded."""
    import deepspeed

    if not gpu:
        # Its kernel for reductions in shared memory would be compiled now, and a worker lost while it compiles
        # leaves a lock that every later one waits for. Gloo does the same.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if gpu else "gloo")


def _seen_before(folder: Path, brief: Brief) -> Any:
    """How often the seed's trunk was trained on each row, or None."""
    import pyarrow.parquet as pq

    return continuation.load_seen(folder, pq.read_metadata(brief.train_data).num_rows)


def _take_over_trunk(folder: Path, model: Any, recipe: SftRecipe, report: Report) -> None:
    """Go on from the seed's trunk."""
    if recipe.adapter is not None:
        _note(report, "starts a new adapter on the seed: takes over its place in the data only")
    elif (why := continuation.load_trunk(folder, model)) is not None:
        _note(report, f"starts from the seed's scored weights, not its trunk: {why}")


def _resume_folder(brief: Brief) -> Path:
    return brief.scratch_dir / "resume"


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
        stream: Stream,
        seen: Any,
        report: Report,
        went_on: Path | None,
        resume: Resume | None,
        watch: Watch | None = None,
        **trainer: Any,
    ) -> None:
        self.brief, self.recipe, self.stream, self.watch = brief, recipe, stream, watch
        self.seen, self.report, self.went_on, self.resume = seen, report, went_on, resume
        self.done, self.done_seconds = (resume.step, resume.seconds) if resume else (0, 0.0)
        clock = Clock()
        self.meter = Meter(brief.budget, stream.tokens_after, clock)
        self.meter.start(self.done_seconds)
        self.average: list[torch.Tensor] = []
        self.averaged = 0
        self.loss_sum = torch.zeros(())
        super().__init__(**trainer)
        if recipe.deepspeed is None:
            train_in_float32(self.model)
        self.keeper = Keeper(self, clock)
        self.add_callback(self.keeper)

    @property
    def step(self) -> int:
        """Optimizer steps done in this round, those before an interruption included."""
        return int(self.done + self.state.global_step)

    def create_optimizer(self, model: Any = None) -> Any:
        """The recipe's optimizer; with LoRA+ (Hayou et al. 2024) B learns faster than A."""
        adapter = self.recipe.adapter
        if adapter is not None and adapter.lora_plus_ratio:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            settings |= {"loraplus_lr_ratio": adapter.lora_plus_ratio, "loraplus_weight_decay": self.args.weight_decay}
            # transformers leaves an optimizer that is there.
            self.optimizer = create_loraplus_optimizer(model or self.model, kind, **settings)
        return super().create_optimizer(model)

    def take_over(self) -> None:
        """Once model and optimizer are where they will be trained: put the state in that was left for them."""
        self.holding = holding(self.model, self.optimizer)
        name = self.recipe.optimizer
        if self.resume is not None:
            folder = _resume_folder(self.brief)
            continuation.load_masters(folder / "trunk.safetensors", self.holding)
            why = continuation.load_optimizer(folder, self.holding, name)
            assert why is None, why
            self._load_average(folder)
        elif self.went_on is not None and self.recipe.adapter is None:
            why = continuation.load_optimizer(self.went_on, self.holding, name)
            if why is None and self.is_deepspeed_enabled:
                continuation.load_masters(self.went_on / "trunk.safetensors", self.holding)
            _note(self.report, f"starts with a fresh optimizer: {why}" if why else "goes on with the seed's optimizer")

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
            return rate_factor(inner.lr_lambdas[0], position, self.meter.spent(self.done + step), cool_down)

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
        held = self.holding.held()
        if not self.average:
            self.average = [tensor.detach().float().clone() for tensor in held]
            return
        for mean, tensor in zip(self.average, held, strict=True):
            mean += (tensor.detach().float() - mean) / self.averaged

    def save_trunk(self, step: int, folder: Path | None = None) -> None:
        """Leave the continuation as the weights and the optimizer are now."""
        seen = np.zeros(self.stream.rows, np.int64) if self.seen is None else self.seen.copy()
        np.add.at(seen, self.stream.order[: int(self.stream.rows_after[step])], 1)
        folder, name = folder or self.brief.continuation_dir, self.recipe.optimizer
        continuation.save(folder, self.holding, name, self.recipe.adapter is None, step, seen)

    def hand_in(self) -> None:
        """Write the submission: the weights that the recipe wants scored."""
        step = self.step
        if self.recipe.score_weights != "cool_down":
            self.save_trunk(step)
        with exchanged(self.holding.held(), self.average):
            self.save_to(self.brief.output_dir)
        seconds, tokens = self.meter.seconds, self.meter.tokens(step)
        self.report({"event": "ended", "step": step, "tokens": tokens, "seconds": seconds})

    def save_resume(self) -> None:
        """Leave what a gang needs to go on from here with new workers."""
        from safetensors.torch import save_file

        folder = _resume_folder(self.brief)
        new = folder.with_name("resume.new")
        self.save_trunk(self.step, new)
        with exchanged(self.holding.held(), self.average):
            named = named_trainable(self.model) if self.averaged else {}
            average = {name: self.holding.weight(p).detach().cpu().contiguous() for name, p in named.items()}
        if ranks.rank() == 0:
            save_file(average, new / "average.safetensors")
            Resume(step=self.step, seconds=self.meter.seconds, averaged=self.averaged).write(new / "resume.json")
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)

    def _load_average(self, folder: Path) -> None:
        assert self.resume is not None
        self.averaged = self.resume.averaged
        if self.averaged:
            held = self.holding.held()
            with exchanged(held, held):
                continuation.load_masters(folder / "average.safetensors", self.holding)
                self.average = [tensor.detach().float().clone() for tensor in held]

    def save_to(self, folder: Path) -> None:
        """Write the model or adapter into `folder`, whole or not at all. All workers call it, worker 0 writes."""
        if not (state := self._whole_state()):
            return
        model = self.accelerator.unwrap_model(self.model)
        with writing(folder) as temporary:
            if self.recipe.adapter is not None:
                save_adapter(model, temporary, state)
                return
            # Trained in float32, stored in the seed's own dtype, so that rounds do not grow the model.
            stored = AutoConfig.from_pretrained(self.brief.seed_model).dtype or torch.float32
            state = {k: v.to(stored) if v.is_floating_point() else v for k, v in state.items()}
            model.save_pretrained(temporary, state_dict=state)
            config = json.loads((temporary / "config.json").read_text())
            config["dtype"] = str(stored).removeprefix("torch.")  # transformers writes the trained one
            (temporary / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    def _whole_state(self) -> Tensors:
        """Worker 0 gets the model's state dict with every weight whole, in CPU memory, but for the frozen weights
        under an adapter that are in shards; the others get nothing."""
        first = ranks.rank() == 0
        whole: dict[int, torch.Tensor] = {}
        state: Tensors = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if self.recipe.adapter is not None and hasattr(tensor, "ds_id") and not tensor.requires_grad:
                continue
            if id(tensor) not in whole:  # tied weights are one tensor under two names
                value = self.holding.weight(tensor) if tensor.requires_grad else self.holding.frozen(tensor)
                whole[id(tensor)] = value.detach().cpu() if first else torch.empty(0)
            state[name] = whole[id(tensor)]
        return state if first else {}


def _throwaway_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
