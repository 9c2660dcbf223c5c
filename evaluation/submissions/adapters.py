"""Adapters: putting one on its seed, merging it into it, and finding out before it is scored whether that works.

A winner becomes the next round's seed, a full model. An adapter that cannot be merged would win and then stop the
tournament, so it forfeits instead. PEFT never sees a config that we have not written: see adapter_config.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import Forfeit
from cluster.rounding import Rounding, rounding
from cluster.text import plain
from evaluation.submissions.adapter_config import rebuilt
from evaluation.submissions.asked import asked_by, empty_model
from evaluation.submissions.faults import of_submission
from evaluation.submissions.folder import ADAPTER_CONFIG, read_object
from evaluation.submissions.weights import ADAPTER, Tensor, read_headers


def try_on(adapter: Path, seed: Path) -> None:
    """Check that an adapter whose files have been looked at fits its seed, and can be merged. Raises `Forfeit`."""
    wrapped = _wrapped(empty_model(seed), adapter)
    _own_weights(wrapped, adapter, base={f"base_model.model.{key}" for key in _names_in(seed)})
    if not is_plain(wrapped.peft_config["default"]) or _is_narrow(seed):
        merged(seed, adapter)


def is_plain(config: Any) -> bool:
    """Whether such an adapter is known to merge. Whole modules that it replaces may not."""
    return not config.modules_to_save


def put_on(model: Any, adapter: Path) -> Any:
    """Put the adapter on the model, a PeftModel. What does not fit the seed is the competitor's failure: `Forfeit`."""
    import torch
    from peft import set_peft_model_state_dict
    from safetensors import safe_open

    base = {f"base_model.model.{name}" for name in model.state_dict()}
    wrapped = _wrapped(model, adapter)
    own = _own_weights(wrapped, adapter, base)
    with of_submission("the adapter does not fit its seed", adapter), torch.inference_mode():
        with safe_open((adapter / ADAPTER).resolve(), framework="pt") as opened:
            set_peft_model_state_dict(wrapped, {name: opened.get_tensor(name) for name in own})
        wrapped.eval()
        wrapped.get_base_model()(input_ids=torch.zeros((1, 2), dtype=torch.long, device=model.device), use_cache=False)
    return wrapped


def _wrapped(model: Any, adapter: Path) -> Any:
    """The model with a fresh adapter on it, of the settings that this one may have."""
    from peft import IA3Config, LoraConfig, get_peft_model

    modules = [name for name, _ in model.named_modules() if name]
    settings = rebuilt(read_object((adapter / ADAPTER_CONFIG).resolve()), modules)
    kind = {"LORA": LoraConfig, "IA3": IA3Config}[settings.pop("peft_type")]
    with of_submission("the adapter does not fit its seed", adapter):
        return get_peft_model(model, kind(task_type="CAUSAL_LM", inference_mode=True, **settings))


def _own_weights(wrapped: Any, adapter: Path, base: set[str]) -> dict[str, Tensor]:
    """The adapter's own weights in its file: each that its config promises, in its shape, and no other.

    Weights of the seed, which PEFT stores beside an adapter on embeddings, are passed over: never loaded.
    """
    from peft import get_peft_model_state_dict

    with of_submission("the adapter does not fit its seed", adapter):
        # Embeddings are only stored where an adapter changes them, and asking PEFT whether it does may ask the Hub.
        promised = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    there = read_headers([(adapter / ADAPTER).resolve()])
    if missing := promised.keys() - there.keys():
        raise Forfeit(plain(f"the adapter lacks {len(missing)} weights that its config promises, {min(missing)} first"))
    others = [name for name in there.keys() - promised.keys() if name.replace(".base_layer.", ".") not in base]
    if others:
        raise Forfeit(plain(f"the adapter holds {min(others)}, which its config does not promise"))
    for name, tensor in sorted(promised.items()):
        if there[name].shape != tuple(tensor.shape):
            shapes = f"{there[name].shape}, its config promises {tuple(tensor.shape)}"
            raise Forfeit(plain(f"the adapter does not fit its seed: {name} has shape {shapes}"))
    return {name: there[name] for name in promised}


def _names_in(seed: Path) -> set[str]:
    return {name for naming in asked_by(seed).namings for name in naming}


def merged(seed: Path, adapter: Path, note: Callable[[Rounding], None] = lambda rounding: None) -> Any:
    """The seed with the adapter merged into it: what is scored, and what goes on.

    Merged in float32, then in the dtype that the seed is stored in, unless that would lose too much of what the adapter
    adds; `note` is told. Forfeit when it cannot be merged, or when a merged weight is no finite number in that dtype.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float32, trust_remote_code=False)
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

    return AutoConfig.from_pretrained(seed, trust_remote_code=False).dtype or torch.float32


def _is_narrow(seed: Path) -> bool:
    """Whether the seed is stored in a dtype whose largest number a merged weight may pass."""
    import torch

    return bool(_stored_dtype(seed) == torch.float16)
