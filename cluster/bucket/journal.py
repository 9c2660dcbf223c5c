"""The record of a folder in an object store: every change of it, numbered, and now and then a sum.

A sum says what the folder holds after some change, so that reading begins there: hours of a tournament are thousands
of changes. It follows from the changes alone, whoever writes it, and none of them is removed.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from cluster.bucket.histories import History
from cluster.bucket.object_store import ObjectStore
from cluster.bucket.tree import Change, Content, after

AT_ONCE = 32
"""So many changes are asked for side by side."""
SUMMED = 1000
"""So many changes a sum stands for, at least."""


class Sum(Change):
    """What a folder holds after its change `number`; nothing is removed and nothing grows."""

    number: int


class Journal:
    """The changes of the folder whose record lies in `store`."""

    def __init__(self, store: ObjectStore) -> None:
        self._changes, self._sums = History(store, "journal"), History(store, "sums")
        self._summed = 0
        """The newest sum that is known."""

    def read(self) -> tuple[dict[str, Content], int]:
        """What the folder holds, by name, and the number of its last change; 0 where there is none."""
        state, last = dict[str, Content](), 0
        self._summed = self._last_sum()
        if (data := self._sums.store.read(self._sums.key(self._summed))) is not None:
            whole = Sum.model_validate_json(data)
            state, last = whole.files, whole.number
        for data in self._after(last):
            state = after(state, Change.model_validate_json(data))
            last += 1
        return state, last

    def append_after(self, last: int, change: Change, mark: str | None = None) -> bool:
        """As a `History` does."""
        return self._changes.append_after(last, change.model_dump_json(exclude_defaults=True).encode(), mark)

    def sum_up(self) -> None:
        """Add a sum of all until now."""
        state, last = self.read()
        self._sums.append_after(self._summed, Sum(number=last, files=state).model_dump_json().encode())

    def _last_sum(self) -> int:
        """The number of the newest one, by some heads: there is no gap."""

        def is_there(number: int) -> bool:
            return self._sums.store.size(self._sums.key(number)) is not None

        there, beyond = self._summed, self._summed + 1
        while is_there(beyond):
            there, beyond = beyond, 2 * beyond
        while beyond - there > 1:
            between = (there + beyond) // 2
            there, beyond = (between, beyond) if is_there(between) else (there, between)
        return there

    def _after(self, last: int) -> Iterator[bytes]:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for first in itertools.count(last + 1, AT_ONCE):
                keys = [self._changes.key(number) for number in range(first, first + AT_ONCE)]
                for data in threads.map(self._changes.store.read, keys):
                    if data is None:
                        return
                    yield data
