"""Watching the program of kind `command`: its budget, its memory, its processes, its disk, its words.

The limits are looked at a few times a second, so a program can be over one of them for about so long.
Resident memory is summed over its processes; where that is over the limit, pages that they share are counted
once (PSS of /proc/PID/smaps_rollup) before it is believed.
"""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.errors import Forfeit
from competitors.command.program_output import Log, Progress
from competitors.contract import Allowance
from competitors.untrusted import measure

LOOK_SECONDS = 0.2
DISK_SECONDS = 1.0
STOP_SECONDS = 5.0
"""Between SIGTERM, which a program may use to save what it has, and SIGKILL."""
THREADS_PER_PROCESS = 64


@dataclass(frozen=True)
class Bounds:
    """What one program may use. Times in seconds."""

    budget: Allowance
    startup_seconds: float
    grace_seconds: float
    total_seconds: float
    memory_bytes: int
    disk_bytes: int
    processes: int


@dataclass
class Supervision:
    """One running program under watch. `process` is its reaper, `folders` is all that it can write to."""

    process: subprocess.Popen[bytes]
    bounds: Bounds
    progress: Progress
    log: Log
    folders: list[Path]
    clock: Callable[[], float] = time.monotonic
    memory_bytes: int = 0
    started: float | None = None
    """When its budget began to run."""
    spent: float | None = None
    """When its budget was used up."""
    stopping: float | None = None
    """When it was asked to end."""
    why: str = ""
    disk_seen: float = -DISK_SECONDS

    def __post_init__(self) -> None:
        self.launched = self.clock()

    @property
    def seconds(self) -> float:
        """Of training so far."""
        return 0.0 if self.started is None else self.clock() - self.started

    def follow(self) -> int | None:
        """Watch until the program has ended. Its exit code, or None when it was ended for want of time.

        Raises Forfeit when it goes beyond one of its other limits. The caller ends its processes.
        """
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        next_look = 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while self.process.poll() is None:
                if selector.select(max(0.0, next_look - self.clock())) and not self._listen():
                    selector.unregister(self.process.stdout)
                if self.clock() >= next_look:
                    self._look()
                    next_look = self.clock() + LOOK_SECONDS
                if self.stopping is not None and self.clock() > self.stopping + STOP_SECONDS:
                    return None
        while self._listen():
            pass
        self._look(ended=True)
        return None if self.stopping is not None else self.process.returncode

    def _listen(self) -> bool:
        """Take in some of what it printed; False when there is no more."""
        assert self.process.stdout is not None
        try:
            chunk = os.read(self.process.stdout.fileno(), 2**16)
        except BlockingIOError:
            return False
        self.log.add(chunk)
        return bool(chunk)

    def _look(self, ended: bool = False) -> None:
        """Once over everything: what it reports, what it uses, what time it is."""
        tree = _tree(self.process.pid)
        self.memory_bytes = sum(memory for _, memory, _ in tree)
        self.progress.read()
        self._clock_in()
        self.progress.pass_on(self.seconds, self.memory_bytes >> 20)
        self._check_processes(tree)
        if ended or self.clock() >= self.disk_seen + DISK_SECONDS:
            self.disk_seen, allowed = self.clock(), self.bounds.disk_bytes
            if (used := sum(measure(folder) for folder in self.folders)) > allowed:
                raise Forfeit(f"wrote {used / 1e9:.3g} GB to the disk, more than its {allowed / 1e9:.3g} GB")
        if not ended and self.stopping is None and (why := self._overdue()) is not None:
            self.why, self.stopping = why, self.clock()
            for process, _, _ in tree:
                with suppress(psutil.NoSuchProcess):
                    if process.name() != "bwrap":  # which would take the whole sandbox with it
                        process.send_signal(signal.SIGTERM)

    def _clock_in(self) -> None:
        """The budget begins to run when the program says that training has, or when its start-up has taken long."""
        now = self.clock()
        if self.started is None and (self.progress.started or now > self.launched + self.bounds.startup_seconds):
            self.started = now
            self.progress.report({"event": "started", "tokens": 0, "step": 0})

    def _check_processes(self, tree: list[tuple[psutil.Process, int, int]]) -> None:
        bounds = self.bounds
        if len(tree) > bounds.processes:
            raise Forfeit(f"started more than {bounds.processes} processes")
        if sum(threads for _, _, threads in tree) > bounds.processes * THREADS_PER_PROCESS:
            raise Forfeit(f"started more than {bounds.processes * THREADS_PER_PROCESS:,} threads")
        if self.memory_bytes > bounds.memory_bytes:
            self.memory_bytes = sum(_shared_once(process, memory) for process, memory, _ in tree)
            if self.memory_bytes > bounds.memory_bytes:
                used, allowed = self.memory_bytes / 2**30, bounds.memory_bytes / 2**30
                raise Forfeit(f"ran out of memory: it used {used:.3g} GB of its {allowed:.3g} GB")

    def _overdue(self) -> str | None:
        """Why it has to end now, in words."""
        budget, now, bounds = self.bounds.budget, self.clock(), self.bounds
        spent = [
            f"{limit:g} {what}"
            for what, used, limit in (
                ("seconds", self.seconds, budget.seconds),
                ("tokens", self.progress.tokens, budget.tokens),
                ("steps", self.progress.step, budget.steps),
            )
            if limit is not None and used >= limit
        ]
        if spent and self.spent is None:
            self.spent, self.why = now, f"its budget of {spent[0]} was used up"
        if self.spent is not None and now > self.spent + bounds.grace_seconds:
            return f"was ended {bounds.grace_seconds:g} seconds after {self.why}"
        if now > self.launched + bounds.total_seconds:
            return f"was ended {bounds.total_seconds:g} seconds after its launch"
        return None


def _tree(root: int) -> list[tuple[psutil.Process, int, int]]:
    """All descendants of process `root`, with the resident bytes and the number of threads of each."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(root).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                with process.oneshot():
                    found.append((process, process.memory_info().rss, process.num_threads()))
    return found


def _shared_once(process: psutil.Process, resident: int) -> int:
    """A process's memory with shared pages divided among those that share them; `resident` if that is not told."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0
    except psutil.AccessDenied:
        return resident
