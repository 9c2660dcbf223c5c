"""What a tournament costs: on record while it runs, and kept below what it may cost.

A round begins only where what it is planned to take fits beside what was spent and what the rounds of other lineages
may yet take. Planned are budgets of minutes; tokens and steps at what they took in the rounds before, and in a first
round at nothing. So there is a second line: what has been spent, which stops everything just before the limit.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from cluster.errors import LimitReached, UserError
from cluster.metered import Metered, added
from cluster.prices import Prices, hourly
from cluster.resources import CPU
from competitors.contract import Allowance, Brief, Submission
from competitors.events import trained
from competitors.kinds import RESUMES
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.roster import Roster
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.spent import Spent

LOOK_SECONDS = 10.0
"""How often what was spent is looked at and put on record: a driver that is killed loses so much of the account."""
MARGIN_SECONDS = 30.0
"""Everything is stopped when it would reach the limit in so long: until it is looked at again and processes end."""

Paces = Mapping[str, float]
"""Seconds of a device for a token and for a step, as far as they are known."""


class Costs:
    """The account of one tournament, which begins with what is on record."""

    def __init__(self, config: TournamentConfig, run: RunDirectory, workers: Metered) -> None:
        self._prices, self._limit = config.cluster.prices, config.limits.cost
        self._run, self._workers = run, workers
        self._before = run.read(Spent, run.spent_file) or Spent()
        self._began = time.monotonic()
        self._open: dict[str, tuple[float, float]] = {}
        """Of each lineage's round: what it was planned to cost, and what the lineage had cost before it."""

    def spent(self, ahead: float = 0.0) -> Spent:
        """Until now, or so many seconds from now."""
        seconds = added(self._before.seconds, self._workers.seconds(ahead))
        wall = self._before.wall_seconds + time.monotonic() - self._began
        return Spent(seconds=seconds, wall_seconds=wall, prices=self._prices, limit=self._limit)

    def record(self) -> None:
        """Put on record what was spent."""
        self._run.write(self.spent(), self._run.spent_file)

    def require_left(self) -> None:
        """LimitReached where all is spent; UserError where nothing here would ever cost anything."""
        if self._limit is None:
            return
        if not self._workers.has_gpus and CPU not in self._prices:
            raise UserError("limits.cost: there is no GPU here, and cluster.prices has no price for CPU")
        cost = self.spent(MARGIN_SECONDS).cost or 0.0
        if cost >= self._limit:
            raise LimitReached(f"limits.cost: {cost:,.2f} of {self._limit:,.2f} is spent: raise it to go on")

    async def watch(self) -> None:
        """Keep the record, until this is cancelled. LimitReached where the limit is."""
        while True:
            self.require_left()
            self.record()
            await asyncio.sleep(LOOK_SECONDS)

    def begin(self, roster: Roster, before: Sequence[Roster]) -> None:
        """A round begins, after those of the rosters `before`. LimitReached where it would cost too much."""
        if self._limit is None:
            return
        done = {one.competitor for one in self._submissions([roster])}
        pace, begun = paces(self._submissions(before)), self._begun(roster)
        planned = planned_cost(roster, done, pace, self._workers.has_gpus, self._prices, begun)
        spent = self.spent()
        cost = spent.cost or 0.0
        others = sum(max(0.0, other - spent.cost_of(name) + since) for name, (other, since) in self._open.items())
        if cost + others + planned > self._limit:
            beside = f", and {others:,.2f} is for rounds that run" if others else ""
            raise LimitReached(
                f"limits.cost: {roster.lineage} round {roster.round} may take {planned:,.2f},"
                f" {cost:,.2f} of {self._limit:,.2f} is spent{beside}: raise it to go on"
            )
        self._open[roster.lineage] = planned, spent.cost_of(roster.lineage)

    def end(self, lineage: str) -> None:
        """The round of a lineage has ended."""
        self._open.pop(lineage, None)

    def _begun(self, roster: Roster) -> dict[str, float]:
        """Of the entries that an earlier driver has begun and that go on: the seconds that they have trained for."""
        found = {}
        for name in (one.recipe.name for one in roster.entries if one.recipe.kind in RESUMES):
            folder = self._run.entry(roster.lineage, roster.round, name)
            brief = self._run.read(Brief, folder / "brief.json")
            if brief is not None and not brief.race_at:  # one that races starts anew
                found[name] = trained(folder / "progress.jsonl")
        return found

    def _submissions(self, rosters: Sequence[Roster]) -> list[Submission]:
        """Those of these rounds that are on record."""
        folders = [
            self._run.entry(one.lineage, one.round, entry.recipe.name) for one in rosters for entry in one.entries
        ]
        found = (self._run.read(Submission, folder / "submission.json") for folder in folders)
        return [one for one in found if one is not None]


def paces(submissions: Sequence[Submission]) -> Paces:
    """At which these were made, on average."""
    held = sum(one.device_seconds for one in submissions)
    made = {"tokens": sum(s.train_tokens for s in submissions), "steps": sum(s.train_steps for s in submissions)}
    return {unit: held / amount for unit, amount in made.items() if amount}


def planned_cost(
    roster: Roster,
    done: Collection[str],
    known: Paces,
    has_gpus: bool,
    prices: Prices,
    begun: Mapping[str, float] = MappingProxyType({}),
) -> float:
    """What the entries of a round that are not yet done may cost, as far as it is known; of those that go on after so
    many seconds the rest."""
    total = 0.0
    for entry in roster.entries:
        recipe = entry.recipe
        if recipe.trains and recipe.name not in done and entry.budget is not None:
            shape = recipe.shape(has_gpus)
            devices = recipe.resources.resolved(has_gpus).devices
            left = _hours(entry.budget, known, devices) - begun.get(recipe.name, 0.0) / 3600
            total += max(0.0, left) * hourly(shape, prices)
    return total


def _hours(budget: Allowance, known: Paces, devices: float) -> float:
    """How long an entry may take: of its limits the first that ends it. 0 where none of them says."""
    amounts = {"tokens": budget.tokens, "steps": budget.steps}
    ends = [amount * known[unit] / devices for unit, amount in amounts.items() if amount and unit in known and devices]
    if budget.seconds is not None:
        ends.append(budget.seconds)
    return min(ends, default=0.0) / 3600
