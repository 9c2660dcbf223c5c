"""A Ray of our own: a signal for the driver's whole process group does not end it, and with the driver it is gone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import processes_of
from tests.tournaments import sft, write_tournament

ROOT = Path(__file__).parents[2]
WITHOUT_RAY = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
DRIVER = """
import os, signal, time
from cluster.on_ray.connect import connected
from cluster.environment import settle_in

heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
with connected("local"):
    import ray
    os.killpg(0, signal.SIGTERM)
    time.sleep(2)  # Ray's processes would end within one

    def hears():
        settle_in({})
        return signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])

    print(heard, ray.get(ray.remote(hears).remote(), timeout=60))
"""
"""Joins nothing, tells its own group to end, and then has a task run."""
GONE_SECONDS = {signal.SIGTERM: 10.0, signal.SIGINT: 10.0, signal.SIGKILL: 120.0}
"""Within so long after the driver's end nothing may be left; two of Ray's agents take a minute to see that it died."""


def in_a_group_of_its_own(*arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=WITHOUT_RAY, start_new_session=True,
    )  # fmt: skip


def test_it_outlives_what_the_drivers_group_is_told():
    driver = in_a_group_of_its_own("-c", DRIVER)
    out, errors = driver.communicate(timeout=240)
    assert (driver.returncode, out) == (0, "['SIGTERM'] True\n"), errors
    assert processes_of(driver.pid) == []


@pytest.mark.slow
@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda told: told.name)
def test_a_tournament_whose_group_is_signalled_stops_in_order(told: signal.Signals, inputs: Path, tmp_path: Path):
    config = write_tournament(inputs, tmp_path, [sft("full")], rounds=1, budget={"steps": 1500})
    run_dir = tmp_path / "run"
    driver = in_a_group_of_its_own("-m", "orchestrator", "run", str(config), "--run-dir", str(run_dir))
    progress = run_dir / "lineages/one/round-001/full/progress.jsonl"
    deadline = time.monotonic() + 240
    while not (progress.exists() and '"step"' in progress.read_text()):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(driver.pid, told)
    out, errors = driver.communicate(timeout=120)
    if told is signal.SIGKILL:
        assert driver.returncode == -told
    else:
        assert driver.returncode == 3, errors
        assert "go on with the same command: " in errors
        assert "Traceback" not in out + errors
        assert "(raylet)" not in out + errors  # nothing of Ray's died first
        assert json.loads((run_dir / "leaderboard.json").read_text())["state"] == "stopped"
    deadline = time.monotonic() + GONE_SECONDS[told]
    while left := processes_of(driver.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
