"""What a process that ended under its work can still say, and what its machine says of it.

Ray tells of a process's end only that the connection broke. So each worker process keeps a note, a file on its
node: fatal signals write to it through faulthandler (in C, before the process is gone), and so do SIGTERM and
the ways in which Python code ends its process. Only SIGKILL and an exit in native code leave it empty; for these
the kernel's count of kills for want of memory says more.
"""

import faulthandler
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating point exception": "SIGFPE",
}
"""What faulthandler writes of each signal."""
FATAL, STACK, EXIT = "Fatal Python error: ", "(most recent call first)", "exit code "


@dataclass(frozen=True)
class Vitals:
    """A living process: where it will leave its note, and how often the kernel had killed for want of memory."""

    pid: int
    note: Path
    counter: Path | None
    kills: int


def keep_note(note: Path) -> None:
    """From now on what ends this process is written to `note`."""
    # Open for as long as the process lives: nothing can be opened while it dies.
    stream = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    faulthandler.enable(stream, all_threads=False)
    faulthandler.register(signal.SIGTERM, stream, all_threads=False, chain=True)
    exit_now, own = os._exit, os.getpid()

    def noted_exit(status: int) -> Any:
        if os.getpid() == own:  # a forked child ends in this way too
            note_exit(note, status)
        exit_now(status)

    os._exit = noted_exit
    os.register_at_fork(after_in_child=_speak_for_themselves)


def note_exit(note: Path, status: object) -> None:
    """Write that the process ends itself with that exit status, as SystemExit or os._exit has it."""
    with note.open("a", encoding="utf-8") as stream:
        stream.write(f"\n{EXIT}{exit_code(status)}\n")


def exit_code(status: object) -> int:
    """The exit code that sys.exit makes of what it is given."""
    return 0 if status is None else status if isinstance(status, int) else 1


def vitals(note: Path) -> Vitals:
    """This process's."""
    counter = kill_counter()
    return Vitals(os.getpid(), note, counter, kills(counter))


KILLED_FOR_MEMORY = (
    "its process was killed (SIGKILL), as the kernel does when memory runs out: its count of such kills went up"
)


def how_it_ended(before: Vitals) -> str:
    """In words; to be asked on the machine of a process that has ended."""
    try:
        noted = before.note.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "its process ended, and its note of why is gone"
    if FATAL in noted:
        said = noted.partition(FATAL)[2].splitlines()[0]
        return f"its process died of {SIGNALS.get(said, 'a fatal error')} ({said.lower()})"
    if STACK in noted:
        return "its process was told to end (SIGTERM)"
    if EXIT in noted:
        return ended_itself(int(noted.partition(EXIT)[2].split()[0]))
    if kills(before.counter) > before.kills:
        return KILLED_FOR_MEMORY
    doubt = "whether memory ran out is not known"
    if before.counter is not None:
        doubt = "the kernel's counter does not say that memory ran out"
    return f"its process ended without a word, as SIGKILL ends one; {doubt}"


def ended_itself(code: int) -> str:
    """The words for a process that did."""
    return f"its process ended itself with exit code {code}"


def has_gone(process: int, within_seconds: float) -> bool:
    """Whether the process of this machine with that id ends within that time; waits for it."""
    with suppress(psutil.NoSuchProcess):
        try:
            psutil.Process(process).wait(within_seconds)
        except psutil.TimeoutExpired:
            return False
    return True


def kill_counter(
    cgroups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup"), vmstat: Path = Path("/proc/vmstat")
) -> Path | None:
    """The file in which the kernel counts its kills for want of memory: in this process's cgroup, or at all."""
    with suppress(OSError):
        own = next((line[3:] for line in cgroups.read_text().splitlines() if line.startswith("0::")), "/")
        for counter in (root / own.strip("/") / "memory.events", vmstat):
            if counter.is_file() and "oom_kill " in counter.read_text():
                return counter
    return None


def kills(counter: Path | None) -> int:
    """What the counter says; 0 where there is none."""
    with suppress(OSError):
        for line in counter.read_text().splitlines() if counter else ():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _speak_for_themselves() -> None:
    """In a forked child: what ends it is not what ends the worker."""
    faulthandler.unregister(signal.SIGTERM)
    faulthandler.enable(2, all_threads=False)
