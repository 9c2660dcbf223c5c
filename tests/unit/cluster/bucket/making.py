"""Calls that are staged in this process, and what they do."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from cluster.bucket import tree
from cluster.bucket.object_store import ObjectStore
from cluster.bucket.staged_workers import StagedWorkers
from cluster.bucket.working_copy import WorkingCopy
from cluster.errors import ClusterTrouble
from cluster.in_process import InProcessWorkers
from tests.worker_contract import SMALL

LARGE = b"many weights " * 100


class Work(NamedTuple):
    works_in: Path


def call(copy: WorkingCopy, function: Callable[..., Any], *args: Any) -> Any:
    return asyncio.run(StagedWorkers(InProcessWorkers(), copy).call(SMALL, function, *args))


def names(folder: Path) -> set[str]:
    return {name for name, _ in tree.files_below(folder)}


def look(*paths: Path) -> dict[str, bytes]:
    """All that can be seen from here, by name below the call's own root."""
    top = next(parent for parent in paths[0].parents if parent.parent.parent.name == "views")
    assert str(top).startswith(os.environ["TOURNAMENT_CACHE"])
    return {name: path.read_bytes() for name, path in tree.files_below(top)}


def save(work: Work, text: str, name: str = "scratch/resume.json") -> None:
    (work.works_in / name).parent.mkdir(exist_ok=True)
    (work.works_in / name).write_text(text)


def no_answer(to: str = "create") -> Any:
    """A store that does not do this for a while."""
    return patch.object(ObjectStore, to, side_effect=ClusterTrouble("the store is down"))


@contextmanager
def other_machine(cache: str) -> Iterator[None]:
    own = os.environ["TOURNAMENT_CACHE"]
    os.environ["TOURNAMENT_CACHE"] = cache
    try:
        yield
    finally:
        os.environ["TOURNAMENT_CACHE"] = own
