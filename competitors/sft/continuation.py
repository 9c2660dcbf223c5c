"""The continuation: what a submission leaves for whoever goes on from it.

    continuation/trunk.safetensors       the raw trained weights, by parameter name
    continuation/optimizer.safetensors   the optimizer's tensors, named `<parameter>/<key>`
    continuation/continuation.json       what optimizer, how many steps, whether the weights are a full model
    continuation/seen.npy                (training rows,) how often each row was trained on

Only tensors and JSON: nothing that a later round loads can run code. It is the same for one worker and for a
gang of any size and ZeRO stage: whole tensors by parameter name.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cluster.records import Record
from cluster.store import LOCAL
from competitors.sft import collectives
from competitors.sft.sharding import Scalars, Tensors, Whole, gathered, named_trainable, shape_of
from competitors.sft.stream import Counts


class Continuation(Record):
    """continuation.json."""

    optimizer: str
    full_model: bool
    """True where the weights are a whole model, not an adapter; only then can another entry start from them."""
    steps: int
    scalars: dict[str, Scalars]
    """The optimizer's plain numbers, such as its step count, by parameter."""


def save(folder: Path, holding: Whole, optimizer_name: str, full: bool, steps: int, seen: Counts) -> None:
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
        record = Continuation(optimizer=optimizer_name, full_model=full, steps=steps, scalars=scalars)
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


def load_trunk(folder: Path, model: Any) -> str | None:
    """Put the trunk's weights into a full model. Returns why it could not, or None when it did."""
    if not Continuation.read(folder / "continuation.json").full_model:
        return "the seed was trained as an adapter: its weights are in the seed already"
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


def load_optimizer(folder: Path, holding: Whole, optimizer_name: str) -> str | None:
    """Put the optimizer's state back, by parameter name. Returns why it could not, or None when it did."""
    from safetensors.torch import load_file

    record = Continuation.read(folder / "continuation.json")
    if record.optimizer != optimizer_name:
        return f"it was trained with {record.optimizer}, this recipe has {optimizer_name}"
    if set(record.scalars) != set(named_trainable(holding.model)):
        return "other parameters were trained"
    state: dict[str, tuple[Tensors, Scalars]] = {name: ({}, scalars) for name, scalars in record.scalars.items()}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        name, _, what = key.rpartition("/")
        state[name][0][what] = tensor
    return holding.set_state(state)
