"""The tournament: rounds over lineages, from a checked config to a record in the run directory.

Every step looks first whether its result lies in the run directory, so the same call starts a tournament
and goes on with one.
"""

import asyncio
import hashlib
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from cluster.errors import ClusterTrouble, Forfeit
from cluster.pool import Pool, Shape, WorkerDied
from cluster.storage import link_folder, sha256_of
from competitors import Recipe
from competitors.builtin_bases import build
from competitors.contract import Brief, Resources, Submission
from competitors.entry import compete, forfeit, settle
from evaluation.evaluator import ScoringJob, generate, make_full
from evaluation.scorecard import RowLosses, Scorecard, read_losses
from evaluation.splits import read_split
from orchestrator import models, stages
from orchestrator.config import Lineage, Reference, TournamentConfig
from orchestrator.progress import Board, EntryState
from orchestrator.run_directory import RunDirectory
from orchestrator.supervise import Watch
from orchestrator.tournament_records import Rejection, Sample, Samples, Seed
from orchestrator.verdict import Candidate, Verdict, choose

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often work is tried when the evaluator or the cluster, not a competitor, is in trouble."""
POLL_SECONDS = 0.5
EVALUATOR, TRAINER = 0, 1  # priorities: what has landed is scored before more is started


class Tournament:
    """One config on one cluster. `run` is the whole of it."""

    def __init__(
        self, config: TournamentConfig, run: RunDirectory, config_folder: Path, pool: Pool, board: Board, has_gpus: bool
    ) -> None:
        self.config, self.dir, self.config_folder = config, run, config_folder
        self.pool, self.board, self.has_gpus = pool, board, has_gpus
        self.fetching: dict[str, asyncio.Lock] = {}
        self.rows = [(row.prompt, row.completion) for row in read_split(run.held_out / "test.parquet")]

    async def run(self) -> None:
        """All lineages and references, side by side; returns when every round is on record."""
        self._refuse_impossible()
        async with asyncio.TaskGroup() as group:
            for lineage in self.config.lineages:
                group.create_task(self.run_lineage(lineage))
            for reference in self.config.references:
                if reference.model is not None:
                    group.create_task(self.score_reference(reference))

    async def run_lineage(self, lineage: Lineage) -> None:
        """The rounds of one lineage: all train from one seed, each is scored as it lands, then the verdict."""
        seed = champion = await self.base(lineage)
        base, without = seed, 0
        for number in range(1, self.config.rounds + 1):
            briefs = {recipe.name: self.brief(lineage, number, recipe, seed) for recipe in self.config.competitors}
            entries = await asyncio.gather(
                *(self.enter(briefs[recipe.name], recipe, base) for recipe in self.config.competitors)
            )
            scored = {name: losses for name, losses in zip(briefs, entries, strict=True) if losses is not None}
            verdict = self.judge(lineage, number, champion, seed, scored, without)
            seed, champion = await self.promote(verdict, seed, champion, base)
            without = verdict.rounds_without_champion
            self.board.verdict(verdict)
            if verdict.ends_lineage:
                break

    async def base(self, lineage: Lineage) -> Seed:
        """Round 0: the base model, scored as it is."""
        folder = self.dir.round(lineage.name, 0)
        seed = Seed.read_if_there(folder / "seed.json")
        if seed is None:
            path, sha256 = await self._fetch(lineage.base, f"lineages[{lineage.name}].base")
            seed = Seed(label="base", path=path, sha256=sha256).write(folder / "seed.json")
        await self._score_plain(f"{lineage.name} base", seed.path, "plain", folder)
        await self.sample(seed, seed, folder)
        return seed

    async def score_reference(self, reference: Reference) -> None:
        """Score a reference once, on its own prompt format if asked."""
        assert reference.model is not None
        folder = self.dir.reference(reference.name)
        if (folder / "scorecard.json").exists():
            return
        path, _ = await self._fetch(reference.model, f"references[{reference.name}].model")
        await self._score_plain(reference.name, path, reference.prompt, folder)

    def brief(self, lineage: Lineage, number: int, recipe: Recipe, seed: Seed) -> Brief:
        """What the competitor gets this round. Nothing in it leads to held-out data."""
        key = f"{self.config.seed}/{lineage.name}/{number}/{recipe.name}"
        gpus = recipe.resources.gpus if recipe.resources.gpus != "auto" else float(self.has_gpus)
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
            progress=((number - 1) / self.config.rounds, number / self.config.rounds),
            output_dir=self.dir.entry(lineage.name, number, recipe.name) / "submission",
            random_seed=int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % 2**31,
            resources=recipe.resources.model_copy(update={"gpus": gpus}),
        )

    async def enter(self, brief: Brief, recipe: Recipe, base: Seed) -> RowLosses | None:
        """One entry of one round: train, then inspect and score. None when it forfeited or was rejected."""
        folder = brief.output_dir.parent
        state = self.board.entry(brief, recipe.kind)
        submission = Submission.read_if_there(folder / "submission.json")
        if submission is None:
            submission = await self.train(brief, recipe, state)
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
        losses = read_losses(folder / "losses.parquet", "validation")
        state.end("scored", f"validation loss {losses.loss:.4f}")
        return losses

    async def train(self, brief: Brief, recipe: Recipe, state: EntryState) -> Submission:
        """Run the competitor in a worker, ended from outside when it hangs. Lost nodes are tried again."""
        shape = self._shape("trainer", brief.resources, recipe.is_gang)
        for _ in range(ATTEMPTS):
            shutil.rmtree(brief.output_dir.parent, ignore_errors=True)
            brief.output_dir.parent.mkdir(parents=True)
            brief.write(brief.output_dir.parent / "brief.json")
            async with self.pool.worker(shape, TRAINER) as worker:
                began, watch = time.time(), Watch(brief, self.config.limits, state)
                located = recipe.located(self.config_folder)
                call = asyncio.ensure_future(worker.call(compete, brief, located))
                try:
                    while not call.done() and (overdue := watch.overdue()) is None:
                        await asyncio.wait({call}, timeout=POLL_SECONDS)
                    if call.done():
                        watch.read()
                        submission: Submission = call.result()
                        return submission
                    assert overdue is not None
                    worker.kill()
                except WorkerDied as died:
                    if died.node_lost:
                        state.note(f"{died}, its node is lost: again on another")
                        continue
                    return forfeit(brief, recipe.kind, str(died), began)
                finally:
                    call.cancel()
            return await self._settle(brief, recipe, overdue, began)
        raise ClusterTrouble(f"{brief.competitor}: its node was lost {ATTEMPTS} times")

    async def score_submission(
        self, brief: Brief, submission: Submission, base: Seed, state: EntryState
    ) -> Rejection | None:
        """Score a submission into its folder; a Rejection when it does not pass inspection."""
        assert submission.form is not None
        adapter = brief.output_dir if submission.form == "adapter" else None
        model = brief.seed_model if adapter else brief.output_dir
        name = f"{brief.competitor}@{brief.round}"
        job = self._job(name, model, base.path, "plain", brief.output_dir.parent).model_copy(
            update={"adapter": adapter}
        )
        watch = Watch(brief, self.config.limits, state, from_now=True)
        state.phase = "scoring"
        try:
            work = self._evaluate(stages.score_entry, job, submission.form, brief.seed_model, brief.progress_file)
            await watch.follow(work, POLL_SECONDS)
        except Forfeit as reason:
            return Rejection(reason=str(reason))
        return None

    def judge(
        self, lineage: Lineage, number: int, champion: Seed, seed: Seed, scored: dict[str, RowLosses], without: int
    ) -> Verdict:
        """The verdict of a round, on record."""
        path = self.dir.round(lineage.name, number) / "verdict.json"
        verdict = Verdict.read_if_there(path)
        if verdict is not None:
            return verdict
        return choose(
            lineage.name,
            number,
            self._candidate(lineage, champion.label),
            self._candidate(lineage, seed.label),
            scored,
            self.config.selection,
            self.config.seed,
            without,
        ).write(path)

    async def promote(self, verdict: Verdict, seed: Seed, champion: Seed, base: Seed) -> tuple[Seed, Seed]:
        """Make the folders of the next seed and of a new champion. Each is merged once; the rest are links."""
        folder = self.dir.round(verdict.lineage, verdict.round)
        known = {seed.label: seed, champion.label: champion}
        for label, name in ((verdict.seed_next, "seed"), (verdict.champion, "champion")):
            if name == "champion" and not verdict.dethroned:
                continue
            done = Seed.read_if_there(folder / f"{name}.json")
            if done is None:
                done = await self._make(label, folder / name, known, seed, base, verdict)
                done.write(folder / f"{name}.json")
            known[label] = done
        if verdict.dethroned:
            await self.sample(known[verdict.champion], base, folder)
        self._drop_losers_continuations(folder, known[verdict.seed_next])
        return known[verdict.seed_next], known[verdict.champion]

    async def sample(self, model: Seed, base: Seed, folder: Path) -> None:
        """What the model writes on a few test prompts, for the report."""
        wanted, path = self.config.evaluation.samples, folder / "samples.json"
        if path.exists() or not wanted:
            return
        rows = self.rows[:wanted]
        prompts, tokens = [prompt for prompt, _ in rows], self.config.evaluation.sample_tokens
        dtype = self.config.evaluation.dtype
        texts = await self._evaluate(generate, model.path, base.path, prompts, tokens, dtype)
        Samples(
            samples=[Sample(prompt=p, expected=c, completion=t) for (p, c), t in zip(rows, texts, strict=True)]
        ).write(path)

    async def _make(
        self, label: str, out: Path, known: dict[str, Seed], seed: Seed, base: Seed, verdict: Verdict
    ) -> Seed:
        """A full model folder of `label` at `out`."""
        if label in known:
            link_folder(known[label].path, out)
            return known[label].model_copy(update={"path": out})
        entry = self.dir.entry(verdict.lineage, verdict.round, label.partition("@")[0])
        submission = Submission.read(entry / "submission.json")
        sha256 = await self._evaluate(make_full, seed.path, entry / "submission", submission.form, base.path, out)
        continuation = entry / "continuation" if submission.has_continuation else None
        return Seed(label=label, path=out, sha256=sha256, continuation=continuation)

    @staticmethod
    def _drop_losers_continuations(folder: Path, seed: Seed) -> None:
        """An optimizer's state is twice the model: only what the next round can go on from is kept."""
        for continuation in folder.glob("*/continuation"):
            if continuation != seed.continuation:
                shutil.rmtree(continuation)

    async def _fetch(self, spec: str, key: str) -> tuple[Path, str]:
        """The folder and SHA-256 of a model that the config names."""
        folder = models.check(spec, self.config_folder, key) or self.dir.model(spec)
        async with self.fetching.setdefault(spec, asyncio.Lock()):  # built once, whoever asks first
            if spec.startswith(models.BUILTIN) and not folder.exists():
                name, shape = spec.removeprefix(models.BUILTIN), Shape("trainer", 1, 0)
                await self._evaluate(build, name, folder, shape=shape)
        return folder, str(await self._evaluate(sha256_of, folder))

    async def _score_plain(self, name: str, model: Path, prompt: Any, folder: Path) -> None:
        if not (folder / "scorecard.json").exists():
            self.board.say(f"scoring {name}")
            job = self._job(name, model, model, prompt, folder)
            card: Scorecard = await self._evaluate(stages.score_plain, job, folder / "progress.jsonl")
            self.board.say(f"{name}: validation loss {card.validation.loss:.4f}, test loss {card.test.loss:.4f}")

    def _job(self, name: str, model: Path, tokenizer: Path, prompt: Any, out: Path) -> ScoringJob:
        return ScoringJob(
            name=name,
            model=model,
            tokenizer=tokenizer,
            held_out=self.dir.held_out,
            max_tokens=self.config.data.max_tokens,
            batch_tokens=self.config.evaluation.batch_tokens,
            prompt=prompt,
            dtype=self.config.evaluation.dtype,
            out=out,
        )

    async def _evaluate(self, function: Any, *args: Any, shape: Shape | None = None) -> Any:
        """Call a stage in an evaluator. A Forfeit or UserError comes through; other trouble is tried again."""
        shape = shape or self._shape("evaluator", self.config.evaluation.resources)
        trouble: Exception | None = None
        for _ in range(ATTEMPTS):
            async with self.pool.worker(shape, EVALUATOR) as worker:
                try:
                    return await worker.call(function, *args)
                except (ClusterTrouble, WorkerDied) as error:
                    trouble = error
                    log.warning("evaluator: %s failed, trying again: %s", function.__name__, error)
                    worker.kill()
        assert trouble is not None
        raise ClusterTrouble(f"{trouble} ({function.__name__}, tried {ATTEMPTS} times)") from trouble

    async def _settle(self, brief: Brief, recipe: Recipe, reason: str, began: float) -> Submission:
        submission: Submission = await self._evaluate(settle, brief, recipe.kind, reason, began)
        return submission

    def _candidate(self, lineage: Lineage, label: str) -> Candidate:
        """A scored model by its label: `base` or `competitor@round`."""
        name, _, number = label.partition("@")
        folder = self.dir.entry(lineage.name, int(number), name) if number else self.dir.round(lineage.name, 0)
        return Candidate(label, read_losses(folder / "losses.parquet", "validation"))

    def _shape(self, role: str, resources: Resources, gang: bool = False) -> Shape:
        gpus = float(self.has_gpus) if resources.gpus == "auto" else float(resources.gpus)
        return Shape(role, resources.cpus, gpus, resources.memory_gb, resources.workers, gang)

    def _refuse_impossible(self) -> None:
        for recipe in self.config.competitors:
            self.pool.refuse_impossible(
                self._shape("trainer", recipe.resources, recipe.is_gang), f"competitors[{recipe.name}]"
            )
        self.pool.refuse_impossible(self._shape("evaluator", self.config.evaluation.resources), "evaluation")
