"""What the workers of a gang tell each other. Alone, everything here is the identity.

Every function is called by all workers or by none: a worker that does not call it leaves the others waiting.
"""

from typing import Any

import torch
from torch import distributed


def rank() -> int:
    """This worker's number; 0 reports, decides and writes."""
    return distributed.get_rank() if _together() else 0


def from_first(values: list[float]) -> list[float]:
    """Worker 0's `values`, on every worker: what depends on a clock or a file is decided once."""
    if not _together():
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=_device())
    distributed.broadcast(tensor, src=0)
    return [float(value) for value in tensor]


def mean(value: float) -> float:
    """The mean of `value` over the workers."""
    if not _together():
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=_device())
    distributed.all_reduce(tensor)
    return float(tensor) / distributed.get_world_size()


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _device() -> Any:
    return torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else "cpu"
