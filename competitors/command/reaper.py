"""Runs the program of kind `command` and ends everything that it started; a script of its own process.

    python reaper.py PARENT SCRATCH RUNNING FILE_BYTES PROGRAM [ARGUMENT]...

It stands between the worker and the program, and outlives both for a moment: when the program ends, when the
worker asks (SIGTERM) or is itself killed, every descendant is killed, daemons and sessions of their own
included, and the scratch folder is deleted, and last the file RUNNING: whoever settles what the program left
waits for that. Then it exits with the program's code (128 + signal).
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
AWAITED = (signal.SIGTERM, signal.SIGCHLD)
KILL_SECONDS = 10
NOT_FOUND = 127


def main(parent: int, scratch: Path, running: Path, file_bytes: int, program: list[str]) -> int:
    """Run `program` until it ends, or we are told to; its exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)  # taken by sigwait, so that nothing interrupts the end
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans become our children, not init's
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    code = 128 + signal.SIGTERM
    try:
        if os.getppid() == parent:  # else it died before we could ask to be told
            limit(file_bytes)
            code = run(program)
    finally:
        if end_descendants():
            running.unlink(missing_ok=True)
        remove(scratch)
    return code


def run(program: list[str]) -> int:
    """Start the program and bury every child that dies, until it does or SIGTERM comes; its exit code."""
    changed = [signal.SIGPIPE, signal.SIGXFSZ]  # Python ignores these two, and a child would inherit that
    try:
        child = os.posix_spawnp(program[0], program, os.environ, setsid=True, setsigmask=[], setsigdef=changed)
    except OSError as error:
        print(f"{program[0]}: {error.strerror}", file=sys.stderr)
        return NOT_FOUND
    while signal.sigwait(AWAITED) == signal.SIGCHLD:
        for pid, status in bury():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
    return 128 + signal.SIGTERM


def bury() -> list[tuple[int, int]]:
    """Take note of the children that have died: their process ids and statuses."""
    dead = []
    with suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            dead.append(one)
    return dead


def limit(file_bytes: int) -> None:
    """No core dumps, no file beyond the disk quota, and first in line when the kernel runs out of memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    allowed = file_bytes if hard == resource.RLIM_INFINITY else min(file_bytes, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, allowed))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def end_descendants() -> bool:
    """Kill and bury until there are none: what forks while it is being looked for is found the next time.

    False when some would not die in KILL_SECONDS: those that wait in the kernel for a disk that is gone.
    """
    deadline = time.monotonic() + KILL_SECONDS
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        bury()
        time.sleep(0.005)
    return not left


def remove(folder: Path) -> None:
    """Delete a folder whatever it holds. Python's own rmtree recurses, and can be made to overflow its stack."""
    for words in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        subprocess.run([*words, "--", folder], env={"PATH": os.defpath}, capture_output=True, check=False)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]))
