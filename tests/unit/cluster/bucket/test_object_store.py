"""What a store promises, on a folder; servers are in tests/integration/test_object_servers.py."""

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.bucket.histories import History
from cluster.bucket.object_store import ObjectStore, Patience
from cluster.bucket.store_errors import what_is_wrong
from cluster.bucket.store_probe import open_store, probe
from cluster.errors import BrokenRecord, ClusterTrouble, UserError
from cluster.store import LOCAL

IN_HASTE = Patience(in_all=0.3, one_request=1, longest_pause=0.1, retries=0)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path), IN_HASTE)


def test_what_was_created_is_read_and_never_created_again(store: ObjectStore):
    assert store.read("a/one") is None
    assert store.create("a/one", b"1\n2")
    assert not store.create("a/one", b"other")
    assert not store.create("a/one", b"1\n2")  # the same content, but somebody else's
    assert store.read("a/one") == b"1\n2"


def test_empty_content_is_content(store: ObjectStore):
    assert store.create("empty", b"")
    assert store.read("empty") == b""


def test_listing_removing_and_sizes(store: ObjectStore):
    for key in ("b/2", "b/1", "c"):
        store.create(key, b"")
    assert store.list() == ["b/1", "b/2", "c"]
    assert store.list("b") == ["b/1", "b/2"]
    assert store.list("nothing") == []
    store.delete("b/1")
    store.delete("b/1")
    assert store.list("b") == ["b/2"]
    assert store.size("b/1") is None


def test_what_a_killed_writer_has_left_is_not_listed(store: ObjectStore, tmp_path: Path):
    (tmp_path / ".one.12345678.tmp").write_bytes(b"half of it")
    assert store.list() == []


@pytest.mark.parametrize("damage", [lambda body: body[:-1], lambda body: body[:20], lambda body: b"", bytes.upper])
def test_damage_is_not_believed(store: ObjectStore, tmp_path: Path, damage: Any):
    store.create("it", b"content")
    (tmp_path / "it").write_bytes(damage((tmp_path / "it").read_bytes()))
    with pytest.raises(BrokenRecord, match="/it: is cut off or damaged"):
        store.read("it")
    with pytest.raises(BrokenRecord):  # who tries to create it is not told that somebody else has
        store.create("it", b"content")


def test_a_file_url_names_the_same_folder(tmp_path: Path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    ObjectStore(str(folder)).create("it", b"1")
    assert ObjectStore(f"file://{str(folder).replace(' ', '%20')}").read("it") == b"1"


def test_it_is_sent_to_other_processes_by_its_url(store: ObjectStore):
    store.create("it", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert (again.url, again.patience, again.read("it")) == (store.url, store.patience, b"1")


class Deaf(ObjectStore):
    """Whose answers to a create are lost, as often as `lost` says, after it has landed or before."""

    lost: list[str] = []

    def _create(self, key: str, body: bytes) -> str | None:
        how = self.lost.pop(0) if self.lost else ""
        if how == "before":
            return "nothing answers"
        said = super()._create(key, body)
        return "nothing answers" if how == "after" else said


@pytest.mark.parametrize("lost", [["after"], ["before"], ["before", "after"], ["after", "after"]])
def test_who_created_it_knows_though_the_answer_was_lost(tmp_path: Path, lost: list[str]):
    store = Deaf(str(tmp_path), IN_HASTE)
    store.lost = list(lost)
    assert store.create("mine", b"1")
    assert store.read("mine") == b"1"
    store.lost = ["after"]
    assert not store.create("mine", b"1")


def test_a_create_that_nothing_answers_ends(tmp_path: Path):
    store = Deaf(str(tmp_path), IN_HASTE)
    store.lost = ["before"] * 99
    with pytest.raises(ClusterTrouble, match=r"/it: cannot be written: nothing answers"):
        store.create("it", b"1")


def test_a_store_that_keeps_its_promise_is_left_as_it_was(tmp_path: Path):
    assert open_store(str(tmp_path / "new" / "runs")).list() == []
    assert list((tmp_path / "new" / "runs").iterdir()) == []


class Overwriting(ObjectStore):
    """Which does not know the condition, as older servers do not."""

    def _create(self, key: str, body: bytes) -> str | None:
        (Path(self.url) / key).write_bytes(body)
        return None


class Generous(ObjectStore):
    """Which looks first and writes then: two who race both find nothing."""

    together = threading.Barrier(2)

    def _create(self, key: str, body: bytes) -> str | None:
        path = Path(self.url) / key
        if path.exists():
            return "something is there"
        with self.lock:
            self.looked += 1
            waits = self.looked > 1  # the first create of the probe has nobody to race with
        if waits:
            self.together.wait(60)
        with LOCAL.writing(path) as temporary:
            temporary.write_bytes(body)
        return None

    lock, looked = threading.Lock(), 0


class Flattering(ObjectStore):
    """Which keeps what is there, and tells everybody that it is theirs."""

    def _create(self, key: str, body: bytes) -> str | None:
        super()._create(key, body)
        return None


def test_a_store_that_tells_everybody_yes_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="overwrites what it was told to create only"):
        probe(Flattering(str(tmp_path)))


def test_a_store_that_overwrites_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="overwrites what it was told to create only"):
        probe(Overwriting(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_lets_two_win_is_refused(tmp_path: Path):
    store = Generous(str(tmp_path))
    store.together = threading.Barrier(32)
    with pytest.raises(UserError, match="of 32 who created one object at once 32 were told that they had"):
        probe(store)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("runs", "runs: give s3://bucket"),
        ("ftp://host/runs", "ftp://host/runs: give s3://bucket"),
        ("s3:///runs", "give s3://bucket"),
        ("s3://bucket/runs?a=b", "give s3://bucket"),
        ("s3://key:secret@bucket/runs", "keys belong into the environment"),
        ("file://host/runs", "give s3://bucket"),
        ("/dev/null", "/dev/null: cannot be made: File exists"),
        ("/proc/nowhere/runs", "/proc/nowhere/runs: cannot be made"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_in_one_line(url: str, why: str):
    with pytest.raises(UserError) as refused:
        open_store(url)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "secret@" not in str(refused.value)


def test_a_folder_that_was_made_for_a_store_that_is_refused_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: object) -> bool:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(ObjectStore, "create", fail)
    with pytest.raises(UserError, match="Read-only"):
        open_store(str(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_stores_words_in_few_and_without_what_was_signed():
    url = "https://it.example/bucket/key?sig=c2VjcmV0"
    said = f"Generic S3 error: Error performing PUT {url} in 3ms, after 3 retries - HTTP error: error sending request"
    assert what_is_wrong(OSError(f"{said}\n\nDebug source:\nGeneric {{ {url}")) == "nothing answers at it.example"
    denied = f"Error performing PUT {url} in 3ms - Server returned non-2xx status code: 403 Forbidden: <Error><Code>"
    denied += "AccessDenied</Code><Message>Access Denied</Message></Error>"
    assert what_is_wrong(OSError(denied)) == "AccessDenied: Access Denied (says it.example)"


def test_a_history_has_no_gap_and_loses_nothing(store: ObjectStore):
    history = History(store, "verdicts")
    assert list(history.after()) == []

    def append(who: int) -> None:
        for count in range(5):
            history.append(f"{who}-{count}".encode())

    writers = [threading.Thread(target=append, args=(who,)) for who in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    numbers, records = zip(*history.after(), strict=True)
    assert list(numbers) == list(range(1, 31))
    assert sorted(records) == sorted(f"{who}-{count}".encode() for who in range(6) for count in range(5))
    assert [number for number, _ in history.after(28)] == [29, 30]


def test_who_decides_by_what_was_read_is_told_that_more_has_come(store: ObjectStore):
    history = History(store, "decisions")
    assert history.append_after(0, b"first")
    assert not history.append_after(0, b"decided without the first")
    assert history.append(b"second", last=1) == 2


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path):
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match=str(tmp_path)):
        open_store(str(tmp_path))
