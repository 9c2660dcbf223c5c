"""The process of its own says what looking here says, and what exceeds its limits is a reason."""

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Forfeit
from evaluation.submissions import apart
from evaluation.submissions.apart import examine_apart
from evaluation.submissions.asked import Asked, asked_by
from evaluation.submissions.examination import examine
from tests.tiny import tiny_model
from tests.unit.evaluation.submissions.zoo.spoiling import configured


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base") / "seed")


@pytest.fixture(scope="module")
def asked(seed: Path) -> Asked:
    return asked_by(seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "m", seed=1)


def test_it_says_what_looking_here_says(folder: Path, asked: Asked):
    assert examine_apart(folder, "full", asked) == examine(folder, "full", asked)
    configured(is_causal=False)(folder)
    with pytest.raises(Forfeit, match=r"config\.json says is_causal: False"):
        examine_apart(folder, "full", asked)


def test_a_path_from_the_current_folder_is_found(folder: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder.parent)
    of_the_seed = asked_by(Path(os.path.relpath(asked.stored["embed_tokens.weight"].file.parent)))
    assert examine_apart(Path("m"), "full", of_the_seed) == examine(folder, "full", asked)


def test_more_memory_than_it_may_have_is_a_reason(folder: Path, asked: Asked):
    with (folder / "config.json").open("w") as stream:  # half a million small objects
        stream.write('{"model_type": "llama", "x": [' + "[{}]," * 200_000 + "{}]}")
    with pytest.raises(Forfeit, match=r"needs more than 0\.[0-9] GiB of memory to be looked at|cannot be read|x: "):
        examine_apart(folder, "full", asked, memory=150 * 2**20)


def test_more_time_than_it_may_have_is_a_reason(folder: Path, asked: Asked):
    with pytest.raises(Forfeit, match="its inspection took more than 0 s"):
        examine_apart(folder, "full", asked, seconds=0.01)


def test_an_end_without_an_answer_is_nobodys_reason(folder: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(apart.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with code 1 and without an answer"):
        examine_apart(folder, "full", asked)


def test_a_disk_that_fails_is_no_forfeit(folder: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch):
    said = f'{{"storage": [{errno.EIO}, "{os.strerror(errno.EIO)}", "/a/file"]}}'.encode()

    def answer(*args: Any, **settings: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess([], 0, said, b"")

    monkeypatch.setattr(apart.subprocess, "run", answer)
    with pytest.raises(OSError, match="Input/output error"):
        examine_apart(folder, "full", asked)


def test_links_of_the_hubs_cache_are_files_where_a_person_gave_the_folder(tmp_path: Path, folder: Path, asked: Asked):
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "abc", tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    shutil.move(folder, blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", file.name))
    assert examine(snapshot, "full", asked, hub_links=True).distance is not None
    with pytest.raises(Forfeit, match="holds a link"):
        examine(snapshot, "full", asked)
    (snapshot / "vocab.json").symlink_to("/etc/passwd")
    with pytest.raises(Forfeit, match=r"holds a link, vocab\.json"):
        examine(snapshot, "full", asked, hub_links=True)
