"""leaderboard.json: the whole record of a tournament in one small file, built from the run directory.

It is a contract: other programs read it. Terminal tables and the report are drawn from it as well.
"""

from pathlib import Path
from typing import Literal

from cluster.records import Record
from cluster.store import LOCAL
from competitors.contract import Submission
from evaluation.scorecard import Scorecard
from orchestrator.config import Lineage, TournamentConfig
from orchestrator.field.field import read_roster
from orchestrator.record.records import Rejection, RosterEntry
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.verdict import Verdict

State = Literal["running", "finished", "stopped"]


class EntryRow(Record):
    """One entry of a round."""

    competitor: str
    kind: str
    status: Literal["scored", "forfeit", "rejected"]
    reason: str
    validation_loss: float | None = None
    test_loss: float | None = None
    improvement: float | None = None
    improvement_low: float | None = None
    train_tokens: int = 0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    device_seconds: float = 0.0
    submission_sha256: str | None = None
    origin: str = ""
    """Where the recipe comes from, in words; empty for one that stands in the config."""


class RoundRow(Record):
    """One settled round; the losses are the champion's after it."""

    round: int
    champion: str
    dethroned: bool
    winner: str | None
    seed_next: str
    exploits: str | None = None
    """The recipe that the rounds after this one exploit; None while recipes are explored."""
    validation_loss: float
    test_loss: float
    test_bits_per_byte: float
    test_perplexity: float
    field: list[str] = []
    """What changed in the field before this round, in words."""
    reasons: list[str] = []
    entries: list[EntryRow] = []


class LineageRow(Record):
    """One lineage."""

    name: str
    base: str
    rounds: list[RoundRow]


class ReferenceRow(Record):
    """A model that is only scored."""

    name: str
    model: str
    validation_loss: float
    test_loss: float
    test_bits_per_byte: float


class Leaderboard(Record):
    """leaderboard.json."""

    tournament: str
    state: State
    lineages: list[LineageRow]
    references: list[ReferenceRow]


def build(config: TournamentConfig, run: RunDirectory, state: State) -> Leaderboard:
    """The leaderboard of what is on record."""
    return Leaderboard(
        tournament=config.name,
        state=state,
        lineages=[LineageRow(name=x.name, base=x.base, rounds=_rounds(config, run, x)) for x in config.lineages],
        references=[
            ReferenceRow(
                name=reference.name,
                model=reference.model,
                validation_loss=card.validation.loss,
                test_loss=card.test.loss,
                test_bits_per_byte=card.test.bits_per_byte,
            )
            for reference in config.references
            if reference.model is not None
            and (card := Scorecard.read_if_there(run.reference(reference.name) / "scorecard.json")) is not None
        ],
    )


def write(config: TournamentConfig, run: RunDirectory, state: State) -> Leaderboard:
    """Build leaderboard.json and write it where it differs from what is there."""
    board = build(config, run, state)
    text = board.to_text()
    if not run.leaderboard_file.exists() or run.leaderboard_file.read_text(encoding="utf-8") != text:
        LOCAL.write_text(run.leaderboard_file, text)
    return board


def is_finished(config: TournamentConfig, run: RunDirectory) -> bool:
    """Whether every round of every lineage and every reference is on record."""
    for lineage in config.lineages:
        verdicts = settled(config, run, lineage)
        if not has_ended(config, verdicts) or not (run.round(lineage.name, len(verdicts)) / "seed.json").exists():
            return False
    return all((run.reference(r.name) / "scorecard.json").exists() for r in config.references if r.model is not None)


def has_ended(config: TournamentConfig, verdicts: list[Verdict]) -> bool:
    """Whether a lineage with these verdicts has no round left."""
    return len(verdicts) >= config.all_rounds or bool(verdicts and verdicts[-1].ends_lineage)


def state_of(config: TournamentConfig, run: RunDirectory) -> State:
    """Whether a run directory's tournament is finished, running now, or stopped."""
    if is_finished(config, run):
        return "finished"
    return "running" if run.is_running else "stopped"


def settled(config: TournamentConfig, run: RunDirectory, lineage: Lineage) -> list[Verdict]:
    """The verdicts of a lineage so far, round 1 first."""
    verdicts = []
    for number in range(1, config.all_rounds + 1):
        verdict = Verdict.read_if_there(run.round(lineage.name, number) / "verdict.json")
        if verdict is None:
            break
        verdicts.append(verdict)
    return verdicts


def _rounds(config: TournamentConfig, run: RunDirectory, lineage: Lineage) -> list[RoundRow]:
    base = Scorecard.read_if_there(run.round(lineage.name, 0) / "scorecard.json")
    if base is None:
        return []
    rows = [_round_row(0, "base", False, None, "base", base)]
    for verdict in settled(config, run, lineage):
        card = Scorecard.read(scorecard_of(run, lineage.name, verdict.champion))
        entries = [_entry_row(run, verdict, entry) for entry in field_of(config, run, lineage.name, verdict.round)]
        row = _round_row(verdict.round, verdict.champion, verdict.dethroned, verdict.winner, verdict.seed_next, card)
        ranked = sorted(entries, key=lambda e: (e.validation_loss is None, e.validation_loss or 0.0, e.competitor))
        roster = read_roster(run, lineage.name, verdict.round)
        more = {"reasons": verdict.reasons, "entries": ranked, "exploits": verdict.exploits}
        more["field"] = roster.reasons if roster else []
        rows.append(row.model_copy(update=more))
    return rows


def _round_row(
    number: int, champion: str, dethroned: bool, winner: str | None, seed_next: str, card: Scorecard
) -> RoundRow:
    return RoundRow(
        round=number,
        champion=champion,
        dethroned=dethroned,
        winner=winner,
        seed_next=seed_next,
        validation_loss=card.validation.loss,
        test_loss=card.test.loss,
        test_bits_per_byte=card.test.bits_per_byte,
        test_perplexity=card.test.perplexity,
    )


def scorecard_of(run: RunDirectory, lineage: str, label: str) -> Path:
    """The scorecard of a model by its label, `base` or `competitor@round`."""
    name, _, number = label.partition("@")
    folder = run.entry(lineage, int(number), name) if number else run.round(lineage, 0)
    return folder / "scorecard.json"


def field_of(config: TournamentConfig, run: RunDirectory, lineage: str, number: int) -> list[RosterEntry]:
    """Who competes in a round: its roster, or the config's competitors where it has not begun."""
    roster = read_roster(run, lineage, number)
    return roster.entries if roster else [RosterEntry(recipe=recipe) for recipe in config.competitors]


def _entry_row(run: RunDirectory, verdict: Verdict, entry: RosterEntry) -> EntryRow:
    name, kind = entry.recipe.name, entry.recipe.kind
    folder = run.entry(verdict.lineage, verdict.round, name)
    submission = Submission.read(folder / "submission.json")
    rejection = Rejection.read_if_there(folder / "rejected.json")
    cost = EntryRow(
        competitor=name,
        kind=kind,
        status="forfeit" if submission.status == "forfeit" else "rejected" if rejection else "scored",
        reason=rejection.reason if rejection else submission.reason,
        train_tokens=submission.train_tokens,
        train_seconds=submission.train_seconds,
        wall_seconds=submission.wall_seconds,
        device_seconds=submission.device_seconds,
        submission_sha256=submission.sha256,
        origin=entry.origin,
    )
    standing = next((s for s in verdict.entries if s.competitor == name), None)
    if standing is None:
        return cost
    card = Scorecard.read(folder / "scorecard.json")
    return cost.model_copy(
        update={
            "validation_loss": standing.validation_loss,
            "test_loss": card.test.loss,
            "improvement": standing.improvement,
            "improvement_low": standing.improvement_low,
        }
    )
