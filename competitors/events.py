"""How a competitor reports: JSON lines in progress.jsonl, checked once, where they are read.

A user's own program may write anything at all into that file. Whoever reads it here gets events whose fields are
what they are said to be, is told in words what was left out, and never reads more than READ_BYTES at a time.
"""

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from cluster.records import Record
from cluster.text import plain

READ_BYTES = 2**20
"""Of one call. A line that is longer is none of ours."""
MAX_COMPLAINTS = 50
"""Of one reader: names of fields are the writer's own, and there is no end of them."""

Kind = Literal["loading", "started", "step", "note", "checkpoint", "mark", "scoring", "ended"]
Report = Callable[[dict[str, Any]], None]
"""What a competitor calls: `report({"event": "step", "tokens": 12})`. The time is put in by itself."""


def _whole(value: Any) -> Any:
    """12.0 is a count too: not every language has integers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, BeforeValidator(_whole), Field(strict=True, ge=0, lt=2**53)]
Measure = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Amount = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]
Text = Annotated[str, Field(strict=True), AfterValidator(plain)]


class Event(Record):
    """One line of progress.jsonl. What it does not say is None."""

    event: Kind
    time: Amount | None = None
    """Seconds since the epoch, by the writer's clock."""
    tokens: Count | None = None
    """Training tokens so far."""
    step: Count | None = None
    seconds: Amount | None = None
    """Since the first training step."""
    loss: Measure | None = None
    """Nats per completion token; of a `mark`, on the search's slice."""
    learning_rate: Measure | None = None
    memory_megabytes: Count | None = None
    gpu_memory_megabytes: Count | None = None
    fraction: Amount | None = None
    """Share of the budget at a `checkpoint` of a race or a `mark` of a search; of the rows while `scoring`."""
    folder: Text | None = None
    """Name of the folder that a `checkpoint` or `mark` was saved in, said once that is whole."""
    text: Text | None = None
    """Of a `note`."""


_COUNTS = ("tokens", "step", "memory_megabytes", "gpu_memory_megabytes")
_TEXTS = ("folder", "text")


class EventReader:
    """Reads the new whole lines of a progress.jsonl each time it is asked.

    Whatever lies at `path` instead, a link, a pipe, nothing, holds no events. With `stream` it is that opened file
    that is read, whatever becomes of its path.
    """

    def __init__(self, path: Path, from_end: bool = False, offset: int = 0, stream: BinaryIO | None = None) -> None:
        self.path, self.stream = path, stream
        self.offset = path.stat().st_size if from_end and path.exists() else offset
        """How many bytes are done with."""
        self._is_inside_a_long_line = False
        self._known: set[str] = set()
        self._new: list[str] = []

    def read(self) -> list[Event]:
        """The events since the last call, out of at most READ_BYTES: a long file takes several calls."""
        return self.parse(self._lines(*self._block()))

    def parse(self, lines: bytes) -> list[Event]:
        """The events in whole lines. A line that is none is passed over."""
        events = (self._event(line) for line in lines.splitlines() if line.strip())
        return [event for event in events if event is not None]

    def catch_up(self) -> None:
        """Pass over what lies more than READ_BYTES before the end: for one who wants the newest only."""
        descriptor = self._open()
        if descriptor is not None:
            behind = os.fstat(descriptor).st_size - READ_BYTES
            os.close(descriptor)
            if behind > self.offset:
                self.offset, self._is_inside_a_long_line = behind, True

    def complaints(self) -> list[str]:
        """What was left out since the last call, in words. Each kind of mistake is told once."""
        told, self._new = self._new, []
        return told

    def _block(self) -> tuple[bytes, bool]:
        """The next bytes, and whether there are as many as one call may take."""
        descriptor = self._open()
        if descriptor is None:
            return b"", False
        try:
            self.offset = min(self.offset, os.fstat(descriptor).st_size)
            data = os.pread(descriptor, READ_BYTES, self.offset)
        finally:
            os.close(descriptor)
        return data, len(data) == READ_BYTES

    def _open(self) -> int | None:
        """A descriptor of the plain file, to be closed; None where there is none."""
        if self.stream is not None:
            return os.dup(self.stream.fileno())
        try:
            # Neither is a link followed nor a pipe waited for: what lies there is the competitor's.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        return None

    def _lines(self, data: bytes, is_full: bool) -> bytes:
        """The whole lines in `data`; what is left of them is read again."""
        if self._is_inside_a_long_line:
            skipped, newline, data = data.partition(b"\n")
            self.offset += len(skipped) + len(newline)
            if not newline:
                return b""
            self._is_inside_a_long_line = is_full = False
        whole, newline, rest = data.rpartition(b"\n")
        if is_full and not newline:
            self._is_inside_a_long_line = True
            self.offset += len(rest)
            self._complain("length", f"a line is longer than {READ_BYTES >> 20} MiB: left out")
            return b""
        self.offset += len(whole) + len(newline)
        return whole

    def _event(self, line: bytes) -> Event | None:
        """The event in a line, without its wrong fields; None where it is none."""
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            self._complain("line", "a line is no JSON object: left out")
            return None
        kind = value.get("event")
        if not isinstance(kind, str) or kind not in get_args(Kind):
            self._complain(f"event {kind!s:.40}", f"event {_shown(kind)} is not known: left out")
            return None
        known = {}
        for name, given in value.items():
            if name not in Event.model_fields:
                self._complain(f"field {name:.40}", f"{plain(name, 40)} is no field that is known: left out")
            elif given is None:
                self._complain_of_value(name, given)
            else:
                known[name] = given
        try:
            return Event.model_validate(known)
        except ValidationError as error:
            for name in dict.fromkeys(str(problem["loc"][0]) for problem in error.errors(include_url=False)):
                self._complain_of_value(name, known.pop(name))
            return Event.model_validate(known)

    def _complain_of_value(self, name: str, given: Any) -> None:
        lacks = "no count" if name in _COUNTS else "no text" if name in _TEXTS else "no number that it can be"
        self._complain(f"value {name}", f"{name} is {_shown(given)}, {lacks}: left out")

    def _complain(self, mistake: str, words: str) -> None:
        if mistake not in self._known and len(self._known) < MAX_COMPLAINTS:
            self._known.add(mistake)
            self._new.append(f"report: {words}")


def _shown(value: Any) -> str:
    """A value in a few words, whatever it is."""
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    return plain(repr(value), 40)


def read_events(path: Path) -> list[Event]:
    """All events in a progress.jsonl; a last line cut off by a crash is left out."""
    reader, events, before = EventReader(path), list[Event](), -1
    while reader.offset != before:
        before = reader.offset
        events += reader.read()
    return events


def reported(progress_file: Path) -> tuple[int, float]:
    """The tokens that were reported there last, and the seconds that all tries together reported over."""
    tokens, seconds, before = 0, 0.0, None
    for event in read_events(progress_file):
        tokens = tokens if event.tokens is None else event.tokens
        if event.event not in ("loading", "started") and before is not None and event.time is not None:
            seconds += max(0.0, event.time - before)
        before = event.time
    return tokens, seconds


def trained(progress_file: Path) -> float:
    """The seconds of training that were reported there last: those of a try that goes on count on."""
    return next((event.seconds for event in reversed(read_events(progress_file)) if event.seconds is not None), 0.0)


def reporter(path: Path) -> Report:
    """A report function that appends each event as one JSON line to `path`, stamped with the time."""
    _end_the_last_line(path)

    def report(event: dict[str, Any]) -> None:
        line = json.dumps({**event, "time": time.time()}, default=_number_of, skipkeys=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    return report


def _end_the_last_line(path: Path) -> None:
    """What a killed process has left half written is a line of its own."""
    if path.is_file() and path.stat().st_size:
        with path.open("rb+") as stream:
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")


def _number_of(value: Any) -> Any:
    """A number of numpy's or torch's as Python's; of anything else its words."""
    try:
        return value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return str(value)
