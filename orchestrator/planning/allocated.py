"""The allocation of a whole budget as `plan` shows it: round by round, who, how much each, and where the tokens lie."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cluster.errors import UserError
from cluster.records import Record
from competitors.kinds import Recipe
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.allocation import Plan
from orchestrator.field.forecast import amount, forecast, on_champions_line
from orchestrator.field.growth import one_worker
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.field.whole_budget import LEFT_OVER
from orchestrator.planning.budget import Ground, allocation_of, corpora, refuse_too_little
from orchestrator.planning.model_shape import BaseShape, describe_base
from orchestrator.planning.schedule import hours_of
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
    """The longest that one of them may take; None where it is not known how fast a device is."""


class PlannedAllocation(Record):
    """What becomes of a lineage's whole budget, if nothing surprises."""

    lineage: str
    rounds: list[PlannedRound]
    share_on_champions_line: float
    share_on_ingredients: float
    """Of the soup that ends it, where the data are short."""
    tokens: int | None
    """That all of them may spend; None where the budget is of time."""
    share_left_over: float
    """Of the budget, at least: more passes over short data would overfit."""
    passes: float | None
    """Over the data that the whole budget makes; None where it is of time."""
    usage: Usage | None
    """Of the cluster; None where it is not known which."""
    rosters: list[Roster] = Field([], exclude=True)


def plan_allocation(
    config: TournamentConfig, config_file: Path, data: Path, cluster: Cluster | None
) -> tuple[list[PlannedAllocation], list[str]]:
    """The allocation over the splits in `data` of each lineage whose tokenizer can be had (none where its rounds are
    equal), and of the others why not. UserError where the budget is too small."""
    planned, unchecked = list[PlannedAllocation](), list[str]()
    ground = Ground(False, one_worker) if cluster is None else Ground(cluster.has_gpus, cluster.room)
    try:
        for lineage, corpus in corpora(config, config_file.parent, data):
            if corpus is None:
                what = "how its budget is shared out" if config.is_allocated else "whether its budget is enough"
                away = "its tokenizer is not on this machine and could not be had from the hub"
                unchecked.append(f"lineages[{lineage.name}]: {what}: {away}")
                continue
            refuse_too_little(config, lineage.name, corpus, ground)
            if config.is_allocated:
                base = describe_base(lineage.base, config_file.parent)
                plan = allocation_of(config, lineage.name, corpus, ground)
                planned.append(_planned(plan, config.competitors, cluster, base))
    except UserError as error:
        raise UserError(f"{config_file}: {error}") from error
    return planned, unchecked


def _planned(
    plan: Plan, recipes: Sequence[Recipe], cluster: Cluster | None, base: BaseShape | None
) -> PlannedAllocation:
    rosters, whole = forecast(plan, recipes), plan.whole
    own, blended = on_champions_line(rosters, plan)
    spent = sum(amount(plan, entry) for roster in rosters for entry in roster.entries)
    by_tokens = whole.unit == "tokens"
    return PlannedAllocation(
        lineage=plan.lineage,
        rounds=[_round(roster, cluster, base) for roster in rosters],
        share_on_champions_line=own,
        share_on_ingredients=blended,
        tokens=int(spent) if by_tokens else None,
        share_left_over=max(0.0, 1 - spent / whole.total),
        passes=whole.total / plan.corpus.tokens if by_tokens else None,
        usage=None if cluster is None else usage(plan, rosters, cluster, base),
        rosters=rosters,
    )


def _round(roster: Roster, cluster: Cluster | None, base: BaseShape | None) -> PlannedRound:
    given = [entry for entry in roster.entries if entry.budget is not None and entry.recipe.trains]
    tokens = [entry.budget.tokens for entry in given if entry.budget and entry.budget.tokens is not None]
    hours = [one for entry in given if (one := _hours(entry, cluster, base)) is not None]
    return PlannedRound(
        round=roster.round,
        phase=roster.phase,
        competitors=[entry.recipe.name for entry in roster.entries],
        trainings=len(given),
        tokens_each=max(tokens, default=None),
        hours_each=max(hours, default=None),
    )


def _hours(entry: RosterEntry, cluster: Cluster | None, base: BaseShape | None) -> float | None:
    if cluster is not None:
        return hours_of(entry, cluster, base)
    return entry.budget.seconds / 3600 if entry.budget and entry.budget.seconds is not None else None


def allocation_table(one: PlannedAllocation) -> Table:
    """A lineage's rounds as a person reads them."""
    table = Table(title=f"allocation of {one.lineage}, if nothing surprises", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("round", justify="right")
    table.add_column("what")
    table.add_column("who", overflow="fold")
    if has_tokens := any(row.tokens_each is not None for row in one.rounds):
        table.add_column("tokens each", justify="right", no_wrap=True)
    if has_hours := any(row.hours_each is not None for row in one.rounds):
        table.add_column("hours each", justify="right", no_wrap=True)
    for row in one.rounds:
        named = ", ".join(row.competitors[:LISTED])
        more = f" and {len(row.competitors) - LISTED} more" if len(row.competitors) > LISTED else ""
        tokens = ["" if row.tokens_each is None else f"{row.tokens_each:,}"] if has_tokens else []
        hours = ["" if row.hours_each is None else _in_hours(row.hours_each)] if has_hours else []
        table.add_row(str(row.round), row.phase, f"{named}{more}", *tokens, *hours)
    return table


def _in_hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours >= 0.005 else "< 0.01"


def in_words(one: PlannedAllocation) -> str:
    """Where a lineage's tokens will lie, or its GPU hours, and what is left over."""
    unit = "GPU hours" if one.tokens is None else "tokens"
    blended = f", {one.share_on_ingredients:.1%} on what it blends" if one.share_on_ingredients else ""
    passes = "" if one.passes is None else f"; all of them are {one.passes:.1f} passes over the data"
    own = f"{one.share_on_champions_line:.1%} of the {unit} on the champion's own line"
    left = ""
    if one.share_left_over > LEFT_OVER:
        left = f"; at least {one.share_left_over:.0%} of them are left over, since more passes would overfit"
    return f"{one.lineage}: {own}{blended}{passes}{left}"
