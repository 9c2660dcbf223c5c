"""A working copy of a run in a store, and a cache of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.bucket import staged_workers, staging, tree
from cluster.bucket.object_store import ObjectStore
from cluster.bucket.working_copy import WorkingCopy


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkingCopy]:
    """What is over 1,000 bytes counts as large, and calls are followed closely."""
    monkeypatch.setattr(tree, "SMALL_BYTES", 1000)
    for module in (staging, staged_workers):
        monkeypatch.setattr(module, "FOLLOW_SECONDS", 0.05)
    monkeypatch.setenv("TOURNAMENT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "store").mkdir()
    opened = WorkingCopy(tmp_path / "run", ObjectStore(f"file://{tmp_path}/store")).open()
    yield opened
    if not opened._closing.is_set():
        opened.close()
