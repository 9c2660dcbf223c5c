"""TRL's own trainer on the rows of a brief, as its documentation has it: what ours is compared with."""

from collections.abc import Sequence
from typing import Any

from competitors.contract import Brief
from competitors.sft.model import load_model
from competitors.sft.recipe import SftRecipe
from competitors.sft.stream import Stream, prepare


def stream_of(brief: Brief, recipe: SftRecipe) -> Stream:
    """The rows of each step."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(brief.seed_model)
    inputs = (brief.train_data, tokenizer, brief.max_tokens, brief.budget, recipe.batch, recipe.packing)
    return prepare(*inputs, brief.random_seed, None)


def train_plainly(brief: Brief, recipe: SftRecipe, scratch: str, callbacks: Sequence[Any] = ()) -> Any:
    """The model after all steps, and each step's loss in `state.log_history`, on a CPU at a constant rate."""
    from transformers import AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer

    set_seed(brief.random_seed)
    stream = stream_of(brief, recipe)
    trainer = SFTTrainer(
        model=load_model(brief, recipe),
        args=SFTConfig(
            output_dir=scratch,
            max_steps=stream.steps,
            per_device_train_batch_size=recipe.batch_size,
            gradient_accumulation_steps=recipe.gradient_accumulation,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="constant",
            optim=recipe.optimizer,
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.max_grad_norm,
            gradient_checkpointing=recipe.gradient_checkpointing,
            packing=recipe.packing,
            max_length=brief.max_tokens,
            bf16=False,
            use_cpu=True,
            dataset_kwargs={"skip_prepare_dataset": True},
            train_sampling_strategy="sequential",
            shuffle_dataset=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=stream.sequences,
        processing_class=AutoTokenizer.from_pretrained(brief.seed_model),
        callbacks=list(callbacks),
    )
    trainer.train()
    return trainer


def losses(trainer: Any) -> list[float]:
    """Of each step, as TRL's trainer logged it."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
