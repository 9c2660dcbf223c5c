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
