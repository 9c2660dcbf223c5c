"""What is the machine's trouble and what is a competitor's."""

import errno
from pathlib import Path

import pytest

from cluster.errors import BrokenRecord, ClusterTrouble, Forfeit, TournamentError, UserError, machine_trouble
from cluster.workers import DeadlinePassed, WorkerDied


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        try:
            if cause:
                raise cause
        finally:
            raise error
    except Exception as caught:  # noqa: BLE001 - made above
        return caught


FULL = OSError(errno.ENOSPC, "No space left on device", "/run/model")


def test_storage_that_fails_is_wherever_it_was_raised():
    assert machine_trouble(FULL) == "No space left on device: /run/model"
    assert machine_trouble(raised(RuntimeError("cannot save"), FULL)) == "No space left on device: /run/model"
    passed_on = RuntimeError("Error while serializing:\n  I/O error: No space left on device (os error 28)\nbye")
    assert machine_trouble(passed_on) == "  I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize(
    "own",
    [
        RuntimeError("CUDA out of memory"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        PermissionError(errno.EACCES, "Permission denied", "x"),
        PermissionError(errno.EACCES, "Permission denied", "No space left on device.json"),  # a name says nothing
        Forfeit("it printed: No space left on device"),  # a competitor may say what it likes
    ],
)
def test_all_else_is_the_competitors(own: Exception, tmp_path: Path):
    assert machine_trouble(own, needed=[tmp_path]) is None


def test_something_needed_that_is_not_there_is(tmp_path: Path):
    assert machine_trouble(RuntimeError(), [tmp_path, tmp_path / "seed"]) == f"{tmp_path / 'seed'} is not there"


def test_a_chain_that_bites_its_tail_ends():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert machine_trouble(one) is None


def test_the_tree():
    for error in (UserError, BrokenRecord, Forfeit, ClusterTrouble, WorkerDied, DeadlinePassed):
        assert issubclass(error, TournamentError)
    assert issubclass(BrokenRecord, UserError)
    assert issubclass(WorkerDied, ClusterTrouble)
    assert not issubclass(Forfeit, ClusterTrouble | UserError)
