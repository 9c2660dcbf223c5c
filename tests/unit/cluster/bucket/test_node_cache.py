"""What a node has fetched: once, as much as is allowed, and never less than what is in use."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.bucket.blobs import Blob, Blobs
from cluster.bucket.node_cache import NodeCache
from cluster.bucket.object_store import ObjectStore
from cluster.errors import ClusterTrouble
from cluster.store import LOCAL

SPAWN = multiprocessing.get_context("spawn")
WAIT_SECONDS = 60


class Watched(Blobs):
    """Which notes each fetch in a file, and is as slow as that file's neighbour `hold` is there."""

    def __init__(self, store: ObjectStore, notes: Path) -> None:
        super().__init__(store)
        self.notes = notes

    def fetch(self, blob: Blob, path: Path) -> None:
        with self.notes.open("a") as file:
            file.write(f"{blob.sha256}\n")
        path.write_bytes(b"half")
        until(lambda: not self.notes.with_name("hold").exists())
        super().fetch(blob, path)

    @property
    def fetches(self) -> list[str]:
        return self.notes.read_text().split() if self.notes.exists() else []


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def blobs(tmp_path: Path) -> Watched:
    (tmp_path / "store").mkdir()
    return Watched(ObjectStore(str(tmp_path / "store")), tmp_path / "notes")


def stored(blobs: Blobs, folder: Path, **files: bytes) -> Blob:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return blobs.put_folder(folder)


def cached(cache: NodeCache) -> set[str]:
    return {path.name for path in (cache.root / "blobs").iterdir()}


def test_a_folder_is_fetched_once_and_can_only_be_read(blobs: Watched, tmp_path: Path):
    model = stored(blobs, tmp_path / "model", weights=b"w" * 100, config=b"{}")
    cache = NodeCache(tmp_path / "cache", blobs, 10_000)
    for _ in range(2):
        with cache.folder(model) as folder:
            assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"weights": b"w" * 100, "config": b"{}"}
            assert (folder / "weights").stat().st_mode & 0o777 == 0o444
            assert folder.stat().st_mode & 0o777 == 0o555
    assert len(blobs.fetches) == 3
    assert list((cache.root / "views").iterdir()) == []


def test_files_that_folders_share_are_fetched_once(blobs: Watched, tmp_path: Path):
    one = stored(blobs, tmp_path / "one", weights=b"w" * 100, config=b"1")
    two = stored(blobs, tmp_path / "two", weights=b"w" * 100, config=b"2")
    cache = NodeCache(tmp_path / "cache", blobs, 10_000)
    with cache.folder(one) as first, cache.folder(two) as second:
        assert os.path.samefile(first / "weights", second / "weights")
    assert len(blobs.fetches) == 5


def test_the_least_recently_used_goes_first(blobs: Watched, tmp_path: Path):
    a, b, c = (blobs.put_text(letter * 100) for letter in "abc")
    cache = NodeCache(tmp_path / "cache", blobs, 250)
    for blob in (a, b, a):
        with cache.file(blob):
            pass
    with cache.file(c) as path:
        assert path.read_bytes() == b"c" * 100
    assert cached(cache) == {a.sha256, c.sha256}


def test_what_is_in_use_is_not_taken(blobs: Watched, tmp_path: Path):
    a, b, c = (blobs.put_text(letter * 100) for letter in "abc")
    cache = NodeCache(tmp_path / "cache", blobs, 250)
    with cache.file(a) as path:
        for blob in (b, c):
            with cache.file(blob):
                pass
        assert cached(cache) == {a.sha256, c.sha256}
        assert path.read_bytes() == b"a" * 100


def test_what_is_being_fetched_takes_its_room_too(blobs: Watched, tmp_path: Path):
    a, b, coming = (blobs.put_text(letter * 100) for letter in "abc")
    cache = NodeCache(tmp_path / "cache", blobs, 250)
    with cache.file(a):
        pass
    with LOCAL.locked(cache.root / "locks" / coming.sha256, wait=False):  # by another process
        (cache.root / "partial" / f"{coming.sha256}.{coming.size}").touch()
        with cache.file(b):
            assert cached(cache) == {b.sha256}


def test_it_is_this_users_alone_and_takes_half_of_what_its_disk_has(
    blobs: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOURNAMENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=500))
    cache = NodeCache.of_this_machine(blobs)
    assert cache.root.stat().st_mode & 0o777 == 0o700
    assert cache.limit_bytes == 250
    with cache.file(blobs.put_text("a" * 100)):
        assert NodeCache.of_this_machine(blobs).limit_bytes == 300  # what it holds itself is its own


def test_work_goes_before_the_limit(blobs: Watched, tmp_path: Path):
    model = stored(blobs, tmp_path / "model", one=b"1" * 100, two=b"2" * 100)
    cache = NodeCache(tmp_path / "cache", blobs, 50)
    with cache.folder(model) as folder:
        assert (folder / "one").read_bytes() + (folder / "two").read_bytes() == b"1" * 100 + b"2" * 100
    assert len(blobs.fetches) == 3
    assert cached(cache) == set()  # as soon as nobody uses it


def test_a_spoilt_file_is_noticed_and_fetched_again(blobs: Watched, tmp_path: Path):
    blob = blobs.put_text("a" * 100)
    cache = NodeCache(tmp_path / "cache", blobs, 1000)
    with cache.file(blob) as path:
        path.chmod(0o644)  # as root might, or whoever owns it
        path.write_bytes(b"b" * 100)
    with cache.file(blob) as path:
        assert path.read_bytes() == b"a" * 100
    assert len(blobs.fetches) == 2


def test_without_links_it_is_a_copy(blobs: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_links(*names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    blob = blobs.put_text("content")
    monkeypatch.setattr(os, "link", no_links)
    cache = NodeCache(tmp_path / "cache", blobs, 1000)
    with cache.file(blob) as path:
        assert path.read_text() == "content"
        assert path.stat().st_nlink == 1


def test_a_download_that_fails_leaves_no_room_taken(blobs: Watched, tmp_path: Path):
    blob = blobs.put_text("content")
    blobs.store.delete(blobs.key(blob))
    cache = NodeCache(tmp_path / "cache", blobs, 1000)
    with pytest.raises(ClusterTrouble, match="is not there"), cache.file(blob):
        pass
    assert [*(cache.root / "partial").iterdir(), *(cache.root / "views").iterdir(), *cached(cache)] == []


def use(blobs: Blobs, root: Path, blob: Blob, said: Path, leave: Path | None) -> None:
    """In a process of its own: write what it was handed to `said`, and keep it until `leave` is there."""
    said.with_suffix(".asks").touch()
    with NodeCache(root, blobs, 250).file(blob) as path:
        content = path.read_bytes()
        said.with_suffix(".tmp").write_bytes(content)
        os.replace(said.with_suffix(".tmp"), said)
        until(lambda: leave is None or leave.exists())


@pytest.fixture
def start(blobs: Watched, tmp_path: Path):
    """Starts processes that use a blob."""
    started: list[BaseProcess] = []

    def start(blob: Blob, name: str, leave: Path | None = None) -> BaseProcess:
        process = SPAWN.Process(target=use, args=(blobs, tmp_path / "cache", blob, tmp_path / name, leave))
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def test_many_processes_wait_for_one_download_and_a_killed_one_holds_nobody_up(
    blobs: Watched, tmp_path: Path, start: Callable[..., BaseProcess]
):
    blob = blobs.put_text("a" * 100)
    (tmp_path / "hold").touch()
    first = start(blob, "first")
    until(lambda: len(blobs.fetches) == 1)
    others = [start(blob, f"other-{n}") for n in range(2)]
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: len(blobs.fetches) == 2)  # one of those that waited is at it now
    until(lambda: all((tmp_path / f"other-{n}.asks").exists() for n in range(2)))
    time.sleep(0.1)
    (tmp_path / "hold").unlink()
    for other in others:
        other.join(WAIT_SECONDS)
    assert [other.exitcode for other in others] == [0, 0]
    assert [(tmp_path / f"other-{n}").read_bytes() for n in range(2)] == [b"a" * 100] * 2
    assert not (tmp_path / "first").exists()
    assert len(blobs.fetches) == 2


def test_what_another_process_uses_is_kept_until_it_is_killed(
    blobs: Watched, tmp_path: Path, start: Callable[..., BaseProcess]
):
    a, b, c, d = (blobs.put_text(letter * 100) for letter in "abcd")
    user = start(a, "user", tmp_path / "never")
    until((tmp_path / "user").exists)
    cache = NodeCache(tmp_path / "cache", blobs, 250)
    for blob in (b, c):
        with cache.file(blob):
            pass
    assert cached(cache) == {a.sha256, c.sha256}
    user.kill()
    user.join()
    with cache.file(d):
        assert cached(cache) == {c.sha256, d.sha256}
        assert len(list((cache.root / "views").iterdir())) == 1


def test_threads_that_come_and_go_lose_nothing(blobs: Watched, tmp_path: Path):
    all_of_them = [blobs.put_text(letter * 100) for letter in "abcdef"]
    cache = NodeCache(tmp_path / "cache", blobs, 250)
    wrong: list[bytes] = []

    def work(start: int) -> None:
        for turn in range(12):
            blob = all_of_them[(start + turn * (start + 1)) % 6]
            with cache.file(blob) as path:
                content = path.read_bytes()
                if content != "abcdef"[(start + turn * (start + 1)) % 6].encode() * 100:
                    wrong.append(content)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert list((cache.root / "views").iterdir()) == list((cache.root / "partial").iterdir()) == []
    assert 0 < len(cached(cache)) <= 2
