"""What a competitor reports, and what is made of it where it is nonsense."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from competitors import events
from competitors.events import READ_BYTES, Event, EventReader, read_events, reporter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "progress.jsonl"


def test_what_is_reported_is_read_back_with_its_time(path: Path):
    report = reporter(path)
    report({"event": "step", "tokens": 12, "step": 3, "loss": 1.5, "seconds": 2})
    report({"event": "checkpoint", "fraction": 0.5, "folder": "checkpoint-3"})
    step, checkpoint = read_events(path)
    assert (step.event, step.tokens, step.step, step.loss, step.seconds) == ("step", 12, 3, 1.5, 2.0)
    assert step.time is not None
    assert step.learning_rate is None
    assert (checkpoint.fraction, checkpoint.folder, checkpoint.tokens) == (0.5, "checkpoint-3", None)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("tokens", None, "report: tokens is None, no count: left out"),
        ("tokens", "12", "report: tokens is '12', no count: left out"),
        ("tokens", True, "report: tokens is True, no count: left out"),
        ("tokens", -1, "report: tokens is -1, no count: left out"),
        ("tokens", 1.5, "report: tokens is 1.5, no count: left out"),
        ("tokens", 2**53, f"report: tokens is {2**53}, no count: left out"),
        ("tokens", float("nan"), "report: tokens is nan, no count: left out"),
        ("tokens", [[1]], "report: tokens is a list, no count: left out"),
        ("loss", float("nan"), "report: loss is nan, no number that it can be: left out"),
        ("loss", float("inf"), "report: loss is inf, no number that it can be: left out"),
        ("loss", "low", "report: loss is 'low', no number that it can be: left out"),
        ("loss", False, "report: loss is False, no number that it can be: left out"),
        ("loss", 10**400, f"report: loss is {'1' + '0' * 38}…, no number that it can be: left out"),
        ("seconds", -1.0, "report: seconds is -1.0, no number that it can be: left out"),
        ("text", {"a": 1}, "report: text is an object, no text: left out"),
        ("accuracy", 0.5, "report: accuracy is no field that is known: left out"),
    ],
)
def test_a_wrong_field_is_left_out_and_said_once(path: Path, field: str, value: Any, words: str):
    reader, report = EventReader(path), reporter(path)
    for _ in range(3):
        report({"event": "step", "step": 7, field: value})
    found = reader.read()
    assert [(event.step, getattr(event, field, None)) for event in found] == [(7, None)] * 3
    assert reader.complaints() == [words]
    assert reader.complaints() == []
    report({"event": "step", field: value})
    assert len(reader.read()) == 1
    assert reader.complaints() == []


def test_numbers_of_numpy_and_torch_and_whole_floats_count(path: Path):
    told = {"tokens": np.int64(5), "loss": torch.tensor(0.5), "step": 12.0, "learning_rate": np.float32(0.25)}
    reporter(path)({"event": "step", **told})
    (event,) = read_events(path)
    assert (event.tokens, event.loss, event.step, event.learning_rate) == (5, 0.5, 12, 0.25)


def test_an_event_that_is_not_known_is_passed_over_and_said(path: Path):
    reader, report = EventReader(path), reporter(path)
    report({"event": "stepp", "tokens": 1})
    report({"tokens": 1})
    report({"event": ["step"]})
    assert reader.read() == []
    assert reader.complaints() == [
        "report: event 'stepp' is not known: left out",
        "report: event None is not known: left out",
        "report: event a list is not known: left out",
    ]


def test_text_is_one_plain_line(path: Path):
    reporter(path)({"event": "note", "text": "\x1b[2Jgone\nand " + "x" * 5000})
    (event,) = read_events(path)
    assert str(event.text).startswith("[2Jgone and x")
    assert len(str(event.text)) == 300


@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 1000,
        b"\xff\xfe",
        b"not json",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"17",
        b'"step"',
        b'{"event": "step", "tokens": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_line_that_is_no_event_is_passed_over(path: Path, line: bytes):
    path.write_bytes(line + b'\n\n{"event": "step", "tokens": 5}\n')
    reader = EventReader(path)
    assert [event.tokens for event in reader.read()] == [5]
    assert reader.complaints() == ["report: a line is no JSON object: left out"]


def test_a_huge_line_is_skipped_in_pieces(path: Path, monkeypatch: pytest.MonkeyPatch):
    """A gigabyte without a newline, of holes: nothing like it is ever in memory."""
    good = b'{"event": "step", "tokens": 5}\n'
    path.write_bytes(good)
    with path.open("r+b") as stream:
        stream.seek(len(good) + 2**30)
        stream.write(b"\n" + good)
    sizes = list[int]()
    reader = EventReader(path)
    block = EventReader._block

    def watched(self: EventReader) -> tuple[bytes, bool]:
        data, is_full = block(self)
        sizes.append(len(data))
        return data, is_full

    monkeypatch.setattr(EventReader, "_block", watched)
    found = list[Event]()
    for _ in range(2**30 // READ_BYTES + 2):
        found += reader.read()
    assert [event.tokens for event in found] == [5, 5]
    assert max(sizes) == READ_BYTES
    assert reader.offset == path.stat().st_size
    assert reader.complaints() == ["report: a line is longer than 1 MiB: left out"]


def test_whole_lines_only_and_each_once(path: Path):
    reader = EventReader(path)
    assert reader.read() == []
    with path.open("a") as stream:
        stream.write('{"event": "step", "tokens": 1}\n{"event": "st')
        stream.flush()
        assert [event.tokens for event in reader.read()] == [1]
        assert reader.read() == []
        stream.write('ep", "tokens": 2}\n')
        stream.flush()
        assert [event.tokens for event in reader.read()] == [2]
    again = EventReader(path, offset=reader.offset)
    assert again.read() == EventReader(path, from_end=True).read() == []
    assert [event.tokens for event in EventReader(path).read()] == [1, 2]


def test_many_lines_take_several_calls_and_read_events_takes_them_all(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "READ_BYTES", 100)
    path.write_text("".join(json.dumps({"event": "step", "step": n}) + "\n" for n in range(50)))
    reader = EventReader(path)
    assert 0 < len(reader.read()) < 5
    assert [event.step for event in read_events(path)] == list(range(50))


def test_who_wants_the_newest_only_passes_over_what_lies_far_behind(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events, "READ_BYTES", 100)
    path.write_text("".join(json.dumps({"event": "step", "step": n}) + "\n" for n in range(50)))
    reader = EventReader(path)
    reader.catch_up()
    assert [event.step for event in reader.read()] == [47, 48, 49]
    assert reader.complaints() == []


def test_nothing_but_a_plain_file_is_read(path: Path, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text('{"event": "step", "tokens": 1}\n')
    path.symlink_to(secret)
    assert EventReader(path).read() == []
    path.unlink()
    os.mkfifo(path)
    assert EventReader(path).read() == []  # and it does not wait for a writer
    path.unlink()
    path.mkdir()
    assert read_events(path) == []


def test_a_file_that_was_cut_shorter_is_read_on_from_its_end(path: Path):
    reader, report = EventReader(path), reporter(path)
    report({"event": "step", "text": "x" * 200})
    assert len(reader.read()) == 1
    path.write_text("")
    assert reader.read() == []
    report({"event": "step", "tokens": 2})
    assert [event.tokens for event in reader.read()] == [2]


def test_what_a_killed_process_left_half_written_spoils_no_line_after_it(path: Path):
    path.write_text('{"event": "step", "tokens": 1}\n{"event": "st')
    reporter(path)({"event": "step", "tokens": 2})
    assert [event.tokens for event in read_events(path)] == [1, 2]


def test_complaints_are_bounded(path: Path):
    report, reader = reporter(path), EventReader(path)
    for number in range(1000):
        report({"event": "step", f"field {number}": 1})
    assert len(reader.read()) == 1000
    assert len(reader.complaints()) == events.MAX_COMPLAINTS


def test_an_opened_file_is_read_whatever_becomes_of_its_path(path: Path):
    path.touch()
    with path.open("rb") as stream:
        reader = EventReader(path, stream=stream)
        reporter(path)({"event": "step", "tokens": 1})
        path.unlink()
        path.write_text('{"event": "step", "tokens": 2}\n')
        assert [event.tokens for event in reader.read()] == [1]
        assert reader.read() == []
