"""All entries of a round side by side: what each is given, and soups after what they blend."""

import asyncio
import hashlib

from competitors.contract import Brief
from competitors.soup.recipe import SoupRecipe
from evaluation.results import RowResults
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.record.records import ModelFolder
from orchestrator.rounds.context import Context
from orchestrator.rounds.copies import reject_copies
from orchestrator.rounds.entry import Entry
from orchestrator.rounds.incumbents import score_incumbents
from orchestrator.rounds.ingredients import ingredients, is_ingredient, lent
from orchestrator.rounds.racing import racing_in, rungs_so_far
from orchestrator.rounds.starts import start_of


async def compete_in_round(
    context: Context, roster: Roster, rounds: int, seed: ModelFolder, champion: ModelFolder, base: ModelFolder
) -> dict[str, RowResults]:
    """Have everybody in `roster` compete from `seed`; the validation results of those that were scored, by name.

    `rounds` is how many there are to be: where a schedule that spans the lineage ends. What turns out to be the same
    model as its seed, the champion or another entry's is rejected.
    """
    rungs = rungs_so_far(context.run, roster)
    racing = racing_in(roster, context.config.racing)
    recipes = [entry.recipe for entry in roster.entries]
    running: dict[str, asyncio.Task[RowResults | None]] = {}

    async def one(entry: RosterEntry) -> RowResults | None:
        recipe, start = entry.recipe, start_of(context.run, roster.lineage, entry, seed, base)
        brief = brief_for(context, roster, entry, start, rounds)
        if isinstance(recipe, SoupRecipe):
            await asyncio.gather(*(running[other.name] for other in recipes if is_ingredient(other, recipe)))
            kept = context.run.split("slice")
            found = ingredients(context.run, roster, recipe, start)
            given = {"ingredients": found, "slice_data": kept if kept.exists() else None}
            async with lent(context, brief.model_copy(update=given), base) as brief:
                return await compete(entry, brief)
        return await compete(entry, brief)

    async def compete(entry: RosterEntry, brief: Brief) -> RowResults | None:
        is_grown = entry.made_by == "allocation"
        return await Entry(context, brief, entry.recipe, base, champion, racing, rungs, is_grown).run()

    async with asyncio.TaskGroup() as group:
        group.create_task(score_incumbents(context, roster.lineage, roster.round, (seed, champion), base))
        for entry in sorted(roster.entries, key=lambda entry: isinstance(entry.recipe, SoupRecipe)):
            running[entry.recipe.name] = group.create_task(one(entry))
    results = {recipe.name: running[recipe.name].result() for recipe in recipes}
    scored = {name: result for name, result in results.items() if result is not None}
    copies = await reject_copies(context, roster, scored, seed, champion, base)
    return {name: result for name, result in scored.items() if name not in copies}


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
