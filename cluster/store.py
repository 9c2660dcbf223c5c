"""The store: files that are either whole or absent. The only place that renames, links, locks or removes for good.

A stage's result is written to a temporary name beside its place, flushed to disk and renamed, so that
a reader (or the same program after a crash) never meets half a file.
"""

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

TEMPORARY = ".tmp"
"""How the name of a file that is being written ends; what is left of a killed program is of no use."""
WEIGHTS = ".safetensors"
STORAGE_MARK = ".storage"
"""In a folder that is the copy of one in an object store: it names that."""


class Store(Protocol):
    """What the tournament asks of the place where a run directory lies."""

    def writing(self, path: Path) -> AbstractContextManager[Path]:
        """Yield a temporary path (file or folder, up to the caller) that becomes `path` when the block ends well.

        What lies at `path` is replaced. On an exception nothing at `path` changes.
        """
        ...

    def write_text(self, path: Path, text: str) -> None:
        """Write `text` to `path`, whole or not at all."""
        ...

    def link_folder(self, source: Path, destination: Path, keep: Callable[[str], bool] = ...) -> None:
        """Make `destination` a folder with those files of `source` whose names `keep` accepts.

        Weights are shared where the disk allows it, so that a model that stays the seed for ten rounds lies there
        once; everything else is a copy that may be written to.
        """
        ...

    def copy_folder(self, source: Path, destination: Path) -> None:
        """Make `destination` a copy of `source` that shares nothing with it."""
        ...

    def move(self, source: Path, destination: Path) -> None:
        """Give what lies at `source` the place `destination`; a folder there is replaced."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file or a folder, if there is one."""
        ...

    def keep(self, path: Path) -> None:
        """Have what lies at `path`, and was written without this store, be as safe as what it writes itself."""
        ...

    def fetch(self, path: Path) -> None:
        """Have the file at `path`, or all below the folder, here as it is, wherever the most of it lies."""
        ...

    def ask(self, request: bytes) -> bool:
        """Leave a request to whoever writes the record, where this is only a look at it. False where it is no look."""
        ...

    def asked(self, after: int) -> Iterable[tuple[int, bytes]]:
        """The requests that were left after number `after`, with their numbers."""
        ...

    def locked(self, path: Path, wait: bool) -> AbstractContextManager[None]:
        """Hold the lock at `path` while the block lasts. BlockingIOError if somebody else does and `wait` is false."""
        ...

    def is_locked(self, path: Path) -> bool:
        """Whether somebody holds the lock at `path` now."""
        ...


class LocalStore:
    """A file system that every node mounts."""

    @contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """As the protocol says."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            with _named_where_full(path):
                yield temporary
                flush(temporary)
                self.move(temporary, path)
        finally:
            self.remove(temporary)

    def write_text(self, path: Path, text: str) -> None:
        """As the protocol says."""
        with self.writing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def create(self, path: Path, data: bytes) -> bool:
        """Put `data` at `path`, whole and flushed, if nothing is there. Whether this call did: of all who try, one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            with _named_where_full(path):
                temporary.write_bytes(data)
                flush(temporary)
                os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            self.remove(temporary)
        _flush_folder(path.parent)
        return True

    def link_folder(self, source: Path, destination: Path, keep: Callable[[str], bool] = lambda name: True) -> None:
        """As the protocol says."""
        self._copy(source, destination, keep, _link_or_copy)

    def copy_folder(self, source: Path, destination: Path) -> None:
        """As the protocol says."""
        self._copy(source, destination, lambda name: True, shutil.copy)

    def _copy(
        self, source: Path, destination: Path, keep: Callable[[str], bool], copy: Callable[[str, str], object]
    ) -> None:
        with self.writing(destination) as temporary:
            temporary.mkdir()
            for file in sorted(p for p in source.rglob("*") if p.is_file() and keep(p.name)):
                target = temporary / file.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                # A hub's cache holds links: the file behind one is meant, not the link itself.
                copy(os.path.realpath(file), str(target))

    def move(self, source: Path, destination: Path) -> None:
        """As the protocol says."""
        if destination.is_dir() and not destination.is_symlink():
            shutil.rmtree(destination)
        os.replace(source, destination)
        _flush_folder(destination.parent)

    def remove(self, path: Path) -> None:
        """As the protocol says."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def keep(self, path: Path) -> None:
        """As the protocol says: nothing is to be done."""

    def fetch(self, path: Path) -> None:
        """As the protocol says: it is here."""

    def ask(self, request: bytes) -> bool:
        """As the protocol says: what is to change is changed here."""
        return False

    def asked(self, after: int) -> Iterable[tuple[int, bytes]]:
        """As the protocol says: nobody asks from elsewhere."""
        return ()

    @contextmanager
    def locked(self, path: Path, wait: bool) -> Iterator[None]:
        """As the protocol says."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
        finally:
            os.close(descriptor)

    def is_locked(self, path: Path) -> bool:
        """As the protocol says."""
        if not path.exists():
            return False
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)


LOCAL = LocalStore()
"""The store of whoever writes beside its own work: competitors, evaluators, views."""


class Looks(NamedTuple):
    """What tells that a file was written anew."""

    inode: int
    written_ns: int
    size: int


def looks_of(path: Path) -> Looks | None:
    """How the file at `path` looks now; None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Looks(status.st_ino, status.st_mtime_ns, status.st_size)


@contextmanager
def _named_where_full(path: Path) -> Iterator[None]:
    """Have an error that the disk holds no more name what was to be written, which the system does not say."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = str(path)
        raise


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY}"


def flush(path: Path) -> None:
    """Force a file, or every file below a folder, to disk."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def _flush_folder(path: Path) -> None:
    """Force a folder's list of names to disk, which is what makes a rename last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share(source: Path | str, destination: Path | str) -> None:
    """Make `destination` the same file as `source`, or a copy where the disk has no links to give."""
    try:
        os.link(source, destination)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, one without links, or as many as there may be
        shutil.copy(source, destination)


def _link_or_copy(source: str, destination: str) -> None:
    if source.endswith(WEIGHTS) or destination.endswith(WEIGHTS):
        share(source, destination)
    else:
        shutil.copy(source, destination)
