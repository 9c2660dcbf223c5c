"""What the program of kind `command` says: the reports that it writes to a file, and what it prints.

Both are bounded, whatever it writes, and reports are taken over value by value.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from competitors.contract import Event, Report, parse_events
from competitors.untrusted import printable

READ_BYTES = 2**20
MAX_NOTES = 100
COUNTS = ("tokens", "step", "gpu_memory_megabytes")
MEASURES = ("loss", "learning_rate")


@dataclass
class Progress:
    """Passes on what a program reports in a file of its own: at most one step per call, and a few notes.

    `stream` is that file, opened before the program began: whatever it puts in its place is never opened.
    """

    stream: BinaryIO
    report: Report
    offset: int = 0
    notes: int = 0
    started: bool = False
    """Whether it said that training has begun."""
    tokens: int = 0
    step: int = 0
    last: Event = field(default_factory=dict)

    def read(self) -> None:
        """Take in what was written since the last call; notes are passed on."""
        for event in parse_events(self._new_lines()):
            kind = event["event"]
            if kind == "note" and self.notes < MAX_NOTES:
                self.notes += 1
                self.report({"event": "note", "text": printable(str(event.get("text", "")))})
            elif kind in ("started", "step"):
                self.started = True
                self.last |= _checked(event)
        self.tokens, self.step = self.last.get("tokens", self.tokens), self.last.get("step", self.step)

    def pass_on(self, seconds: float, memory_megabytes: int) -> None:
        """Report the last step that was read, if there is a new one, by our own clock and measure of memory."""
        if self.last:
            measured = {"seconds": round(seconds, 3), "memory_megabytes": memory_megabytes}
            self.report({"event": "step", **self.last, **measured})
            self.last = {}

    def _new_lines(self) -> bytes:
        """Whole new lines. Of a program that writes more than READ_BYTES between two calls some are passed over."""
        size = os.fstat(self.stream.fileno()).st_size
        self.offset = max(min(self.offset, size), size - READ_BYTES)
        self.stream.seek(self.offset)
        whole, newline, _ = self.stream.read(READ_BYTES).rpartition(b"\n")
        self.offset += len(whole) + len(newline)
        return whole


def _checked(event: Event) -> Event:
    """The numbers in a report that are numbers: no NaN, nothing infinite, no negative counts."""
    numbers = {k: v for k, v in event.items() if isinstance(v, int | float) and abs(v) < 2**53}
    counts = {key: int(numbers[key]) for key in COUNTS if numbers.get(key, -1) >= 0}
    return counts | {key: float(numbers[key]) for key in MEASURES if key in numbers}


class Log:
    """Keeps the beginning and the end of what a program prints, `keep_bytes` of each at most."""

    def __init__(self, path: Path, keep_bytes: int = 2**20) -> None:
        self.keep_bytes = keep_bytes
        self.stream = path.open("ab", buffering=0)
        self.total = 0
        self.end = bytearray()

    def add(self, chunk: bytes) -> None:
        """Take in what was printed. The beginning is written at once, the end by `close`."""
        self.stream.write(chunk[: max(0, self.keep_bytes - self.total)])
        self.total += len(chunk)
        self.end += chunk
        if len(self.end) > 2 * self.keep_bytes:
            del self.end[: -self.keep_bytes]

    def close(self) -> None:
        """Write the end, after a line on how much was left out before it."""
        shown = min(max(0, self.total - self.keep_bytes), self.keep_bytes)
        left_out = self.total - self.keep_bytes - shown
        if left_out > 0:
            self.stream.write(f"\n[... {left_out:,} bytes left out ...]\n".encode())
        self.stream.write(self.end[len(self.end) - shown :])
        self.stream.close()

    @property
    def last_line(self) -> str:
        """What it printed last, for the reason of a forfeit."""
        lines = [printable(line) for line in self.end[-4096:].decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")
