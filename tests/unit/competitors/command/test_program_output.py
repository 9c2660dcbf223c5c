"""What a program says: its reports, checked and bounded, and what it prints."""

import json
from pathlib import Path
from typing import Any

import pytest

from competitors import events
from competitors.command.program_output import MAX_NOTES, Log, Progress
from competitors.events import EventReader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "progress.jsonl"


def write(path: Path, *lines: dict[str, Any]) -> None:
    with path.open("a") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)


def test_the_last_step_is_passed_on_by_our_own_clock_and_memory(path: Path):
    told = list[dict[str, Any]]()
    progress = Progress(EventReader(path), told.append)
    write(path, {"event": "loading"})
    progress.read()
    assert not progress.started
    write(path, {"event": "step", "step": 1, "tokens": 10, "loss": 2.0}, {"event": "step", "step": 2, "seconds": 1e9})
    progress.read()
    progress.pass_on(1.5, 300)
    progress.pass_on(1.6, 300)  # nothing new
    expected = {"event": "step", "step": 2, "tokens": 10, "loss": 2.0, "seconds": 1.5, "memory_megabytes": 300}
    assert told == [expected]
    assert (progress.started, progress.step, progress.tokens) == (True, 2, 10)


def test_nothing_that_is_no_number_is_counted_and_that_is_said(path: Path):
    told = list[dict[str, Any]]()
    progress = Progress(EventReader(path), told.append)
    write(path, {"event": "step", "step": 4, "tokens": None}, {"event": "step", "tokens": "many"}, {"event": "scoring"})
    progress.read()
    progress.pass_on(0, 0)
    assert (progress.step, progress.tokens) == (4, 0)
    notes = [event["text"] for event in told if event["event"] == "note"]
    assert notes == ["report: tokens is None, no count: left out"]
    assert "tokens" not in told[-1]


def test_notes_are_bounded(path: Path):
    told = list[dict[str, Any]]()
    progress = Progress(EventReader(path), told.append)
    write(path, *[{"event": "note", "text": f"note {number}"} for number in range(3 * MAX_NOTES)])
    progress.read()
    assert [event["text"] for event in told] == [f"note {number}" for number in range(MAX_NOTES)]


def test_of_a_flood_the_newest_counts(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "READ_BYTES", 200)
    progress = Progress(EventReader(path), lambda event: None)
    write(path, *[{"event": "step", "step": number} for number in range(1000)])
    progress.read()
    assert progress.step == 999


def test_what_is_printed_is_on_disk_at_once_and_bounded(tmp_path: Path):
    log, file = Log(tmp_path / "log.txt"), tmp_path / "log.txt"
    log.add(b"first")
    assert file.read_bytes() == b"first"
    for _ in range(100):
        log.add(b"x" * 2**16)
        assert file.stat().st_size <= 3 * 2**20
    log.add(b"last\n")
    assert file.read_bytes().endswith(b"xlast\n")
    log.close()


def test_the_last_line_is_plain_and_not_empty(tmp_path: Path):
    log = Log(tmp_path / "log.txt")
    assert log.last_line == ""
    log.add(b"first\nthe \x1b[31mend\xff\n\n  \n")
    assert log.last_line == "the [31mend�"
    log.close()
