"""A driver in a process of its own, without Ray, for tests to kill: `python -m tests.driver_in_process CONFIG RUN`."""

import sys
from pathlib import Path

from cluster.in_process import InProcessWorkers
from tests.tournaments import run

if __name__ == "__main__":
    config, run_dir = map(Path, sys.argv[1:])
    run(config, run_dir, InProcessWorkers(trainers=1, evaluators=0))
