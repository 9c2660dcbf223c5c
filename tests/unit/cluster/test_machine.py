"""What this machine has."""

import subprocess
from typing import Any

import psutil
import pytest

from cluster import machine


def test_this_machine_has_no_more_than_its_memory():
    here = machine.machine_here()
    assert 0 < here.memory_gb <= psutil.virtual_memory().total / 2**30
    assert (here.gpu_memory_gb is None) == (here.gpus == 0)


@pytest.mark.parametrize(("answer", "gpus", "smallest"), [("81559\n40960\n", 2, 40.0), ("", 0, None)])
def test_the_smallest_gpu_counts(monkeypatch: pytest.MonkeyPatch, answer: str, gpus: int, smallest: float | None):
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, answer, "")

    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(machine.subprocess, "run", run)
    here = machine.machine_here()
    assert (here.gpus, here.gpu_memory_gb) == (gpus, smallest)
