"""The allocation of a whole budget as `plan` shows it: round by round, who, how much each, and where the tokens lie."""

import tempfile
from pathlib import Path

from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cluster.errors import UserError
from cluster.records import Record
from competitors.sft.stream import count_tokens
from orchestrator.config.sections import Lineage
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.allocation import Plan
from orchestrator.field.forecast import forecast, on_champions_line
from orchestrator.field.roster import Roster
from orchestrator.field.whole_budget import Corpus
from orchestrator.planning import model_sources
from orchestrator.planning.model_shape import BaseShape, describe_base
from orchestrator.planning.preparation import make_data
from orchestrator.planning.usage import Cluster, Usage, usage

LISTED = 4
"""So many competitors of a round are named."""


class PlannedRound(Record):
    """One round of a lineage, if nothing surprises."""

    round: int
    phase: str
    competitors: list[str]
    trainings: int
    tokens_each: int | None
    """The most that one of them may spend; None where the budget is of time."""
    hours_each: float | None


class PlannedAllocation(Record):
    """What becomes of a lineage's whole budget, if nothing surprises."""

    lineage: str
    rounds: list[PlannedRound]
    share_on_champions_line: float
    share_on_ingredients: float
    """Of the soup that ends it, where the data are short."""
    passes: float | None
    """Over the data that the whole budget makes; None where it is of time."""
    usage: Usage | None
    """Of the cluster; None where it is not known which."""
    rosters: list[Roster] = Field([], exclude=True)


def plan_allocation(
    config: TournamentConfig, config_file: Path, cluster: Cluster | None
) -> tuple[list[PlannedAllocation], list[str]]:
    """The allocation of each lineage whose tokenizer can be had, and of the others why not. UserError where the
    budget is too small."""
    planned: list[PlannedAllocation] = []
    unchecked: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        make_data(config, config_file, data)
        for lineage in config.lineages:
            folder = _tokenizer(lineage, config_file.parent, Path(scratch))
            if folder is None:
                where = "is not on this machine and could not be had from the hub"
                unchecked.append(f"lineages[{lineage.name}]: how its budget is shared out: its tokenizer {where}")
                continue
            rows, tokens, in_bytes = count_tokens(data / "train.parquet", folder, config.data.max_tokens)
            if not rows:
                within = config.data.max_tokens
                raise UserError(f"{config_file}: data.max_tokens: no training row has a completion within {within}")
            base = describe_base(lineage.base, config_file.parent)
            corpus = Corpus(rows=rows, tokens=tokens, completion_bytes=in_bytes)
            planned.append(_planned(config, lineage, corpus, cluster, base))
    return planned, unchecked


def _tokenizer(lineage: Lineage, config_folder: Path, scratch: Path) -> Path | None:
    if not lineage.base.startswith(model_sources.BUILTIN):
        return model_sources.locate(lineage.base, config_folder) or model_sources.tokenizer_of(lineage.base)
    from competitors.builtin.bases import build

    folder = scratch / lineage.name
    build(lineage.base.removeprefix(model_sources.BUILTIN), folder)
    return folder


def _planned(
    config: TournamentConfig, lineage: Lineage, corpus: Corpus, cluster: Cluster | None, base: BaseShape | None
) -> PlannedAllocation:
    whole = config.budget.whole
    assert whole is not None
    fixed = (lineage.name, config.allocation, whole, corpus, config.all_rounds)
    if cluster is None:
        plan = Plan(*fixed, has_gpus=False)
    else:
        plan = Plan(*fixed, cluster.has_gpus, cluster.room, len(config.lineages))
    rosters = forecast(plan, config.competitors)
    own, blended = on_champions_line(rosters, plan)
    return PlannedAllocation(
        lineage=lineage.name,
        rounds=[_round(roster) for roster in rosters],
        share_on_champions_line=own,
        share_on_ingredients=blended,
        passes=whole.total / corpus.tokens if whole.unit == "tokens" else None,
        usage=None if cluster is None else usage(plan, rosters, cluster, base),
        rosters=rosters,
    )


def _round(roster: Roster) -> PlannedRound:
    budgets = [entry.budget for entry in roster.entries if entry.budget is not None and entry.recipe.trains]
    tokens = [budget.tokens for budget in budgets if budget.tokens is not None]
    seconds = [budget.seconds for budget in budgets if budget.seconds is not None]
    return PlannedRound(
        round=roster.round,
        phase=roster.phase,
        competitors=[entry.recipe.name for entry in roster.entries],
        trainings=len(budgets),
        tokens_each=max(tokens, default=None),
        hours_each=max(seconds) / 3600 if seconds else None,
    )


def allocation_table(one: PlannedAllocation) -> Table:
    """A lineage's rounds as a person reads them."""
    table = Table(title=f"allocation of {one.lineage}, if nothing surprises", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("round", justify="right")
    table.add_column("what")
    table.add_column("who", overflow="fold")
    table.add_column("each", justify="right", no_wrap=True)
    for row in one.rounds:
        named = ", ".join(row.competitors[:LISTED])
        more = f" and {len(row.competitors) - LISTED} more" if len(row.competitors) > LISTED else ""
        amount = "" if row.hours_each is None else f"{row.hours_each:.2f} h"
        each = amount if row.tokens_each is None else f"{row.tokens_each:,} tokens"
        table.add_row(str(row.round), row.phase, f"{named}{more}", each)
    return table


def in_words(one: PlannedAllocation) -> str:
    """Where a lineage's tokens will lie."""
    blended = f", {one.share_on_ingredients:.1%} on what it blends" if one.share_on_ingredients else ""
    passes = "" if one.passes is None else f"; all of them are {one.passes:.1f} passes over the data"
    return f"{one.lineage}: {one.share_on_champions_line:.1%} of the tokens on the champion's own line{blended}{passes}"
