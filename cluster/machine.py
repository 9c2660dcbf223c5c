"""What one machine has: this one, or the largest of a cluster; and how a process on it starts faster."""

import gc
import os
import re
import shutil
import subprocess
from math import inf
from pathlib import Path

import psutil

from cluster.placement import Nodes
from cluster.records import Record
from cluster.resources import ACCELERATOR_LABEL

GPU_MEMORY_GB = {
    "V100": 16, "T4": 15, "A10G": 22, "L4": 22, "L40S": 45, "A100": 40, "A100-40G": 40, "A100-80G": 80, "H100": 80,
    "H200": 140, "H20": 96, "B200": 179,
}  # fmt: skip
"""Of one GPU, at least, by the names that Ray gives to a node's accelerators."""
GPU_TFLOPS = {
    "V100": 125, "T4": 65, "A10G": 70, "L4": 121, "L40S": 362, "A100": 312, "A100-40G": 312, "A100-80G": 312,
    "H100": 989, "H200": 989, "H20": 148, "B200": 2250,
}  # fmt: skip
"""Of one GPU, by the same names: dense bfloat16, or float16 where it has no bfloat16, as NVIDIA's data sheets say."""
WITHOUT_BFLOAT16 = ("V100", "T4", "P100", "P4", "K80")
FIRST_WITH_BFLOAT16 = 8.0
"""Compute capability of NVIDIA's Ampere; older GPUs only emulate bfloat16."""


class Machine(Record):
    """Memory in GB (2**30 bytes). `gpu_memory_gb` is that of one GPU; None where it is not known."""

    memory_gb: float
    gpus: float
    gpu_memory_gb: float | None = None
    cpus: float = 1
    has_bfloat16: bool = True
    """Of its GPUs; without any it says nothing."""
    gpu_kind: str | None = None
    """By Ray's name; None where it is not known, or they differ."""


def machine_here() -> Machine:
    """This machine, as far as this process may use it."""
    limit = Path("/sys/fs/cgroup/memory.max")
    told = limit.read_text().strip() if limit.is_file() else "max"
    memory = min(psutil.virtual_memory().total, int(told) if told.isdigit() else 2**62)
    found = _gpus()
    return Machine(
        memory_gb=memory / 2**30,
        gpus=len(found),
        gpu_memory_gb=min((size for size, _, _ in found), default=None),
        cpus=len(os.sched_getaffinity(0)),
        has_bfloat16=all(capability >= FIRST_WITH_BFLOAT16 for _, capability, _ in found),
        gpu_kind=_only({kind for _, _, kind in found}),
    )


def largest_of(nodes: Nodes) -> Machine:
    """The most memory, CPUs and GPUs that one of these nodes has. A GPU's memory follows from its name."""
    kinds = {node.labels.get(ACCELERATOR_LABEL, "") for node in nodes.values() if node.size.get("GPU")}
    sizes = [GPU_MEMORY_GB.get(kind) for kind in kinds]
    known = [size for size in sizes if size is not None]
    return Machine(
        memory_gb=max((node.size["memory"] for node in nodes.values() if "memory" in node.size), default=inf) / 2**30,
        gpus=max((node.size.get("GPU", 0.0) for node in nodes.values()), default=0.0),
        gpu_memory_gb=min(known) if known and len(known) == len(sizes) else None,
        cpus=max((node.size.get("CPU", 0.0) for node in nodes.values()), default=1.0),
        has_bfloat16=not kinds & set(WITHOUT_BFLOAT16),
        gpu_kind=_only(kinds) or None,
    )


def _only(kinds: set[str]) -> str | None:
    return next(iter(kinds)) if len(kinds) == 1 else None


def _gpus() -> list[tuple[float, float, str]]:
    """Memory in GB, compute capability and Ray's name of each NVIDIA GPU; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=memory.total,compute_cap,name", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    found = []
    for line in answer.stdout.splitlines():
        size, capability, name = line.split(",", 2)
        if size.strip().isdigit():
            word = re.search(r"\w+\s+([A-Z0-9]+)", name)  # as Ray reads "NVIDIA A100-SXM4-80GB"
            found.append((int(size) / 1024, float(capability), word[1] if word else ""))
    return found


def collect_garbage_rarely() -> None:
    """Make this process look for garbage less often than Python does by default.

    Importing torch, transformers and TRL makes a million objects that stay; looking through them again and again
    is a sixth of the time it takes.
    """
    gc.set_threshold(5_000)
