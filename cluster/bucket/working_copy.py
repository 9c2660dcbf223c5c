"""A folder of this machine whose every change is on record in an object store, and which comes back from there.

The store holds the truth: a history of changes, each appended by who has seen all before it. So of two that write to
one folder only one can go on: the other's next change finds a number taken. What is large lies there as blobs, once,
and here is only stood in for (`cluster.bucket.tree`). Nothing rests on this machine's disk when it is gone.
"""

import atexit
import itertools
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from cluster.bucket import tree
from cluster.bucket.blobs import Blobs
from cluster.bucket.histories import History
from cluster.bucket.journal import SUMMED, Journal
from cluster.bucket.node_cache import NodeCache
from cluster.bucket.object_store import QUICK, ObjectStore
from cluster.bucket.tree import Change, Content
from cluster.errors import ClusterTrouble, UserError
from cluster.store import LOCAL, STORAGE_MARK, LocalStore, Looks, looks_of

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
DRIVER = "driver"
"""The key of what the program that writes to a store says every now and then, while it does."""


_looked_in = ExitStack()
atexit.register(_looked_in.close)


class TakenOver(UserError):
    """Somebody else writes to the same place of the store now."""


class StoredFolder(LocalStore):
    """`cluster.store.Store` of a folder `root` here whose record lies in `store`, for who looks at it."""

    def __init__(self, root: Path, store: ObjectStore) -> None:
        self.root, self.store, self.blobs = root, store, Blobs(store)
        self._journal, self._last = Journal(store), 0
        self._requests = History(store, "asked")

    def fetch(self, path: Path) -> None:
        """As the protocol says."""
        tree.make_whole(path, self.blobs)

    def is_locked(self, path: Path) -> bool:
        """As the protocol says: a program that writes to the store says so there."""
        return self.store.size(DRIVER) is not None

    def ask(self, request: bytes) -> bool:
        """As the protocol says."""
        self._requests.append(request)
        return True

    def asked(self, after: int) -> Iterable[tuple[int, bytes]]:
        """As the protocol says."""
        return self._requests.after(after)

    def look(self) -> None:
        """Make the folder what the store says it is now."""
        LOCAL.remove(self.root)
        self.root.mkdir(parents=True)
        self._restore()

    def _restore(self) -> None:
        state, self._last = self._journal.read()
        LOCAL.write_text(self.root / STORAGE_MARK, f"{self.store.url}\n")
        self.root.chmod(0o700)  # held-out rows lie there
        tree.apply(Change(files=state), self.root, self.blobs)


def stored_folder(given: str) -> StoredFolder:
    """A folder to look at whose record lies in an object store: at the URL `given`, or as the working copy `given` says
    itself. UserError where nothing lies there."""
    if "://" in given:
        store = ObjectStore(given, QUICK)
        # Of this process alone: others may look, too. Swept by the cache, if this one is killed.
        here = _looked_in.enter_context(NodeCache.of_this_machine(Blobs(store)).place())
        folder = StoredFolder(here / Path(store.url).name, store)
        folder.look()
        if not folder._last:
            raise UserError(f"{given}: no tournament lies there")
        return folder
    mark = Path(given) / STORAGE_MARK
    return StoredFolder(Path(given).absolute(), ObjectStore(mark.read_text(encoding="utf-8").strip()))


def bring(url: str, dest: Path) -> Path:
    """Make `dest`, which is not there yet, an ordinary folder with all that lies at `url`. UserError for nothing."""
    if dest.exists():
        raise UserError(f"{dest}: is there already")
    folder = StoredFolder(dest.absolute(), ObjectStore(url, QUICK))
    with LOCAL.writing(folder.root) as temporary:
        StoredFolder(temporary, folder.store).look()
        tree.make_whole(temporary, folder.blobs)
        LOCAL.remove(temporary / STORAGE_MARK)
        if not any(temporary.iterdir()):
            raise UserError(f"{url}: no tournament lies there")
    return dest


class WorkingCopy(StoredFolder):
    """`cluster.store.Store` on this machine below `root`, kept in `store`; on other paths it is a `LocalStore`.

    `views` are names of files in `root` that anybody can draw again: of these the newest lies in the store beside the
    record, for people, and nothing comes back from there.
    """

    def __init__(self, root: Path, store: ObjectStore, views: Iterable[str] = ()) -> None:
        super().__init__(root, store)
        self.views = frozenset(views)
        self._lock = threading.RLock()
        self._unsure: list[tuple[str, Change]] = []
        """Changes that the store has not answered for, each with its mark: what it was sent may lie there."""
        self._known: dict[str, tuple[Looks, Content]] = {}
        self._closing = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="beats", daemon=True)
        self._sums = threading.Thread(name="sums")

    def open(self) -> "WorkingCopy":
        """Make the folder what the store says it is, and let nobody else take it over while this program lives.

        UserError where another program is at it, or the folder here is something else.
        """
        self._refuse_other_folder()
        self._refuse_if_used()
        self._say(0)
        self._beats.start()
        try:
            self._restore()
        except BaseException:
            self._stop_beating()
            self.store.delete(DRIVER)
            raise
        return self

    def _restore(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for path in self.root.iterdir() if (self.root / STORAGE_MARK).is_file() else ():
            if not path.name.startswith(".") and path.name not in self.views:
                LOCAL.remove(path)
        super()._restore()

    def close(self) -> None:
        """Bring the views to the store, remove what nothing refers to, and leave the place to whoever comes next."""
        try:
            self._note(Change())  # or somebody else has taken it over, and what is there is not ours to remove
            for name in self.views:
                with suppress(FileNotFoundError):
                    self._put_view(self.root / name)
            used = {self.blobs.key(c.blob) for c in self.contents([self.root]).values() if c.blob is not None}
            self.store.delete(*({*self.store.list("blobs"), *self.store.list("calls")} - used))
        finally:
            self._stop_beating()
        if self._sums.ident is not None:
            self._sums.join()
        self.store.delete(DRIVER)

    def ask(self, request: bytes) -> bool:
        """As the protocol says: this one writes the record."""
        return False

    def keep(self, path: Path) -> None:
        """As the protocol says."""
        self._note(Change(files=self.contents([path])))

    def move(self, source: Path, destination: Path) -> None:
        """As the protocol says."""
        replaced = self._is_ours(destination) and destination.is_dir()
        super().move(source, destination)
        if self._is_view(destination):
            return
        removed = [self._name(path) for path in (source,) if self._is_ours(path)]
        if self._is_ours(destination):
            removed += [self._name(destination)] if replaced else []
            self._note(Change(removed=removed, files=self.contents([destination])))
        elif removed:
            self._note(Change(removed=removed))

    def remove(self, path: Path) -> None:
        """As the protocol says."""
        is_there = path.exists() or path.is_symlink()
        super().remove(path)
        if is_there and self._is_ours(path) and not self._is_view(path):
            self._note(Change(removed=[self._name(path)]))

    def take(self, change: Change, also: Iterable[str] = ()) -> None:
        """Make the folder here what it became elsewhere, and put that on record, with what was only shown of `also`."""
        tree.apply(change, self.root, self.blobs)
        texts = self.contents(self.root / name for name in {*change.grown, *also})
        self._note(Change(removed=change.removed, files={**texts, **change.files}))

    def show(self, change: Change) -> None:
        """Make the folder here what it became elsewhere, which need not outlast this machine."""
        tree.apply(change, self.root, self.blobs)

    def contents(self, paths: Iterable[Path], is_shallow: bool = False) -> dict[str, Content]:
        """What files and folders below the root hold, by name; what is large is in the store when this returns."""
        found = {}
        for path in paths:
            prefix = self._name(path)
            if path.is_file():
                found[prefix] = self._content(prefix, path)
            for name, file in tree.files_below(path):
                if not (is_shallow and "/" in name):
                    below = f"{prefix}/{name}" if prefix else name
                    found[below] = self._content(below, file)
        return found

    def _content(self, name: str, path: Path) -> Content:
        looks = looks_of(path)
        known = self._known.get(name)
        if known is not None and known[0] == looks:
            return known[1]
        blob = tree.stood_in_for(path)
        content = tree.content_of(path, self.blobs) if blob is None else Content(blob=blob)
        if content.blob is not None and looks is not None:  # what is small is read as fast
            self._known[name] = looks, content
        return content

    def _note(self, change: Change) -> None:
        with self._lock:
            self._unsure.append((uuid.uuid4().hex, change))
            while self._unsure:  # what was not known to have landed goes first, as itself
                mark, first = self._unsure[0]
                if not self._journal.append_after(self._last, first, mark):
                    raise TakenOver(f"{self.store.url}: another driver goes on with this tournament now")
                self._unsure.pop(0)
                self._last += 1
            if self._last % SUMMED == 0 and not self._sums.is_alive():
                self._sums = threading.Thread(target=self._sum_up, name="sums", daemon=True)
                self._sums.start()

    def _sum_up(self) -> None:
        try:
            self._journal.sum_up()
        except ClusterTrouble as trouble:  # it only saves reading
            log.warning("%s", trouble)

    def _is_ours(self, path: Path) -> bool:
        """Whether it is part of the folder: below it, and not hidden."""
        return path.is_relative_to(self.root) and not any(p.startswith(".") for p in path.relative_to(self.root).parts)

    def _is_view(self, path: Path) -> bool:
        return path.parent == self.root and path.name in self.views

    def _name(self, path: Path) -> str:
        name = path.relative_to(self.root).as_posix()
        return "" if name == "." else name

    def _put_view(self, path: Path) -> None:
        data = path.read_bytes()
        self.store.upload(path.name, [data], len(data))

    def _refuse_other_folder(self) -> None:
        if not self.root.is_dir():
            return
        mark = self.root / STORAGE_MARK
        there = mark.read_text(encoding="utf-8").strip() if mark.is_file() else None
        if there != self.store.url and any(not path.name.startswith(".") for path in self.root.iterdir()):
            kept = f"the working copy of {there}" if there else "not empty, and no working copy of a store"
            raise UserError(f"{self.root}: is {kept}: give another --run-dir, or remove it")

    def _refuse_if_used(self) -> None:
        """UserError where another program's beats go on. Clocks are not compared: it is watched for a while."""
        first = self._heard()
        if first is None:
            return
        log.warning(
            "%s: %s left it without a word: watching for %g s whether it still runs",
            *(self.store.url, first.split()[0], 3 * BEAT_SECONDS),
        )
        deadline = time.monotonic() + 3 * BEAT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(BEAT_SECONDS / 2)
            now = self._heard()
            if now is None:
                return
            if now != first:
                raise UserError(f"{self.store.url}: another driver is running this tournament now ({now.split()[0]})")

    def _heard(self) -> str | None:
        size = self.store.size(DRIVER)
        if size is None:
            return None
        return b"".join(self.store.download(DRIVER, size)).decode(errors="replace")

    def _stop_beating(self) -> None:
        self._closing.set()
        self._beats.join()

    def _beat(self) -> None:
        for number in itertools.count(1):
            if self._closing.wait(BEAT_SECONDS):
                return
            try:
                self._say(number)
            except ClusterTrouble as trouble:  # what has to be right rests on the journal
                log.warning("%s", trouble)

    def _say(self, number: int) -> None:
        data = f"{socket.gethostname()}:{os.getpid()} {number}".encode()
        self.store.upload(DRIVER, [data], len(data))
