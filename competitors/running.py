"""Whether processes that an entry started may still write to its output.

A file says so. It is there before they are, and is removed after the last of them by whoever ends them. It holds
the name of the machine: where that is gone, so are they, and nobody is left to remove it.
"""

import os
import time
from pathlib import Path

ENDING_SECONDS = 60


def mark(file: Path) -> None:
    """Say that processes of this machine may write from now on."""
    file.write_text(_machine(), encoding="utf-8")


def wait_until_ended(file: Path) -> bool:
    """Wait until nothing can write any more; False when that is not so ENDING_SECONDS later."""
    deadline = time.monotonic() + ENDING_SECONDS
    while file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_of_this_machine(file: Path) -> bool:
    """Whether the processes that the file speaks of are this machine's, as it has been running since."""
    try:
        return file.read_text(encoding="utf-8") == _machine()
    except FileNotFoundError:
        return False


def _machine() -> str:
    """A kernel since its start, and the container on it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{boot.read_text(encoding='utf-8').strip() if boot.exists() else ''} {os.readlink('/proc/self/ns/pid')}"
