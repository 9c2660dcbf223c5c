"""Every error that the tournament raises on purpose, and what tells a machine's trouble from a competitor's.

TournamentError
├── UserError        the user's config, data or call is wrong          exit code 1
│   └── BrokenRecord     a file of the run directory is torn, or another version's
├── Forfeit          a competitor's own failure: it loses its round, the round goes on
├── ClusterTrouble   the cluster or the evaluator failed, not a competitor; go on with the same
│                    command                                           exit code 3
└── LimitReached     the tournament would cost more than it may; go on with a higher limit     exit code 1

Each carries one line for a person, naming the file, key or row. They live in the lowest layer because
every layer raises them.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


class TournamentError(Exception):
    """Base of the errors that carry a line for a person."""


class UserError(TournamentError, ValueError):
    """The user's config, data or call is wrong; the message names the file, the key or the row."""


class BrokenRecord(UserError):
    """A record cannot be read; the message names the file and what to do."""


class Forfeit(TournamentError):
    """A competitor did not deliver a valid submission; the message says why, in words."""


class ClusterTrouble(TournamentError):
    """Work failed through no fault of a competitor; the tournament stops and can be gone on with."""


class LimitReached(TournamentError):
    """The tournament has cost, or would cost, more than it may: it stops, and can be gone on with."""


STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE)
"""A disk that is full, over quota, broken, read-only or gone is nobody's recipe."""
_SAID = tuple(os.strerror(code).lower() for code in STORAGE_ERRORS)


def machine_trouble(error: BaseException, needed: Iterable[Path] = ()) -> str | None:
    """What is wrong with the machine, in words, if that is why `error` was raised; None if it is not.

    Storage that fails is, wherever it was raised (libraries pass it on as text, or as a cause), and so is a file
    or folder of `needed` that is not there. Of text that a competitor may have had a hand in see `storage_trouble`.
    """
    if (why := storage_trouble(error)) is not None:
        return why
    for one in _chain(error):
        if isinstance(one, Forfeit) or (isinstance(one, OSError) and one.errno is not None):
            continue  # which says what it is by its number: its text holds names of files
        for line in str(one).splitlines():
            if any(said in line.lower() for said in _SAID):
                return line[:300]
    gone = next((path for path in needed if not path.exists()), None)
    return None if gone is None else f"{gone} is not there"


def storage_trouble(error: BaseException) -> str | None:
    """What is wrong with the storage, in words, where the system itself said so, by its number; None if it did not."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in STORAGE_ERRORS:
            return f"{os.strerror(one.errno)}{f': {one.filename}' if one.filename else ''}"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, and what was being handled when it was raised."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]
