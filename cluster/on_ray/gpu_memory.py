"""The memory of a GPU that several processes share: each stays within its part, and gives back what it only keeps
while another one works.

What stays is a process's CUDA context, some 0.5 GB of the GPU, and whatever a competitor's code left behind.
"""

import gc
import sys
from collections.abc import Callable

_forget: list[Callable[[], None]] = []


def kept_until_rest(forget: Callable[[], None]) -> None:
    """Have `forget` called when this process rests: for what is kept on a GPU only to be faster the next time."""
    _forget.append(forget)


def rest() -> None:
    """Give back what this idle process keeps, since another one is to work on its GPU."""
    for forget in _forget:
        forget()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def stay_within(gpus: float) -> None:
    """Where this process holds a part of a GPU, let torch take no more than that part of its memory."""
    if 0 < gpus < 1:
        import torch

        if torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(gpus)
