"""The forms of an experiment of configs/experiments, as they ended: what is said of one is read from these."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.results import RowResults, read_results
from orchestrator.environment import seen
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import LineageSnapshot, Snapshot, SnapshotReader
from orchestrator.views.leaderboard import Leaderboard, LineageRow, build

RUNS = Path(__file__).parents[2] / "runs" / "published"
FORMS = {"equal": "equal rounds", "whole": "one budget"}


@dataclass(frozen=True)
class Held:
    """One form of an experiment, as it ended."""

    form: str
    snapshot: Snapshot
    board: Leaderboard

    @classmethod
    def read(cls, folder: Path, form: str) -> "Held":
        """From its run directory."""
        snapshot = SnapshotReader(RunDirectory(folder)).read()
        assert snapshot.is_finished, f"{folder}: is not finished"
        return cls(FORMS[form], snapshot, build(snapshot, snapshot.state))

    @property
    def lineages(self) -> Iterator[tuple[str, LineageSnapshot, LineageRow]]:
        """Each with what it is called in a table."""
        for one, row in zip(self.snapshot.lineages, self.board.lineages, strict=True):
            yield f"{one.name}, {self.form}", one, row

    def on_test(self, lineage: LineageSnapshot, model: ModelRef) -> RowResults:
        """Losses of a base or a champion on the test rows."""
        return read_results(self.snapshot.run.scores(lineage.name, model) / "losses.parquet", "test")

    @property
    def commits(self) -> list[str]:
        """Of the code that ran it, in order: more than one where other code went on with it."""
        known = [str(one.get("git_commit") or "unknown") for one in seen(self.snapshot.environment)]
        return list(dict.fromkeys(re.sub("([0-9a-f]{12})[0-9a-f]{28}", r"\1", one) for one in known)) or ["unknown"]


def forms_of(name: str, runs: Path = RUNS) -> list[Held]:
    """The forms of an experiment that are run."""
    folders = {form: runs / f"{name}-{form}" for form in FORMS}
    return [Held.read(folder, form) for form, folder in folders.items() if (folder / "tournament.yaml").is_file()]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def made_by(forms: Sequence[Held]) -> str:
    """Which code made them, with which seed."""
    told = {held.form: ", then ".join(held.commits) for held in forms}
    if len(set(told.values())) == 1:
        said = f"Commit {next(iter(told.values()))}"
    else:
        said = f"Commits: {'; '.join(f'{form} {commits}' for form, commits in told.items())}"
    return f"{said}; seed {forms[0].snapshot.config.seed}."
