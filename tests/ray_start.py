"""Starting Ray where others are at work: it gives each node 30 seconds, which a busy machine may not keep to."""

from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")

ATTEMPTS = 3
TOO_LATE = "timed out during startup"
"""As Ray says it."""


def in_time(start: Callable[[], T]) -> T:
    """What `start` returns. Where a node was too late, what was begun of it is killed, and it is called again."""
    for _ in range(ATTEMPTS - 1):
        before = set(psutil.Process().children())
        try:
            return start()
        except Exception as error:
            if TOO_LATE not in str(error):
                raise
            for process in set(psutil.Process().children()) - before:
                process.kill()
    return start()
