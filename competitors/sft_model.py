"""The model that kind `sft` trains: the seed, full or with a PEFT adapter on it, in the right dtype."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from competitors.contract import Brief
from competitors.sft import SftRecipe


def load_model(brief: Brief, recipe: SftRecipe) -> Any:
    """The seed, with the recipe's adapter on it.

    What is trained is kept in float32, since small updates vanish in bfloat16; frozen weights take the
    compute dtype. The forward pass runs under autocast.
    """
    frozen = recipe.adapter is not None
    model = AutoModelForCausalLM.from_pretrained(
        brief.seed_model,
        dtype=compute_dtype(brief, recipe) if frozen else torch.float32,
        attn_implementation=recipe.attention,
    )
    if recipe.adapter is None:
        return model
    from peft import LoraConfig, TaskType, get_peft_model

    adapter = recipe.adapter
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=adapter.rank,
        lora_alpha=adapter.alpha or 2 * adapter.rank,
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules,
        modules_to_save=adapter.modules_to_save or None,
        use_dora=adapter.method == "dora",
        use_rslora=adapter.method == "rslora",
    )
    return get_peft_model(model, config)


def compute_dtype(brief: Brief, recipe: SftRecipe) -> torch.dtype:
    """The dtype of the forward pass: bfloat16 on a GPU that has it, else float32, unless the recipe says."""
    if recipe.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[recipe.dtype]
    return torch.bfloat16 if on_gpu(brief) and torch.cuda.is_bf16_supported() else torch.float32


def on_gpu(brief: Brief) -> bool:
    """Whether this entry trains on a GPU."""
    return brief.resources.gpus != 0 and torch.cuda.is_available()
