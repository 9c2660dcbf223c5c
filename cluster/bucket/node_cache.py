"""What a node has fetched from a store: each blob once, however many processes want it, and no more than a limit.

    root/blobs/SHA-256         sealed: read-only, and its time of writing is a constant, so a later write shows
    root/partial/SHA-256.SIZE  on its way, by whoever holds locks/SHA-256
    root/views/…/              what one user was handed: links to blobs, with a lease that is locked while it is used
    root/lock                  held for moments, while links are made or removed

A blob that a view links to has a second name: its content stays for its user even if the cache lets go of it, and
it is not let go of, since that would free nothing. Locks are the kernel's: of a process that was killed, they are gone,
so a waiting one goes on with the download, and what was left behind is swept by whoever needs the room.
"""

import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Self

from cluster.bucket.blobs import Blob, Blobs, Folder
from cluster.store import LOCAL, flush, share

log = logging.getLogger(__name__)

SEALED_NS = 10**18
"""When a sealed blob was written, as far as its file says; when it was last used stands beside that."""


def cache_root() -> Path:
    """This machine's cache: TOURNAMENT_CACHE, or a folder among the temporary ones."""
    given = os.environ.get("TOURNAMENT_CACHE")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"tournament-cache-{os.getuid()}"


class NodeCache:
    """A node's cache below `root`, which must not be shared between nodes; many processes may have one each."""

    def __init__(self, root: Path, blobs: Blobs, limit_bytes: int) -> None:
        """What is in use is never taken, even above `limit_bytes`: work goes before the limit."""
        self.root, self.blobs, self.limit_bytes = root, blobs, limit_bytes
        for name in ("blobs", "partial", "locks", "views"):
            (root / name).mkdir(parents=True, exist_ok=True)
        root.chmod(0o700)  # held-out rows may lie there

    @classmethod
    def of_this_machine(cls, blobs: Blobs) -> Self:
        """The one at `cache_root()`, of at most half of what its disk has for it."""
        root = cache_root()
        root.mkdir(parents=True, exist_ok=True)
        cache = cls(root, blobs, 0)
        held = sum(path.stat().st_size for path in (root / "blobs").iterdir())
        cache.limit_bytes = (shutil.disk_usage(root).free + held) // 2
        return cache

    @contextmanager
    def file(self, blob: Blob) -> Iterator[Path]:
        """The blob as a file that may be read while the block lasts."""
        with self._view() as view:
            self._add(blob, view / "file")
            yield view / "file"

    @contextmanager
    def folder(self, folder: Blob) -> Iterator[Path]:
        """A stored folder, to be read while the block lasts."""
        with self._view() as view:
            self._add(folder, view / "list")
            top = view / "files"
            top.mkdir()
            for name, blob in Folder.read(view / "list").files.items():
                (top / name).parent.mkdir(parents=True, exist_ok=True)
                self._add(blob, top / name)
            _set_modes(top, 0o555)
            yield top

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A folder to work in while the block lasts, beside the cache: swept, if whoever works there is killed."""
        with self._view() as view:
            (view / "files").mkdir()
            yield view / "files"

    def lend(self, blob: Blob, path: Path) -> None:
        """Have the blob at `path` as well, in a `place`: to be read, and replaced, but not written to."""
        self._add(blob, path)

    @contextmanager
    def _view(self) -> Iterator[Path]:
        view = self.root / "views" / uuid.uuid4().hex
        with ExitStack() as stack:
            with self._still():  # or it could be swept before its lease is locked
                stack.enter_context(LOCAL.locked(view / "lease", wait=False))
            stack.callback(self._drop, view)
            yield view

    def _drop(self, view: Path) -> None:
        with self._still():
            self._remove(view)
            self._make_room(0)  # what was in use may have been more than the limit

    def _add(self, blob: Blob, path: Path) -> None:
        while not self._link(blob, path):
            self._fetch(blob)

    def _link(self, blob: Blob, path: Path) -> bool:
        """Give the cached blob the name `path` as well. False where it is not there, or is not what it was."""
        cached = self.root / "blobs" / blob.sha256
        with self._still():
            if not _is_sealed(cached, blob):
                LOCAL.remove(cached)
                return False
            share(cached, path)
            os.utime(cached, ns=(time.time_ns(), SEALED_NS))
        return True

    def _fetch(self, blob: Blob) -> None:
        """Have the blob in the cache, by this process or by the one that is at it already."""
        cached, partial = self.root / "blobs" / blob.sha256, self.root / "partial" / f"{blob.sha256}.{blob.size}"
        with LOCAL.locked(self.root / "locks" / blob.sha256, wait=True):
            if _is_sealed(cached, blob):
                return
            with self._still():
                self._make_room(blob.size)
                partial.touch()
            self.blobs.fetch(blob, partial)
            partial.chmod(0o444)
            os.utime(partial, ns=(time.time_ns(), SEALED_NS))
            flush(partial)  # a seal must not outlast what it stands for when the node loses its power
            with self._still():
                LOCAL.move(partial, cached)

    def _make_room(self, needed: int) -> None:
        """Let go of what was not used for longest until `needed` bytes fit, if there is as much that is not in use."""
        self._sweep()
        coming = sum(int(path.suffix[1:]) for path in (self.root / "partial").iterdir())
        there = sorted((path.stat().st_atime_ns, path.stat(), path) for path in (self.root / "blobs").iterdir())
        held = coming + sum(status.st_size for _, status, _ in there)
        for _, status, path in there:
            if held + needed <= self.limit_bytes:
                return
            if status.st_nlink == 1:
                LOCAL.remove(path)
                held -= status.st_size
        if needed and held + needed > self.limit_bytes:
            log.warning("%s: holds %d bytes, all in use, and %d more are needed", self.root, held, needed)

    def _sweep(self) -> None:
        """Remove what was left by processes that were killed, and by downloads that failed."""
        for view in (self.root / "views").iterdir():
            if not LOCAL.is_locked(view / "lease"):
                self._remove(view)
        for partial in (self.root / "partial").iterdir():
            if not LOCAL.is_locked(self.root / "locks" / partial.stem):
                LOCAL.remove(partial)

    def _remove(self, view: Path) -> None:
        _set_modes(view / "files", 0o755)
        LOCAL.remove(view)

    def _still(self) -> AbstractContextManager[None]:
        return LOCAL.locked(self.root / "lock", wait=True)


def _is_sealed(cached: Path, blob: Blob) -> bool:
    try:
        status = cached.stat()
    except FileNotFoundError:
        return False
    if (status.st_size, status.st_mtime_ns) == (blob.size, SEALED_NS):
        return True
    log.warning("%s: was written to: fetching it again", cached)
    return False


def _set_modes(top: Path, mode: int) -> None:
    """Of a folder and those in it: without the right to write, no file in it can be replaced or removed."""
    if top.is_dir():
        top.chmod(mode)
        for path in sorted(top.rglob("*")):
            if path.is_dir():
                path.chmod(mode)
