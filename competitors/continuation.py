"""The continuation: what a submission leaves for whoever goes on from it.

    continuation/trunk.safetensors       the raw trained weights, by parameter name
    continuation/optimizer.safetensors   the optimizer's tensors, named `<parameter>/<key>`
    continuation/continuation.json       what optimizer, how many steps, whether the weights are a full model
    continuation/seen.npy                (training rows,) how often each row was trained on

Only tensors and JSON: nothing that a later round loads can run code.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cluster.records import Record
from cluster.storage import writing
from competitors.stream import Counts


class Continuation(Record):
    """continuation.json."""

    optimizer: str
    full_model: bool
    """True where the weights are a whole model, not an adapter; only then can another entry start from them."""
    steps: int
    scalars: dict[str, dict[str, float]]
    """The optimizer's plain numbers, such as its step count, by parameter."""


def named_trainable(model: Any) -> dict[str, Any]:
    """The trained parameters by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def save(folder: Path, model: Any, optimizer: Any, optimizer_name: str, full: bool, steps: int, seen: Counts) -> None:
    """Write the continuation of `model` and `optimizer` as they stand."""
    import torch
    from safetensors.torch import save_file

    named = named_trainable(model)
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, float]] = {}
    for name, parameter in named.items():
        state = optimizer.state.get(parameter, {})
        values = {k: v for k, v in state.items() if isinstance(v, torch.Tensor) and v.ndim > 0}
        tensors |= {f"{name}/{key}": value.detach().cpu().contiguous() for key, value in values.items()}
        scalars[name] = {k: float(v) for k, v in state.items() if k not in values and v is not None}
    with writing(folder) as temporary:
        temporary.mkdir()
        save_file({n: p.detach().cpu().contiguous() for n, p in named.items()}, temporary / "trunk.safetensors")
        save_file(tensors, temporary / "optimizer.safetensors")
        np.save(temporary / "seen.npy", seen)
        record = Continuation(optimizer=optimizer_name, full_model=full, steps=steps, scalars=scalars)
        record.write(temporary / "continuation.json")


def load_seen(folder: Path, rows: int) -> Counts | None:
    """How often each of the `rows` training rows was seen, or None if that was another number of rows."""
    seen: Counts = np.load(folder / "seen.npy", allow_pickle=False)
    return seen if len(seen) == rows else None


def load_trunk(folder: Path, model: Any) -> str | None:
    """Put the trunk's weights into a full model. Returns why it could not, or None when it did."""
    import torch
    from safetensors.torch import load_file

    if not Continuation.read(folder / "continuation.json").full_model:
        return "the seed was trained as an adapter: its weights are in the seed already"
    trunk = load_file(folder / "trunk.safetensors")
    named = dict(model.named_parameters())
    for name, tensor in trunk.items():
        if name not in named or named[name].shape != tensor.shape:
            return f"its weight {name} does not fit this model"
    with torch.no_grad():
        for name, tensor in trunk.items():
            named[name].copy_(tensor)
    return None


def load_optimizer(folder: Path, model: Any, optimizer: Any, optimizer_name: str) -> str | None:
    """Put the optimizer's state back, by parameter name. Returns why it could not, or None when it did."""
    import torch
    from safetensors.torch import load_file

    record = Continuation.read(folder / "continuation.json")
    named = named_trainable(model)
    if record.optimizer != optimizer_name:
        return f"it was trained with {record.optimizer}, this recipe has {optimizer_name}"
    if set(record.scalars) != set(named):
        return "other parameters were trained"
    state: dict[str, dict[str, Any]] = {name: {} for name in named}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        name, _, what = key.rpartition("/")
        state[name][what] = tensor
    index = {id(p): i for i, p in enumerate(p for g in optimizer.param_groups for p in g["params"])}
    packed = optimizer.state_dict()
    packed["state"] = {}
    for name, parameter in named.items():
        scalars = {k: torch.tensor(v) for k, v in record.scalars[name].items()}
        packed["state"][index[id(parameter)]] = state[name] | scalars
    try:
        optimizer.load_state_dict(packed)
    except (ValueError, RuntimeError) as error:
        return f"its state does not fit: {error}"
    return None
