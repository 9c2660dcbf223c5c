"""What a run is made with: git commit, package versions, the driver's hardware."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

RECORDED_PACKAGES = ("ray", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "mlflow", "numpy")


def environment() -> dict[str, Any]:
    """The content of environment.json."""
    import psutil

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "git_commit": _git_commit(),
        "packages": {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
    }


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
