"""Who enters the next round of a lineage: what the field's pure functions make of the record so far."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.errors import ClusterTrouble, UserError
from cluster.resources import Shape
from cluster.workers import Workers
from competitors.contract import Submission
from competitors.kinds import Recipe
from competitors.search.recipe import SearchRecipe
from competitors.search.record import SearchRecord
from competitors.sft.recipe import SftRecipe
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.allocation import Plan
from orchestrator.field.next_round import first_roster, next_roster, with_budget, with_equal_shares
from orchestrator.field.roster import Roster
from orchestrator.field.whole_budget import Corpus, Past
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.judging import Settled


def next_field(
    run: RunDirectory,
    config: TournamentConfig,
    lineage: str,
    history: Sequence[Settled],
    corpus: Corpus | None,
    workers: Workers,
) -> Roster:
    """The roster of the round after `history`. `corpus` is there where a whole budget is allocated."""
    has_gpus = workers.has_gpus
    if config.is_allocated:
        assert config.budget.whole is not None
        assert corpus is not None
        plan = Plan(
            lineage,
            config.allocation,
            config.budget.whole,
            corpus,
            config.all_rounds,
            has_gpus,
            room=lambda worker: workers.room(Shape.of("trainer", worker, has_gpus)),
            lineages=len(config.lineages),
        )
        return plan.next_roster(config.competitors, [_past(run, config, settled, has_gpus) for settled in history])
    if not history:
        roster = first_roster(lineage, config.competitors, config.changes)
    else:
        before, verdict = history[-1].roster, history[-1].verdict
        rules = (config.evolution, config.exploit, config.changes, config.seed)
        roster = next_roster(before, verdict.ranking, verdict.exploits, *rules)
    whole = config.budget.whole
    if whole is None:
        return with_budget(roster, config.budget.allowance)
    spent = sum(sum(_past(run, config, settled, has_gpus).spent.values()) for settled in history)
    return with_equal_shares(whole, spent, roster, config.all_rounds - len(history), has_gpus)


def placed_as_now(roster: Roster, recipes: Sequence[Recipe]) -> Roster:
    """The roster with the memory and the labels that the config's recipes have now, as these may change between two
    starts; those of their copies too, but not of a copy's copies."""
    now = {recipe.name: recipe.resources for recipe in recipes}
    entries = []
    for entry in roster.entries:
        resources = now.get(entry.recipe.name) or now.get(entry.parent or "")
        if resources is not None:
            placed = entry.recipe.resources.placed_as(resources)
            entry = entry.model_copy(update={"recipe": entry.recipe.model_copy(update={"resources": placed})})
        entries.append(entry)
    return roster.model_copy(update={"entries": entries})


def refuse_impossible(config: TournamentConfig, run: RunDirectory, workers: Workers) -> None:
    """UserError for what no node of the cluster could ever hold; of a run that has begun, whose cluster may lack a node
    just now, ClusterTrouble."""
    has_begun = any(run.roster(lineage.name, 1) is not None for lineage in config.lineages)
    wanted = {f"competitors[{recipe.name}]": recipe.shape(workers.has_gpus) for recipe in config.competitors}
    wanted["evaluation"] = Shape.of("evaluator", config.evaluation.resources, workers.has_gpus)
    for what, shape in wanted.items():
        try:
            workers.refuse_impossible(shape, what)
        except ClusterTrouble as trouble:
            if has_begun:
                raise
            raise UserError(str(trouble)) from trouble


def _past(run: RunDirectory, config: TournamentConfig, settled: Settled, has_gpus: bool) -> Past:
    """A settled round as far as it matters for what follows."""
    verdict, roster = settled.verdict, settled.roster
    folders = {e.recipe.name: run.entry(roster.lineage, roster.round, e.recipe.name) for e in roster.entries}
    submissions = {name: run.read(Submission, folder / "submission.json") for name, folder in folders.items()}
    cost = {name: one for name, one in submissions.items() if one is not None}
    if config.budget.total_gpu_hours is None:
        # Not what was lost with a process: however often a run is stopped, it shares out the same.
        spent = {name: float(one.train_tokens) for name, one in cost.items()}
    else:
        held = {e.recipe.name: e.recipe.resources.resolved(has_gpus).devices for e in roster.entries}
        spent = {name: one.train_seconds * held[name] for name, one in cost.items()}
        # A program need not report: then all the time that it held its place counts.
        silent = {e.recipe.name for e in roster.entries if e.recipe.is_program} & cost.keys()
        spent |= {name: cost[name].device_seconds for name in silent if not spent[name]}
    return Past(
        roster=roster,
        losses={standing.competitor: standing.validation_loss for standing in verdict.entries},
        trunk=verdict.seed_next,
        tied=verdict.tied,
        spent=spent,
        tokens={name: one.train_tokens for name, one in cost.items()},
        found=_found(run, roster, folders),
    )


def _found(run: RunDirectory, roster: Roster, folders: Mapping[str, Path]) -> dict[str, SftRecipe]:
    """What searches found, as recipes of their own."""
    found = {}
    for entry in roster.entries:
        if isinstance(entry.recipe, SearchRecipe):
            record = run.read(SearchRecord, folders[entry.recipe.name] / "search.json")
            if record is not None:
                found[entry.recipe.name] = entry.recipe.made(record.trials[record.best].values)
    return found
