"""Tests that import this do not wait for the disk, nor search what they have imported for garbage.

Those of the unit and the integration tests do, by their conftest.py; benchmarks do not, since they measure.
"""

import gc
import os
from sqlite3 import Connection, connect, dbapi2
from typing import Any

import pytest

from cluster.machine import collect_garbage_rarely


def _stays_in_memory(descriptor: int) -> None:
    """In the place of `os.fsync`: no test cuts the power, and forcing thousands of files to a disk takes minutes."""


def _connect_unsynced(*arguments: Any, **settings: Any) -> Connection:
    """In the place of `sqlite3.connect`, for the same reason: MLflow's migrations alone commit a hundred times."""
    connection = connect(*arguments, **settings)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


collect_garbage_rarely()  # as in every worker
os.fsync = _stays_in_memory
dbapi2.connect = _connect_unsynced


@pytest.fixture(scope="module", autouse=True)
def libraries_stay() -> None:
    """What is imported by now is no garbage: the `gc.collect()` after each training would look at all of it."""
    gc.collect()
    gc.freeze()
