"""Trains one recipe on a CPU in a process of its own, and prints what memory that took as one JSON line.

python -m tests.benchmarks.train_in_process FOLDER '{"seed": …, "data": …, "max_tokens": …, "recipe": {…}}'
"""

import json
import sys
from pathlib import Path
from typing import Any

from cluster.resources import Resources
from competitors.contract import Allowance, Brief
from competitors.sft.recipe import SftRecipe


def peak_gb() -> float:
    """The most memory that this process ever held, in GB of 2**30 bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 2**20


def main(folder: Path, job: dict[str, Any]) -> None:
    """Two steps of the job's recipe; prints the peak after the imports, after each step, and at the end."""
    from competitors.sft.training import train

    peaks = {"imported": peak_gb()}

    def report(event: dict[str, Any]) -> None:
        peaks[f"{event['event']} {event.get('step', '')}".strip()] = peak_gb()

    brief = Brief(
        tournament="t", lineage="l", round=1, competitor="a", seed_model=job["seed"], seed_sha256="0",
        seed_continuation=None, train_data=job["data"], max_tokens=job["max_tokens"], budget=Allowance(steps=2),
        progress=(0.0, 1.0), output_dir=folder / "submission", random_seed=7, resources=Resources(gpus=0),
    )  # fmt: skip
    folder.mkdir(parents=True)
    train(brief, SftRecipe.model_validate(job["recipe"]), report)
    print(json.dumps(peaks | {"peak": peak_gb()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
