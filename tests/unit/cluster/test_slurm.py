"""What the Slurm script does with signals and exit codes, over a Ray and a driver that only pretend."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.slurm import Job, submit

PYTHON = """#!/usr/bin/env bash
# Waits until it is told to end, and then ends as the driver does; or ends at once with $EXIT_CODE.
[[ $1 == - ]] && exit
echo "$@" > "$HOME/driver"
[[ -n ${IS_EARLY:-} ]] || trap 'sleep 0.3; touch "$HOME/driver-ended"; exit 3' TERM
[[ -n ${EXIT_CODE:-} ]] && exit "$EXIT_CODE"
while true; do sleep 0.02; done
"""
RAY = """#!/usr/bin/env bash
[[ $1 == start ]] || exit 0
trap 'ls "$HOME" > "$HOME/there-when-ray-ended"; exit' TERM
touch "$HOME/ray-started"
while true; do sleep 0.02; done
"""


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A pretended Python with a pretended Ray beside it, as in a virtual environment."""
    for name, text in {"python": PYTHON, "ray": RAY}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.delenv("EXIT_CODE", raising=False)
    yield str(tmp_path / "python")
    shutil.rmtree(f"/tmp/ray-{os.getpid()}", ignore_errors=True)
    left = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    for process in left:
        process.kill()
    assert not left


def when_running(job: Job) -> Job:
    deadline = time.monotonic() + 30
    while not ((job.home / "driver").exists() and (job.home / "ray-started").exists()):
        assert time.monotonic() < deadline, job.log
        time.sleep(0.02)
    return job


@pytest.mark.parametrize("everybody", [True, False])
def test_slurms_signal_stops_the_driver_before_ray_and_the_job_is_started_again(
    python: str, tmp_path: Path, everybody: bool
):
    job = when_running(submit(tmp_path, Path("configs/mine.yaml"), python, nodes=1))
    if everybody:
        job.signal_all(signal.SIGTERM)
    else:
        job.process.send_signal(signal.SIGTERM)
    assert job.process.wait(30) == 3, job.log
    assert job.requeued
    there = (tmp_path / "there-when-ray-ended").read_text().split()
    assert "driver-ended" in there
    assert "scontrol" not in there  # Slurm ends the job as soon as it is asked to start it again
    given = (tmp_path / "driver").read_text()
    assert given.startswith(f"-m orchestrator run configs/mine.yaml --run-dir {tmp_path}/runs/mine --address ")


def test_a_driver_that_was_told_before_it_had_begun_is_started_again(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("IS_EARLY", "1")
    job = when_running(submit(tmp_path, Path("mine.yaml"), python, nodes=1))
    job.signal_all(signal.SIGTERM)
    assert job.process.wait(30) == 143, job.log
    assert job.requeued


def test_a_stop_by_hand_is_no_reason_to_start_it_again(python: str, tmp_path: Path):
    job = when_running(submit(tmp_path, Path("mine.yaml"), python, nodes=1))
    job.process.send_signal(signal.SIGINT)
    assert job.process.wait(30) == 3, job.log
    assert not job.requeued


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, 0, False), (1, 0, False), (3, 0, True), (3, 9, True), (3, 10, False), (137, 0, False)],
)
def test_only_exit_code_3_is_started_again_and_not_for_ever(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, restarts: int, requeued: bool
):
    monkeypatch.setenv("EXIT_CODE", str(code))
    job = submit(tmp_path, Path("mine.yaml"), python, nodes=1, restarts=restarts)
    assert job.process.wait(30) == code, job.log
    assert job.requeued == requeued
