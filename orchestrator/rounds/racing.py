"""Racing: the worst entries of a round are stopped early, on their loss at fractions of the budget.

Asynchronous successive halving (Li et al. 2020, "A system for massively parallel hyperparameter tuning",
arXiv:1810.05934) in its stopping form: an entry that reaches a rung goes on if it is among the best share
`keep` of all that reached it so far, so nobody waits for anybody and the first one always goes on.
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import Coroutine
from typing import Any

from cluster.errors import ClusterTrouble, Forfeit
from competitors.contract import Brief
from competitors.events import Event
from competitors.output import model_form
from orchestrator.config.sections import Racing
from orchestrator.field.roster import Roster
from orchestrator.record.records import Raced
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.context import Context
from orchestrator.rounds.scoring_calls import score_checkpoint

log = logging.getLogger(__name__)

CHECKPOINT = re.compile(r"checkpoint-\d+")
STOP_SECONDS = 10.0
"""An entry that was stopped by racing and has not ended after so long is ended from outside."""

Rungs = dict[float, dict[str, float]]
"""Of a round that races: the losses at each share of the budget, by competitor."""


def racing_in(roster: Roster, rules: Racing | None) -> Racing | None:
    """By what rules a round's entries are stopped early. What goes on from a race never is."""
    return None if roster.phase in ("climb", "line", "lines", "soup") else rules


def rungs_so_far(run: RunDirectory, roster: Roster) -> Rungs:
    """How those stood who had ended their round when an earlier driver was stopped. The others start anew."""
    rungs: Rungs = {}
    for entry in roster.entries:
        folder = run.entry(roster.lineage, roster.round, entry.recipe.name)
        raced = run.read(Raced, folder / "raced.json") if (folder / "submission.json").exists() else None
        for share, loss in raced.losses.items() if raced is not None else ():
            rungs.setdefault(share, {})[entry.recipe.name] = loss
    return rungs


def rank_at(loss: float, others: list[float]) -> int:
    """Place of `loss` among all at a rung so far, 1 the lowest; a loss that is not finite comes last."""
    return 1 + sum(1 for other in others if other < loss or (math.isnan(loss) and not math.isnan(other)))


def is_out(loss: float, others: list[float], keep: float) -> bool:
    """Whether an entry with `loss` is stopped, given the losses of `others` that reached the same rung before."""
    return rank_at(loss, others) > max(1, math.ceil(keep * (len(others) + 1)))


async def race(context: Context, racing: Racing, brief: Brief, event: Event, rungs: Rungs) -> str | None:
    """Score a checkpoint that a running entry saved at a rung. If it is out, ask it to stop and say why.

    Whatever is wrong with a checkpoint, the entry's or the evaluator's fault, will be said when it is handed in: it
    only does not race.
    """
    assert event.fraction is not None
    assert event.folder is not None
    checkpoint = brief.output_dir / event.folder
    # What a competitor reports is its own affair: only a folder in its own output is looked at.
    safe = CHECKPOINT.fullmatch(event.folder) is not None and not checkpoint.is_symlink()
    form = model_form(checkpoint) if safe else None
    if event.fraction not in racing.at or form is None:
        return None
    seed = brief.seed_model
    job = context.evaluators.job_of(brief, form, seed, checkpoint)
    try:
        loss = await context.evaluators.call(score_checkpoint, job, form, seed, racing.rows, attempts=1)
    except (Forfeit, ClusterTrouble) as trouble:
        log.info("%s: its checkpoint at %s does not race: %s", brief.competitor, event.fraction, trouble)
        return None
    rung = rungs.setdefault(event.fraction, {})
    others = [other for name, other in rung.items() if name != brief.competitor]
    rung[brief.competitor] = loss
    own = {share: rung[brief.competitor] for share, rung in rungs.items() if brief.competitor in rung}
    context.run.write(Raced(losses=own), brief.output_dir.parent / "raced.json")
    if not is_out(loss, others, racing.keep):
        return None
    reason = (
        f"stopped by racing at {event.fraction:.0%} of its budget: {loss:.4f} nats on at most"
        f" {racing.rows} validation rows, place {rank_at(loss, others)} of the {len(others) + 1} that got there"
    )
    context.run.store.write_text(brief.stop_file, reason)
    return reason


class Races:
    """An entry's checkpoints that are being scored beside it, and whether it was asked to stop."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[str | None]] = []
        self.stopped: str | None = None
        self.asked = 0.0

    def begin(self, race: Coroutine[Any, Any, str | None]) -> None:
        """Score one more checkpoint."""
        self.tasks.append(asyncio.create_task(race))

    def ignored(self) -> str | None:
        """The reason that the entry was asked to stop for, once it should have; trouble of a scoring is raised."""
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if (reason := task.result()) is not None and self.stopped is None:
                self.stopped, self.asked = reason, time.monotonic()
        late = self.stopped is not None and time.monotonic() - self.asked > STOP_SECONDS
        return self.stopped if late else None

    async def cancel(self) -> None:
        """The entry, or a try of it, has ended: nobody asks any more what these come to, but for what it was told."""
        for task in self.tasks:
            task.cancel()
        for came_to in await asyncio.gather(*self.tasks, return_exceptions=True):
            self.stopped = self.stopped or (came_to if isinstance(came_to, str) else None)
        self.tasks.clear()
