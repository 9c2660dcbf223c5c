"""One entry of one round: brief, training under watch, racing, inspection and score.

Every step looks first whether its result lies in the run directory.
"""

import asyncio
import hashlib
import re
import shutil
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from cluster.errors import ClusterTrouble, Forfeit
from cluster.ray_workers import Pool, WorkerDied
from competitors.contract import Brief, Event, Ingredient, Submission, model_form
from competitors.entry import compete, forfeit, settle
from competitors.kinds import Recipe
from competitors.soup.recipe import SoupRecipe
from evaluation.results import RowResults, read_results
from orchestrator.config import Lineage, TournamentConfig
from orchestrator.field.evolution import root_name
from orchestrator.field.field import read_roster
from orchestrator.record.records import Rejection, Seed
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds import scoring_calls
from orchestrator.rounds.deadlines import Watch
from orchestrator.rounds.evaluators import ATTEMPTS, TRAINER, Evaluators
from orchestrator.rounds.racing import is_out, rank_at
from orchestrator.views.live import Board, EntryState

CHECKPOINT = re.compile(r"checkpoint-\d+")
POLL_SECONDS = 0.5
STOP_SECONDS = 10.0
"""An entry that was stopped by racing and has not ended after so long is ended from outside."""

Rungs = dict[float, dict[str, float]]
"""Of a round that races: the losses at each share of the budget, by competitor."""


class Entries:
    """Has recipes compete on one cluster."""

    def __init__(
        self,
        config: TournamentConfig,
        run: RunDirectory,
        config_folder: Path,
        pool: Pool,
        board: Board,
        evaluators: Evaluators,
    ) -> None:
        self.config, self.dir, self.config_folder = config, run, config_folder
        self.pool, self.board, self.evaluators = pool, board, evaluators
        kept = run.data / "slice.parquet"
        self.slice_data = kept if kept.exists() else None

    async def compete_round(
        self, lineage: Lineage, number: int, recipes: list[Recipe], seed: Seed, base: Seed, rounds: int
    ) -> dict[str, RowResults]:
        """All entries of a round side by side, soups after what they blend; the scored ones' validation losses."""
        rungs: Rungs = {}
        running: dict[str, asyncio.Task[RowResults | None]] = {}

        async def one(recipe: Recipe) -> RowResults | None:
            held_back: dict[str, Any] = {}
            if isinstance(recipe, SoupRecipe):
                blended = {r.name: running[r.name] for r in recipes if _is_ingredient(r, recipe)}
                await asyncio.gather(*blended.values())
                ingredients = self.ingredients(lineage, number, recipe, seed)
                held_back = {"ingredients": ingredients, "slice_data": self.slice_data}
            brief = self.brief(lineage, number, recipe, seed, rounds).model_copy(update=held_back)
            return await self.enter(brief, recipe, base, rungs)

        async with asyncio.TaskGroup() as group:
            for recipe in sorted(recipes, key=lambda recipe: isinstance(recipe, SoupRecipe)):
                running[recipe.name] = group.create_task(one(recipe))
        losses = {recipe.name: running[recipe.name].result() for recipe in recipes}
        return {name: loss for name, loss in losses.items() if loss is not None}

    def brief(self, lineage: Lineage, number: int, recipe: Recipe, seed: Seed, rounds: int) -> Brief:
        """What the competitor gets this round. Nothing in it leads to held-out data."""
        key = f"{self.config.seed}/{lineage.name}/{number}/{recipe.name}"
        gpus = self.evaluators.shape("trainer", recipe.resources).gpus
        return Brief(
            tournament=self.config.name,
            lineage=lineage.name,
            round=number,
            competitor=recipe.name,
            seed_model=seed.path,
            seed_sha256=seed.sha256,
            seed_continuation=seed.continuation,
            train_data=self.dir.data / "train.parquet",
            max_tokens=self.config.data.max_tokens,
            budget=self.config.budget.allowance,
            progress=((number - 1) / rounds, number / rounds),
            output_dir=self.dir.entry(lineage.name, number, recipe.name) / "submission",
            random_seed=int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % 2**31,
            resources=recipe.resources.model_copy(update={"gpus": gpus}),
            race_at=tuple(self.config.racing.at) if self.config.racing else (),
        )

    def ingredients(self, lineage: Lineage, number: int, soup: SoupRecipe, seed: Seed) -> list[Ingredient]:
        """What a soup may blend: scored submissions of this round, and of earlier ones that stand on this seed."""
        found = []
        for earlier in range(number if not soup.earlier else 1, number + 1):
            roster = read_roster(self.dir, lineage.name, earlier)
            for entry in roster.entries if roster else []:
                folder = self.dir.entry(lineage.name, earlier, entry.recipe.name)
                submission = Submission.read_if_there(folder / "submission.json")
                if submission is None or submission.form is None or not _is_ingredient(entry.recipe, soup):
                    continue
                if submission.seed_sha256 == seed.sha256 and (folder / "scorecard.json").exists():
                    continuation = folder / "continuation"
                    found.append(
                        Ingredient(
                            label=f"{entry.recipe.name}@{earlier}",
                            folder=folder / "submission",
                            form=submission.form,
                            seed_sha256=submission.seed_sha256,
                            continuation=continuation if (continuation / "continuation.json").is_file() else None,
                        )
                    )
        return found

    async def enter(self, brief: Brief, recipe: Recipe, base: Seed, rungs: Rungs) -> RowResults | None:
        """One entry: train, then inspect and score. None when it forfeited or was rejected."""
        folder = brief.output_dir.parent
        state = self.board.entry(brief, recipe.kind)
        submission = Submission.read_if_there(folder / "submission.json")
        if submission is None:
            submission = await self.train(brief, recipe, state, base, rungs)
            submission.write(folder / "submission.json")
        if submission.status == "forfeit":
            state.end("forfeit", submission.reason)
            return None
        if not (folder / "scorecard.json").exists():
            rejection = Rejection.read_if_there(folder / "rejected.json")
            rejection = rejection or await self.score_submission(brief, submission, base, state)
            if rejection is not None:
                rejection.write(folder / "rejected.json")
                state.end("rejected", rejection.reason)
                return None
        losses = read_results(folder / "losses.parquet", "validation")
        state.end("scored", f"validation loss {losses.loss:.4f}")
        return losses

    async def train(self, brief: Brief, recipe: Recipe, state: EntryState, base: Seed, rungs: Rungs) -> Submission:
        """Run the competitor in a worker, ended from outside when it hangs. Lost nodes are tried again."""
        shape = self.evaluators.shape("trainer", brief.resources, recipe.is_gang)
        located = recipe.located(self.config_folder)
        try:
            self.pool.refuse_impossible(shape, brief.competitor)
        except ClusterTrouble as never:
            # The config's own were refused before the tournament began; this one was entered since.
            _begin(brief)
            return forfeit(brief, recipe.kind, str(never), time.time())
        trouble = ""
        for _ in range(ATTEMPTS):
            async with self.pool.worker(shape, TRAINER) as worker:
                _begin(brief)
                began, watch = time.time(), Watch(brief, self.config.limits, state)
                call = asyncio.ensure_future(worker.call(compete, brief, located))
                races = Races()
                try:
                    while not call.done() and (ended := watch.overdue() or races.ignored()) is None:
                        for event in watch.take_checkpoints():
                            races.begin(self.race(brief, event, base, state, rungs))
                        await asyncio.wait({call}, timeout=POLL_SECONDS)
                    if call.done():
                        watch.read()
                        submission: Submission = call.result()
                        return submission
                    assert ended is not None
                    worker.kill()
                except (WorkerDied, ClusterTrouble) as error:
                    if not call.done():
                        worker.kill()
                    if isinstance(error, WorkerDied) and not error.node_lost:
                        return forfeit(brief, recipe.kind, str(error), began)
                    trouble = str(error)
                    state.note(f"{trouble}: trying again")
                    continue
                finally:
                    call.cancel()
                    races.cancel()
            if races.stopped is not None:
                return forfeit(brief, recipe.kind, races.stopped, began)
            settled: Submission = await self.evaluators.call(settle, brief, recipe.kind, ended, began)
            return settled
        raise ClusterTrouble(f"{brief.competitor}: {trouble} ({ATTEMPTS} times)")

    async def race(self, brief: Brief, event: Event, base: Seed, state: EntryState, rungs: Rungs) -> str | None:
        """Score a checkpoint that a running entry saved at a rung. If it is out, ask it to stop and say why."""
        racing = self.config.racing
        assert racing is not None
        fraction, folder = float(event["fraction"]), str(event.get("folder"))
        checkpoint = brief.output_dir / folder
        # What a competitor reports is its own affair: only a folder in its own output is looked at.
        form = model_form(checkpoint) if CHECKPOINT.fullmatch(folder) and not checkpoint.is_symlink() else None
        if fraction not in racing.at or form is None:
            return None
        model = brief.seed_model if form == "adapter" else checkpoint
        job = self.evaluators.job(brief.competitor, model, base.path, checkpoint)
        job = job.model_copy(update={"adapter": checkpoint if form == "adapter" else None})
        try:
            work = self.evaluators.call(scoring_calls.score_checkpoint, job, form, brief.seed_model, racing.rows)
            loss: float = await work
        except Forfeit:
            return None  # what is wrong with it will be said when it is handed in
        except ClusterTrouble:
            if checkpoint.exists():
                raise
            return None  # the entry ended meanwhile, and its checkpoints with it
        rung = rungs.setdefault(fraction, {})
        others = [other for name, other in rung.items() if name != brief.competitor]
        rung[brief.competitor] = loss
        if not is_out(loss, others, racing.keep):
            return None
        reason = (
            f"stopped by racing at {fraction:.0%} of its budget: {loss:.4f} nats on {racing.rows} validation rows,"
            f" place {rank_at(loss, others)} of the {len(others) + 1} that got there"
        )
        brief.stop_file.write_text(reason, encoding="utf-8")
        return reason

    async def score_submission(
        self, brief: Brief, submission: Submission, base: Seed, state: EntryState
    ) -> Rejection | None:
        """Score a submission into its folder; a Rejection when it does not pass inspection."""
        assert submission.form is not None
        adapter = brief.output_dir if submission.form == "adapter" else None
        model = brief.seed_model if adapter else brief.output_dir
        job = self.evaluators.job(f"{brief.competitor}@{brief.round}", model, base.path, brief.output_dir.parent)
        job = job.model_copy(update={"adapter": adapter})
        watch = Watch(brief, self.config.limits, state, from_now=True)
        state.phase = "scoring"
        try:
            work = self.evaluators.call(
                scoring_calls.score_entry, job, submission.form, brief.seed_model, brief.progress_file
            )
            await watch.follow(work, POLL_SECONDS)
        except Forfeit as reason:
            return Rejection(reason=str(reason))
        return None


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

    def cancel(self) -> None:
        """The entry has ended: nobody waits for these any more."""
        for task in self.tasks:
            task.cancel()


def _begin(brief: Brief) -> None:
    """An empty folder for the entry, with its brief; whatever an earlier try left there is gone."""
    shutil.rmtree(brief.output_dir.parent, ignore_errors=True)
    brief.output_dir.parent.mkdir(parents=True)
    brief.write(brief.output_dir.parent / "brief.json")


def _is_ingredient(recipe: Any, soup: SoupRecipe) -> bool:
    """Whether `soup` may blend what `recipe` hands in: neither another soup nor the control. Who is named in
    `of` stands for its children by evolution too."""
    named = soup.of is None or recipe.name in soup.of or root_name(recipe.name) in soup.of
    return bool(recipe.trains) and named
