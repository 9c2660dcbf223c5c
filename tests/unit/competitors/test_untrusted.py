"""What a program has left on the disk is looked at without being followed."""

import json
import os
from pathlib import Path

import pytest

from cluster.errors import Forfeit
from competitors import untrusted
from competitors.untrusted import append, measure, refuse_broken_json, refuse_odd_files, walk


def test_everything_below_a_folder_is_met_and_no_link_is_followed(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(10_000))
    (tmp_path / "up").symlink_to(tmp_path)
    assert sorted(path for path, _ in walk(tmp_path)) == ["a", "a/b", "a/b/file", "up"]
    assert list(walk(tmp_path / "absent")) == []


def test_a_hole_counts_as_what_it_claims(tmp_path: Path):
    with (tmp_path / "hole").open("wb") as stream:
        stream.truncate(2**40)
    assert measure(tmp_path) == 2**40


def test_too_many_and_too_deep_forfeit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(untrusted, "MAX_FILES", 3)
    for number in range(4):
        (tmp_path / str(number)).touch()
    with pytest.raises(Forfeit, match="made more than 3 files"):
        measure(tmp_path)
    monkeypatch.setattr(untrusted, "MAX_FILES", 100)
    monkeypatch.setattr(untrusted, "MAX_DEPTH", 3)
    (tmp_path / "a/b/c/d/e").mkdir(parents=True)
    with pytest.raises(Forfeit, match="made folders more than 3 deep"):
        measure(tmp_path)


def test_names_are_said_plainly(tmp_path: Path):
    (tmp_path / "a\x1b[31m\nb").symlink_to("/etc/passwd")
    with pytest.raises(Forfeit, match=r"left a symbolic link: a \[31m b; only plain"):
        refuse_odd_files(tmp_path)


def test_a_link_or_a_socket_in_the_folders_own_place(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(Forfeit, match="in place of the folder link"):
        refuse_odd_files(tmp_path / "link")
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    with pytest.raises(Forfeit, match="left a pipe, socket or device: pipe"):
        refuse_odd_files(folder)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", 7, None])
def test_an_index_names_only_files_beside_it(tmp_path: Path, name: object):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(Forfeit, match="names something other than a file beside it"):
        refuse_broken_json(tmp_path)


def test_configs_that_can_be_read_pass(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x.safetensors"}}')
    (tmp_path / "notes.json").write_text("{")  # no config
    refuse_broken_json(tmp_path)
    (tmp_path / "tokenizer_config.json").mkdir()
    with pytest.raises(Forfeit, match=r"tokenizer_config\.json is no file"):
        refuse_broken_json(tmp_path)


def test_what_is_appended_goes_into_a_plain_file_or_nowhere(tmp_path: Path):
    file, other = tmp_path / "log.txt", tmp_path / "other"
    append(file, "one\n")
    append(file, "two\n")
    assert file.read_text() == "one\ntwo\n"
    other.write_text("mine")
    (tmp_path / "link").symlink_to(other)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        append(tmp_path / name, "words")
    assert other.read_text() == "mine"
    with pytest.raises(FileNotFoundError):
        append(tmp_path / "gone" / "log.txt", "words")
