"""Which processes of a server that a test started are still there."""

import os
from contextlib import suppress

import psutil


def processes_of(session: int) -> list[psutil.Process]:
    """The living processes of a session; one that was started with `start_new_session` has its process id."""
    found = []
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == session and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
