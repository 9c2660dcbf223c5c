"""What a worker holds of the trained weights and of the optimizer's state, and how to get the whole of it.

Alone, or in a gang without DeepSpeed, each worker holds everything (`Whole`). Under ZeRO (Rajbhandari et al.
2020) each holds flat float32 shards (`Sharded`), and the whole is gathered tensor by tensor: methods that say
"gathers" are called by all workers, and what they return is meant for the one that writes.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
Scalars = dict[str, float]


def named_trainable(model: Any) -> dict[str, Any]:
    """The trained parameters by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def shape_of(parameter: Any) -> torch.Size:
    """The shape of a parameter, also of one that ZeRO-3 has cut up."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


class Whole:
    """Everything is here."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        self.model, self.optimizer = model, optimizer

    def held(self) -> list[torch.Tensor]:
        """The trained weights as this worker's optimizer updates them."""
        return [p.data for p in named_trainable(self.model).values()]

    def weight(self, parameter: Any) -> torch.Tensor:
        """Gathers a trained weight."""
        tensor: torch.Tensor = parameter.detach()
        return tensor

    def frozen(self, parameter: Any) -> torch.Tensor:
        """Gathers a weight that is not trained."""
        return self.weight(parameter)

    def set_weight(self, parameter: Any, value: torch.Tensor) -> None:
        """Put a trained weight where the optimizer takes it from."""
        parameter.data.copy_(value)

    def state(self, parameter: Any) -> tuple[Tensors, Scalars]:
        """Gathers the optimizer's state of a parameter: what has its shape, and plain numbers."""
        state = self.optimizer.state.get(parameter, {})
        tensors = {k: _plain(v) for k, v in state.items() if isinstance(v, torch.Tensor) and v.ndim > 0}
        return tensors, {k: float(v) for k, v in state.items() if k not in tensors and v is not None}

    def set_state(self, state: dict[str, tuple[Tensors, Scalars]]) -> str | None:
        """Put the optimizer's state in, by parameter name. Returns why it could not, or None."""
        index = {id(p): i for i, p in enumerate(p for g in self.optimizer.param_groups for p in g["params"])}
        packed = self.optimizer.state_dict()
        packed["state"] = {
            index[id(parameter)]: state[name][0] | {k: torch.tensor(v) for k, v in state[name][1].items()}
            for name, parameter in named_trainable(self.model).items()
        }
        try:
            self.optimizer.load_state_dict(packed)
        except (ValueError, RuntimeError) as error:
            return f"its state does not fit: {error}"
        return None


def _plain(state: torch.Tensor) -> torch.Tensor:
    """As floats, where torchao keeps an optimizer's state in fewer bits (of 4,096 values or more): in a subclass of
    tensors, which no file takes."""
    few_bits = type(state) is not torch.Tensor and hasattr(state, "codes")
    return state.dequantize() if few_bits else state


class Sharded(Whole):
    """ZeRO 1, 2 or 3: `optimizer` is DeepSpeed's, around the recipe's own over flat shards."""

    def __init__(self, model: Any, optimizer: Any) -> None:
        super().__init__(model, optimizer)
        self.stage3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
        self.inner = optimizer.optimizer

    def held(self) -> list[torch.Tensor]:
        """The shards."""
        flat = self.optimizer.fp32_partitioned_groups_flat if self.stage3 else None
        shards: list[torch.Tensor] = flat if flat is not None else self.optimizer.single_partition_of_fp32_groups
        return list(shards)

    def weight(self, parameter: Any) -> torch.Tensor:
        """Gathers the float32 weight that the optimizer keeps."""
        from deepspeed.utils import safe_get_full_fp32_param

        tensor: torch.Tensor = safe_get_full_fp32_param(parameter)
        return tensor

    def frozen(self, parameter: Any) -> torch.Tensor:
        """Gathers a weight that ZeRO-3 has cut up without training it."""
        with gathered([parameter]):
            tensor: torch.Tensor = parameter.detach().cpu().clone()
        return tensor

    def set_weight(self, parameter: Any, value: torch.Tensor) -> None:
        """Put this worker's part of a weight where the optimizer takes it from."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        if self.stage3:
            safe_set_local_fp32_param(parameter, _part(parameter, value))
        else:
            safe_set_full_fp32_param(parameter, value)

    def state(self, parameter: Any) -> tuple[Tensors, Scalars]:
        """Gathers the optimizer's state of a parameter."""
        from deepspeed.utils import safe_get_full_optimizer_state

        self._link_state()
        shard = self.held()[0]
        state = self.inner.state.get(shard, {})
        tensors = [k for k, v in state.items() if isinstance(v, torch.Tensor) and v.shape == shard.shape]
        scalars = {k: float(v) for k, v in state.items() if k not in tensors and v is not None}
        return {k: safe_get_full_optimizer_state(parameter, k) for k in tensors}, scalars

    def set_state(self, state: dict[str, tuple[Tensors, Scalars]]) -> str | None:
        """Put this worker's part of the optimizer's state in. DeepSpeed can only change state that is there, and
        makes it at the first step: it is made here, as that step would."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        named = named_trainable(self.model)
        tensors, scalars = next(iter(state.values()))
        if any(value[0].keys() != tensors.keys() or value[1] != scalars for value in state.values()):
            return "its parameters differ in their state, which flat shards cannot"
        if any(t.shape != shape_of(p) for name, p in named.items() for t in state[name][0].values()):
            return "its state does not have the parameters' shapes"
        fused = any(group.get("fused") or group.get("capturable") for group in self.inner.param_groups)
        for shard in self.held():
            made = {key: torch.zeros_like(shard, requires_grad=False) for key in tensors}
            device = shard.device if fused else "cpu"
            self.inner.state[shard] = made | {k: torch.tensor(v, device=device) for k, v in scalars.items()}
        self._link_state()
        for name, parameter in named.items():
            for key, value in state[name][0].items():
                if self.stage3:
                    safe_set_local_optimizer_state(parameter, _part(parameter, value), key)
                else:
                    safe_set_full_optimizer_state(parameter, value, key)
        return None

    def _link_state(self) -> None:
        """Tell DeepSpeed where each parameter's state lies: it does so itself after the first step of its first
        parameter group, when the other groups have none yet."""
        if self.stage3:
            return
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        for parameters, shard in zip(self.optimizer.bit16_groups, self.held(), strict=True):
            lazy_init_hp_params_optimizer_state(parameters, shard, self.inner.state)


def holding(model: Any, optimizer: Any) -> Whole:
    """How `model` and `optimizer`, as accelerate prepared them, lie on the workers."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return (Sharded if type(inner).__module__.startswith("deepspeed.runtime.zero") else Whole)(model, inner)


@contextmanager
def gathered(parameters: Iterable[Any], write: bool = False) -> Iterator[None]:
    """Have ZeRO-3's parameters whole while the block lasts; with `write`, take what worker 0 made of them."""
    cut = [p for p in parameters if hasattr(p, "ds_id")]
    if not cut:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(cut, modifier_rank=0 if write else None):
        yield


@contextmanager
def exchanged(held: list[torch.Tensor], values: list[torch.Tensor]) -> Iterator[None]:
    """Have `values`, if there are any, in the place of the weights while the block lasts."""
    if not values:
        yield
        return
    kept = [tensor.detach().to("cpu", copy=True) for tensor in held]
    _copy(held, values)
    yield
    _copy(held, kept)


def _copy(held: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(held, values, strict=True):
            tensor.copy_(value)


def _part(parameter: Any, value: torch.Tensor) -> torch.Tensor:
    """This worker's part of `value` under ZeRO-3, which fills the last part up with zeros."""
    from torch import distributed

    size = parameter.ds_tensor.numel()
    flat = torch.zeros(size * distributed.get_world_size(), dtype=torch.float32)
    flat[: value.numel()] = value.detach().flatten().float().cpu()
    return flat.narrow(0, size * distributed.get_rank(), size)
