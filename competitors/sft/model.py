"""The model that kind `sft` trains: the seed, full or with a PEFT adapter on it, in the right dtype, and how an
adapter is stored so that it stands on the seed as it is."""

import copy
import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from cluster.errors import Forfeit
from cluster.text import plain
from competitors.contract import Brief
from competitors.sft.adapters import Adapter, matches, names_target
from competitors.sft.recipe import SftRecipe

NAMED = 8
"""So many modules are named to somebody who named one that is not there."""


def refuse_unable(brief: Brief, recipe: SftRecipe) -> None:
    """Forfeit where this machine lacks what the recipe needs: a GPU, or a package of the extra `gpu`."""
    if recipe.needs_gpu and not on_gpu(brief):
        raise Forfeit(recipe.needs_gpu)
    for package, key in recipe.gpu_packages.items():
        if importlib.util.find_spec(package) is None:
            hint = "install the extra gpu there"
            raise Forfeit(f"{key}: needs {package}, which is not installed on the machine it ran on: {hint}")


def load_model(brief: Brief, recipe: SftRecipe) -> Any:
    """The seed, with the recipe's adapter on it, or what the recipe freezes frozen.

    What is trained is kept in float32, since small updates vanish in bfloat16; the weights under an adapter take
    the compute dtype, or 4 bits. The forward pass runs under autocast. Forfeit when the recipe names modules
    that the seed does not have.
    """
    adapter = recipe.adapter
    compute = compute_dtype(brief, recipe)
    extra = {"quantization_config": _four_bits(compute)} if adapter and adapter.method == "qlora" else {}
    model = AutoModelForCausalLM.from_pretrained(
        brief.seed_model, dtype=compute if adapter else torch.float32, attn_implementation=recipe.attention, **extra
    )
    if adapter is not None:
        return put_adapter(model, adapter)
    if recipe.freeze or recipe.train_only:
        _freeze(model, recipe)
    return model


def compute_dtype(brief: Brief, recipe: SftRecipe) -> torch.dtype:
    """The dtype of the forward pass: bfloat16 on a GPU that has it, else float32, unless the recipe says."""
    if recipe.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[recipe.dtype]
    return (
        torch.bfloat16 if on_gpu(brief) and torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    )


def on_gpu(brief: Brief) -> bool:
    """Whether this entry trains on a GPU."""
    return brief.resources.gpus_where(True) > 0 and torch.cuda.is_available()


def _four_bits(compute: torch.dtype) -> Any:
    """NF4 with double quantisation, as in QLoRA (Dettmers et al. 2023)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _freeze(model: Any, recipe: SftRecipe) -> None:
    """Freeze what the recipe does not train. A parameter that two modules share goes with either's name."""
    key = "train_only" if recipe.train_only else "freeze"
    patterns = recipe.train_only or recipe.freeze
    modules = {name: list(module.parameters(recurse=False)) for name, module in model.named_modules()}
    modules = {name: own for name, own in modules.items() if own}
    named: set[int] = set()
    for pattern in patterns:
        found = [name for name in modules if matches(pattern, name)]
        if not found:
            raise Forfeit(f"{key}: no module of the seed matches {pattern}; it has {_first(list(modules))}")
        named |= {id(parameter) for name in found for parameter in modules[name]}
    for parameter in model.parameters():
        parameter.requires_grad_((id(parameter) in named) == bool(recipe.train_only))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise Forfeit(f"nothing is left to train: {key} {', '.join(patterns)} covers the whole seed")


def put_adapter(model: Any, adapter: Adapter) -> Any:
    """A PEFT model with a fresh adapter. Forfeit when a module that it names is not there."""
    from peft import get_peft_model, get_peft_model_state_dict

    _check_names(model, adapter)
    try:
        wrapped = get_peft_model(model, _peft_config(adapter))
    except ValueError as error:
        raise Forfeit(f"PEFT refuses {adapter.method} on this seed: {plain(error)}") from error
    train_in_float32(wrapped)
    if adapter.splits_the_seed:
        wrapped.adapter_start = {k: v.detach().cpu().clone() for k, v in get_peft_model_state_dict(wrapped).items()}
    return wrapped


def train_in_float32(model: Any) -> None:
    """What is trained becomes float32; TRL casts an adapter over 4 bits to bfloat16."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _check_names(model: Any, adapter: Adapter) -> None:
    """Each name in the adapter's lists has to be there: PEFT passes over one of several that is not."""
    modules = [name for name, _ in model.named_modules() if name]
    targets = adapter.target_modules
    if isinstance(targets, str):
        found = targets == "all-linear" or any(names_target(targets, name) for name in modules)
        missing = [] if found else [targets]
    else:
        missing = [target for target in targets or [] if not any(names_target([target], name) for name in modules)]
    unknown = {
        "target_modules": missing,
        "feedforward_modules": _without_end(adapter.feedforward_modules or [], modules),
        "modules_to_save": _without_end(adapter.modules_to_save, modules),
    }
    for key, names in unknown.items():
        if names:
            linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
            there = _first([name.rpartition(".")[2] for name in linear])
            raise Forfeit(f"adapter.{key}: no module of the seed is named {names[0]}; it has {there}")


def _without_end(ends: list[str], modules: list[str]) -> list[str]:
    """Those of `ends` that no module's name ends with."""
    return [end for end in ends if not any(name.endswith(end) for name in modules)]


def _first(names: list[str]) -> str:
    known = list(dict.fromkeys(names))
    return ", ".join(known[:NAMED]) + (", …" if len(known) > NAMED else "")


def _peft_config(adapter: Adapter) -> Any:
    from peft import IA3Config, LoraConfig, TaskType

    to_save = adapter.modules_to_save or None
    if not adapter.is_lora:
        return IA3Config(
            task_type=TaskType.CAUSAL_LM,
            target_modules=adapter.target_modules,
            feedforward_modules=adapter.feedforward_modules,
            modules_to_save=to_save,
        )
    assert adapter.rank is not None
    starts = {"olora", "orthogonal", "mica"}
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=adapter.rank,
        lora_alpha=adapter.alpha or 2 * adapter.rank,
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules or "all-linear",
        modules_to_save=to_save,
        use_dora=adapter.method == "dora",
        use_rslora=adapter.method == "rslora",
        init_lora_weights=adapter.method if adapter.method in starts or adapter.splits_the_seed else True,
    )


def seed_weights(seed: Path, model: Any, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The seed's own values of the weights in `state`, a state dict of `model`, as they lie on the disk.

    Read from the files: under ZeRO-3 a model that is loaded on one worker waits for the others.
    """
    from safetensors import safe_open

    prefix, found = f"{model.base_model_prefix}.", {}
    names = {name.removeprefix(prefix): name for name in state}
    for file in sorted(seed.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no dict
                own = names.get(name.removeprefix(prefix))
                if own is not None and (value := opened.get_tensor(name)).shape == state[own].shape:
                    found[own] = value
    return found


def save_adapter(model: Any, folder: Path, state: dict[str, torch.Tensor] | None = None) -> None:
    """Write the PEFT adapter of `model` into `folder` as one over the seed as it is.

    PiSSA (Meng et al. 2024) and OLoRA (Büyükakyüz 2024) move a part s·B₀A₀ of the seed's weights into the
    adapter before training, so that the trained B and A stand on W − s·B₀A₀. What is written is an ordinary
    LoRA of twice the rank, whose update is s·(BA − B₀A₀). PEFT's own conversion would lose `modules_to_save`.
    `state` is the model's state dict where the model itself does not hold it whole (ZeRO-3).
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights = get_peft_model_state_dict(model, state_dict=state)
    config = copy.deepcopy(model.peft_config["default"])
    if start := getattr(model, "adapter_start", None):
        for name, value in weights.items():
            if "lora_A" in name:
                weights[name] = torch.cat([value, start[name].to(value)], dim=0)
            elif "lora_B" in name:
                weights[name] = torch.cat([value, -start[name].to(value)], dim=1)
        config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    if hasattr(config, "init_lora_weights"):
        config.init_lora_weights = True  # how it started matters no more, and would be done again on loading
    config.inference_mode = True
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
