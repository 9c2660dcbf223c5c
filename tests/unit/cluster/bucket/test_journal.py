"""Reading begins at the newest sum, and comes to the same as reading every change."""

from pathlib import Path

import pytest

from cluster.bucket import working_copy
from cluster.bucket.journal import Journal
from cluster.bucket.object_store import ObjectStore
from cluster.bucket.tree import Change, Content
from cluster.bucket.working_copy import StoredFolder, WorkingCopy
from cluster.errors import ClusterTrouble


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    (tmp_path / "store").mkdir()
    return ObjectStore(f"file://{tmp_path}/store")


def change(number: int) -> Change:
    """One of ten files is another, and another one is gone."""
    files = {f"{number % 10}.json": Content(data=b"%d" % number)}
    return Change(removed=[f"{(number + 3) % 10}.json"], files=files)


@pytest.mark.parametrize("sums", [1, 2, 3, 4, 7, 8, 9])
def test_a_sum_stands_for_all_changes_before_it(store: ObjectStore, sums: int):
    journal, last = Journal(store), 0
    for _ in range(sums):
        for number in range(last + 1, last + 4):
            assert journal.append_after(number - 1, change(number))
        journal.sum_up()
        last += 3
    assert journal.append_after(last, change(last + 1))
    whole = Journal(store).read()
    assert whole[1] == last + 1
    for number in range(1, last + 1):
        store.delete(f"journal/{number:08d}")
    assert Journal(store).read() == whole
    store.delete(f"sums/{sums:08d}")
    assert Journal(store).read()[1] < last, "it was that sum"


def test_whoever_sums_up_second_changes_nothing(store: ObjectStore):
    one, other = Journal(store), Journal(store)
    assert one.append_after(0, change(1))
    one.sum_up()
    before = one.read()
    other.sum_up()
    assert [one.read(), other.read(), Journal(store).read()] == [before] * 3


@pytest.mark.parametrize("fails", [False, True])
def test_a_working_copy_sums_up_now_and_then(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool, caplog: pytest.LogCaptureFixture
):
    def down(journal: Journal) -> None:
        raise ClusterTrouble("the store is down")

    monkeypatch.setattr(working_copy, "SUMMED", 5)
    if fails:
        monkeypatch.setattr(Journal, "sum_up", down)
    copy = WorkingCopy(tmp_path / "copy", store).open()
    for number in range(23):
        copy.write_text(copy.root / f"{number % 7}.json", str(number))
    copy.close()
    assert bool(store.list("sums")) is not fails
    assert ("the store is down" in caplog.text) is fails
    seen = StoredFolder(tmp_path / "seen", store)
    seen.look()
    for number in range(16, 23):
        assert (seen.root / f"{number % 7}.json").read_text() == str(number)
