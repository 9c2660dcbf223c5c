"""An entry's log: bounded while it is written, harmless when the entry has ended, and never something else's file."""

import os
from pathlib import Path

import pytest

from competitors import log as logs
from competitors.log import conclude, note, shorten


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


@pytest.mark.parametrize("length", [0, 5, 19, 20, 21, 35, 1000])
@pytest.mark.parametrize("longest", [20, 40, 130])
def test_both_ends_of_a_long_log_stay_however_often_it_is_shortened(log: Path, length: int, longest: int):
    printed = bytes(32 + number % 90 for number in range(length))
    with log.open("ab", buffering=0) as stream:  # goes on appending
        for start in range(0, length, 7):
            stream.write(printed[start : start + 7])
            shorten(log, longest, keep=10)
            assert log.stat().st_size <= max(longest, 60)
        for _ in range(2):
            shorten(log, 20, keep=10)
    kept = printed[:10] + f"\n[... {length - 20:,} bytes left out ...]\n".encode() + printed[-10:]
    assert log.read_bytes() == (printed if length <= 20 else kept)


def test_what_has_ended_leaves_plain_text_and_how_it_ended(log: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "KEEP_BYTES", 1000)
    note(log, "its process died: trying again")
    with log.open("ab") as stream:
        stream.write(b"\x1b[31mred\x1b[0m \xff\x00\x07 of \xe2\x80\xaegnol\r\n10%\r20%\r100%\n\ttab \xc3\xa9\n")
        stream.write(b"get https://me:hunter2@host/x\nno end")
    log.with_name("log-1.txt").write_bytes(b"of a gang's \x1b[1mother\n")
    conclude(log, "forfeit: ran out of memory")
    first, *lines, last = log.read_text().splitlines()
    assert first.endswith(" its process died: trying again")
    assert lines == ["red � of gnol", "10%", "20%", "100%", "\ttab é", "get https://…@host/x", "no end"]
    assert last.endswith(" forfeit: ran out of memory")
    assert log.with_name("log-1.txt").read_text() == "of a gang's other\n"


def test_one_that_is_long_at_the_end_is_cut_to_its_ends(log: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "KEEP_BYTES", 1000)
    log.write_bytes(b"x" * 10_000)
    conclude(log, "delivered: used its budget")
    text = log.read_text()
    assert len(text) < 2150
    assert "[... 8,000 bytes left out ...]" in text


def test_what_lies_in_its_place_is_neither_read_nor_written(log: Path, tmp_path: Path):
    other = tmp_path / "rows"
    other.write_text("held out" * 1000)
    log.symlink_to(other)
    shorten(log, 20, keep=10)
    conclude(log, "forfeit: crashed")
    assert other.read_text() == "held out" * 1000
    assert not log.is_symlink()
    (line,) = log.read_text().splitlines()
    assert line.endswith(" forfeit: crashed")
    log.unlink()
    os.mkfifo(log)
    conclude(log, "forfeit: crashed again")
    assert log.read_text().endswith(" forfeit: crashed again\n")


def test_an_entry_that_never_ran_has_one_too(log: Path):
    conclude(log, "forfeit: needs 9 GPUs")
    assert log.read_text().endswith(" forfeit: needs 9 GPUs\n")
