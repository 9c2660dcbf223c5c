"""Starting Ray again where a node was too late."""

import subprocess
from collections.abc import Callable

import pytest

from tests.ray_start import ATTEMPTS, TOO_LATE, in_time


def starting(*errors: str) -> tuple[Callable[[], str], list[subprocess.Popen[bytes]]]:
    """A start that fails once with each of the errors, and what it has begun."""
    begun, left = list[subprocess.Popen[bytes]](), list(errors)

    def start() -> str:
        begun.append(subprocess.Popen(["sleep", "60"]))
        if left:
            raise RuntimeError(left.pop(0))
        return "up"

    return start, begun


def test_a_node_that_was_too_late_is_killed_and_started_again():
    start, begun = starting(f"it {TOO_LATE}.", f"it {TOO_LATE}.")
    assert in_time(start) == "up"
    *late, up = begun
    assert [process.wait(10) for process in late] == [-9, -9]
    assert up.poll() is None
    up.kill()
    up.wait()


@pytest.mark.parametrize(("error", "starts"), [(TOO_LATE, ATTEMPTS), ("no such option", 1)])
def test_what_else_fails_or_fails_each_time_is_said(error: str, starts: int):
    start, begun = starting(*[error] * ATTEMPTS)
    with pytest.raises(RuntimeError, match=error):
        in_time(start)
    assert len(begun) == starts
    begun[-1].kill()
    begun[-1].wait()
