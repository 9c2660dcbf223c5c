"""Whether a store keeps the promise that records stand on, asked before a tournament lies there.

Some servers let two racing creates win, and some overwrite what is there without a word: on those, two drivers
would both believe themselves. A store is refused for that in one line, as is one that is not there.
"""

import logging
import re
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from cluster.bucket.object_store import QUICK, ObjectStore, folder_of
from cluster.errors import ClusterTrouble, UserError

log = logging.getLogger(__name__)
RACERS = 32
PROBE = "probe-"


def open_store(url: str) -> ObjectStore:
    """The store at `url`, tried out. UserError, naming the URL, where it is not there or does not keep its promise."""
    made = _make_folder(url)
    try:
        probe(ObjectStore(url, QUICK))
        return ObjectStore(url)
    except BaseException as error:
        if made is not None:
            with suppress(OSError):  # somebody else may have begun to use it
                made.rmdir()
        if isinstance(error, ClusterTrouble | OSError):
            raise UserError(f"storage: {re.sub(f'/{PROBE}[0-9a-f]+', '', str(error))}") from error
        raise


def probe(store: ObjectStore) -> None:
    """UserError where of racing creates not exactly one wins, or a create overwrites. Removes what it has made."""
    sequential, raced = (f"{PROBE}{uuid.uuid4().hex}" for _ in range(2))
    store.read(sequential)  # fails where nothing answers, or where one may not ask for what is not there
    try:
        _keeps_what_is_there(store, sequential)
        _lets_one_win(store, raced)
    finally:
        for key in (sequential, raced):
            _remove(store, key)


def _keeps_what_is_there(store: ObjectStore, key: str) -> None:
    created, overwritten = store.create(key, b"first"), store.create(key, b"second")
    if not created or overwritten or store.read(key) != b"first":
        raise UserError(f"storage: {store.url}: this store overwrites what it was told to create only: use another")


def _lets_one_win(store: ObjectStore, key: str) -> None:
    together = threading.Barrier(RACERS)

    def race(racer: int) -> bool:
        together.wait()
        return store.create(key, str(racer).encode())

    with ThreadPoolExecutor(RACERS) as threads:
        winners = [racer for racer, won in enumerate(threads.map(race, range(RACERS))) if won]
    there = store.read(key)
    if len(winners) != 1 or there != str(winners[0]).encode():
        raise UserError(
            f"storage: {store.url}: of {RACERS} who created one object at once {len(winners)} were told that they had:"
            " this store cannot hold a tournament, use another"
        )


def _remove(store: ObjectStore, key: str) -> None:
    try:
        store.delete(key)
    except ClusterTrouble as error:  # not needed for anything else: a bucket may forbid it
        log.info("what the store was tried out with stays there: %s", error)


def _make_folder(url: str) -> Path | None:
    """The store's folder if it was made just now."""
    folder = folder_of(url)
    if folder is None or folder.is_dir():
        return None
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"storage: {url}: cannot be made: {error.strerror}") from error
    return folder
