"""Files that are either whole or absent: atomic writes, hashes, folders without copies.

A stage's result is written to a temporary name beside its place, flushed to disk and renamed, so that
a reader (or the same program after a crash) never meets half a file.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary path (file or folder, up to the caller) that becomes `path` when the block ends well.

    A folder already at `path` is replaced. On an exception nothing at `path` changes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        yield temporary
        flush(temporary)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def flush(path: Path) -> None:
    """Force a file, or every file below a folder, to disk."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def flush_folder(path: Path) -> None:
    """Force a folder's list of names to disk, which is what makes a rename last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder: over the sorted relative names and the hashes of its files."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def link_folder(source: Path, destination: Path, ignore: Callable[[str, list[str]], set[str]] | None = None) -> None:
    """Make `destination` a folder with the files of `source`, by hard links where the disk allows them.

    A model that stays the seed for ten rounds so lies on the disk once.
    """
    with writing(destination) as temporary:
        shutil.copytree(source, temporary, copy_function=_link_or_copy, ignore=ignore)


def _link_or_copy(source: str, destination: str) -> None:
    try:
        # A hub's cache holds links: the file behind one is meant, not the link itself.
        os.link(os.path.realpath(source), destination)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, destination)
