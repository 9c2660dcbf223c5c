"""Whose fault it is that a submission cannot be used: its own, a `Forfeit`, or the machine's, which is passed on."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.digest import sha256_of
from cluster.errors import Forfeit, machine_trouble, storage_trouble
from cluster.text import plain

EXHAUSTED = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""No memory, or no file handle left: in this process or on this machine."""
SAID = ("can't allocate memory", "cannot allocate memory", "out of memory", "cuda error")
"""How torch says on a CPU, and through other libraries, what has no class of its own."""


@contextmanager
def of_submission(what: str, *needed: Path) -> Iterator[None]:
    """Turn whatever the block raises into a `Forfeit` that begins with `what`, unless the machine is to blame.

    For blocks that do nothing but read, load or merge what a competitor has written. Somebody else's files go
    through four libraries there, which raise what they like (re.error, AssertionError, errors without a base in
    common), so this is, with sources.py for data, a place that catches broadly. Errors of storage, of memory, of the
    accelerator and a folder of `needed` that is gone are no competitor's, and pass. Where only the text of an error
    speaks of storage, a name in the submission may: then `needed` is read to find out.
    """
    try:
        yield
    except Forfeit:
        raise
    except Exception as error:
        if _is_the_machines(error) or _is_the_storages(error, needed):
            raise
        said = str(error).strip() or type(error).__name__
        raise Forfeit(plain(f"{what}: {said}")) from error


def _is_the_machines(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError):
        return True
    if torch is not None and isinstance(error, (torch.OutOfMemoryError, torch.AcceleratorError)):
        return True
    if isinstance(error, OSError) and error.errno in EXHAUSTED:
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in SAID)


def _is_the_storages(error: Exception, needed: tuple[Path, ...]) -> bool:
    if machine_trouble(error, needed) is None:
        return False
    return storage_trouble(error) is not None or not needed or not all(map(_can_be_read, needed))


def _can_be_read(path: Path) -> bool:
    """Whether every byte of a file, or of the files below a folder, can be."""
    try:
        for file in [path] if path.is_file() else [path / name for name in os.listdir(path)]:
            if file.is_file():
                sha256_of(file)
    except OSError:
        return False
    return True
