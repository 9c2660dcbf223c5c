"""A tournament that is stopped as if its driver had been killed, and what must be the same afterwards."""

from pathlib import Path
from typing import Any

from cluster.store import LocalStore
from orchestrator.record.snapshot import Snapshot


def outcome(snapshot: Snapshot) -> Any:
    """Everything that must not depend on how often a tournament was stopped."""
    return [
        (lineage.name, verdict.model_dump(), [(entry.name, entry.state, entry.reason) for entry in round_.entries])
        for lineage in snapshot.lineages
        for round_ in lineage.settled
        if (verdict := round_.verdict) is not None
    ]


def models(snapshot: Snapshot) -> dict[str, str]:
    """The model folders of the record, by path, and who made what lies there."""
    root = snapshot.run.root
    return {
        str(path.parent.relative_to(root)): path.read_text()
        for name in ("seed", "champion")
        for path in root.rglob(f"{name}/config.json")
    }


class Stopped(BaseException):
    """As if the driver had been killed just now."""


class StoppingStore(LocalStore):
    """Counts what is done to the disk, and stops before the operation number `last`, cleaning nothing up."""

    def __init__(self, last: int | None = None) -> None:
        self.count, self.last = 0, last

    def _next(self) -> None:
        self.count += 1
        if self.is_stopped:
            raise Stopped

    @property
    def is_stopped(self) -> bool:
        return self.last is not None and self.count >= self.last

    def move(self, source: Path, destination: Path) -> None:
        self._next()
        super().move(source, destination)

    def remove(self, path: Path) -> None:
        if self.is_stopped:
            return
        if path.exists():
            self._next()
        super().remove(path)
