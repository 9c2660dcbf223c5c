"""Files and folders by what they hold."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from cluster.bucket.blobs import Blob, Blobs, Folder
from cluster.bucket.object_store import PART_BYTES, ObjectStore
from cluster.errors import BrokenRecord, ClusterTrouble, UserError


class Counting(ObjectStore):
    """Which knows what was uploaded, and can spoil what is downloaded."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.uploads: list[str] = []
        self.spoilt = 0

    def upload(self, key: str, parts: Iterable[bytes], size: int) -> None:
        self.uploads.append(key)
        super().upload(key, parts, size)

    def download(self, key: str, size: int) -> Iterator[bytes]:
        self.spoilt -= 1
        for part in super().download(key, size):
            yield part[:-1] + b"!" if self.spoilt >= 0 else part


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    (tmp_path / "store").mkdir()
    return Counting(str(tmp_path / "store"))


def make_folder(path: Path, **files: bytes) -> Path:
    for name, content in files.items():
        file = path / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_comes_back_as_it_was(store: Counting, tmp_path: Path):
    folder = make_folder(tmp_path / "model", config=b"{}", empty=b"", sub__weights=b"w" * (2 * PART_BYTES + 5))
    (folder / "link").symlink_to(folder / "config")
    stored = Blobs(store).put_folder(folder)
    Blobs(store).get_folder(stored, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(folder)
    assert not (tmp_path / "again" / "link").is_symlink()


def test_what_is_there_is_not_uploaded_again(store: Counting, tmp_path: Path):
    one = make_folder(tmp_path / "one", weights=b"the same", config=b"1")
    two = make_folder(tmp_path / "two", weights=b"the same", config=b"2")
    blobs = Blobs(store)
    assert blobs.put_folder(one) == blobs.put_folder(one)
    assert len(store.uploads) == 3
    assert blobs.put_folder(two) != blobs.put_folder(one)
    assert len(store.uploads) == 5  # its config and its list


def test_what_is_there_in_part_is_uploaded_again(store: Counting, tmp_path: Path):
    blob = Blobs(store).put_text("content")
    (tmp_path / "store" / Blobs(store).key(blob)).write_text("cont")
    assert Blobs(store).put_text("content") == blob
    Blobs(store).get_file(blob, tmp_path / "it")
    assert (tmp_path / "it").read_text() == "content"


def test_a_blob_is_named_by_what_it_holds(store: Counting, tmp_path: Path):
    (tmp_path / "it").write_bytes(b"it")
    blob = Blobs(store).put_file(tmp_path / "it")
    assert blob == Blob(sha256=hashlib.sha256(b"it").hexdigest(), size=2)
    assert store.list("blobs") == [Blobs(store).key(blob)]


def test_a_wrong_download_is_fetched_again(store: Counting, tmp_path: Path):
    blob = Blobs(store).put_text("content")
    store.spoilt = 2
    Blobs(store).get_file(blob, tmp_path / "it")
    assert (tmp_path / "it").read_text() == "content"


def test_one_that_stays_wrong_is_an_error_that_names_it_and_leaves_nothing(store: Counting, tmp_path: Path):
    blob = Blobs(store).put_text("content")
    store.spoilt = 99
    with pytest.raises(BrokenRecord, match=rf"{blob.sha256}: is damaged"):
        Blobs(store).get_file(blob, tmp_path / "out" / "it")
    assert list((tmp_path / "out").iterdir()) == []


def test_one_that_is_not_there_is_named(store: Counting, tmp_path: Path):
    blob = Blob(sha256="0" * 64, size=3)
    with pytest.raises(ClusterTrouble, match=f"{blob.sha256}: is not there"):
        Blobs(store).get_file(blob, tmp_path / "it")


@pytest.mark.parametrize("size", [10, 3 * PART_BYTES])
def test_a_file_that_changes_while_it_is_stored_is_not_stored_under_its_old_name(
    store: Counting, tmp_path: Path, size: int
):
    class Meanwhile(Blobs):
        def _put(self, blob: Blob, content: Path | bytes) -> None:
            assert isinstance(content, Path)
            content.write_bytes(b"2" * size)
            super()._put(blob, content)

    (tmp_path / "it").write_bytes(b"1" * size)
    with pytest.raises(UserError, match="it: was written to while it was stored"):
        Meanwhile(store).put_file(tmp_path / "it")
    assert store.list() == []


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "", ".", "a//b"])
def test_a_folder_names_nothing_outside_it(name: str):
    with pytest.raises(ValueError, match="no name of a file in a folder"):
        Folder(files={name: Blob(sha256="0" * 64, size=0)})
