"""What this machine has."""

import subprocess
from typing import Any

import psutil
import pytest

from cluster import machine
from cluster.placement import Node
from cluster.resources import ACCELERATOR_LABEL


def test_this_machine_has_no_more_than_its_memory():
    here = machine.machine_here()
    assert 0 < here.memory_gb <= psutil.virtual_memory().total / 2**30
    assert (here.gpu_memory_gb is None) == (here.gpus == 0)


def test_the_largest_of_nodes_has_the_most_of_each_and_the_smallest_gpu():
    def node(kind: str | None = None, **size: float) -> Node:
        return Node(size, {} if kind is None else {ACCELERATOR_LABEL: kind})

    one = machine.largest_of({"a": node("H100", CPU=8, GPU=2, memory=2.0**31), "b": node(CPU=16, memory=2.0**30)})
    assert (one.cpus, one.gpus, one.memory_gb) == (16, 2, 2)
    assert (one.gpu_kind, one.gpu_memory_gb, one.has_bfloat16) == ("H100", 80, True)
    mixed = machine.largest_of({"a": node("H100", GPU=2), "b": node("T4", GPU=1)})
    assert (mixed.gpu_kind, mixed.gpu_memory_gb, mixed.has_bfloat16) == (None, 15, False)
    for unknown in (node(GPU=1), node("Intel-GAUDI", GPU=1)):
        assert machine.largest_of({"a": node("H100", GPU=2), "b": unknown}).gpu_memory_gb is None
    assert machine.largest_of({"b": node(GPU=1)}).gpu_kind is None
    assert machine.largest_of({}).gpus == 0


@pytest.mark.parametrize(
    ("answer", "gpus", "smallest", "has_bfloat16", "kind"),
    [
        ("81559, 9.0, NVIDIA H100 80GB HBM3\n40960, 8.0, NVIDIA A100-SXM4-40GB\n", 2, 40.0, True, None),
        ("15360, 7.5, Tesla T4\n", 1, 15.0, False, "T4"),
        ("", 0, None, True, None),
    ],
)
def test_the_smallest_gpu_counts_and_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    gpus: int,
    smallest: float | None,
    has_bfloat16: bool,
    kind: str | None,
):
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, answer, "")

    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine.subprocess, "run", run)
    here = machine.machine_here()
    assert (here.gpus, here.gpu_memory_gb, here.has_bfloat16, here.gpu_kind) == (gpus, smallest, has_bfloat16, kind)
