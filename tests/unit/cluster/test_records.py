"""Records on disk, and settings of a user."""

import json
import math
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from cluster.errors import BrokenRecord
from cluster.records import Record, Settings, StoredPath


class Entry(Record):
    """A record to try."""

    FORMAT = 2
    loss: float
    folder: StoredPath
    elsewhere: StoredPath | None = None


class Section(Settings):
    """Settings to try."""

    learning_rate: float = Field(1.0, alias="rate")
    rank: int = 8


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    return Entry(loss=0.5, folder=tmp_path / "run" / "sub", elsewhere=Path("/data/model"))


def test_what_is_read_is_what_was_written_and_nothing_else_lies_there(entry: Entry, tmp_path: Path):
    path = tmp_path / "run" / "entry.json"
    assert Entry.read_if_there(path) is None
    entry.write(path, tmp_path / "run")
    assert Entry.read(path, tmp_path / "run") == entry
    assert [file.name for file in path.parent.iterdir()] == ["entry.json"]
    assert json.loads(path.read_text())["format"] == 2


def test_paths_follow_a_root_that_is_moved(entry: Entry, tmp_path: Path):
    entry.write(tmp_path / "run" / "entry.json", tmp_path / "run")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    read = Entry.read(moved / "entry.json", moved)
    assert (read.folder, read.elsewhere) == (moved / "sub", Path("/data/model"))


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_come_back(entry: Entry, tmp_path: Path, loss: float):
    entry.model_copy(update={"loss": loss}).write(tmp_path / "entry.json")
    read = Entry.read(tmp_path / "entry.json").loss
    assert read == loss or (math.isnan(read) and math.isnan(loss))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format": 2, "loss": 0.', "is cut off or damaged .*: remove it, and the same command"),
        ("", "is cut off or damaged"),
        ("[" * 10**5, "is cut off or damaged"),
        ('{"format": 3, "new": 1}', r"was written by a newer version .*\(format 3, known here is 2\)"),
        ('{"format": 1}', r"was written by another version .*\(format 1, known here is 2\).* --run-dir"),
        ('{"loss": 0.5}', r"was written by another version .*\(format none, known here is 2\)"),
        ("[]", r"was written by another version"),
        ('{"format": 2, "loss": "low", "folder": "x"}', "loss: Input should be a valid number"),
        ('{"format": 2, "loss": 1, "folder": "x", "more": 1}', "more: Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, words: str):
    path = tmp_path / "entry.json"
    path.write_text(text)
    with pytest.raises(BrokenRecord, match=rf"^{path}: {words}"):
        Entry.read_if_there(path)


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    assert Section.model_validate({"rate": 2}).learning_rate == Section(learning_rate=2).learning_rate == 2
    with pytest.raises(ValidationError, match='unknown key "rnk"; did you mean "rank"'):
        Section.model_validate({"rnk": 4})
    with pytest.raises(ValidationError, match='unknown key "colour"; known are rank, rate'):
        Section.model_validate({"colour": 4})
