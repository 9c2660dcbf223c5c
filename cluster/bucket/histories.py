"""Histories: numbered records of one kind, where the order matters and none may be lost, such as what a driver decided.

Number n is only created by who has seen number n - 1, so there is no gap, and the last one is found by reading on
from any that is known: no listing has to be consistent.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.bucket.object_store import ObjectStore


@dataclass(frozen=True)
class History:
    """Records 1, 2, 3, … below one prefix of a store."""

    store: ObjectStore
    prefix: str

    def key(self, number: int) -> str:
        """Where a record lies."""
        return f"{self.prefix}/{number:08d}"

    def after(self, number: int = 0) -> Iterator[tuple[int, bytes]]:
        """The records that follow `number`, with their numbers, as far as there are any now."""
        while (data := self.store.read(self.key(number + 1))) is not None:
            number += 1
            yield number, data

    def append_after(self, last: int, data: bytes, mark: str | None = None) -> bool:
        """Append `data` right after record `last`, which is known to be there (0: as the first).

        False where somebody else has appended since: who decides by what it has read reads on, and decides again. With
        the same `mark` it may be asked again, as of `ObjectStore.create`.
        """
        return self.store.create(self.key(last + 1), data, mark)

    def clear(self, last: int) -> None:
        """Remove the records until `last`, which nobody needs any more."""
        self.store.delete(*map(self.key, range(1, last + 1)))

    def append(self, data: bytes, last: int = 0) -> int:
        """Append `data` whatever has come after record `last`, and return its number."""
        while not self.append_after(last, data):
            last = max((number for number, _ in self.after(last)), default=last)
        return last + 1
