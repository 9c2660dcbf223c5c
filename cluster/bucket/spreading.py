"""What a staged call starts on other machines: the workers of a gang, the trials of a search.

They are handed the call's files as those are at that moment. Of a gang the first worker, which is on the call's own
machine, writes all that matters. A trial writes into a folder of its own wherever it is, and what it writes is carried
to the call, as what the call writes is carried to the driver.
"""

import logging
import pickle
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.bucket.blobs import Blobs
from cluster.bucket.histories import History
from cluster.bucket.node_cache import cache_root
from cluster.bucket.object_store import ObjectStore
from cluster.bucket.staging import CallRecord, Stage, pack, this_call, unpacked
from cluster.bucket.tree import GROWS, Change, Content, apply, files_below, make_whole
from cluster.errors import ClusterTrouble

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spread:
    """Values for the processes that a call starts, on whatever machines they are."""

    packed: bytes
    stage: Stage | None
    """Where there is no disk that all of them see: the call's, with its files as they were last."""
    top: Path
    """Where the call itself has them."""

    @contextmanager
    def here(self, number: int) -> Iterator[Any]:
        """In worker `number` of a gang: the values, with their files at hand while the block lasts.

        Of a worker on another machine than the call's only logs are kept. So ClusterTrouble is raised where the first
        one is there, which writes all the rest.
        """
        if self.stage is None or self._is_beside_the_call:
            yield unpacked(self.packed, self.top)
            return
        if number == 0:
            raise ClusterTrouble("its first worker was placed on another node than what it writes is taken from")
        with self.stage.laid_out() as (top, blobs):
            try:
                yield unpacked(self.packed, top)
            finally:
                self._keep_logs(number, top, blobs)

    @contextmanager
    def apart(self, folder: Path, log_file: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
        """In a process that writes into a `folder` of its own and adds to a log of the call's: the values, with their
        files at hand while the block lasts, and a function after which what it has written is on its way to the call's
        `Gathering`, and what that has `put` is here. Both paths are as the call has them.

        Where the store does not answer, both raise ClusterTrouble.
        """
        if self.stage is None or self._is_beside_the_call:
            yield unpacked(self.packed, self.top), lambda: None
            return
        works_in, log_name = (path.relative_to(self.top).as_posix() for path in (folder, log_file))
        own = replace(self.stage, works_in=works_in, reports=(log_name,))
        with own.laid_out() as (top, blobs):
            (top / works_in).mkdir(parents=True)
            (top / log_name).touch()  # what grows from here on is told as that
            record = CallRecord(own, top, blobs, self.out_of(folder.name, blobs.store), self.into(blobs.store))
            try:
                with record.followed():
                    yield unpacked(self.packed, top), record.exchange
            except Exception:  # but not where it is ended, and waited for
                record.exchange()
                raise
            record.exchange()

    def gather(self, workers: int) -> None:
        """In the call of a gang, once its workers have ended: have the logs of those on other machines."""
        if self.stage is None:
            return
        store = self.stage.store()
        for key in map(self._log_key, range(1, workers)):
            if (data := store.read(key)) is None:  # it was here, or its machine was lost
                continue
            for name, content in Change.model_validate_json(data).files.items():
                with (self.top / name).open("ab") as file:
                    file.write(content.data or b"")
            store.delete(key)

    def out_of(self, name: str, store: ObjectStore) -> History:
        """What the process of this name has changed in its folder."""
        return History(store, f"{self._prefix}/{name}/out")

    def into(self, store: ObjectStore) -> History:
        """What the call has put there for all of them."""
        return History(store, f"{self._prefix}/in")

    def is_log(self, name: str) -> bool:
        """Whether the file is one that the call's processes add to."""
        assert self.stage is not None
        return name.startswith(f"{self.stage.works_in}/") and name.endswith(GROWS)

    def _keep_logs(self, number: int, top: Path, blobs: Blobs) -> None:
        logs = {name: Content(data=path.read_bytes()) for name, path in files_below(top) if self.is_log(name)}
        try:
            blobs.store.create(self._log_key(number), Change(files=logs).model_dump_json().encode())
        except ClusterTrouble as trouble:  # what it trained is with the others, and not lost
            log.warning("the log of worker %d is not kept: %s", number, trouble)

    def _log_key(self, number: int) -> str:
        return f"{self._prefix}/{number}"

    @property
    def _prefix(self) -> str:
        assert self.stage is not None
        return self.stage.prefix

    @property
    def _is_beside_the_call(self) -> bool:
        return self.top.is_relative_to(cache_root()) and self.top.is_dir()


def spread(*values: Any) -> Spread:
    """In a call: `values` for processes that it starts, with the files that their paths name as they are now."""
    if (record := this_call()) is None:
        return Spread(pickle.dumps(values), None, Path())
    record.note_all()
    stage = replace(record.stage, packed=b"", prefix=f"{record.stage.prefix}/{uuid.uuid4().hex}")
    found = Spread(pack(record.top, values)[0], stage, record.top)
    files = {name: content for name, content in record.contents.items() if not found.is_log(name)}
    return replace(found, stage=replace(stage, files=files))


@dataclass
class Gathering:
    """In the call: what comes from processes that work `apart`. Where all see one disk nothing needs to be done."""

    handed: Spread
    log_file: Path
    """To which all of them add."""
    taken: dict[str, int] = field(default_factory=dict)
    """By process: so many of its changes."""
    put_last: int = 0

    def take(self, name: str) -> None:
        """Have here what the process whose folder has this name has written since. What is wrong with the store is
        logged, and raised by `end` if it lasts."""
        with _logged():
            self._take(name)

    def put(self, path: Path) -> None:
        """Have this small file with all of them. What is wrong with the store is logged."""
        if (blobs := self._blobs) is None:
            return
        name, content = path.relative_to(self.handed.top).as_posix(), Content(data=path.read_bytes())
        change = Change(files={name: content}).model_dump_json(exclude_defaults=True)
        with _logged():
            self.put_last = self.handed.into(blobs.store).append(change.encode(), self.put_last)

    def end(self) -> None:
        """Once all have ended: take what is left, and leave nothing in the store."""
        if (blobs := self._blobs) is None:
            return
        for name in self.taken:
            self._take(name)
            self.handed.out_of(name, blobs.store).clear(self.taken[name])
        self.handed.into(blobs.store).clear(self.put_last)

    def _take(self, name: str) -> None:
        if (blobs := self._blobs) is None:
            return
        log_name, seen = self.log_file.relative_to(self.handed.top).as_posix(), self.taken.setdefault(name, 0)
        for number, data in self.handed.out_of(name, blobs.store).after(seen):
            change = Change.model_validate_json(data)
            change.files.pop(log_name, None)  # it was cut short there, which is not to be done here
            if (said := change.grown.pop(log_name, None)) is not None:
                with self.log_file.open("ab") as file:
                    file.write(said.data)
            apply(change, self.handed.top, blobs)
            for file_name in change.files:
                make_whole(self.handed.top / file_name, blobs)
            self.taken[name] = number

    @cached_property
    def _blobs(self) -> Blobs | None:
        return None if self.handed.stage is None else Blobs(self.handed.stage.store())


@contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except ClusterTrouble as trouble:
        log.warning("%s", trouble)
