"""leaderboard.json: the whole record of a tournament in one small file.

It is a contract: other programs read it. Terminal tables and the report are drawn from it as well. What a
champion's or a reference's test rows come to is `test` here, by figure; in the file each figure has its own key, as
`test_loss`. Entries have none: test rows report, and what is not seen is not chosen by.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

from cluster.records import Record
from evaluation.figures import measured
from evaluation.figures.figure import Figure
from evaluation.scorecard import Scorecard
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.record.events import State
from orchestrator.record.records import RecipeStanding, Verdict
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import EntrySnapshot, LineageSnapshot, RoundSnapshot, Snapshot
from orchestrator.views.columns import COLUMNS, required, submission_of
from orchestrator.views.tokens import left_over, tokens_of

TEST = "test_"


class Tested(Record):
    """A row with the figures of a model's test rows, by the names of `evaluation.figures`."""

    test: dict[str, float] = {}

    @property
    def test_loss(self) -> float | None:
        """Nats per completion token; None where it was not scored."""
        return self.test.get("loss")

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "test" in data:
            return data
        test = {key.removeprefix(TEST): value for key, value in data.items() if key.startswith(TEST)}
        found = {key: value for key, value in test.items() if value is not None}
        return {key: value for key, value in data.items() if not key.startswith(TEST)} | {"test": found}

    @model_serializer(mode="wrap")
    def _spread(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        test = {TEST + name: value for name, value in values.pop("test").items()}
        flat: dict[str, Any] = {}
        for key, value in values.items():
            flat[key] = value
            if key == "validation_loss":  # every such row has it
                flat |= test
        return flat


class EntryRow(Record):
    """One entry of a round. What views.columns has besides is an attribute too."""

    model_config = ConfigDict(extra="allow")

    competitor: str
    kind: str
    status: Literal["scored", "forfeit", "rejected"]
    reason: str
    validation_loss: float | None = None
    metric: float | None = None
    improvement: float | None = None
    improvement_seen: float | None = None
    improvement_low: float | None = None
    train_tokens: int = 0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    device_seconds: float = 0.0
    submission_sha256: str | None = None
    origin: str = ""
    """Where the recipe comes from, in words; empty for one that stands in the config."""
    stored: str = ""
    """In which dtype its merged adapter goes on and why, where that is not its seed's own."""
    log: str | None = None
    """The file with what it printed and how it ended, relative to the run directory."""


class RoundRow(Tested):
    """One settled round; the losses are the champion's after it."""

    round: int
    champion: ModelRef
    dethroned: bool
    winner: str | None
    seed_next: ModelRef
    metric: str = "loss"
    """By which figure was chosen."""
    exploits: str | None = None
    """The recipe that the rounds after this one exploit; None while recipes are explored."""
    validation_loss: float
    field: list[str] = []
    """What changed in the field before this round, in words."""
    reasons: list[str] = []
    recipes: list[RecipeStanding] = []
    """Those that are repeated, by their runs in this round; the lowest mean loss first."""
    entries: list[EntryRow] = []


class LineageRow(Record):
    """One lineage."""

    name: str
    base: str
    rounds: list[RoundRow]
    tokens_spent: int = 0
    """By everybody in this lineage."""
    tokens_on_champions_line: int = 0
    tokens_on_ingredients: int = 0
    """Of soups on the champion's line."""
    tokens_lost: int = 0
    """With processes that ended, and trained again."""
    tokens_left_over: int | None = None
    """Of a whole budget; None without one, and before the last round."""


class ReferenceRow(Tested):
    """A model that is only scored."""

    name: str
    model: str
    validation_loss: float


class Leaderboard(Record):
    """leaderboard.json."""

    tournament: str
    state: State
    lineages: list[LineageRow]
    references: list[ReferenceRow]
    cost: float | None = None
    """So far; None where there are no prices."""

    @property
    def figures(self) -> list[Figure]:
        """Those that the test rows of any model come to, in order."""
        rounds = [row.test for lineage in self.lineages for row in lineage.rounds]
        return measured([*rounds, *(row.test for row in self.references)])


def build(snapshot: Snapshot, state: State) -> Leaderboard:
    """The leaderboard of what is on record. BrokenRecord where a settled round lacks one of its records."""
    return Leaderboard(
        tournament=snapshot.config.name,
        state=state,
        lineages=[
            LineageRow(
                name=one.name,
                base=one.lineage.base,
                rounds=_rounds(snapshot.run, one),
                **{f"tokens_{key}": value for key, value in tokens_of(one).model_dump().items()},
                tokens_left_over=left_over(snapshot.config, one),
            )
            for one in snapshot.lineages
        ],
        references=[
            ReferenceRow(name=one.name, model=one.model, validation_loss=card.validation.loss, test=card.test_figures)
            for one in snapshot.config.references
            if one.model is not None and (card := snapshot.references.get(one.name)) is not None
        ],
        cost=snapshot.spent.cost,
    )


COST = re.compile(rb'^ ?"cost": .*$', re.MULTILINE)


def is_written(run: RunDirectory, board: Leaderboard, but_for_cost: bool = False) -> bool:
    """Whether leaderboard.json says just that, or all of it but the cost."""
    file = run.leaderboard_file
    if not file.is_file():
        return False
    there, now = file.read_bytes(), board.to_text().encode()
    return there == now or (but_for_cost and COST.sub(b"", there) == COST.sub(b"", now))


def write(run: RunDirectory, board: Leaderboard) -> Path:
    """Write leaderboard.json where it differs from what is there, and return its path."""
    if not is_written(run, board):
        run.store.write_text(run.leaderboard_file, board.to_text())
    return run.leaderboard_file


def _rounds(run: RunDirectory, lineage: LineageSnapshot) -> list[RoundRow]:
    if lineage.scorecard is None and not lineage.settled:
        return []
    card = _scorecard(run, lineage, BASE)
    base = {"champion": BASE, "dethroned": False, "winner": None, "seed_next": BASE}
    rows = [RoundRow(round=0, **base, validation_loss=card.validation.loss, test=card.test_figures)]
    for one in lineage.rounds:
        if one.verdict is not None:
            rows.append(_round_row(run, _scorecard(run, lineage, one.verdict.champion), one, one.verdict))
        elif one is not lineage.rounds[-1]:  # what came after it rests on it
            required(one.verdict, one.folder / "verdict.json")
    return rows


def _scorecard(run: RunDirectory, lineage: LineageSnapshot, model: ModelRef) -> Scorecard:
    return required(lineage.scorecard_of(model), run.scores(lineage.name, model) / "scorecard.json")


def _round_row(run: RunDirectory, card: Scorecard, one: RoundSnapshot, verdict: Verdict) -> RoundRow:
    place = {name: number for number, name in enumerate(verdict.ranking)}
    ordered = sorted(one.entries, key=lambda entry: (place.get(entry.name, len(place)), entry.name))
    return RoundRow(
        round=verdict.round,
        champion=verdict.champion,
        dethroned=verdict.dethroned,
        winner=verdict.winner,
        seed_next=verdict.seed_next,
        metric=verdict.metric,
        exploits=verdict.exploits,
        validation_loss=verdict.validation_loss,  # on the rows of this round, where those rotate
        test=card.test_figures,
        field=one.roster.reasons,
        reasons=verdict.reasons,
        recipes=verdict.recipes,
        entries=[_entry_row(run, entry, verdict) for entry in ordered],
    )


def _entry_row(run: RunDirectory, entry: EntrySnapshot, verdict: Verdict) -> EntryRow:
    standing, submission = verdict.standing(entry.name), submission_of(entry)
    status = "forfeit" if submission.status == "forfeit" else "rejected" if standing is None else "scored"
    card = None if standing is None else required(entry.scorecard, entry.folder / "scorecard.json")
    known: Mapping[str, Any] = {column.key: column.value(entry, verdict) for column in COLUMNS}
    return EntryRow(
        competitor=entry.name,
        kind=entry.entry.recipe.kind,
        status=status,
        reason=entry.reason,
        submission_sha256=submission.sha256,
        origin=entry.entry.origin,
        stored=card.merge.in_words if card and card.merge else "",
        log=str(entry.log_file.relative_to(run.root)) if entry.log_file.is_file() else None,
        **known,
    )
