"""One call in a worker whose machine shares no disk with the driver's: what it reads comes from the store, and what it
writes goes there.

It works in a folder of its own, in which every path below the driver's root has its place, as an action of the Remote
Execution API does (github.com/bazelbuild/remote-apis): so it cannot tell the difference, and meets nobody else's files.
What it has written is on record when it ends, whether well or with an error. Of the folder that it `works_in` what is
there is also brought while it runs, so that the driver hears of it, and another try elsewhere goes on from it.

What it starts on other machines is handed its files by `spreading.spread`.
"""

import contextlib
import io
import logging
import pickle
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from cluster.bucket.blobs import Blobs
from cluster.bucket.histories import History
from cluster.bucket.node_cache import NodeCache, cache_root
from cluster.bucket.object_store import ObjectStore
from cluster.bucket.tree import GROWS, Change, Content, Grown, content_of, looks_below
from cluster.environment import with_credentials
from cluster.errors import ClusterTrouble, UserError
from cluster.store import LOCAL, Looks, looks_of, share

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 2.0
HELD_BACK = 4
"""So many looks what has changed is held back for what is being written beside it."""
OF_A_MACHINE = ("running",)
"""What says something of processes of this machine alone."""
WEIGHTS = (".safetensors", ".parquet")
"""What is large and never written in place: a link to the cache will do."""


@dataclass(frozen=True)
class Stage:
    """A call with what it needs. Goes to a worker, where it is the function that is called."""

    name: str
    packed: bytes
    """The function and its arguments."""
    url: str
    prefix: str
    """Of the call's own keys in the store."""
    files: dict[str, Content]
    """What it may read, by name below the root."""
    works_in: str | None
    """A folder that is all its own, and that is followed."""
    reports: tuple[str, ...] = ()
    """Files elsewhere that it adds to, and that are followed."""

    @property
    def __name__(self) -> str:
        """The function's, for whoever says what failed."""
        return self.name

    def __call__(self, run: Callable[..., Any] = lambda function, *args: function(*args)) -> Any:
        """What the function returns or raises, here; `run` calls it."""
        with self.laid_out() as (top, blobs):
            function, *args = unpacked(self.packed, top)
            out, into = (self.history(blobs.store, name) for name in ("out", "in"))
            record = _here.record = CallRecord(self, top, blobs, out, into)
            try:
                with record.followed() if self.is_followed else contextlib.nullcontext():
                    result = run(function, *args)
            except Exception:
                record.note_all()
                raise
            finally:
                _here.record = None
            record.note_all()
            return result

    @property
    def is_followed(self) -> bool:
        """Whether something that it writes is told while it runs."""
        return bool(self.reports) or self.works_in is not None

    def follows(self, name: str) -> bool:
        """Whether a file is told of while it runs."""
        return name in self.reports or (self.works_in is not None and name.startswith(f"{self.works_in}/"))

    @contextmanager
    def laid_out(self) -> Iterator[tuple[Path, Blobs]]:
        """A folder of this machine with the files, while the block lasts, and the store's blobs."""
        blobs = Blobs(self.store())
        cache = NodeCache.of_this_machine(blobs)
        with cache.place() as top:
            self._lay_out(top, cache)
            yield top, blobs

    def store(self) -> ObjectStore:
        """Where the files come from, for who is at work here."""
        with with_credentials():
            return ObjectStore(self.url)

    def history(self, store: ObjectStore, name: str) -> History:
        """`out` or `in`, as a `CallRecord` has them."""
        return History(store, f"{self.prefix}/{name}")

    def _lay_out(self, top: Path, cache: NodeCache) -> None:
        own = f"{self.works_in}/"
        for name, content in self.files.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content.blob is None:
                assert content.data is not None
                path.write_bytes(content.data)
            elif path.suffix in WEIGHTS and not name.startswith(own):
                cache.lend(content.blob, path)
            else:
                with cache.file(content.blob) as cached:
                    shutil.copyfile(cached, path)


def pack(root: Path, call: Sequence[Any]) -> tuple[bytes, list[Path]]:
    """A function with its arguments for another machine, and the paths below `root` that are in them."""
    paths: list[Path] = []

    class Packer(pickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            if not isinstance(value, PurePath) or not value.is_relative_to(root):
                return NotImplemented
            if value != root:
                paths.append(Path(value))
            return _path, (value.relative_to(root).as_posix(),)

    packed = io.BytesIO()
    Packer(packed).dump(tuple(call))
    return packed.getvalue(), paths


class _Here(threading.local):
    """Of the call in this thread."""

    root: Path | None = None
    """Where the root's files are, while something is unpacked."""
    record: "CallRecord | None" = None


_here = _Here()


def this_call() -> "CallRecord | None":
    """In a staged call: its record."""
    return _here.record


def _path(name: str) -> Path:
    """A path below the root, on this machine. The root itself stands for all that is not to be seen: the cache."""
    assert _here.root is not None
    return cache_root() if name == "." else _here.root / name


def unpacked(packed: bytes, top: Path) -> Any:
    """What was packed, with its paths below `top`."""
    _here.root = top
    return pickle.loads(packed)


@dataclass
class CallRecord:
    """What a call has changed, as far as the driver was told."""

    stage: Stage
    top: Path
    blobs: Blobs
    out: History
    """Of changes of what it works on."""
    into: History
    """What others put there meanwhile."""
    told: dict[str, Looks] = field(default_factory=dict)
    contents: dict[str, Content] = field(default_factory=dict)
    """As they were told; of what grows, as it was at first."""
    number: int = 0
    heard: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held by who tells and takes in: while the call runs two threads do."""

    def __post_init__(self) -> None:
        self.told, self.contents = self._looks(), dict(self.stage.files)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While the block lasts, tell what changes where it is followed, and take in what others put there."""
        over = threading.Event()

        def follow() -> None:
            seen, waited = self._looks_followed(), 0
            while not over.wait(FOLLOW_SECONDS):
                try:
                    with self.turn:
                        self._take_in()
                        now = self._looks_followed()
                        # What looks as it did a moment ago is not being written just now.
                        settled = {n: looks for n, looks in now.items() if n.endswith(GROWS) or seen.get(n) == looks}
                        seen, waited = now, waited + 1 if len(settled) < len(now) else 0
                        if waited == 0 or waited > HELD_BACK:  # what is said of a checkpoint comes with it, not before
                            self._note(settled, now)
                except ClusterTrouble:  # said at the end, if it lasts
                    continue
                except Exception:  # whoever follows lives as long as the call
                    log.exception("what %s has written is not told just now", self.stage.name)

        thread = threading.Thread(target=follow, name="following", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def note_all(self) -> None:
        """Tell all that is different from what the driver knows."""
        with self.turn:
            now = self._looks()
            self._note(now, now)

    def exchange(self) -> None:
        """At once what `followed` does now and then, of all that is followed, as soon as nothing is being written."""
        with self.turn:
            self._take_in()
            while not self._note(dict(now := self._looks_followed()), now):
                time.sleep(FOLLOW_SECONDS / 10)

    def _note(self, settled: dict[str, Looks], now: dict[str, Looks]) -> bool:
        """Tell what changed among the `settled` files, and what of all `now` is gone: all as it was at one moment, or
        nothing, and then False. Where all is settled, since the call has ended, what cannot be had is left out."""
        has_ended = settled is now
        told = {
            name: looks
            for name, looks in self.told.items()
            if name in now or not (has_ended or self.stage.follows(name))
        }
        removed = [name for name in self.told if name not in told]
        changed = {name: looks for name, looks in settled.items() if self.told.get(name) != looks}
        grown = dict[str, Grown]()
        for name, looks in changed.items():
            before = self.told.get(name)
            if name.endswith(GROWS) and before is not None and before.inode == looks.inode and before.size < looks.size:
                with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                    grown[name] = Grown(offset=before.size, data=self._between(name, before.size, looks.size))
        files = self._held({name: looks for name, looks in changed.items() if name not in grown}, has_ended)
        if files is not None and (removed or files or grown):
            change = Change(removed=removed, files=files, grown=grown)
            self.number = self.out.append(change.model_dump_json(exclude_defaults=True).encode(), self.number)
            # Not before: what the store did not take is told again.
            self.told = told | {name: changed[name] for name in (*files, *grown)}
            self.contents = {name: c for name, c in self.contents.items() if name not in removed} | files
        return files is not None

    def _held(self, files: dict[str, Looks], has_ended: bool) -> dict[str, Content] | None:
        """What the files hold that look so; None where one of them is another by now, unless the call `has_ended`.

        They get second names first: who saves a checkpoint in the place of the last one leaves these as they are,
        however long they take to be stored.
        """
        folder, found = self.top / f".held-{uuid.uuid4().hex}", dict[str, Content]()
        if not files:
            return found
        folder.mkdir()
        try:
            held = {name: folder / f"{number}{Path(name).suffix}" for number, name in enumerate(files)}
            for name, path in held.items():
                with contextlib.suppress(FileNotFoundError):
                    share(self.top / name, path)
            as_they_were = all(looks_of(self.top / name) == files[name] for name in held if not name.endswith(GROWS))
            if not (as_they_were or has_ended):
                return None
            for name, path in held.items():
                try:
                    found[name] = content_of(path, self.blobs)
                except (FileNotFoundError, UserError):  # gone, or written to meanwhile
                    if not (has_ended or name.endswith(GROWS)):
                        return None
            return found
        finally:
            LOCAL.remove(folder)

    def _between(self, name: str, start: int, end: int) -> bytes:
        with (self.top / name).open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def _take_in(self) -> None:
        for number, data in self.into.after(self.heard):
            self.heard = number
            for name, content in Change.model_validate_json(data).files.items():
                assert content.data is not None
                path = self.top / name
                with LOCAL.writing(path) as temporary:  # whoever waits for it reads it as soon as it is there
                    temporary.write_bytes(content.data)
                if (looks := looks_of(path)) is not None:
                    self.told[name] = looks

    def _looks_followed(self) -> dict[str, Looks]:
        # First what grows: what it says then, of a checkpoint, is there when the rest is looked at.
        grew = {
            name: looks_of(self.top / name) for name in self.told if name.endswith(GROWS) and self.stage.follows(name)
        }
        found = {} if self.stage.works_in is None else self._looks(self.stage.works_in)
        found |= {name: looks for name, looks in grew.items() if looks is not None and name in found}
        reports = {name: looks_of(self.top / name) for name in self.stage.reports}
        return found | {name: looks for name, looks in reports.items() if looks is not None}

    def _looks(self, below: str | None = None) -> dict[str, Looks]:
        top = self.top if below is None else self.top / below
        prefix = "" if below is None else f"{below}/"
        return {
            f"{prefix}{name}": looks
            for name, looks in looks_below(top).items()
            if name.rpartition("/")[2] not in OF_A_MACHINE
        }
