"""One entry of one round, as a state machine whose every step leaves a record.

    queued -> training -> delivered -> inspected -> scored -> (promoted)
                  |            |            |
               forfeit      rejected     rejected

A step whose record lies in the run directory is not done again. Each step has a deadline, and each failure one owner:

- the competitor, for what it does, leaves undone or hands in: forfeit or rejected, and the round goes on;
- the evaluator, for what it cannot do with a submission though it can with the seed: see evaluators.py;
- the cluster, for everything else: tried again, then the tournament stops and can be gone on with.
"""

import asyncio
import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.errors import ClusterTrouble, Forfeit
from cluster.workers import TRAINER
from competitors.contract import Brief, Submission
from competitors.entry import compete, forfeit, settle
from competitors.events import reported
from competitors.kinds import RESUMES, Recipe
from competitors.log import conclude, note
from evaluation.results import RowResults, read_results
from evaluation.scorecard import Scorecard
from evaluation.submissions.inspection import Form, inspect
from orchestrator.config.sections import Racing
from orchestrator.record.events import EntryChanged, EntryState, Noted
from orchestrator.record.records import Inspection, Lost, ModelFolder
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.context import Context
from orchestrator.rounds.deadlines import Watch
from orchestrator.rounds.racing import Races, Rungs, race
from orchestrator.rounds.retries import after_losing
from orchestrator.rounds.scoring_calls import score

POLL_SECONDS = 0.5


class Entry:
    """A recipe that competes in a round; `run` takes it from wherever its records say it is to its end."""

    def __init__(
        self,
        context: Context,
        brief: Brief,
        recipe: Recipe,
        base: ModelFolder,
        champion: ModelFolder,
        racing: Racing | None = None,
        rungs: Rungs | None = None,
        is_grown: bool = False,
    ) -> None:
        self.context, self.brief, self.recipe, self.base, self.champion = context, brief, recipe, base, champion
        self.racing, self.rungs = racing, {} if rungs is None else rungs
        self.folder, self.is_grown = brief.output_dir.parent, is_grown
        self.now = EntryChanged(brief.lineage, brief.round, brief.competitor, recipe.kind, brief.budget, state="queued")
        self.shape = recipe.shape(context.workers.has_gpus)

    async def run(self) -> RowResults | None:
        """Train, inspect, score. The validation results, or None when it forfeited or was rejected."""
        run = self.context.run
        self._go("queued")
        submission = run.read(Submission, self.folder / "submission.json")
        if submission is None:
            submission = await self.train()
            await asyncio.to_thread(conclude, self.brief.log_file, f"{submission.status}: {submission.reason}")
            await asyncio.to_thread(run.store.keep, self.folder)  # its logs were written without the store
            run.write(submission, self.folder / "submission.json")
        if submission.status == "forfeit":
            self._go("forfeit", submission.reason)
            return None
        self._go("delivered", submission.reason)
        inspection = run.read(Inspection, self.folder / "inspection.json") or await self.inspect(submission)
        if inspection.passed:
            self._go("inspected", inspection.note)
            card = run.read(Scorecard, self.folder / "scorecard.json") or await self.score(submission)
            if isinstance(card, Scorecard):
                self._go("scored", f"validation loss {card.validation.loss:.4f}")
                return read_results(self.folder / "losses.parquet", self.context.config.choosing(self.brief.round))
            inspection = card
        self._go("rejected", inspection.reason)
        return None

    def _go(self, state: EntryState, detail: str = "") -> None:
        self.now = replace(self.now, state=state, detail=detail)
        self.context.tell(self.now)

    async def train(self) -> Submission:
        """Run the competitor in a worker. One whose process or node is lost is tried again: see retries.py.

        What an earlier driver was stopped over is gone on with as another try, from its last checkpoint.
        """
        try:
            self.context.workers.refuse_impossible(self.shape, self.brief.competitor)
        except ClusterTrouble as never:
            if self.is_grown:  # as far as the cluster that it was on record for: nothing that a competitor asked for
                raise
            # The config's own were refused before the tournament began; this one was entered since.
            return forfeit(self._begin(1), self.recipe.kind, str(never), time.time())
        before, races = self._tries_before(), Races()
        lost = self._lost_before(goes_on=before > 0)
        lost_tokens, lost_seconds = lost.tokens, lost.seconds
        for attempt in itertools.count(1):
            brief = self._begin(before + attempt, lost)
            watch = Watch(brief, self.context.config.limits, replace(self.now, state="training"), self.context.tell)
            try:
                return _charged(await self._attempt(brief, watch, races), brief, lost_seconds, lost_tokens)
            except ClusterTrouble as trouble:
                lost_seconds += time.time() - watch.began if watch.placed else 0.0
                if races.stopped is not None:  # it died before it heard
                    out = forfeit(brief, self.recipe.kind, races.stopped, time.time())
                    return _charged(out, brief, lost_seconds, lost_tokens)
                match after_losing(trouble, attempt):
                    case "try again":
                        note(brief.log_file, f"{trouble}: trying again from its last checkpoint")
                        self.context.tell(Noted(f"{watch.name}: {trouble}: trying again from its last checkpoint"))
                    case "settle":
                        reason = f"{trouble} ({attempt} times)"
                        settled = self.context.evaluators.call(settle, brief, self.recipe.kind, reason, time.time())
                        return _charged(await settled, brief, lost_seconds, lost_tokens)  # all tries held their place
                    case "stop":
                        raise ClusterTrouble(f"{brief.competitor}: {trouble} ({attempt} times)") from trouble
        raise AssertionError("unreachable")

    def _tries_before(self) -> int:
        """How many tries of the same entry an earlier driver has begun that it can go on from; 0: it starts anew.

        One that races does start anew: at which rungs it was that driver knew.
        """
        before = self.context.run.read(Brief, self.folder / "brief.json")
        if before is None or self.recipe.kind not in RESUMES or self.brief.race_at:
            return 0
        placed = {"attempt": self.brief.attempt, "resources": before.resources.placed_as(self.brief.resources)}
        return before.attempt if before.model_copy(update=placed) == self.brief else 0

    def _lost_before(self, goes_on: bool) -> Lost:
        """What tries of earlier drivers have cost: of the last one's the reports are what is left, of those before
        lost.json. Tokens count twice where it starts anew."""
        earlier = self.context.run.read(Lost, self.folder / "lost.json") or Lost()
        tokens, seconds = reported(self.brief.progress_file)
        return Lost(tokens=earlier.tokens + (0 if goes_on else tokens), seconds=earlier.seconds + seconds)

    def _begin(self, attempt: int, lost: Lost | None = None) -> Brief:
        """The folder of the entry, with its brief: at first empty but for what was `lost` before, and as the try before
        left it after that."""
        run = self.context.run
        if attempt == 1:
            run.store.remove(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if attempt == 1 and lost is not None and lost != Lost():
            run.write(lost, self.folder / "lost.json")
        brief = self.brief.model_copy(update={"attempt": attempt})
        return run.write(brief, self.folder / "brief.json")

    async def _attempt(self, brief: Brief, watch: Watch, races: Races) -> Submission:
        """One try of the training, ended from outside when it hangs or when racing has stopped it."""
        located = self.recipe.located(self.context.config_folder).kept_from(self.context.withheld)
        call = asyncio.create_task(
            self.context.workers.call(
                self.shape, compete, brief, located, priority=TRAINER, placed=lambda _: self._placed(watch)
            )
        )
        ended, racing = None, self.racing
        try:
            while ended is None:
                await asyncio.wait({call}, timeout=POLL_SECONDS)
                watch.read()
                if call.done():
                    return call.result()
                for event in watch.take_checkpoints():
                    if racing is not None:
                        races.begin(race(self.context, racing, brief, event, self.rungs))
                ended = watch.overdue() or races.ignored()
        finally:
            self.now = replace(watch.now, state=self.now.state)
            await _end(call)  # and its process
            await races.cancel()
        if races.stopped is not None:
            return forfeit(brief, self.recipe.kind, races.stopped, watch.began)
        return await self.context.evaluators.call(settle, brief, self.recipe.kind, ended, watch.began)

    def _placed(self, watch: Watch) -> None:
        watch.is_placed()
        self.context.tell(watch.now)

    async def inspect(self, submission: Submission) -> Inspection:
        """Whether the submission may be scored, on record."""
        assert submission.form is not None
        seed, champion = self.brief.seed_model, self.champion.path
        champion, is_control = None if champion == seed else champion, self.recipe.kind == "unchanged"
        try:
            found = await self._evaluate(
                inspect,
                self.brief.output_dir,
                submission.form,
                seed,
                champion,
                is_control,
            )
        except Forfeit as reason:
            return reject(self.context.run, self.folder, submission.form, reason)
        record = Inspection(form=submission.form, content=found.content, distance=found.distance)
        return self.context.run.write(record, self.folder / "inspection.json")

    async def score(self, submission: Submission) -> Scorecard | Inspection:
        """The submission's scorecard, on record; or why it is rejected after all."""
        assert submission.form is not None
        assert self.base.path is not None
        job = self.context.evaluators.job_of(self.brief, submission.form, self.base.path)
        watch = Watch(self.brief, self.context.config.limits, self.now, self.context.tell)
        work = asyncio.create_task(self._evaluate(score, job, self.brief.progress_file))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=POLL_SECONDS)
                watch.read()
            card: Scorecard = work.result()
        except Forfeit as reason:
            return reject(self.context.run, self.folder, submission.form, reason)
        finally:
            await _end(work)
        return card

    async def _evaluate(self, function: Any, *args: Any) -> Any:
        """Have an evaluator do something with the submission."""
        assert self.base.path is not None
        evaluators = self.context.evaluators
        seed = evaluators.job("its seed", self.brief.seed_model, self.base.path, self.folder / "seed-check")
        return await evaluators.call_on_submission(seed, function, *args)


def reject(run: RunDirectory, entry: Path, form: Form, reason: object) -> Inspection:
    """Put on record that the submission of the entry in that folder is out, and why."""
    return run.write(Inspection(form=form, reason=str(reason)), entry / "inspection.json")


async def _end(work: asyncio.Task[Any]) -> None:
    """Cancel it, if it goes on yet, and wait until it has ended, however that comes.

    Not by awaiting it with CancelledError suppressed: that would swallow a cancellation of our own meanwhile, and the
    entry would go on while everything is being stopped.
    """
    work.cancel()
    await asyncio.wait({work})
    if not work.cancelled():
        work.exception()


def _charged(submission: Submission, brief: Brief, lost_seconds: float, lost_tokens: int) -> Submission:
    """The submission with what its lost tries have cost: they held their place too."""
    wall = submission.wall_seconds + lost_seconds
    device = submission.device_seconds + lost_seconds * brief.resources.devices
    lost = submission.lost_tokens + lost_tokens
    return submission.model_copy(update={"wall_seconds": wall, "device_seconds": device, "lost_tokens": lost})
