"""TRL's trainer as kind `sft` uses it: the recipe's optimizer and schedule, and what is handed in and left behind.

What is scored and what is continued are two things. `score_weights: last` hands in the trunk itself,
`tail_average` the mean of the weights over the round's tail (Polyak & Juditsky 1992; LAWA, Kaddour 2022),
`cool_down` the trunk cooled to a rate of zero over the tail. The continuation is always the trunk.
"""

import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from transformers import AutoConfig
from transformers.optimization import get_scheduler
from trl import SFTTrainer

from cluster.rounding import rounding
from cluster.store import LOCAL
from competitors.contract import Brief
from competitors.events import Report
from competitors.sft import collectives, continuation, head, passes, resume
from competitors.sft.budget import VIRTUAL_STEPS, Meter, rate_factor
from competitors.sft.deepspeed_config import shares_out_weights
from competitors.sft.model import save_adapter, seed_weights, train_in_float32
from competitors.sft.recipe import SftRecipe
from competitors.sft.sharding import Tensors, exchanged, holding, named_trainable
from competitors.sft.steps import Cut, Step, Steps
from competitors.sft.stream import Stream

log = logging.getLogger(__name__)


class Clock:
    """Worker 0's clock as it last told it, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


Watch = Callable[["RecipeTrainer", float], None]
"""Called after each optimizer step with the share of the budget that is spent, 1 after the last."""


def note(report: Report, text: str) -> None:
    """Say something about the entry, in its log and to whoever watches."""
    log.info(text)
    report({"event": "note", "text": text})


class RecipeTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with our schedule, our forward passes, the budget's callback and our way to hand in."""

    loss_is_scaled_for_ga = True
    """For transformers: the loss of a pass is divided by the tokens of its whole step already."""

    def __init__(
        self,
        *,
        brief: Brief,
        recipe: SftRecipe,
        stream: Stream,
        seen: Any,
        report: Report,
        took_over: Path | None,
        resumed: resume.Resume | None,
        watch: Watch | None = None,
        **trainer: Any,
    ) -> None:
        self.brief, self.recipe, self.stream, self.watch = brief, recipe, stream, watch
        self.seen, self.report, self.took_over, self.resumed = seen, report, took_over, resumed
        self.done, self.done_seconds = (resumed.step, resumed.seconds) if resumed else (0, 0.0)
        self.clock = Clock()
        self.meter = Meter(brief.budget, stream.tokens_after, self.clock)
        self.meter.start(self.done_seconds)
        self.average: list[torch.Tensor] = []
        self.averaged = 0
        self.loss_sum = torch.zeros(())
        super().__init__(**trainer)
        if self.accelerator.ddp_handler is not None:
            # Else each worker of a gang would hold its gradients twice, and need more memory than one alone.
            self.accelerator.ddp_handler.gradient_as_bucket_view = True
        if recipe.deepspeed is None:
            train_in_float32(self.model)
        self.summed_loss: head.Way = head.fused
        # DeepSpeed puts the model on its GPU later on: here it is on the CPU yet, where flash attention cannot run.
        will_move = recipe.deepspeed is not None and self.args.device.type != "cpu"
        if not (shares_out_weights(recipe.deepspeed) or (will_move and "flash" in (recipe.attention or ""))):
            with self.accelerator.autocast():
                self.summed_loss, why = head.choose(self.model, stays_on_cpu=not will_move)
            if why:
                note(report, why)

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
        if self.resumed is not None:
            folder = resume.saved(self.brief)
            assert folder is not None
            continuation.load_masters(folder / "trunk.safetensors", self.holding)
            if (why := continuation.load_optimizer(folder, self.holding, self.recipe)) is not None:
                note(self.report, f"goes on with a fresh optimizer: {why}")
            self._load_average(folder)
        elif self.took_over is not None:
            why = continuation.load_optimizer(self.took_over, self.holding, self.recipe)
            if why is None and self.is_deepspeed_enabled:
                continuation.load_masters(self.took_over / "trunk.safetensors", self.holding)
            note(self.report, f"starts with a fresh optimizer: {why}" if why else "goes on with the seed's optimizer")

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """A learning-rate schedule over the budget (not over steps), spanning the round or the lineage."""
        recipe = self.recipe
        extra = dict(recipe.schedule_args)
        if recipe.schedule == "warmup_stable_decay":
            extra["num_decay_steps"] = round(float(extra.pop("decay", 0.2)) * VIRTUAL_STEPS)
        warmup = round(recipe.warmup * VIRTUAL_STEPS)
        inner = get_scheduler(recipe.schedule, _throwaway_optimizer(), warmup, VIRTUAL_STEPS, extra)
        spans_rounds = recipe.schedule_spans == "lineage"
        position = self.brief.progress if spans_rounds else (0.0, 1.0)
        spent = self.meter.share if spans_rounds else self.meter.spent
        cool_down = recipe.tail if recipe.score_weights == "cool_down" else 0.0

        def factor(step: int) -> float:
            return rate_factor(inner.lr_lambdas[0], position, spent(self.done + step), cool_down)

        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler

    def get_train_dataloader(self) -> Any:
        """The steps that are left, each with its passes."""
        return Steps(self.stream, self.done, collectives.rank(), self._cut(), self.data_collator)

    def _cut(self) -> Cut:
        """How this recipe's steps are put into forward passes."""
        recipe, workers, on_gpu = self.recipe, self.recipe.resources.workers, self.args.device.type != "cpu"
        if recipe.optimizer in passes.UPDATING_IN_BACKWARD or self.aux_loss_enabled:
            return lambda lengths: passes.in_order(len(lengths), workers, recipe.batch_size)
        return partial(
            passes.by_length,
            workers=workers,
            limit_tokens=passes.pass_limit_tokens(recipe, self.brief.max_tokens, on_gpu),
            pass_tokens=passes.PASS_TOKENS_ON_GPU if on_gpu else passes.PASS_TOKENS_ON_CPU,
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Step], int]:
        """The next step, and the number of tokens that its loss is divided by."""
        step = next(epoch_iterator)
        return [step], step.predicted

    def training_step(self, model: Any, inputs: Step, num_items_in_batch: Any = None) -> torch.Tensor:
        """The forward and backward passes of an optimizer step; adds its loss up for the report."""
        # Of each step its own, so that dropout is the same whether a training was interrupted or not.
        torch.manual_seed((self.brief.random_seed * 1_000_003 + self.step) * 1009 + collectives.rank())
        loss = torch.zeros((), device=self.args.device)
        self.current_gradient_accumulation_steps = len(inputs.passes)
        for left, batch in reversed(list(enumerate(reversed(inputs.passes)))):
            self.accelerator.gradient_state._set_sync_gradients(left == 0)
            alone = left == 0 or self.is_deepspeed_enabled
            with nullcontext() if alone else self.accelerator.no_sync(model):
                loss += super().training_step(model, batch, num_items_in_batch)
        self.loss_sum += loss
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """A pass's share of its step's mean loss per completion token. The gradients of workers are averaged, so
        each one's share counts as often as there are workers."""
        assert not return_outputs
        summed = self.summed_loss(model, inputs)
        loss: torch.Tensor = summed.nats * self.recipe.resources.workers / max(1, num_items_in_batch)
        if summed.auxiliary is not None:
            loss = loss + self.router_aux_loss_coef * summed.auxiliary / self.current_gradient_accumulation_steps
        return loss

    def floating_point_ops(self, inputs: Any) -> int:
        """Nobody asks; transformers counts the model's parameters for it in every step."""
        return 0

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
        folder = folder or self.brief.continuation_dir
        continuation.save(folder, self.holding, self.recipe, self.brief, step, seen)

    def hand_in(self) -> None:
        """Write the submission: the weights that the recipe wants scored."""
        step = self.step
        if self.recipe.score_weights != "cool_down":
            self.save_trunk(step)
        with exchanged(self.holding.held(), self.average):
            if words := self.save_to(self.brief.output_dir):
                note(self.report, words)
        seconds, tokens = self.meter.seconds, self.meter.tokens(step)
        self.report({"event": "ended", "step": step, "tokens": tokens, "seconds": seconds})

    def save_resume(self) -> None:
        """Leave what another process, or new workers of a gang, need to go on from here."""
        new, first = resume.new_folder(self.brief), collectives.rank() == 0
        if first:
            LOCAL.remove(new / "resume.json")  # one that was gone on from
        self.save_trunk(self.step, new)
        with exchanged(self.holding.held(), self.average):
            named = named_trainable(self.model) if self.averaged else {}
            # Copies: on a CPU these are the weights themselves, and get their own values back when the block ends.
            average = {n: self.holding.weight(p).detach().to("cpu", copy=True).contiguous() for n, p in named.items()}
        if first:
            with LOCAL.writing(new / "average.safetensors") as temporary:
                save_file(average, temporary)
            resume.finish(self.brief, resume.Resume(step=self.step, seconds=self.meter.seconds, averaged=self.averaged))

    def _load_average(self, folder: Path) -> None:
        assert self.resumed is not None
        self.averaged = self.resumed.averaged
        if self.averaged:
            held = self.holding.held()
            with exchanged(held, held):
                continuation.load_masters(folder / "average.safetensors", self.holding)
                self.average = [tensor.detach().float().clone() for tensor in held]

    def save_to(self, folder: Path) -> str:
        """Write the model or adapter into `folder`, whole or not at all; what there is to say of how it is stored.
        All workers call it, worker 0 writes."""
        if not (state := self._whole_state()):
            return ""
        model = self.accelerator.unwrap_model(self.model)
        with LOCAL.writing(folder) as temporary:
            if self.recipe.adapter is not None:
                save_adapter(model, temporary, state)
                return ""
            # Trained in float32, stored in the seed's own dtype, so that rounds do not grow the model, if it can hold
            # what was learnt.
            narrow = AutoConfig.from_pretrained(self.brief.seed_model).dtype or torch.float32
            frozen = self.is_deepspeed_enabled and bool(self.recipe.freeze or self.recipe.train_only)
            is_asked = frozen or narrow != torch.float32
            before = seed_weights(self.brief.seed_model, model, state) if is_asked else {}
            if frozen:  # DeepSpeed has cast these too
                names = {n for n, p in model.named_parameters() if not p.requires_grad} & before.keys()
                seeds = {id(state[n]): before[n].float() for n in names}  # tied ones stay one tensor
                state = {n: seeds.get(id(tensor), tensor) for n, tensor in state.items()}
            lost = rounding(before, state.items(), narrow)
            stored = getattr(torch, lost.stored)
            state = {k: v.to(stored) if v.is_floating_point() else v for k, v in state.items()}
            model.save_pretrained(temporary, state_dict=state)
            config = json.loads((temporary / "config.json").read_text())
            config["dtype"] = lost.stored  # transformers writes the trained one
            (temporary / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        return lost.in_words

    def _whole_state(self) -> Tensors:
        """Worker 0 gets the model's state dict with every weight whole, in CPU memory, but for the frozen weights
        under an adapter that are in shards; the others get nothing."""
        first = collectives.rank() == 0
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
