"""A Ray cluster of several nodes on this machine with token authentication, whose Python has no package of ours."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import processes_of

REPOSITORY = Path(__file__).parents[1]
WAIT_SECONDS = 300.0
"""For Ray to start, and for each job; on a quiet machine they take 10 and 40 seconds."""


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
    dashboard: str = ""
    gcs: str = ""
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
        """Start a node in a session of its own. `python` has what its workers have; default that of all nodes."""
        python, number = python or self.python, len(self.processes)
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
        return process

    def add(self, cpus: int, python: Path | None = None) -> subprocess.Popen[bytes]:
        """One more node."""
        (agent,) = free_ports(1)
        return self.start(
            "--address", self.gcs, "--num-cpus", str(cpus), "--dashboard-agent-listen-port", agent, python=python
        )

    def wait_for(self, nodes: int) -> None:
        """Until jobs can be submitted and that many nodes are there."""
        code = (
            "import ray; ray.init(log_to_driver=False, logging_level=40);"
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )
        joining = self.environment | {"RAY_ADDRESS": self.gcs}
        self._until(lambda: self.job("list").returncode == 0)
        self._until(lambda: call(self.python, "-c", code, environment=joining).stdout.split() == [str(nodes)])

    def _until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not is_so():
            logs = [log.read_text() for log in sorted(self.folder.glob("node-*.log"))]
            assert all(process.poll() is None for process in self.processes), logs
            assert time.monotonic() < deadline, logs
            time.sleep(1)


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
    nodes = Nodes(folder, python_of(folder / "python"), environment, f"http://127.0.0.1:{dashboard}", "")
    try:
        nodes.start(
            "--head", "--num-cpus", "0", "--port", port,
            "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent, "--ray-client-server-port", client,
        )  # fmt: skip
        nodes.gcs = f"127.0.0.1:{port}"
        for count, one in enumerate(cpus, start=1):
            nodes.wait_for(count)  # one after the other: each may take half a minute to register, no longer
            nodes.add(one)
        nodes.wait_for(1 + len(cpus))
        yield nodes
    finally:
        for process in reversed(nodes.processes):
            end(process)
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


def end(process: subprocess.Popen[bytes]) -> None:
    """End a node by its own process: it drains, ends what it started and goes."""
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
