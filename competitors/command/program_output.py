"""What the program of kind `command` says: the reports that it writes to a file, and what it prints.

Both are bounded, whatever it writes.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.text import plain
from competitors.events import EventReader, Report
from competitors.log import shorten

MAX_NOTES = 100
PASSED_ON = ("tokens", "step", "loss", "learning_rate", "gpu_memory_megabytes")
"""Of a program's own report; its time and its memory are measured here."""


@dataclass
class Progress:
    """Passes on what a program reports in a file of its own: at most one step per call, and a few notes.

    The reader's file was opened before the program began: whatever it puts in its place is never opened.
    """

    reader: EventReader
    report: Report
    notes: int = 0
    started: bool = False
    """Whether it said that training has begun."""
    tokens: int = 0
    step: int = 0
    last: dict[str, Any] = field(default_factory=dict)

    def read(self) -> None:
        """Take in what was written since the last call; notes are passed on.

        Of a program that writes more between two calls than is read at once, some is passed over.
        """
        self.reader.catch_up()
        for event in self.reader.read():
            if event.event == "note" and self.notes < MAX_NOTES:
                self.notes += 1
                self.report({"event": "note", "text": event.text or ""})
            elif event.event in ("started", "step"):
                self.started = True
                told = {name: getattr(event, name) for name in PASSED_ON}
                self.last |= {name: value for name, value in told.items() if value is not None}
        for complaint in self.reader.complaints():
            self.report({"event": "note", "text": complaint})
        self.tokens, self.step = self.last.get("tokens", self.tokens), self.last.get("step", self.step)

    def pass_on(self, seconds: float, memory_megabytes: int) -> None:
        """Report the last step that was read, if there is a new one, by our own clock and measure of memory."""
        if self.last:
            measured = {"seconds": round(seconds, 3), "memory_megabytes": memory_megabytes}
            self.report({"event": "step", **self.last, **measured})
            self.last = {}


class Log:
    """Passes on what a program prints to the entry's log, of which both ends are kept."""

    def __init__(self, path: Path) -> None:
        self.path, self.end = path, b""
        self.stream = path.open("ab", buffering=0)

    def add(self, chunk: bytes) -> None:
        """Take in what was printed."""
        self.stream.write(chunk)
        shorten(self.path)
        self.end = (self.end + chunk)[-4096:]

    def close(self) -> None:
        """There is no more."""
        self.stream.close()

    @property
    def last_line(self) -> str:
        """What it printed last, for the reason of a forfeit."""
        lines = [plain(line) for line in self.end.decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")
