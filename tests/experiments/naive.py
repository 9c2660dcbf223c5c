"""What a naive rule would have made of a tournament's entries, with test rows as the judge.

The rule of the published experiment, as far as its report says: whatever has the lowest validation loss of its round is
the new champion. And the same with a defending champion: it takes the title where its validation loss is below the
champion's. Ours asks for proof on rows that chose nothing. Winners that were never champions have no test loss on
record, on purpose; here, when all is over, they are scored on the test rows too, in a folder outside the run.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evaluation.compare import Gain, gain
from evaluation.evaluator import score_also
from evaluation.results import RowResults, read_results
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.record.jobs import as_submission, scoring_job
from orchestrator.record.records import ModelFolder
from orchestrator.record.snapshot import EntrySnapshot, LineageSnapshot, Snapshot

LEVEL = 0.05
"""The chance to err with which test rows call a model better, or worse."""


@dataclass(frozen=True)
class Change:
    """A round in which a rule gives the title to somebody new, or ours keeps it from a winner."""

    champion: ModelRef
    over: ModelRef
    on_test: Gain

    @property
    def round(self) -> int:
        """In which the champion was made."""
        return self.champion.round

    @property
    def is_noise(self) -> bool:
        """Whether the test loss did not fall."""
        return self.on_test.mean <= 0

    @property
    def is_proven(self) -> bool:
        """Whether test rows alone would have granted the title."""
        return not self.on_test.doubt and self.on_test.low(LEVEL) > 0


@dataclass(frozen=True)
class Judged:
    """A lineage's titles by each rule, and the winners from whom ours withheld it."""

    always: list[Change]
    """The winner of each round, whatever came before."""
    if_lower: list[Change]
    ours: list[Change]
    withheld: list[Change]
    on_validation: list[float]
    """Loss of the base, then of each round's winner, on the rows that choose."""
    curve: list[float]
    """Test loss of the first rule's champion after each round, the base first: what would have been published."""


def judge(snapshot: Snapshot, lineage: LineageSnapshot, folder: Path) -> Judged:
    """Apply the rules to a finished lineage. What test rows are still to be scored goes below `folder`."""
    rows = _Rows(snapshot, lineage, folder)
    won = [(v, ModelRef(v.winner, v.round)) for v in lineage.verdicts if v.winner is not None]
    winners = [winner for _, winner in won]
    always = _titles(winners, rows.on_test, lambda winner, champion: True)
    lower = _titles(winners, rows.on_test, lambda winner, champion: rows.chose(winner) < rows.chose(champion))
    ours, withheld = list[Change](), list[Change]()
    for verdict, winner in won:
        before = verdict.champion_before
        change = Change(winner, before, gain(rows.on_test(before), rows.on_test(winner)))
        (ours if verdict.dethroned else withheld).append(change)
    curve = [rows.on_test(BASE).loss, *(rows.on_test(winner).loss for winner in winners)]
    chosen_by = [rows.chose(model) for model in (BASE, *winners)]
    return Judged(always, lower, ours, withheld, chosen_by, curve)


def _titles(
    winners: list[ModelRef],
    on_test: Callable[[ModelRef], RowResults],
    takes_it: Callable[[ModelRef, ModelRef], bool],
) -> list[Change]:
    champion, changes = BASE, list[Change]()
    for winner in winners:
        if takes_it(winner, champion):
            changes.append(Change(winner, champion, gain(on_test(champion), on_test(winner))))
            champion = winner
    return changes


class _Rows:
    """Losses of a lineage's models, those on test rows scored where they are not on record."""

    def __init__(self, snapshot: Snapshot, lineage: LineageSnapshot, folder: Path) -> None:
        self.snapshot, self.lineage, self.folder = snapshot, lineage, folder

    def chose(self, model: ModelRef) -> float:
        """Nats per token on the rows that choose."""
        card = self.lineage.scorecard_of(model)
        assert card is not None
        return card.validation.loss

    def on_test(self, model: ModelRef) -> RowResults:
        """Losses on the test rows."""
        run, card = self.snapshot.run, self.lineage.scorecard_of(model)
        assert card is not None
        where = run.scores(self.lineage.name, model)
        if card.test is None:
            entry = self.lineage.entry(model)
            assert entry is not None
            where = self._scored(entry, model)
        return read_results(where / "losses.parquet", "test")

    def _scored(self, entry: EntrySnapshot, model: ModelRef) -> Path:
        run, out = self.snapshot.run, self.folder / self.lineage.name / str(model)
        if out.exists():
            return out
        out.mkdir(parents=True)
        for name in ("scorecard.json", "losses.parquet"):
            shutil.copy(entry.folder / name, out / name)
        seed = run.read(ModelFolder, run.round(self.lineage.name, model.round - 1) / "seed.json")
        assert seed is not None
        assert entry.inspection is not None
        base = Path(self.lineage.lineage.base)
        job = scoring_job(run, self.snapshot.config, str(model), entry.folder / "submission", base, out, model.round)
        score_also(as_submission(job, entry.inspection.form, seed.path or base), "test")
        return out
