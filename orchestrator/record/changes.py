"""Changing a tournament that has begun: what `enter`, `withdraw` and `extend` put on record, and from which round on.

A change counts from the first round that no lineage has begun, in every lineage alike. Where the record lies in an
object store it is asked for there, and whoever drives the tournament takes it in before its next round.
"""

from collections.abc import Iterator

from pydantic import ValidationError

from cluster.errors import UserError
from cluster.records import nearest
from competitors.kinds import Recipe
from orchestrator.config.loading import explain
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.changes import Change
from orchestrator.field.roster import RosterEntry
from orchestrator.record.records import Verdict
from orchestrator.record.run_directory import RunDirectory


def everyone(config: TournamentConfig, run: RunDirectory, lineage: str) -> dict[str, RosterEntry]:
    """Every competitor that a lineage has had so far, by name, in order of appearance; before its first round,
    those of the config."""
    found: dict[str, RosterEntry] = {}
    for number in range(1, config.all_rounds + 1):
        roster = run.roster(lineage, number)
        if roster is None:
            break
        for entry in roster.entries:
            found.setdefault(entry.recipe.name, entry)
    return found or {recipe.name: RosterEntry(recipe=recipe) for recipe in config.competitors}


def current(config: TournamentConfig, run: RunDirectory) -> dict[str, Recipe]:
    """The recipes that any lineage has in its newest round, with what was entered for later ones."""
    names: dict[str, Recipe] = {}
    for lineage in config.lineages:
        rosters = [run.roster(lineage.name, number) for number in range(1, config.all_rounds + 1)]
        begun = [roster for roster in rosters if roster is not None]
        entries = begun[-1].entries if begun else [RosterEntry(recipe=recipe) for recipe in config.competitors]
        names |= {entry.recipe.name: entry.recipe for entry in entries}
    first = next_open_round(config, run)
    for change in config.changes:
        if change.from_round >= first:
            names |= {recipe.name: recipe for recipe in change.enter}
            names.pop(change.withdraw or "", None)
    return names


def still_needed(config: TournamentConfig, run: RunDirectory) -> TournamentConfig:
    """The config without the competitors that enter no round any more and the references that are scored."""
    there = current(config, run)
    competitors = [recipe for recipe in config.competitors if recipe.name in there]
    scored = {one.name for one in config.references if (run.reference(one.name) / "scorecard.json").is_file()}
    references = [one for one in config.references if one.name not in scored]
    return config.model_copy(update={"competitors": competitors, "references": references})


def next_open_round(config: TournamentConfig, run: RunDirectory) -> int:
    """The first round that no lineage has begun: what changes now counts from there, in every lineage alike."""
    begun = [
        number
        for lineage in config.lineages
        for number in range(1, config.all_rounds + 1)
        if (run.round(lineage.name, number) / "roster.json").exists()
    ]
    return max(begun, default=0) + 1


def enter(run: RunDirectory, recipes: list[Recipe]) -> Change:
    """Have `recipes` compete from the next open round on. UserError when a name is taken or no round is left."""
    with run.changing():
        config = changeable(run)
        number = _open_round(config, run)
        taken = {name for lineage in config.lineages for name in everyone(config, run, lineage.name)}
        taken |= set(current(config, run))
        for recipe in recipes:
            if recipe.name in taken:
                raise UserError(f"competitors[{recipe.name}].name: {run.where} has or had one of this name already")
        change = Change(from_round=number, enter=recipes)
        run.record_change(config, change)
    return change


def withdraw(run: RunDirectory, name: str) -> Change:
    """Have a competitor compete no longer from the next open round on. UserError when there is none, or no other."""
    with run.changing():
        config = changeable(run)
        number, there = _open_round(config, run), current(config, run)
        if name not in there:
            raise UserError(f'{run.where}: no competitor "{name}" competes there{nearest(name, there)}')
        if len(there) == 1:
            raise UserError(f"{run.where}: {name} is its only competitor: enter another one first")
        change = Change(from_round=number, withdraw=name)
        run.record_change(config, change)
    return change


def extend(run: RunDirectory, rounds: int) -> Change:
    """Have every lineage run `rounds` more rounds."""
    with run.changing():
        config = changeable(run)
        change = _from_next_round(Change(from_round=1, extend=rounds), config, run)
        run.record_change(config, change)
    return change


def take_in(run: RunDirectory) -> list[str]:
    """Put on record what was asked for from elsewhere since, and say in words what that is; for who writes the record,
    while `changing`."""
    said = []
    for asked in _asked(run, run.config):
        try:
            if isinstance(asked, UserError):
                raise asked
            change = _from_next_round(asked, run.config, run)
            run.record_change(run.config, change)
        except UserError as reason:  # two asked at once, or another version did: no reason for the rounds to end
            said.append(f"what was asked for from elsewhere cannot be done: {reason}")
        else:
            said.append(f"asked for from elsewhere: {change.in_words}")
    return said


def _asked(run: RunDirectory, config: TournamentConfig) -> Iterator[Change | UserError]:
    """What was asked for and is not on record, or why it cannot be read."""
    for number, request in run.store.asked(max((change.asked for change in config.changes), default=0)):
        try:
            yield Change.model_validate_json(request).model_copy(update={"asked": number})
        except ValidationError as error:
            yield UserError(f"{run.where}: asked/{number:08d}: {explain(error, None)}")


def _from_next_round(change: Change, config: TournamentConfig, run: RunDirectory) -> Change:
    _refuse_if_over(config, run)
    number = next_open_round(config, run)
    if change.extend is not None:
        number = min(number, config.all_rounds + 1)
    return change.model_copy(update={"from_round": number})


def changeable(run: RunDirectory) -> TournamentConfig:
    """The config of a run whose field may change, with what was asked for already. UserError where its whole budget is
    shared out."""
    config = run.config
    if config.budget.whole is not None:
        raise UserError(
            f"{run.where}: its whole budget is shared out among its competitors and rounds: start another tournament,"
            " from its champion if you like"
        )
    asked = [change for change in _asked(run, config) if isinstance(change, Change)]
    return config.model_copy(update={"changes": [*config.changes, *asked]})


def told(run: RunDirectory, change: Change) -> str:
    """A change in words, for who made it."""
    return change.in_words + ("" if run.lies_at is None else ", or whichever begins next: it is asked for in the store")


def _refuse_if_over(config: TournamentConfig, run: RunDirectory) -> None:
    """UserError where patience has ended every lineage: no round follows, however many there may be."""
    if all(_has_ended_early(config, run, lineage.name) for lineage in config.lineages):
        raise UserError(
            f"{run.where}: all its lineages have ended (selection.patience: {config.selection.patience}): start another"
            " tournament, from its champion if you like"
        )


def _has_ended_early(config: TournamentConfig, run: RunDirectory, lineage: str) -> bool:
    found = (run.read(Verdict, run.round(lineage, n) / "verdict.json") for n in range(config.all_rounds, 0, -1))
    last = next((verdict for verdict in found if verdict is not None), None)
    return last is not None and last.ends_lineage


def _open_round(config: TournamentConfig, run: RunDirectory) -> int:
    _refuse_if_over(config, run)
    number, where = next_open_round(config, run), run.where
    if number > config.all_rounds:
        raise UserError(f"{where}: its last round has begun; add rounds first: tournament extend {where}")
    return number
