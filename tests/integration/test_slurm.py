"""The Slurm script on a Ray of two nodes that it starts itself."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.slurm import submit
from tests.tournaments import sft, write_tournament


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home directory; what the script's Ray leaves beside it is removed."""
    (tmp_path / "home").mkdir()
    yield tmp_path / "home"
    shutil.rmtree(f"/tmp/ray-{os.getpid()}", ignore_errors=True)


def rays_processes() -> list[psutil.Process]:
    folder = f"/tmp/ray-{os.getpid()}/"
    return [
        process for process in psutil.process_iter(["cmdline"]) if folder in " ".join(process.info["cmdline"] or [])
    ]


@pytest.mark.slow
def test_a_signal_to_everybody_stops_the_driver_in_order_and_the_same_job_goes_on(
    inputs: Path, home: Path, tmp_path: Path
):
    config = write_tournament(inputs, tmp_path, [sft("full")], budget={"steps": 40})
    job = submit(home, config)
    run_dir = home / "runs" / "tiny"
    deadline = time.monotonic() + 240
    while not (run_dir / "lineages/one/round-001/verdict.json").exists():
        assert job.process.poll() is None, job.log
        assert time.monotonic() < deadline, job.log
        time.sleep(0.1)
    job.signal_all(signal.SIGTERM)
    assert job.process.wait(120) == 3, job.log
    assert "go on with the same command: " in job.log
    assert "Traceback" not in job.log
    assert job.requeued
    assert not rays_processes()

    again = submit(home, config, restarts=1)
    assert again.process.wait(240) == 0, again.log
    assert "going on with what is there" in again.log
    assert "champion full@" in again.log
    assert not rays_processes()
