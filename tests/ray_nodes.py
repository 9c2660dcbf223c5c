"""A Ray cluster of several nodes on this machine with token authentication, whose Python has no package of ours."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil

from tests.processes import processes_of
from tests.ray_start import in_time

REPOSITORY = Path(__file__).parents[1]
WAIT_SECONDS = 300.0
"""For a node to start, and for each job; on a quiet machine they take 5 and 30 seconds."""
ANSWER_SECONDS = 30.0
"""For the dashboard to answer; it is asked again when it has not."""


def python_of(folder: Path, *paths: Path) -> Path:
    """A Python that sees `paths` and the libraries that are installed here, but not what is installed as editable."""
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # Of a folder that a .pth file names, no .pth files are read: these are what makes a checkout importable.
    (site / "libraries.pth").write_text("\n".join(map(str, [*paths, sysconfig.get_path("purelib")])) + "\n")
    return folder / "bin" / "python"


@dataclass
class Nodes:
    """A running cluster: its dashboard, who may use it, and how a node is added."""

    folder: Path
    python: Path
    environment: dict[str, str]
    dashboard: str
    gcs: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ray(
        self, *arguments: str, cwd: Path | None = None, seconds: float = WAIT_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """A `ray` command of somebody who has only Ray, with the cluster's token."""
        return call(self.python, "-m", "ray.scripts.scripts", *arguments, environment=self.environment, cwd=cwd,
                    seconds=seconds)  # fmt: skip

    def job(self, command: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A `ray job` command."""
        return self.ray("job", command, "--address", self.dashboard, *arguments, cwd=cwd)

    def start(self, *arguments: str, python: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a node in a session of its own, and wait until it has joined and jobs can be submitted.

        `python` has what its workers have; default that of all nodes.
        """
        return in_time(lambda: self._start(*arguments, python=python or self.python))

    def _start(self, *arguments: str, python: Path) -> subprocess.Popen[bytes]:
        number = len(self.processes)
        # `python` in a job's command is the first where the node was started
        environment = self.environment | {
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "TOURNAMENT_CACHE": str(self.folder / f"cache-{number}"),  # what nodes of one machine would share
        }
        # Of its own, or nodes would remove each other's copies of what a job brings along.
        temporary = ["--temp-dir", str(self.folder / str(number))]
        command = [str(python), "-m", "ray.scripts.scripts", "start", "--block", *temporary, *arguments]
        with open(self.folder / f"node-{number}.log", "wb") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.processes.append(process)
        try:
            self._wait()
        except BaseException:
            self.processes.remove(process)
            kill(process)
            raise
        return process

    def add(self, cpus: int, python: Path | None = None) -> subprocess.Popen[bytes]:
        """One more node, which has joined."""
        (agent,) = free_ports(1)
        return self.start(
            "--address", self.gcs, "--num-cpus", str(cpus), "--dashboard-agent-listen-port", agent, python=python
        )

    def _wait(self) -> None:
        """Until jobs can be submitted and all nodes are there. RuntimeError if one of them has ended."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._are_there():
            logs = "\n".join(log.read_text() for log in sorted(self.folder.glob("node-*.log")))
            if any(process.poll() is not None for process in self.processes):
                raise RuntimeError(f"a node has ended:\n{logs}")
            assert time.monotonic() < deadline, logs
            time.sleep(0.2)

    def _are_there(self) -> bool:
        with suppress(OSError, HTTPException):  # nobody answers yet, or not in time
            self._asked("/api/jobs/")
            # Nodes are remembered for two seconds, by the whole address.
            summary = self._asked(f"/nodes?view=summary&at={time.monotonic()}")["data"]["summary"]
            return sum(node["raylet"].get("state") == "ALIVE" for node in summary) == len(self.processes)
        return False

    def _asked(self, path: str) -> Any:
        """What the dashboard answers."""
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(self.dashboard + path, headers=token)
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)


def call(
    python: Path,
    *arguments: str,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    seconds: float = WAIT_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """What a command in that Python says; by default in a folder that holds nothing of ours."""
    return subprocess.run(
        [str(python), *arguments],
        cwd=cwd or python.parent, env=dict(environment), capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip


@contextmanager
def cluster(cpus: tuple[int, ...], variables: Mapping[str, str] | None = None) -> Iterator[Nodes]:
    """A head of 0 CPUs and a node for each of `cpus`, all with `variables`; of them nothing may be left behind."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # Ray's sockets need a short path
    port, dashboard, agent, client = free_ports(4)
    foreign = ("RAY_", "PYTHON", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment = (
        inherited
        | dict(variables or {})
        | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
    )
    addresses = f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}"
    nodes = Nodes(folder, python_of(folder / "python"), environment, *addresses)
    try:
        nodes.start(
            "--head", "--num-cpus", "0", "--port", port,
            "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent, "--ray-client-server-port", client,
        )  # fmt: skip
        for one in cpus:  # one after the other: each may take half a minute to register, no longer
            nodes.add(one)
        yield nodes
    finally:
        end(*reversed(nodes.processes))
        shutil.rmtree(folder, ignore_errors=True)


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


def end(*processes: subprocess.Popen[bytes]) -> None:
    """End nodes by their own processes: each drains, ends what it started and goes."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    left = []
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(120)
        deadline = time.monotonic() + 60
        while processes_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.2)
        left += kill(process)
    assert left == []


def kill(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Kill what is left of a node."""
    left = processes_of(process.pid)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(30)
    return left
