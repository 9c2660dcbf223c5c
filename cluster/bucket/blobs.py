"""Models and data in an object store: files by their SHA-256, and folders as lists of such files.

What is there is not uploaded again, so weights that ten rounds share lie there once. An upload is whole or absent:
parts of one that was killed are no object. A download is believed once its SHA-256 is right.
"""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import Field, field_validator

from cluster.bucket.object_store import PART_BYTES, ObjectStore
from cluster.digest import sha256_of
from cluster.errors import BrokenRecord, ClusterTrouble, UserError
from cluster.records import Record
from cluster.store import LOCAL

log = logging.getLogger(__name__)

TRIES = 3
"""How often an upload or a download is begun anew, after what the store's own retries have done for each part."""


class Blob(Record):
    """A file, by what it holds."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Folder(Record):
    """The files of a folder by their names in it. Modes, times and empty folders are nobody's concern."""

    files: dict[str, Blob]

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, Blob]) -> dict[str, Blob]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or path.as_posix() != name or name == ".":
                raise ValueError(f"{name!r} is no name of a file in a folder")
        return dict(sorted(files.items()))


class Blobs:
    """The blobs of a store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def key(self, blob: Blob) -> str:
        """Where a blob lies."""
        return f"blobs/{blob.sha256[:2]}/{blob.sha256}"

    def put_file(self, path: Path) -> Blob:
        """The file as a blob, which is in the store when this returns."""
        blob = Blob(sha256=sha256_of(path), size=path.stat().st_size)
        self._put(blob, path)
        return blob

    def put_folder(self, folder: Path) -> Blob:
        """Every file below `folder`, links followed, then the list of them, itself a blob: the folder's."""
        files = {p.relative_to(folder).as_posix(): self.put_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
        return self.put_text(Folder(files=files).to_text())

    def put_text(self, text: str) -> Blob:
        """A text as a blob."""
        data = text.encode()
        blob = Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        self._put(blob, data)
        return blob

    def get_file(self, blob: Blob, path: Path) -> None:
        """The blob as a file at `path`, whole or not at all."""
        with LOCAL.writing(path) as temporary:
            self.fetch(blob, temporary)

    def get_folder(self, folder: Blob, path: Path) -> None:
        """The folder at `path`, whole or not at all."""
        with LOCAL.writing(path) as temporary:
            temporary.mkdir()
            self.fetch(folder, temporary / ".list")
            files = Folder.read(temporary / ".list").files
            LOCAL.remove(temporary / ".list")
            for name, blob in files.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                self.fetch(blob, temporary / name)

    def fetch(self, blob: Blob, path: Path) -> None:
        """Write the blob to `path`, which is right when this returns. BrokenRecord where it never is."""
        for _ in range(TRIES):
            digest = hashlib.sha256()
            with path.open("wb") as file:
                for part in self.store.download(self.key(blob), blob.size):
                    digest.update(part)
                    file.write(part)
            if digest.hexdigest() == blob.sha256:
                return
            log.warning("%s/%s: what came is not what was stored: fetching it again", self.store.url, self.key(blob))
        raise BrokenRecord(f"{self.store.url}/{self.key(blob)}: is damaged: its content has another SHA-256")

    def _put(self, blob: Blob, content: Path | bytes) -> None:
        for tried in range(1, TRIES + 1):
            if self.store.size(self.key(blob)) == blob.size:
                return
            try:
                self.store.upload(self.key(blob), _parts(content, blob), blob.size)
                return
            except ClusterTrouble as trouble:
                # Its answer may have been lost after it had landed whole: the size tells.
                if tried == TRIES:
                    raise
                log.warning("%s: trying again", trouble)


def _parts(content: Path | bytes, blob: Blob) -> Iterator[bytes]:
    """The content part by part. UserError before the last one, which completes it, if it is not `blob` any more."""
    if isinstance(content, bytes):
        yield content
        return
    digest, waiting = hashlib.sha256(), b""
    with content.open("rb") as file:
        while part := file.read(PART_BYTES):
            digest.update(part)
            if waiting:
                yield waiting
            waiting = part
    if digest.hexdigest() != blob.sha256:
        raise UserError(f"{content}: was written to while it was stored")
    yield waiting
