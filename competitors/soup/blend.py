"""The blending behind kind `soup`: which submissions, their weights, and what whoever goes on from it gets.

A new average is a function here and its line in `AVERAGES`; a merge of what adapters add, in updates.py.
Two things are blended apart, as everywhere: the scored weights become the submission, the trunks and the
optimizer's moments its continuation.
"""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cluster.errors import Forfeit
from cluster.libraries import spare_deepspeed
from cluster.ranking import ranked
from cluster.records import Record
from cluster.rounding import rounding
from cluster.store import LOCAL
from competitors.contract import Brief, Ingredient
from competitors.events import Report
from competitors.sft import continuation
from competitors.sft.continuation import Continuation
from competitors.sft.model import on_gpu
from competitors.sft.slice_loss import mean_loss, read_rows
from competitors.sft.stream import Counts
from competitors.soup.recipe import SoupRecipe
from competitors.soup.updates import MERGES, adapters_of, with_updates

log = logging.getLogger(__name__)

Weights = dict[str, torch.Tensor]
"""float32 on the CPU, by parameter name."""


class Blend(Record):
    """soup.json: what was blended, and by what it was chosen."""

    blended: list[str]
    slice_losses: dict[str, float]
    """Nats per completion token on the training slice, of each submission; empty where nothing was chosen."""
    blend_loss: float | None
    """Of the blend on the same rows, where it is known."""


def blend(brief: Brief, recipe: SoupRecipe, report: Report) -> str:
    """Write a soup of the brief's ingredients and say of which. Forfeit where there are fewer than two to blend."""
    torch.manual_seed(brief.random_seed)
    torch.set_num_threads(max(1, int(brief.resources.cpus)))
    ingredients = list(brief.ingredients)
    for ingredient in ingredients:
        if ingredient.seed_sha256 != brief.seed_sha256:
            raise Forfeit(f"{ingredient.label} stands on another seed: only models of one seed can be blended")
    report({"event": "started"})
    ingredients = _require_two(ingredients)
    if recipe.method in MERGES:
        chosen = adapters_of(ingredients, report)
        weights = with_updates(brief.seed_model, [i.folder for i in chosen], MERGES[recipe.method], recipe.density)
        result = Blend(blended=_labels(chosen), slice_losses={}, blend_loss=None)
    else:
        chosen, weights, result = AVERAGES[recipe.method](brief, recipe, ingredients)
    _write_model(brief, weights, report)
    _blend_continuations(brief, chosen)
    result.write(brief.output_dir.parent / "soup.json")
    return f"{recipe.method} blend of {', '.join(result.blended)}"


def _require_two(ingredients: list[Ingredient]) -> list[Ingredient]:
    if len(ingredients) < 2:
        raise Forfeit(f"nothing to blend: {len(ingredients)} scored submissions stand on this seed")
    return ingredients


Chosen = tuple[list[Ingredient], Weights, Blend]
"""What is blended, its weights, and the record of it."""


def _uniform(brief: Brief, recipe: SoupRecipe, ingredients: list[Ingredient]) -> Chosen:
    """The mean of all, or of the best so many."""
    if recipe.best is None or recipe.best >= len(ingredients):
        blend = Blend(blended=_labels(ingredients), slice_losses={}, blend_loss=None)
        return ingredients, _mean(brief, ingredients), blend
    loss_of = _slice_loss(brief, recipe, ingredients)
    order, losses = _in_order(brief, ingredients, loss_of)
    chosen = order[: recipe.best]
    weights = _mean(brief, chosen)
    return chosen, weights, Blend(blended=_labels(chosen), slice_losses=losses, blend_loss=loss_of(weights))


def _greedy(brief: Brief, recipe: SoupRecipe, ingredients: list[Ingredient]) -> Chosen:
    """One after the other, best first, each kept where the mean with it is no worse (Wortsman et al. 2022)."""
    loss_of = _slice_loss(brief, recipe, ingredients)
    order, losses = _in_order(brief, ingredients, loss_of)
    chosen, weights, best = order[:1], weights_of(brief, order[0]), losses[order[0].label]
    for ingredient in order[1:]:
        tried = _with_one_more(weights, weights_of(brief, ingredient), len(chosen))
        if (loss := loss_of(tried)) <= best:
            chosen, weights, best = [*chosen, ingredient], tried, loss
    return chosen, weights, Blend(blended=_labels(chosen), slice_losses=losses, blend_loss=best)


AVERAGES: dict[str, Callable[[Brief, SoupRecipe, list[Ingredient]], Chosen]] = {"uniform": _uniform, "greedy": _greedy}
"""By the recipe's `method`; the others merge updates, see updates.py."""


def _in_order(
    brief: Brief, ingredients: list[Ingredient], loss_of: Callable[[Weights], float]
) -> tuple[list[Ingredient], dict[str, float]]:
    """The ingredients, lowest loss on the slice first, and those losses by label."""
    losses = {ingredient.label: loss_of(weights_of(brief, ingredient)) for ingredient in ingredients}
    log.info("slice losses: %s", losses)
    by_label = {ingredient.label: ingredient for ingredient in ingredients}
    return [by_label[label] for label in ranked(losses)], losses


def _labels(ingredients: list[Ingredient]) -> list[str]:
    return [ingredient.label for ingredient in ingredients]


def weights_of(brief: Brief, ingredient: Ingredient) -> Weights:
    """The scored weights of a submission as a full model's; an adapter is merged into the seed in float32."""
    if ingredient.form == "full":
        model = AutoModelForCausalLM.from_pretrained(ingredient.folder, dtype=torch.float32)
    else:
        from peft import PeftModel

        seed = AutoModelForCausalLM.from_pretrained(brief.seed_model, dtype=torch.float32)
        model = PeftModel.from_pretrained(seed, ingredient.folder).merge_and_unload(safe_merge=True)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _mean(brief: Brief, ingredients: list[Ingredient]) -> Weights:
    """The uniform mean, holding two models at a time."""
    mean = weights_of(brief, ingredients[0])
    for count, ingredient in enumerate(ingredients[1:], start=1):
        mean = _with_one_more(mean, weights_of(brief, ingredient), count)
    return mean


def _with_one_more(mean: Weights, new: Weights, count: int) -> Weights:
    """The mean of `count` models and one more."""
    return {name: tensor + (new[name] - tensor) / (count + 1) for name, tensor in mean.items()}


def _slice_loss(brief: Brief, recipe: SoupRecipe, ingredients: list[Ingredient]) -> Callable[[Weights], float]:
    """A function from weights to their loss on the slice, on the GPU where the entry has one."""
    if brief.slice_data is not None:
        kept = np.arange(min(recipe.slice_rows, _count_rows(brief.slice_data)))
        prompts, completions = read_rows(brief.slice_data, kept)
    else:
        prompts, completions = read_rows(brief.train_data, fresh_rows(brief, ingredients, recipe.slice_rows))
    tokenizer = AutoTokenizer.from_pretrained(brief.seed_model)
    model = AutoModelForCausalLM.from_pretrained(brief.seed_model, dtype=torch.float32)
    if on_gpu(brief):
        model = model.to("cuda")

    def loss_of(weights: Weights) -> float:
        _put(weights, model)
        return mean_loss(model, tokenizer, prompts, completions, brief.max_tokens)

    return loss_of


def fresh_rows(brief: Brief, ingredients: list[Ingredient], count: int) -> Counts:
    """Numbers of `count` training rows that the ingredients have trained on least, as their continuations say.

    For a soup that was entered later, when no rows were kept from all entries. What leaves no continuation may
    have trained on some of them, and then looks better than it is.
    """
    total = _count_rows(brief.train_data)
    seen = np.zeros(total, np.int64)
    for ingredient in ingredients:
        seen += _seen(ingredient.continuation, total)
    shuffled = np.random.default_rng(brief.random_seed).permutation(total)
    return np.sort(shuffled[np.argsort(seen[shuffled], kind="stable")][:count])


def _count_rows(parquet: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(parquet).num_rows)


def _seen(folder: Path | None, rows: int) -> Counts:
    seen = None
    if folder is not None and (folder / "seen.npy").exists():
        seen = continuation.load_seen(folder, rows)
    return np.zeros(rows, np.int64) if seen is None else seen


def _write_model(brief: Brief, weights: Weights, report: Report) -> None:
    """The submission, in the seed's own dtype unless that would lose too much of what was blended."""
    stored = AutoConfig.from_pretrained(brief.seed_model).dtype or torch.float32
    model = AutoModelForCausalLM.from_pretrained(brief.seed_model, dtype=stored)
    lost = rounding(dict(model.named_parameters()), weights.items(), stored)
    if lost.in_words:
        report({"event": "note", "text": lost.in_words})
    model = model.to(getattr(torch, lost.stored))
    _put(weights, model)
    spare_deepspeed()
    with LOCAL.writing(brief.output_dir) as temporary:
        model.save_pretrained(temporary)


def _put(weights: Weights, model: Any) -> None:
    """Give the model these weights, each in the dtype and on the device that it has there."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def _blend_continuations(brief: Brief, ingredients: list[Ingredient]) -> None:
    """Leave the mean of the trunks and moments, if any ingredient carries a whole model on.

    One that has no trunk of its own, such as an adapter, counts with its scored weights. Moments are the mean
    over those that share the commonest optimizer and train the same parameters. Where that keeps codes of 8 bits, which
    have no mean, nothing is left.
    """
    records = {
        i.label: (i.continuation, Continuation.read(i.continuation / "continuation.json"))
        for i in ingredients
        if i.continuation is not None
    }
    whole = {label: (folder, record) for label, (folder, record) in records.items() if record.full_model}
    if not whole:
        return
    trunk: Weights | None = None
    for count, ingredient in enumerate(ingredients):
        own = weights_of(brief, ingredient)
        if ingredient.label in whole:
            own |= load_file(whole[ingredient.label][0] / "trunk.safetensors")
        trunk = own if trunk is None else _with_one_more(trunk, own, count)
    assert trunk is not None
    commonest = Counter(_trains(record) for _, record in whole.values()).most_common(1)[0][0]
    alike = [(folder, record) for folder, record in whole.values() if _trains(record) == commonest]
    tensors: Weights = {}
    for count, (folder, _) in enumerate(alike):
        own = load_file(folder / "optimizer.safetensors")
        if not all(tensor.is_floating_point() for tensor in own.values()):
            return  # codes of fewer bits, whose mean means nothing
        tensors = own if count == 0 else _with_one_more(tensors, own, count)
    first = alike[0][1]
    scalars = {
        name: {key: float(np.mean([record.scalars[name][key] for _, record in alike])) for key in values}
        for name, values in first.scalars.items()
    }
    steps = max(record.steps for _, record in alike)
    blended = first.model_copy(
        update={"steps": steps, "scalars": scalars, "stands_on": brief.seed_sha256, "random_seed": brief.random_seed}
    )
    kept = {name: tensor.contiguous() for name, tensor in trunk.items() if name in first.scalars}
    moments = {name: tensor.contiguous() for name, tensor in tensors.items()}
    continuation.write(brief.continuation_dir, blended, kept, moments, _all_seen(brief, ingredients))


def _trains(record: Continuation) -> tuple[str, int, tuple[str, ...]]:
    """Which optimizer trains which parameters, on which batch: whose moments mean the same."""
    return record.optimizer, record.batch, tuple(sorted(record.scalars))


def _all_seen(brief: Brief, ingredients: list[Ingredient]) -> Counts:
    """How often each row was trained on by the seed or any ingredient: the soup has learnt from all of them."""
    rows = _count_rows(brief.train_data)
    before = _seen(brief.seed_continuation, rows)
    own: Any = sum(np.maximum(_seen(i.continuation, rows) - before, 0) for i in ingredients if i.continuation)
    return np.asarray(before + own, np.int64)
