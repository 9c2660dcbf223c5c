"""Workers on machines that share no disk: each call's files go there and come back by way of an object store."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from cluster.bucket.staging import FOLLOW_SECONDS, Stage, pack
from cluster.bucket.tree import GROWS, SMALL_BYTES, Change, Content
from cluster.bucket.working_copy import WorkingCopy
from cluster.errors import ClusterTrouble
from cluster.resources import Held, Shape
from cluster.workers import TRAINER, OverWorkers, Workers, nothing

T = TypeVar("T")
log = logging.getLogger(__name__)


class StagedWorkers(OverWorkers):
    """`cluster.workers.Workers` that works on a `WorkingCopy`, by those that run functions on their own machines.

    An argument of a call may say what it is about: `works_in`, a folder that is all the call's own, and that is
    followed while it runs; `adds_to`, a folder of which it needs the files, but not the folders in it. Of every other
    path in the arguments it is given what lies there; a file that grows is followed too.
    """

    def __init__(self, workers: Workers, copy: WorkingCopy) -> None:
        super().__init__(workers)
        self._copy = copy
        self._in_turn = asyncio.Lock()

    def refuse_impossible(self, shape: Shape, what: str) -> None:
        """As the protocol says."""
        super().refuse_impossible(replace(shape, shares_disk=False), what)

    async def call(
        self,
        shape: Shape,
        function: Callable[..., T],
        *args: Any,
        priority: int = TRAINER,
        deadline_seconds: float | None = None,
        placed: Callable[[Held], None] = nothing,
    ) -> T:
        """As the protocol says."""
        async with self._in_turn:  # who came first also asks for a place first
            stage = await asyncio.to_thread(self._stage, function, args)
        exchange = _Exchange(self._copy, stage)
        limits: dict[str, Any] = {"priority": priority, "deadline_seconds": deadline_seconds, "placed": placed}
        call = asyncio.ensure_future(self._workers.call(replace(shape, shares_disk=False), stage, **limits))
        step = None
        try:
            while not call.done():
                await asyncio.wait({call}, timeout=FOLLOW_SECONDS if stage.is_followed else None)
                if not call.done():
                    step = asyncio.ensure_future(asyncio.to_thread(exchange.go_on))
                    await asyncio.shield(step)
        finally:
            call.cancel()
            # A step that is under way when this is called off goes on: what it takes is older than what comes last.
            await asyncio.wait({call} if step is None else {call, step})
            await asyncio.to_thread(exchange.end)
        result: T = call.result()
        return result

    def _stage(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Stage:
        packed, paths = pack(self._copy.root, (function, *args))
        works_in = next((path for a in args if (path := getattr(a, "works_in", None)) is not None), None)
        added_to = {path for a in args if (path := getattr(a, "adds_to", None)) is not None}
        files = self._copy.contents(path for path in paths if path not in added_to)
        files |= self._copy.contents(added_to, is_shallow=True)
        files |= self._copy.contents([works_in] if works_in else [])
        name = works_in.relative_to(self._copy.root).as_posix() if works_in else None
        reports = tuple(path.relative_to(self._copy.root).as_posix() for path in paths if path.name.endswith(GROWS))
        return Stage(function.__name__, packed, self._copy.store.url, f"calls/{uuid.uuid4().hex}", files, name, reports)


class _Exchange:
    """What a call has changed and what others put where it works, carried to and fro. In one thread at a time."""

    def __init__(self, copy: WorkingCopy, stage: Stage) -> None:
        self.copy, self.stage = copy, stage
        self.out, self.into = (stage.history(copy.store, name) for name in ("out", "in"))
        self.taken = self.put = 0
        self.shown: set[str] = set()
        """What is here and not on record yet: reports are followed, and go on record with what matters more."""
        self.known = set(stage.files)

    def go_on(self) -> None:
        """Take what the call has changed since, and hand on what came into its folder."""
        try:
            self._take()
            self._put()
        except ClusterTrouble as trouble:  # asked again; what lasts is raised at the end
            log.warning("%s", trouble)

    def end(self) -> None:
        """Take what it has left."""
        self._take()
        if self.shown:
            self._on_record(Change())
        for history, count in ((self.out, self.taken), (self.into, self.put)):
            history.clear(count)

    def _take(self) -> None:
        for number, data in self.out.after(self.taken):
            change = Change.model_validate_json(data)
            texts = {*change.files, *change.grown}
            self.known |= texts
            if not change.removed and all(name.endswith(GROWS) for name in texts):
                self.copy.show(change)
                self.shown |= texts
            else:
                self._on_record(change)
            self.taken = number

    def _on_record(self, change: Change) -> None:
        """What is known of this change and of all that was only shown before, in one piece."""
        self.copy.take(change, also=self.shown - {*change.removed})
        self.shown.clear()

    def _put(self) -> None:
        if self.stage.works_in is None:
            return
        folder = self.copy.root / self.stage.works_in
        came = {
            f"{self.stage.works_in}/{path.name}": path
            for path in folder.iterdir()
            if path.is_file() and not path.name.startswith(".") and path.stat().st_size <= SMALL_BYTES
        }
        if new := {name: Content(data=path.read_bytes()) for name, path in came.items() if name not in self.known}:
            change = Change(files=new)
            self.put = self.into.append(change.model_dump_json(exclude_defaults=True).encode(), self.put)
            self.known |= {*new}
