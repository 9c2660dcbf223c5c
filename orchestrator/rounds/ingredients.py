"""What soups blend: which submissions, and what of them a soup is given to read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cluster.errors import Forfeit
from competitors.contract import Brief, Ingredient, Submission
from competitors.soup.recipe import SoupRecipe
from evaluation.scorecard import Scorecard
from evaluation.submissions.promotion import lend
from orchestrator.field.evolution import LONGEST_ROOT, root_name
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Roster
from orchestrator.record.events import Noted
from orchestrator.record.records import Inspection, ModelFolder
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.context import Context


def is_ingredient(recipe: Any, soup: SoupRecipe) -> bool:
    """Whether `soup` may blend what `recipe` hands in: neither another soup nor the control. Who is named in
    `of` stands for its children by evolution too."""
    roots = [name[:LONGEST_ROOT] for name in soup.of or ()]  # as children are named
    named = soup.of is None or recipe.name in soup.of or root_name(recipe.name) in roots
    return bool(recipe.trains) and named


def ingredients(run: RunDirectory, roster: Roster, soup: SoupRecipe, seed: ModelFolder) -> list[Ingredient]:
    """What a soup may blend: scored submissions of this round, and of earlier ones that stand on this seed."""
    found = []
    for number in range(1 if soup.earlier else roster.round, roster.round + 1):
        earlier = run.roster(roster.lineage, number)
        for entry in earlier.entries if earlier else []:
            if is_ingredient(entry.recipe, soup):
                one = _ingredient(run, roster.lineage, ModelRef(entry.recipe.name, number), seed)
                found += [] if one is None else [one]
    return found


def _ingredient(run: RunDirectory, lineage: str, model: ModelRef, seed: ModelFolder) -> Ingredient | None:
    """The submission that is `model`, if it was scored and stands on this seed."""
    folder = run.scores(lineage, model)
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


@asynccontextmanager
async def lent(context: Context, brief: Brief, base: ModelFolder) -> AsyncIterator[Brief]:
    """A soup's brief, whose ingredients lie in folders that we have written, as long as the block lasts.

    A soup loads with libraries that act on what a config says: so it gets the weights that were scored, and no file of
    a submission's maker beside them. One that is not what was scored is left out.
    """
    run, evaluators, found = context.run, context.evaluators, []
    folder = run.round(brief.lineage, brief.round) / "lent" / brief.competitor
    assert base.path is not None
    if (brief.output_dir.parent / "submission.json").exists():
        yield brief
        return
    try:
        for one in brief.ingredients:
            card = run.read(Scorecard, one.folder.parent / "scorecard.json")
            assert card is not None
            check = evaluators.job("its seed", brief.seed_model, base.path, folder / "seed-check")
            given = brief.seed_model, one.folder, one.form, folder / one.label, card.model_sha256
            try:
                await evaluators.call_on_submission(check, lend, *given)
            except Forfeit as reason:
                context.tell(Noted(f"{brief.competitor} leaves out {one.label}: {reason}"))
            else:
                found.append(one.model_copy(update={"folder": folder / one.label}))
        yield brief.model_copy(update={"ingredients": found})
    finally:
        run.store.remove(folder)
