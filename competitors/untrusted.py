"""Looking at what a program that nobody trusts has left on the disk, without following it anywhere.

Links, devices and pipes are only named, never opened. Whatever is no plain data is the competitor's own
failure: `Forfeit`.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cluster.errors import Forfeit
from cluster.text import plain

MAX_FILES = 100_000
MAX_DEPTH = 64
MAX_JSON_BYTES = 64 * 2**20


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Path below `folder` and status of everything in it, links not followed.

    Raises Forfeit when there is more, or deeper, or more hidden than any submission needs. A folder that is
    still being written may be walked.
    """
    seen, waiting = 0, [("", 0)]
    while waiting:
        below, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise Forfeit(f"made folders more than {MAX_DEPTH} deep")
        try:
            with os.scandir(folder / below) as entries:
                for entry in entries:
                    seen += 1
                    if seen > MAX_FILES:
                        raise Forfeit(f"made more than {MAX_FILES:,} files")
                    path = os.path.join(below, entry.name)
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append((path, depth + 1))
                    yield path, status
        except PermissionError as error:
            raise Forfeit(f"made a folder that cannot be read: {plain(below)}") from error
        except (FileNotFoundError, NotADirectoryError):
            continue


def measure(folder: Path) -> int:
    """Bytes that the files below `folder` hold or claim to hold: reading a hole takes as long as reading data."""
    return sum(max(status.st_size, status.st_blocks * 512) for _, status in walk(folder))


def append(file: Path, text: str) -> None:
    """Append to a plain file, which is made where there is none. What was put in its place is left alone."""
    if (stream := open_plain(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)) is not None:
        with stream:
            stream.write(text.encode())


def open_plain(file: Path, way: int) -> BinaryIO | None:
    """A plain file, opened as os.open does; None where something else was put in its place."""
    try:
        # Neither is a link followed nor a pipe waited for.
        descriptor = os.open(file, way | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            return None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "r+b" if way & os.O_RDWR else "ab")


def refuse_odd_files(folder: Path) -> None:
    """Forfeit unless `folder` holds nothing but plain files and folders."""
    if folder.is_symlink():
        raise Forfeit(f"left a symbolic link in place of the folder {folder.name}")
    for path, status in walk(folder):
        if stat.S_ISLNK(status.st_mode):
            raise Forfeit(f"left a symbolic link: {plain(path)}; only plain files are accepted")
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise Forfeit(f"left a pipe, socket or device: {plain(path)}; only plain files are accepted")


def refuse_broken_json(folder: Path) -> None:
    """Forfeit unless the configs at the top of `folder` can be read, and its index names only files beside it."""
    for file in sorted([*folder.glob("*config.json"), *folder.glob("*.index.json")]):
        if not file.is_file() or file.stat().st_size > MAX_JSON_BYTES:
            raise Forfeit(f"{file.name} is no file, or larger than {MAX_JSON_BYTES >> 20} MiB")
        try:
            value = json.loads(file.read_bytes())
        except (ValueError, RecursionError, OSError) as error:
            raise Forfeit(f"{file.name} cannot be read: {plain(error, 80)}") from error
        if not isinstance(value, dict):
            raise Forfeit(f"{file.name} holds no keys and values")
        if file.name.endswith(".index.json"):
            names = value.get("weight_map")
            for name in names.values() if isinstance(names, dict) else [None]:
                if not isinstance(name, str) or Path(name).name != name:
                    raise Forfeit(f"{file.name} names something other than a file beside it: {plain(name)}")
