"""The training behind kind `sft`, from a brief to a submission: data, model, optimizer and what TRL is told.

The same for one worker and for each worker of a gang. The trainer itself is in trainer.py, and what happens
between its steps in callback.py.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, set_seed
from trl import SFTConfig

from cluster.errors import Forfeit
from cluster.libraries import spare_deepspeed
from competitors.contract import Brief
from competitors.events import Report
from competitors.sft import continuation, deepspeed_config, resume
from competitors.sft.callback import BudgetCallback
from competitors.sft.model import compute_dtype, load_model, on_gpu, refuse_unable
from competitors.sft.recipe import SftRecipe
from competitors.sft.stream import Counts, prepare
from competitors.sft.trainer import RecipeTrainer, Watch, note


def train(
    brief: Brief, recipe: SftRecipe, report: Report, watch: Watch | None = None, held_back: Counts | None = None
) -> None:
    """Train on the brief's data within its budget and leave the submission in its output folder.

    In a gang every worker calls it, within one torch.distributed group; worker 0's `report` is heard. What an
    earlier try or a gang that lost a worker has saved is gone on from. Raises Forfeit when the budget holds no
    step, the recipe cannot run here, or the tournament stops the entry.
    The rows numbered in `held_back` are not trained on. What `watch` raises ends the training.
    """
    refuse_unable(brief, recipe)
    spare_deepspeed()
    torch.set_num_threads(max(1, int(brief.resources.cpus)))
    tokenizer = AutoTokenizer.from_pretrained(brief.seed_model)
    went_on = brief.seed_continuation if recipe.continue_ else None
    seen = _seen_before(went_on, brief) if went_on else None
    inputs = (brief.train_data, tokenizer, brief.max_tokens, brief.budget, recipe.batch)
    stream = prepare(*inputs, recipe.packing, brief.random_seed, seen, held_back, recipe.group_by_length)
    folder = resume.saved(brief)
    resumed = resume.Resume.read(folder / "resume.json") if folder else None
    done = resumed.step if resumed else 0
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as patched:
        if recipe.deepspeed is not None:
            _join_deepspeed(on_gpu(brief))
        # Made before the model: it is what tells transformers to load it in ZeRO-3's shards.
        arguments = training_arguments(brief, recipe, stream.steps - done, scratch)
        set_seed(brief.random_seed)
        model, took_over = _model(brief, recipe, went_on, folder, report)
        patched.enter_context(module_as_it_was(model))
        trainer = RecipeTrainer(
            model=model,
            args=arguments,
            train_dataset=stream.sequences,
            processing_class=tokenizer,
            brief=brief,
            recipe=recipe,
            stream=stream,
            seen=seen,
            report=report,
            took_over=took_over,
            resumed=resumed,
            watch=watch,
        )
        if resumed:
            what = "its process" if brief.attempt > 1 else "a worker"
            note(report, f"{what} was lost: goes on from step {done}")
        callback = BudgetCallback(trainer)
        trainer.add_callback(callback)
        trainer.train()
    if callback.is_stopped:
        # Of a gang's workers on machines that share no disk only the first has the file.
        reason = brief.stop_file.read_text().strip() if brief.stop_file.exists() else ""
        raise Forfeit(reason or "was stopped")
    trainer.hand_in()


@contextmanager
def module_as_it_was(model: Any) -> Iterator[None]:
    """Once the block ends, the module of the model's class is as it was before: Liger puts layers of its own into it,
    and whoever is trained next in this process may not have asked for them."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    module = vars(sys.modules[type(base).__module__])
    before = dict(module)
    try:
        yield
    finally:
        module.update(before)


def _model(
    brief: Brief, recipe: SftRecipe, went_on: Path | None, saved: Path | None, report: Report
) -> tuple[Any, Path | None]:
    """The model with the weights that training goes on from: what was saved, else the seed's trunk, else the seed.

    With it the continuation whose optimizer goes on with those weights, if there is one.
    """
    model = load_model(brief, recipe)
    if saved is not None:
        why = continuation.load_weights(saved, model)
        assert why is None, why
    elif went_on is not None:
        return model, went_on if _takes_over_trunk(went_on, model, brief, recipe, report) else None
    return model, None


def training_arguments(brief: Brief, recipe: SftRecipe, steps: int, scratch: str) -> SFTConfig:
    """What TRL and transformers are told. Saving, reporting and the schedule's end are ours."""
    dtype = compute_dtype(brief, recipe)
    return SFTConfig(
        output_dir=scratch,
        max_steps=steps,
        # To transformers a step is one batch: how it is cut into forward passes is ours.
        per_device_train_batch_size=recipe.batch_size * recipe.gradient_accumulation,
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
        seed=brief.random_seed,
        logging_strategy="no",
        logging_nan_inf_filter=False,  # would wait for the loss in every step
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        deepspeed=deepspeed_config.configuration(recipe.deepspeed),
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


def _takes_over_trunk(folder: Path, model: Any, brief: Brief, recipe: SftRecipe, report: Report) -> bool:
    """Go on from the trunk. False where its optimizer does not go on: as the recipe says, or with a new adapter."""
    why = continuation.load_trunk(folder, model, recipe, brief)
    if why is not None and recipe.adapter is not None:
        note(report, f"starts a new adapter on the seed, and takes over its place in the data only: {why}")
        return False
    if why is not None:
        note(report, f"starts from the seed's scored weights, not its trunk: {why}")
    return recipe.continue_ is True
