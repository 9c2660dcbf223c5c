"""Soups of what adapters add to their seed: whole updates of a weight, made one as TIES and DARE are defined.

PEFT's own blends of adapters do that to A and B apart, and the product of two means is not the mean of the products.
A new one is a function here and its line in `MERGES`.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.merge_utils import dare_linear, dare_ties, ties
from transformers import AutoModelForCausalLM

from cluster.errors import Forfeit
from competitors.contract import Ingredient
from competitors.events import Report

Merge = Callable[[list[torch.Tensor], float], torch.Tensor]
"""Several updates of one weight, and what share of each is kept -> one update."""


def _linear(updates: list[torch.Tensor], density: float) -> torch.Tensor:
    return torch.stack(updates).mean(0)


def _dare_linear(updates: list[torch.Tensor], density: float) -> torch.Tensor:
    merged: torch.Tensor = dare_linear(updates, torch.full((len(updates),), 1 / len(updates)), density)
    return merged


def _ties(updates: list[torch.Tensor], density: float) -> torch.Tensor:
    merged: torch.Tensor = ties(updates, torch.ones(len(updates)), density)  # itself a mean over those that agree
    return merged


def _dare_ties(updates: list[torch.Tensor], density: float) -> torch.Tensor:
    merged: torch.Tensor = dare_ties(updates, torch.ones(len(updates)), density)
    return merged


MERGES: dict[str, Merge] = {"linear": _linear, "ties": _ties, "dare_linear": _dare_linear, "dare_ties": _dare_ties}
"""By the recipe's `method`."""


def adapters_of(ingredients: list[Ingredient], report: Report) -> list[Ingredient]:
    """The LoRA adapters that only add something to weights: what they add can be taken apart, cut and added up."""
    chosen = []
    for ingredient in ingredients:
        if ingredient.form == "adapter":
            config = PeftConfig.from_pretrained(ingredient.folder)
            more = config.peft_type != "LORA" or config.use_dora or config.modules_to_save or config.lora_bias
            chosen += [] if more else [ingredient]
    if len(chosen) < 2:
        raise Forfeit("nothing to blend: there are no two LoRA adapters, without DoRA, biases and whole modules")
    if left_out := [i.label for i in ingredients if i not in chosen]:
        report({"event": "note", "text": f"leaves out {', '.join(left_out)}: no plain LoRA adapter"})
    return chosen


def with_updates(seed: Path, adapters: list[Path], merge: Merge, density: float) -> dict[str, torch.Tensor]:
    """The seed's weights in float32, with one update in the place of those that the adapters make.

    Holds one model, and the updates of one weight at a time. Where an adapter leaves a weight alone, its update is 0.
    """
    model = AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float32)
    names = [f"adapter{index}" for index in range(len(adapters))]
    wrapped = PeftModel.from_pretrained(model, adapters[0], adapter_name=names[0])
    for name, adapter in zip(names[1:], adapters[1:], strict=True):
        wrapped.load_adapter(adapter, adapter_name=name)
    with torch.no_grad():
        for layer in wrapped.modules():
            if isinstance(layer, LoraLayer):
                weight = layer.get_base_layer().weight
                own = {name: layer.get_delta_weight(name) for name in names if name in layer.scaling}
                weight += merge([own.get(name, torch.zeros_like(weight)) for name in names], density)
    return {name: parameter.detach() for name, parameter in wrapped.unload().named_parameters()}
