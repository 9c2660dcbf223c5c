"""The columns of a round's entries: a new one is a line in this table. And those of its recipes that are repeated.

From it follow leaderboard.json's entries, the terminal's table and the report's.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from cluster.errors import BrokenRecord
from competitors.contract import Submission
from evaluation.figures import figure_of
from orchestrator.record.records import Proof, RecipeStanding, Standing, Verdict
from orchestrator.record.snapshot import EntrySnapshot
from orchestrator.views.words import duration, is_missing, signed

T = TypeVar("T")

Place = Literal["terminal", "report"]


Value = Callable[[EntrySnapshot, Verdict], float | None]
"""From what is on record of the entry, and the verdict of its round."""


@dataclass(frozen=True)
class Column:
    """One number about an entry of a settled round."""

    key: str
    """In leaderboard.json."""
    title: str
    value: Value
    text: Callable[[float], str]
    of_scored: bool = False
    """Whether only a scored entry has it."""
    shown: tuple[Place, ...] = ("terminal", "report")

    def cell(self, row: object) -> str:
        """What its cell says in an entry's row of the leaderboard."""
        value: float | None = getattr(row, self.key)
        return "" if value is None else self.text(value)


def shown_in(place: Place, metric: str = "loss") -> list[Column]:
    """The columns that a table has there, those of scored entries first; with the metric where no loss chose."""
    figure, columns = figure_of(metric), [column for column in COLUMNS if place in column.shown]
    if metric != "loss":
        columns.insert(1, replace(METRIC, title=figure.title, text=figure.text))
    return sorted(columns, key=lambda column: not column.of_scored)


def required(record: T | None, path: Path) -> T:
    """A record that is there in every settled round. BrokenRecord, naming its file, if it is not."""
    if record is None:
        raise BrokenRecord(is_missing(path))
    return record


def submission_of(entry: EntrySnapshot) -> Submission:
    """What became of an entry of a settled round."""
    return required(entry.submission, entry.folder / "submission.json")


def _loss(value: float) -> str:
    return f"{value:.4f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _scored(get: Callable[[Standing], float | None]) -> Value:
    return lambda entry, verdict: None if (one := verdict.standing(entry.name)) is None else get(one)


def _proven(get: Callable[[Proof], float]) -> Value:
    return lambda entry, verdict: None if (proof := verdict.proof_of(entry.name)) is None else get(proof)


def _spent(get: Callable[[Submission], float | None]) -> Value:
    return lambda entry, _: get(submission_of(entry))


def _speed(submission: Submission) -> float | None:
    return submission.train_tokens / submission.train_seconds if submission.train_seconds else None


@dataclass(frozen=True)
class RecipeColumn:
    """One cell of a recipe that is repeated, by its runs in a round."""

    title: str
    cell: Callable[[RecipeStanding], str]


def _known(text: Callable[[float], str], *values: float | None) -> str:
    return " to ".join(text(value) for value in values if value is not None)


RECIPE_COLUMNS = (
    RecipeColumn("runs scored", lambda one: f"{len(one.losses)} of {one.runs}"),
    RecipeColumn("mean loss", lambda one: _known(_loss, one.validation_loss)),
    RecipeColumn("deviation", lambda one: _known(_loss, one.deviation)),
    RecipeColumn("behind the first", lambda one: _known(signed, one.behind)),
    RecipeColumn("interval", lambda one: _known(signed, one.behind_low, one.behind_high)),
)

METRIC = Column("metric", "metric", _scored(lambda one: one.metric), _loss, of_scored=True, shown=())
COLUMNS = (
    Column("validation_loss", "validation", _scored(lambda one: one.validation_loss), _loss, of_scored=True),
    METRIC,
    Column("improvement", "gain", _scored(lambda one: one.improvement), signed, of_scored=True),
    Column("improvement_seen", "on proof", _proven(lambda proof: proof.improvement), signed, of_scored=True),
    Column("improvement_low", "at least", _proven(lambda proof: proof.improvement_low), signed, of_scored=True),
    Column("train_tokens", "tokens", _spent(lambda one: one.train_tokens), _count),
    Column("train_tokens_per_second", "tokens/s", _spent(_speed), _count),
    Column("train_seconds", "training time", _spent(lambda one: one.train_seconds), duration),
    Column("wall_seconds", "wall", _spent(lambda one: one.wall_seconds), duration, shown=()),
    Column("device_seconds", "device time", _spent(lambda one: one.device_seconds), duration, shown=("report",)),
)
