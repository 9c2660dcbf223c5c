"""All entries of a round side by side: what each is given, and soups after what they blend."""

import asyncio
import hashlib
from typing import Any

from competitors.contract import Brief, Ingredient, Submission
from competitors.soup.recipe import SoupRecipe
from evaluation.results import RowResults
from orchestrator.field.evolution import root_name
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.record.events import Noted
from orchestrator.record.records import Inspection, ModelFolder
from orchestrator.rounds.context import Context
from orchestrator.rounds.entry import Entry, reject
from orchestrator.rounds.racing import Rungs, racing_in
from orchestrator.rounds.starts import start_of


async def compete_in_round(
    context: Context, roster: Roster, rounds: int, seed: ModelFolder, champion: ModelFolder, base: ModelFolder
) -> dict[str, RowResults]:
    """Have everybody in `roster` compete from `seed`; the validation results of those that were scored, by name.

    `rounds` is how many there are to be: where a schedule that spans the lineage ends. What turns out to be the same
    model as the champion, or as another entry's, is rejected.
    """
    rungs: Rungs = {}
    racing = racing_in(roster, context.config.racing)
    recipes = [entry.recipe for entry in roster.entries]
    running: dict[str, asyncio.Task[RowResults | None]] = {}

    async def one(entry: RosterEntry) -> RowResults | None:
        recipe, start = entry.recipe, start_of(context.run, roster.lineage, entry, seed, base)
        brief = brief_for(context, roster, entry, start, rounds)
        if isinstance(recipe, SoupRecipe):
            await asyncio.gather(*(running[other.name] for other in recipes if _is_ingredient(other, recipe)))
            kept = context.run.split("slice")
            held_back = {
                "ingredients": ingredients(context, roster, recipe, start),
                "slice_data": kept if kept.exists() else None,
            }
            brief = brief.model_copy(update=held_back)
        is_grown = entry.made_by == "allocation"
        return await Entry(context, brief, recipe, base, champion, racing, rungs, is_grown).run()

    async with asyncio.TaskGroup() as group:
        for entry in sorted(roster.entries, key=lambda entry: isinstance(entry.recipe, SoupRecipe)):
            running[entry.recipe.name] = group.create_task(one(entry))
    results = {recipe.name: running[recipe.name].result() for recipe in recipes}
    copies = _reject_copies(context, roster, [name for name, result in results.items() if result is not None])
    return {name: result for name, result in results.items() if result is not None and name not in copies}


def _reject_copies(context: Context, roster: Roster, scored: list[str]) -> dict[str, str]:
    """Put on record that those of the same content as another entry are out; whom they copy, by name."""
    run, inspections = context.run, {}
    for recipe in sorted((entry.recipe for entry in roster.entries), key=lambda recipe: isinstance(recipe, SoupRecipe)):
        folder = run.entry(roster.lineage, roster.round, recipe.name)
        inspection = run.read(Inspection, folder / "inspection.json") if recipe.name in scored else None
        if inspection is not None and recipe.kind != "unchanged":
            inspections[recipe.name] = inspection
    copies = copied({name: _identity(context, roster, name, one) for name, one in inspections.items()})
    for name, original in copies.items():
        reason = f"is a copy of {original}: no value differs"
        reject(run, run.entry(roster.lineage, roster.round, name), inspections[name].form, reason)
        context.tell(Noted(f"{roster.lineage} round {roster.round} {name}: rejected: {reason}"))
    return copies


def _identity(context: Context, roster: Roster, name: str, inspection: Inspection) -> str:
    """What two submissions that are one model have in common: an adapter is none without what it stands on."""
    if inspection.form == "full" or not inspection.content:
        return inspection.content
    submission = context.run.read(Submission, context.run.entry(roster.lineage, roster.round, name) / "submission.json")
    return f"{inspection.content} on {submission.seed_sha256 if submission else ''}"


def copied(contents: dict[str, str]) -> dict[str, str]:
    """Who is a copy of whom, where the first of those of one content is the original. No content is nobody's."""
    first: dict[str, str] = {}
    originals = {name: first.setdefault(content, name) for name, content in contents.items() if content}
    return {name: original for name, original in originals.items() if original != name}


def brief_for(context: Context, roster: Roster, entry: RosterEntry, seed: ModelFolder, rounds: int) -> Brief:
    """What the competitor gets this round, starting from `seed`. Nothing in it leads to held-out data."""
    config, number, recipe = context.config, roster.round, entry.recipe
    own = f"{number}/{recipe.name}" if entry.data_order is None else f"data order {entry.data_order}"
    key, racing = f"{config.seed}/{roster.lineage}/{own}", racing_in(roster, config.racing)
    assert entry.budget is not None
    assert seed.path is not None
    return Brief(
        tournament=config.name,
        lineage=roster.lineage,
        round=number,
        competitor=recipe.name,
        seed_model=seed.path,
        seed_sha256=seed.sha256,
        seed_continuation=seed.continuation,
        train_data=context.run.split("train"),
        max_tokens=config.data.max_tokens,
        budget=entry.budget,
        progress=entry.span or ((number - 1) / rounds, number / rounds),
        output_dir=context.run.entry(roster.lineage, number, recipe.name) / "submission",
        random_seed=int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % 2**31,
        resources=recipe.resources.resolved(context.workers.has_gpus),
        race_at=tuple(racing.at) if racing else (),
    )


def ingredients(context: Context, roster: Roster, soup: SoupRecipe, seed: ModelFolder) -> list[Ingredient]:
    """What a soup may blend: scored submissions of this round, and of earlier ones that stand on this seed."""
    found = []
    for number in range(1 if soup.earlier else roster.round, roster.round + 1):
        earlier = context.run.roster(roster.lineage, number)
        for entry in earlier.entries if earlier else []:
            if _is_ingredient(entry.recipe, soup):
                one = _ingredient(context, roster.lineage, ModelRef(entry.recipe.name, number), seed)
                found += [] if one is None else [one]
    return found


def _ingredient(context: Context, lineage: str, model: ModelRef, seed: ModelFolder) -> Ingredient | None:
    """The submission that is `model`, if it was scored and stands on this seed."""
    run, folder = context.run, context.run.scores(lineage, model)
    submission = run.read(Submission, folder / "submission.json")
    inspection = run.read(Inspection, folder / "inspection.json")
    if submission is None or inspection is None or not inspection.passed or submission.seed_sha256 != seed.sha256:
        return None
    if not (folder / "scorecard.json").exists():
        return None
    continuation = folder / "continuation"
    return Ingredient(
        label=str(model),
        folder=folder / "submission",
        form=inspection.form,
        seed_sha256=submission.seed_sha256,
        continuation=continuation if (continuation / "continuation.json").is_file() else None,
    )


def _is_ingredient(recipe: Any, soup: SoupRecipe) -> bool:
    """Whether `soup` may blend what `recipe` hands in: neither another soup nor the control. Who is named in
    `of` stands for its children by evolution too."""
    named = soup.of is None or recipe.name in soup.of or root_name(recipe.name) in soup.of
    return bool(recipe.trains) and named
