"""Watching an entry from outside: what it reports, and when it has to be ended.

The budget is kept by the competitor; this is the deadline for one that does not. Times are the driver's own
clock, read when a report arrives, so that clocks of other machines do not matter.
"""

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from competitors.contract import Brief, Event, parse_events
from orchestrator.config import Limits
from orchestrator.views.live import EntryState


class Tail:
    """Reads the new whole lines of a progress.jsonl each time it is asked."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        self.path = path
        self.offset = path.stat().st_size if from_end and path.exists() else 0

    def events(self) -> list[Event]:
        """Events since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            data = stream.read()
        whole, newline, _ = data.rpartition(b"\n")
        self.offset += len(whole) + len(newline)
        return parse_events(whole)


class Watch:
    """One entry under watch."""

    def __init__(self, brief: Brief, limits: Limits, state: EntryState, from_now: bool = False) -> None:
        self.brief, self.limits, self.state = brief, limits, state
        self.tail = Tail(brief.progress_file, from_end=from_now)
        self.placed = self.heard = time.monotonic()
        self.started: float | None = None
        self.checkpoints: list[Event] = []

    def read(self) -> None:
        """Take in what was reported since."""
        for event in self.tail.events():
            self.heard = time.monotonic()
            if event["event"] == "started" and self.started is None:
                self.started = self.heard
            if event["event"] == "checkpoint" and isinstance(event.get("fraction"), int | float):
                self.checkpoints.append(event)
            self.state.update(event)

    def take_checkpoints(self) -> list[Event]:
        """The checkpoints at rungs of the race that were reported since the last call."""
        taken, self.checkpoints = self.checkpoints, []
        return taken

    def overdue(self) -> str | None:
        """Why the entry has to be ended now, in words; None while it may go on."""
        self.read()
        return overdue(time.monotonic(), self.placed, self.started, self.heard, self.brief.budget.seconds, self.limits)

    async def follow(self, work: Awaitable[Any], poll_seconds: float) -> Any:
        """Await `work` while taking in reports."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=poll_seconds)
                self.read()
            return task.result()
        finally:
            task.cancel()


def overdue(
    now: float, placed: float, started: float | None, heard: float, budget_seconds: float | None, limits: Limits
) -> str | None:
    """Whether an entry is to be ended at `now`, and why. All times in seconds of one clock."""
    if started is None:
        if now - placed > limits.startup_minutes * 60:
            return f"had not begun training {limits.startup_minutes:g} minutes after its start"
        return None
    if budget_seconds is not None and now - started > budget_seconds + limits.grace_minutes * 60:
        return f"was still running {limits.grace_minutes:g} minutes past its {budget_seconds:g}-second budget"
    if now - heard > limits.silence_minutes * 60:
        return f"had not reported for {limits.silence_minutes:g} minutes"
    return None
