"""An empty MLflow store, made once in a process: migrations take a second, and tournaments need none of their own."""

import os
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.tracking.location import SQLITE
from orchestrator.tracking.sync import ENVIRONMENT


def give_store(folder: Path) -> None:
    """Put one where tournaments with run directories in `folder` look for theirs."""
    (folder / "mlflow.db").write_bytes(_store())


@cache
def _store() -> bytes:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    with TemporaryDirectory() as folder:
        file = Path(folder, "mlflow.db")
        MlflowClient(f"{SQLITE}{file}")
        return file.read_bytes()
