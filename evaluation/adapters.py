"""Adapters: putting one on its seed, merging it into it, and finding out before it is scored whether that works.

A winner becomes the next round's seed, a full model. An adapter that cannot be merged would win and then stop the
tournament, so it forfeits instead.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import Forfeit
from cluster.rounding import Rounding, rounding
from cluster.text import plain
from evaluation.faults import of_submission
from evaluation.weights import ADAPTER, FLOATS, INTEGERS, check_values, read_headers

MERGEABLE = ("LORA", "IA3")
"""Types that PEFT merges whatever their weights, as long as the settings are plain ones."""
PLAIN = {
    "base_model_name_or_path", "revision", "task_type", "inference_mode", "auto_mapping", "peft_version",
    "r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern",
    "target_modules", "exclude_modules", "feedforward_modules", "layers_to_transform", "layers_pattern",
}  # fmt: skip
"""Settings of those types that only say where the adapter goes and how strong it is."""
OTHERS_WEIGHTS = ("XLORA",)
"""Types that load further adapters, by paths that their config names."""


def inspect_adapter(folder: Path, seed: Path) -> None:
    """Check an adapter's files, and that it can be merged into its seed. Raises `Forfeit`."""
    if not (folder / ADAPTER).is_file():
        raise Forfeit(f"{ADAPTER} is missing")
    tensors = read_headers([folder / ADAPTER])
    if not tensors:
        raise Forfeit("the adapter has no weights")
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS | INTEGERS:
            raise Forfeit(plain(f"{ADAPTER}: {name} is stored as {tensor.dtype}, which cannot be merged"))
    check_values([folder / ADAPTER])
    config = adapter_config(folder)
    if config.is_prompt_learning:
        raise Forfeit("is a prompt-learning adapter; only adapters that change weights can be scored")
    if config.peft_type in OTHERS_WEIGHTS:
        raise Forfeit(
            f"is an adapter of type {config.peft_type.value}, which loads other adapters; hand in one that is whole"
        )
    if not is_plain(config) or _is_narrow(seed):
        merged(seed, folder)


def adapter_config(folder: Path) -> Any:
    """What adapter_config.json says. Forfeit if it is none."""
    from peft import PeftConfig

    if not (folder / "adapter_config.json").is_file():  # PEFT would ask the Hub
        raise Forfeit("adapter_config.json is missing")
    with of_submission("adapter_config.json cannot be read", folder):
        config = PeftConfig.from_pretrained(folder)
        if not config.peft_type:
            raise Forfeit("adapter_config.json cannot be read: it names no peft_type")
    return config


def is_plain(config: Any) -> bool:
    """Whether such an adapter is known to merge, and to leave its seed as it was when it is unloaded.

    Whole modules that it replaces and biases that it trains stay in the model, PiSSA and its like take a part out
    of its weights, and some variants raise when they are merged. So only settings that are known to be harmless are.
    """
    default, given = type(config)().to_dict(), config.to_dict()
    return config.peft_type in MERGEABLE and all(
        given[key] == default[key] or not given[key] for key in given if key not in PLAIN
    )


def put_on(model: Any, adapter: Path) -> Any:
    """Put the adapter on the model, a PeftModel. What does not fit the seed is the competitor's failure: `Forfeit`."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict

    with of_submission("the adapter does not fit its seed", adapter):
        wrapped = PeftModel.from_pretrained(model, adapter)
        # Embeddings are only stored where an adapter changes them, and asking PEFT whether it does may ask the Hub.
        expected = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    missing = expected.keys() - read_headers([adapter / ADAPTER]).keys()
    if missing:
        # PEFT only warns, and scores the untrained values instead.
        raise Forfeit(plain(f"the adapter lacks {len(missing)} weights that its config promises, {min(missing)} first"))
    with of_submission("the adapter does not fit its seed", adapter), torch.inference_mode():
        wrapped.eval()
        wrapped.get_base_model()(input_ids=torch.zeros((1, 2), dtype=torch.long, device=model.device), use_cache=False)
    return wrapped


def merged(seed: Path, adapter: Path, note: Callable[[Rounding], None] = lambda rounding: None) -> Any:
    """The seed with the adapter merged into it: what is scored, and what goes on.

    Merged in float32, then in the dtype that the seed is stored in, unless that would lose too much of what the adapter
    adds; `note` is told. Forfeit when it cannot be merged, or when a merged weight is no finite number in that dtype.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float32)
    stored = _stored_dtype(seed)
    is_narrow = torch.finfo(stored).bits < 32
    before = {name: weight.detach().to(stored) for name, weight in model.named_parameters()} if is_narrow else {}
    wrapped = put_on(model, adapter)
    with of_submission("the adapter cannot be merged into its seed", seed, adapter):
        full = wrapped.merge_and_unload(safe_merge=True)
    for name, weight in full.named_parameters():
        if not bool(torch.isfinite(weight.to(stored)).all()):
            raise Forfeit(plain(f"the adapter cannot be merged into its seed: {name} is not finite then"))
    with torch.no_grad():
        lost = rounding(before, full.named_parameters(), stored)
    note(lost)
    for weight in full.parameters():  # and not what a model computes with besides, such as its rotary frequencies
        weight.data = weight.data.to(getattr(torch, lost.stored))
    return full


def _stored_dtype(seed: Path) -> Any:
    import torch
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(seed).dtype or torch.float32


def _is_narrow(seed: Path) -> bool:
    """Whether the seed is stored in a dtype whose largest number a merged weight may pass."""
    import torch

    return bool(_stored_dtype(seed) == torch.float16)
