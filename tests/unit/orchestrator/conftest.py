"""What the tests of the loop begin with."""

from pathlib import Path

import pytest

from orchestrator.record.snapshot import Snapshot
from tests.faked import faked_config, play
from tests.stopping import StoppingStore


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(scope="session")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Snapshot, int]:
    """The same tournament without any stop, and how many operations on the disk it took."""
    store = StoppingStore()
    snapshot = play(faked_config(inputs), tmp_path_factory.mktemp("undisturbed") / "run", store=store)
    return snapshot, store.count
