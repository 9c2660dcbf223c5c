"""Watching an entry from outside: what it reports, and when it has to be ended.

The budget is kept by the competitor; this is the deadline for one that does not. Times are the driver's own
clock, read when a report arrives, so that clocks of other machines do not matter.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from competitors.contract import Brief
from competitors.events import Event, EventReader
from competitors.untrusted import append
from orchestrator.config.sections import Limits
from orchestrator.record.events import EntryChanged, Noted, TournamentEvent


class Watch:
    """One entry under watch: takes in its reports and tells them on as what the entry is doing now."""

    def __init__(
        self, brief: Brief, limits: Limits, now: EntryChanged, tell: Callable[[TournamentEvent], None]
    ) -> None:
        self.brief, self.limits, self.now, self._tell = brief, limits, now, tell
        self.events = EventReader(brief.progress_file, from_end=True)
        self.began = time.time()
        """When it was placed, in seconds since the epoch: the wall clock of what it costs."""
        self.placed: float | None = None
        self.heard = time.monotonic()
        self.started: float | None = None
        self.checkpoints: list[Event] = []

    def is_placed(self) -> None:
        """It has been given its process: the deadlines run from here."""
        self.began, self.placed = time.time(), time.monotonic()
        self.heard = self.placed

    def read(self) -> None:
        """Take in what was reported since, and say in the entry's log what of it was left out."""
        before = self.now
        for event in self.events.read():
            self.heard = time.monotonic()
            if event.event == "started" and self.started is None:
                self.started = self.heard
            if event.event == "checkpoint" and event.fraction is not None and event.folder is not None:
                self.checkpoints.append(event)
            if event.event == "note" and event.text:
                self._tell(Noted(f"{self.name}: {event.text}"))
            self.now = updated(self.now, event)
        if self.now != before:
            self._tell(self.now)
        if complaints := self.events.complaints():
            append(self.brief.log_file, "".join(f"{complaint}\n" for complaint in complaints))
            self._tell(Noted(f"{self.name}: {complaints[0]} (see {self.brief.log_file.name})"))

    @property
    def name(self) -> str:
        """Of the entry, for a line in a log."""
        return f"{self.brief.lineage} round {self.brief.round} {self.brief.competitor}"

    def take_checkpoints(self) -> list[Event]:
        """The checkpoints at rungs of the race that were reported since the last call."""
        taken, self.checkpoints = self.checkpoints, []
        return taken

    def overdue(self) -> str | None:
        """Why the entry has to be ended now, in words; None while it may go on, or still waits for its place."""
        if self.placed is None:
            return None
        return overdue(time.monotonic(), self.placed, self.started, self.heard, self.brief.budget.seconds, self.limits)


def updated(now: EntryChanged, event: Event) -> EntryChanged:
    """What is known of an entry after one more of its reports."""
    news = {key: getattr(event, key) for key in ("tokens", "step", "loss", "seconds")}
    if event.event == "scoring":
        news = {"fraction": event.fraction}
    elif event.event not in ("started", "step", "ended"):
        return now
    return replace(now, **{key: value for key, value in news.items() if value is not None})


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
