"""The continuation: what a submission leaves for whoever goes on from it.

    continuation/trunk.safetensors       the raw trained weights, by parameter name
    continuation/optimizer.safetensors   the optimizer's tensors, named `<parameter>/<key>`
    continuation/continuation.json       what optimizer, how many steps, whether the weights are a full model, the
                                         batch that its moments are of, the model that it stands on
    continuation/seen.npy                (training rows,) how often each row was trained on

Only tensors and JSON: nothing that a later round loads can run code. It is the same for one worker and for a
gang of any size and ZeRO stage: whole tensors by parameter name.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cluster.records import Record
from cluster.store import LOCAL
from competitors.contract import Brief
from competitors.sft import collectives
from competitors.sft.recipe import SftRecipe
from competitors.sft.sharding import Scalars, Tensors, Whole, gathered, named_trainable, shape_of
from competitors.sft.stream import Counts

SECOND_MOMENT = "exp_avg_sq"
"""What Adam and its kin call theirs, in torch and in DeepSpeed."""


class Continuation(Record):
    """continuation.json."""

    FORMAT = 2

    optimizer: str
    batch: int
    """Sequences of an optimizer step."""
    stands_on: str
    """SHA-256 of the seed model that the weights were trained from: an adapter goes on on that alone."""
    random_seed: int
    full_model: bool
    """True where the weights are a whole model, not an adapter; only then can another entry start from them."""
    steps: int
    scalars: dict[str, Scalars]
    """The optimizer's plain numbers, such as its step count, by parameter."""


def save(folder: Path, holding: Whole, recipe: SftRecipe, brief: Brief, steps: int, seen: Counts) -> None:
    """Write the continuation of the model and optimizer as they stand. All workers call it, worker 0 writes."""
    first = collectives.rank() == 0
    weights: Tensors = {}
    tensors: Tensors = {}
    scalars: dict[str, Scalars] = {}
    for name, parameter in named_trainable(holding.model).items():
        weight = holding.weight(parameter)
        state, scalars[name] = holding.state(parameter)
        if first:
            weights[name] = weight.detach().cpu().contiguous()
            tensors |= {f"{name}/{key}": value.detach().cpu().contiguous() for key, value in state.items()}
    if first:
        record = Continuation(
            optimizer=recipe.optimizer,
            batch=recipe.batch,
            stands_on=brief.seed_sha256,
            random_seed=brief.random_seed,
            full_model=recipe.adapter is None,
            steps=steps,
            scalars=scalars,
        )
        write(folder, record, weights, tensors, seen)


def write(folder: Path, record: Continuation, weights: Tensors, tensors: Tensors, seen: Counts) -> None:
    """Put a continuation at `folder`, whole or not at all."""
    from safetensors.torch import save_file

    with LOCAL.writing(folder) as temporary:
        temporary.mkdir()
        save_file(weights, temporary / "trunk.safetensors")
        save_file(tensors, temporary / "optimizer.safetensors")
        np.save(temporary / "seen.npy", seen)
        record.write(temporary / "continuation.json")


def load_seen(folder: Path, rows: int) -> Counts | None:
    """How often each of the `rows` training rows was seen, or None if that was another number of rows."""
    seen: Counts = np.load(folder / "seen.npy", allow_pickle=False)
    return seen if len(seen) == rows else None


def load_trunk(folder: Path, model: Any, recipe: SftRecipe, brief: Brief) -> str | None:
    """Put the trunk's weights into a model as `recipe` trains it. Returns why it could not, or None when it did."""
    record, adapter = Continuation.read(folder / "continuation.json"), recipe.adapter
    if adapter is None and not record.full_model:
        return "the seed was trained as an adapter: its weights are in the seed already"
    if adapter is None:
        return load_weights(folder, model)
    if record.full_model:
        return "the seed was trained whole"
    if record.stands_on != brief.seed_sha256:
        return "the seed's own adapter stands on another model"
    if adapter.splits_the_seed and record.random_seed != brief.random_seed:
        return f"{adapter.method} splits the model by chance, and would split it in another way"
    return load_weights(folder, model)


def load_weights(folder: Path, model: Any) -> str | None:
    """Put the trunk's weights, of a full model or of an adapter, into a model that is not yet sharded by an
    optimizer. Returns why it could not, or None when it did."""
    import torch
    from safetensors.torch import load_file

    trunk = load_file(folder / "trunk.safetensors")
    named = dict(model.named_parameters())
    for name, tensor in trunk.items():
        if name not in named or shape_of(named[name]) != tensor.shape:
            return f"its weight {name} does not fit this model"
    with torch.no_grad():
        for name, tensor in trunk.items():
            with gathered([named[name]], write=True):
                named[name].copy_(tensor)
    return None


def load_masters(file: Path, holding: Whole) -> None:
    """Put float32 weights where the optimizer takes them from: the model's own may have a smaller dtype."""
    from safetensors.torch import load_file

    named = named_trainable(holding.model)
    for name, tensor in load_file(file).items():
        if name in named:
            holding.set_weight(named[name], tensor)


def load_optimizer(folder: Path, holding: Whole, recipe: SftRecipe) -> str | None:
    """Put the optimizer's state back, by parameter name. Returns why it could not, or None when it did.

    Where the batch is `f` times what it was, Adam's second moments are of a gradient whose variance was `f` times as
    large, over `f` times as many steps: both are divided by it. (Malladi et al. 2022, arXiv:2205.10287, with the
    square-root rule for the rate and β₂ to the power of `f`, which are the recipe's.)
    """
    from safetensors.torch import load_file

    record = Continuation.read(folder / "continuation.json")
    if record.optimizer != recipe.optimizer:
        return f"it was trained with {record.optimizer}, this recipe has {recipe.optimizer}"
    if set(record.scalars) != set(named_trainable(holding.model)):
        return "other parameters were trained"
    state: dict[str, tuple[Tensors, Scalars]] = {name: ({}, scalars) for name, scalars in record.scalars.items()}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        name, _, what = key.rpartition("/")
        state[name][0][what] = tensor
    factor = recipe.batch / record.batch
    for tensors, scalars in state.values() if factor != 1 else ():
        if SECOND_MOMENT in tensors:
            tensors[SECOND_MOMENT] /= factor
            scalars["step"] = max(1.0, float(round(scalars["step"] / factor)))
    return holding.set_state(state)
