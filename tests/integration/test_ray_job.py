"""`ray job submit` as the README has it, on a Ray of its own with token authentication."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.processes import processes_of
from tests.tournaments import python, sft

REPOSITORY = Path(__file__).parents[2]
WAIT_SECONDS = 300.0
"""For Ray to start, and for each job; on a quiet machine they take 10 and 40 seconds."""


@dataclass(frozen=True)
class Head:
    """A running head: where its jobs are submitted, with which environment."""

    address: str
    environment: dict[str, str]

    def job(self, *arguments: str, seconds: float = WAIT_SECONDS) -> subprocess.CompletedProcess[str]:
        """A `ray job` command, run in the repository's root."""
        command, *rest = arguments
        return subprocess.run(
            ["ray", "job", command, "--address", self.address, *rest],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def submit(self, job: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Submit a tournament and, unless `--no-wait` is among the arguments, follow it to its end."""
        return self.job("submit", "--submission-id", job, "--working-dir", ".", *arguments)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """`ray start --head` with a token and ports of its own, in its own session; of it nothing may be left behind."""
    temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's sockets need a short path
    port, dashboard, agent, client = free_ports(4)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # `ray`, and `python` in the job's command: what is first where the head was started
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    ports = ["--port", port, "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent]
    ports += ["--ray-client-server-port", client]
    command = ["ray", "start", "--head", "--block", "--num-cpus", "2", "--temp-dir", temporary, *ports]
    with open(f"{temporary}/head.log", "wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        head = Head(f"http://127.0.0.1:{dashboard}", environment)
        wait_until_it_answers(head, process, Path(temporary, "head.log"))
        yield head
    finally:
        end(process)
        shutil.rmtree(temporary, ignore_errors=True)


def free_ports(count: int) -> list[str]:
    """Ports that nobody listens on now, above those that Ray gives to its workers."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_until_it_answers(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until jobs can be submitted: the dashboard is up some seconds before its list of jobs is."""
    deadline = time.monotonic() + WAIT_SECONDS
    while head.job("list").returncode != 0:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(1)


def end(process: subprocess.Popen[bytes]) -> None:
    """End the head by its own process: it drains, ends what it started and goes."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(120)
    deadline = time.monotonic() + 60
    while (left := processes_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.5)
    for one in left:
        one.kill()
    process.wait(30)
    assert left == []


def write_config(inputs: Path, path: Path, steps: int) -> Path:
    """One lineage, one round; `tests` is not installed, so the second competitor comes from the working folder."""
    config = {
        "name": "tiny",
        "data": {
            "source": str(inputs / "rows.jsonl"),
            "prompt": "{instruction} \n",
            "completion": "{response}",
            "max_tokens": 32,
            "validation": 40,
            "test": 40,
        },
        "lineages": [{"name": "one", "base": str(inputs / "one")}],
        "rounds": 1,
        "budget": {"steps": steps},
        "competitors": [sft("full"), python("returns_the_seed")],
        "evaluation": {"samples": 0},
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def command(config: Path, run_dir: Path) -> list[str]:
    return ["--", "python", "-m", "orchestrator", "run", str(config), "--run-dir", str(run_dir)]


def test_a_job_is_followed_to_its_end(head: Head, inputs: Path, tmp_path: Path) -> None:
    config, run_dir = write_config(inputs, tmp_path / "tiny.yaml", steps=12), tmp_path / "run"
    followed = head.submit("tiny-1", *command(config, run_dir))
    assert followed.returncode == 0, followed.stdout + followed.stderr
    status = head.job("status", "tiny-1")
    assert "'tiny-1' succeeded" in status.stdout + status.stderr
    board = json.loads((run_dir / "leaderboard.json").read_text())
    assert board["state"] == "finished"
    assert {e["status"] for e in board["lineages"][0]["rounds"][1]["entries"]} == {"scored"}
    for said in ("one base: validation loss", "one round 1 full: training", "one round 1 full: scored: validation"):
        assert re.search(rf"^\d\d:\d\d:\d\d {said}", followed.stdout, re.MULTILINE), followed.stdout
    assert "Traceback" not in followed.stdout + followed.stderr
    assert "\x1b[" not in head.job("logs", "tiny-1").stdout.partition("Running entrypoint")[2]


def test_without_the_token_nothing_is_submitted(head: Head, tmp_path: Path) -> None:
    stranger = {name: value for name, value in head.environment.items() if name != "RAY_AUTH_TOKEN"}
    stranger["HOME"] = str(tmp_path)  # where a token of this machine's user may lie
    refused = Head(head.address, stranger).submit("tiny-2", *command(tmp_path / "none.yaml", tmp_path / "run"))
    assert refused.returncode != 0
    assert head.job("status", "tiny-2").returncode != 0  # no such job


@pytest.mark.slow
def test_a_stopped_job_goes_on_with_the_same_command(head: Head, inputs: Path, tmp_path: Path) -> None:
    config, run_dir = write_config(inputs, tmp_path / "tiny.yaml", steps=1500), tmp_path / "run"
    assert head.submit("tiny-3", "--no-wait", *command(config, run_dir)).returncode == 0
    progress = run_dir / "lineages/one/round-001/full/progress.jsonl"
    deadline = time.monotonic() + WAIT_SECONDS
    while not (progress.exists() and '"step"' in progress.read_text()):
        assert time.monotonic() < deadline, head.job("logs", "tiny-3").stdout
        time.sleep(0.3)
    stopped = head.job("stop", "tiny-3")
    log = head.job("logs", "tiny-3").stdout
    assert "'tiny-3' was stopped" in stopped.stdout + stopped.stderr, log
    assert "go on with the same command: " in log
    assert "Traceback" not in log
    assert json.loads((run_dir / "leaderboard.json").read_text())["state"] == "stopped"
    base = run_dir / "lineages/one/round-000/scorecard.json"
    scored_at = base.stat().st_mtime_ns
    again = head.submit("tiny-4", *command(config, run_dir))
    assert again.returncode == 0, again.stdout
    assert f"{run_dir}: going on with what is there" in again.stdout
    assert base.stat().st_mtime_ns == scored_at
    assert json.loads((run_dir / "leaderboard.json").read_text())["state"] == "finished"
