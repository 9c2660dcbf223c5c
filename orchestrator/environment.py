"""What a run is made with: git commit, package versions, the driver's hardware."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

RECORDED_PACKAGES = ("ray", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "mlflow", "numpy")


def environment() -> dict[str, Any]:
    """What environment.json says of the driver that begins a run; those that go on in another are `later` there."""
    import psutil

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "git_commit": _git_commit(),
        "packages": {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
    }


def seen(recorded: Any) -> list[dict[str, Any]]:
    """The environments of an environment.json, the first one first; none where there is none."""
    if not isinstance(recorded, dict):
        return []
    first = {key: value for key, value in recorded.items() if key not in ("later", "run_id")}
    return [first, *recorded.get("later", [])]


def gone_on(recorded: Any, now: dict[str, Any]) -> dict[str, Any]:
    """The content of environment.json when a run is gone on with in the environment `now`."""
    known = seen(recorded)
    if not known:
        return now
    return recorded if known[-1] == now else {**recorded, "later": [*recorded.get("later", []), now]}


def _git_commit() -> str | None:
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # installed from a wheel, or no git
        return None
    return result.stdout.strip()
