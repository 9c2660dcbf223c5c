"""The ledger: what MLflow was sent, so that nothing is sent twice (mlflow.json).

Losing it does no harm but for time: the runs are found again in the store by their tags.
"""

from pathlib import Path
from typing import Any

from cluster.errors import BrokenRecord
from cluster.records import Record
from orchestrator.record.run_directory import RunDirectory


class Sent(Record):
    """What one MLflow run has been sent."""

    run_id: str
    status: str = "RUNNING"
    tags: dict[str, str] = {}
    """A short hash of each value: notes are long."""
    params: bool = False
    datasets: bool = False
    points: list[str] = []
    """`metric@step` of what has a place in the tree."""
    artifacts: dict[str, str] = {}
    """How each file looked, to send it again when it has changed."""
    attempt: int = 0
    events_offset: int = 0
    """How far into progress.jsonl."""
    left_out: list[str] = []
    """What could not be sent, in words."""
    model_version: str | None = None


class Ledger(Record):
    """mlflow.json."""

    uri: str
    experiment_id: str | None = None
    runs: dict[str, Sent] = {}
    """By key; that of the tournament itself is empty."""

    @classmethod
    def of(cls, run: RunDirectory, uri: str) -> "Ledger":
        """What was sent to the store at `uri`; nothing, where the last one was another.

        A file that is torn, or of another version of this program, is forgotten.
        """
        try:
            found = run.read(cls, ledger_file(run))
        except BrokenRecord:
            found = None
        return found if found is not None and found.uri == uri else cls(uri=uri)

    def with_run(self, key: str, **changes: Any) -> "Ledger":
        """The ledger with changes to one run."""
        sent = self.runs.get(key)
        changed = sent.model_copy(update=changes) if sent else Sent(**changes)
        return self.model_copy(update={"runs": {**self.runs, key: changed}})


def ledger_file(run: RunDirectory) -> Path:
    """mlflow.json of a run directory."""
    return run.root / "mlflow.json"
