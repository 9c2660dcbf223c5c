"""Who of a round handed in what another made: found when all are scored, and rejected by the name of the other.

Exact copies are told by their values and losses. A copy with a little noise on it, or scaled, is told by how near it
lies to another model, which only says something of a program's submission: what our own kinds train is nobody's copy,
however near two of one data order come to each other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import Forfeit
from competitors.contract import RecipeBase, Submission
from competitors.output import model_form
from competitors.soup.recipe import SoupRecipe
from evaluation.compare import is_same, row_distance
from evaluation.data.split import Split
from evaluation.results import RowResults, read_results
from evaluation.submissions.inspection import Form
from evaluation.submissions.nearness import NEAR_ANOTHER, Standing, apart
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.field.roster import Roster
from orchestrator.record.events import Noted
from orchestrator.record.records import Inspection, ModelFolder
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.context import Context
from orchestrator.rounds.entry import reject
from orchestrator.rounds.starts import stands_on


@dataclass(frozen=True)
class Scored:
    """A scored model, as far as it tells whether another one is its copy."""

    form: Form
    identity: str
    """What two of one form have in common that are one model; empty where that is not known."""
    rows: RowResults


async def reject_copies(
    context: Context,
    roster: Roster,
    results: Mapping[str, RowResults],
    seed: ModelFolder,
    champion: ModelFolder,
    base: ModelFolder,
) -> set[str]:
    """Put on record that those that are their seed, the champion or another model are out, and say who they are."""
    run, entered, recipes = context.run, {}, {entry.recipe.name: entry.recipe for entry in roster.entries}
    for name, recipe in sorted(recipes.items(), key=lambda item: _lateness(item[1])):
        inspection = run.read(Inspection, _folder(run, roster, name) / "inspection.json") if name in results else None
        if inspection is not None and recipe.kind != "unchanged":
            identity = _identity(context, roster, name, inspection)
            entered[name] = Scored(inspection.form, identity, results[name])
    before = {"its seed": seed.model, "the champion": champion.model}
    files = {name: run.scores(roster.lineage, model) / "losses.parquet" for name, model in before.items()}
    split = context.config.choosing(roster.round)
    known = {name: Scored("full", "", read_results(file, split)) for name, file in files.items()}
    reasons = copied(entered, known)
    for name, reason in reasons.items():
        _reject(context, roster, name, entered[name].form, reason)
    models = {
        ModelRef(name, roster.round): one.rows
        for name, one in entered.items()
        if name not in reasons and not isinstance(recipes[name], SoupRecipe)  # which may be near what it blends
    }
    return {*reasons, *await _reject_near_copies(context, roster, models, seed, base)}


def _lateness(recipe: RecipeBase) -> int:
    """Of two that are one model the later is the copy: what we train is none, a soup may be one of anybody."""
    return 2 if isinstance(recipe, SoupRecipe) else int(recipe.is_program)


def _folder(run: RunDirectory, roster: Roster, name: str) -> Path:
    return run.entry(roster.lineage, roster.round, name)


def _reject(context: Context, roster: Roster, name: str, form: Form, reason: str) -> None:
    reject(context.run, _folder(context.run, roster, name), form, reason)
    context.tell(Noted(f"{roster.lineage} round {roster.round} {name}: rejected: {reason}"))


def _identity(context: Context, roster: Roster, name: str, inspection: Inspection) -> str:
    """What two submissions that are one model have in common: an adapter is none without what it stands on."""
    if inspection.form == "full" or not inspection.content:
        return inspection.content
    submission = context.run.read(Submission, _folder(context.run, roster, name) / "submission.json")
    return f"{inspection.content} on {submission.seed_sha256 if submission else ''}"


def copied(entered: Mapping[str, Scored], before: Mapping[str, Scored]) -> dict[str, str]:
    """Who is a copy, and of whom, in words. Of two that were entered the first is the original.

    Values tell, and where one of two is an adapter, which may be one model in many ways, the rows' losses do.
    """
    originals, reasons = dict(before), {}
    for name, one in entered.items():
        for other, theirs in originals.items():
            if one.identity and one.identity == theirs.identity:
                reasons[name] = f"is a copy of {other}: no value differs"
            elif "adapter" in (one.form, theirs.form) and is_same(one.rows, theirs.rows):
                reasons[name] = f"is a copy of {other}: all rows have the same losses"
            else:
                continue
            break
        else:
            originals[name] = one
    return reasons


async def _reject_near_copies(
    context: Context, roster: Roster, models: Mapping[ModelRef, RowResults], seed: ModelFolder, base: ModelFolder
) -> list[str]:
    """The programs of a round whose submissions are all but another's: one that was trained here, a program's before
    them, or one of an earlier round that is not their own. How near they came to their seed is another remark.

    Each is compared with one model, whose losses are the most like its own: a copy's are.
    """
    programs = [entry.recipe.name for entry in roster.entries if entry.recipe.is_program]
    entered = {model: rows for model, rows in models.items() if model.competitor in programs}
    if not entered or (context.run.round(roster.lineage, roster.round) / "verdict.json").exists():
        return []
    others = {model: rows for model, rows in models.items() if model not in entered}
    split = context.config.choosing(roster.round)
    others |= {model: rows for model, rows in _earlier(context.run, roster, split) if model != seed.model}
    found = []
    for model, rows in entered.items():
        assert model.competitor is not None
        anothers = {other: theirs for other, theirs in others.items() if other.competitor != model.competitor}
        if await _is_near(context, roster, model, rows, anothers, base):
            found.append(model.competitor)
        else:
            others[model] = rows
    return found


def _earlier(run: RunDirectory, roster: Roster, split: Split) -> Iterator[tuple[ModelRef, RowResults]]:
    """The base, and what was scored in the rounds before and is there yet, with its results on the rows that choose
    now; where rows rotate only the champion is."""
    rosters = [run.roster(roster.lineage, number) for number in range(1, roster.round)]
    entries = [
        ModelRef(entry.recipe.name, before.round)
        for before in rosters
        if before is not None
        for entry in before.entries
        if entry.recipe.kind != "unchanged"
    ]
    for model in (BASE, *entries):
        folder = run.scores(roster.lineage, model)
        inspection = run.read(Inspection, folder / "inspection.json")
        is_there = inspection is not None and inspection.passed and model_form(folder / "submission") is not None
        is_scored = (model.is_base or is_there) and (folder / "scorecard.json").exists()
        if is_scored and len((rows := read_results(folder / "losses.parquet", split)).tokens):
            yield model, rows


async def _is_near(
    context: Context,
    roster: Roster,
    model: ModelRef,
    rows: RowResults,
    others: Mapping[ModelRef, RowResults],
    base: ModelFolder,
) -> bool:
    """Whether a program's submission is all but another model; how near it is goes on record."""
    run, folder = context.run, context.run.scores(roster.lineage, model)
    inspection = run.read(Inspection, folder / "inspection.json")
    assert inspection is not None
    assert model.competitor is not None
    nearest = min(others, key=lambda other: row_distance(rows, others[other]), default=None)
    if nearest is None or inspection.apart is not None:
        return False
    ours, theirs = (_standing(run, roster.lineage, one, base) for one in (model, nearest))
    assert base.path is not None
    check = context.evaluators.job("its seed", ours.seed, base.path, folder / "seed-check")
    try:
        found = await context.evaluators.call_on_submission(check, apart, ours, theirs, folder / "nearness")
    except Forfeit as trouble:  # nobody's fault that we know of: it was scored, and so was the other
        context.tell(Noted(f"{roster.lineage} round {roster.round} {model.competitor}: not compared: {trouble}"))
        return False
    if found < NEAR_ANOTHER:
        who = nearest.competitor if nearest.round == roster.round else nearest.in_words
        reason = f"is all but a copy of {who}: their weights lie {found:.1g} apart of how far they moved"
        _reject(context, roster, model.competitor, inspection.form, reason)
        return True
    run.write(inspection.model_copy(update={"nearest": nearest, "apart": found}), folder / "inspection.json")
    return False


def _standing(run: RunDirectory, lineage: str, model: ModelRef, base: ModelFolder) -> Standing:
    """Where a scored model lies, and what it stands on."""
    assert base.path is not None
    if model.is_base:
        return Standing(base.path, "full", base.path)
    folder, seed = run.scores(lineage, model), stands_on(run, lineage, model, base)
    inspection = run.read(Inspection, folder / "inspection.json")
    assert inspection is not None
    assert seed.path is not None
    return Standing(folder / "submission", inspection.form, seed.path)
