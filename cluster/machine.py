"""What one machine has: this one, or the largest of a cluster; and how a process on it starts faster."""

import gc
import shutil
import subprocess
from pathlib import Path

import psutil

from cluster.records import Record


class Machine(Record):
    """Memory in GB (2**30 bytes). `gpu_memory_gb` is that of one GPU; None where it is not known."""

    memory_gb: float
    gpus: float
    gpu_memory_gb: float | None = None


def machine_here() -> Machine:
    """This machine, as far as this process may use it."""
    limit = Path("/sys/fs/cgroup/memory.max")
    told = limit.read_text().strip() if limit.is_file() else "max"
    memory = min(psutil.virtual_memory().total, int(told) if told.isdigit() else 2**62)
    sizes = _gpu_sizes()
    return Machine(memory_gb=memory / 2**30, gpus=len(sizes), gpu_memory_gb=min(sizes, default=None))


def largest_machine() -> Machine:
    """The most memory and the most GPUs that a node of the connected cluster has. Ray does not tell a GPU's memory."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    memory = max((node.get("memory", 0.0) for node in nodes), default=0.0)
    return Machine(memory_gb=memory / 2**30, gpus=max((node.get("GPU", 0.0) for node in nodes), default=0.0))


def _gpu_sizes() -> list[float]:
    """Memory of each NVIDIA GPU in GB; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return [int(line) / 1024 for line in answer.stdout.split() if line.isdigit()]


def collect_garbage_rarely() -> None:
    """Make this process look for garbage less often than Python does by default.

    Importing torch, transformers and TRL makes a million objects that stay; looking through them again and again
    is a sixth of the time it takes.
    """
    gc.set_threshold(5_000)
