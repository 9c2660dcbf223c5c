"""cluster/slurm.sbatch as Slurm runs it, on this machine: `srun` and `scontrol` are stand-ins."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "cluster" / "slurm.sbatch"

SRUN = """#!/usr/bin/env bash
# The step's command once for each machine, all of them here; signals are passed on, as srun does.
for word in "$@"; do case $word in --nodes=*) nodes=${word#*=} ;; esac; done
while [[ $1 == --* ]]; do shift; done
trap 'kill -TERM $(jobs -p)' TERM
for ((id = 0; id < nodes; id++)); do SLURM_NODEID=$id "$@" & done
while [[ -n $(jobs -pr) ]]; do wait; done
"""
SCONTROL = """#!/usr/bin/env bash
echo "$@" >> "$HOME/scontrol"
"""


def submit(home: Path, config: Path, python: str = sys.executable, nodes: int = 2, restarts: int = 0) -> "Job":
    """Start the script with `python` in place of the user's, in a process group of its own and with this HOME."""
    text = re.sub(r"^python=.*$", f"python={python}", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    script = home / "slurm.sbatch"
    script.write_text(text, encoding="utf-8")
    tools = home / "bin"
    tools.mkdir(exist_ok=True)
    for name, stand_in in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tools / name).write_text(stand_in, encoding="utf-8")
        (tools / name).chmod(0o755)
    environment = os.environ | {
        "HOME": str(home),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_CPUS_ON_NODE": "1",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    with (home / "log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            ["bash", str(script), str(config)],
            env=environment,
            cwd=SCRIPT.parents[1],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Tests that run in the background are left with SIGINT ignored, and bash cannot trap what is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    return Job(home, process)


class Job:
    """A script that was submitted."""

    def __init__(self, home: Path, process: subprocess.Popen[bytes]) -> None:
        self.home, self.process = home, process

    @property
    def log(self) -> str:
        return (self.home / "log").read_text(encoding="utf-8")

    @property
    def requeued(self) -> bool:
        asked = self.home / "scontrol"
        return asked.exists() and asked.read_text(encoding="utf-8").splitlines()[-1] == f"requeue {os.getpid()}"

    def signal_all(self, signum: int) -> None:
        """To the script's whole process group, as Slurm, systemd and `timeout` do."""
        os.killpg(self.process.pid, signum)
