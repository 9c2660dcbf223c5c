"""The tournament: rounds over lineages, from a checked config to a record in the run directory.

Every step looks first whether its result lies in the run directory, so the same call starts a tournament
and goes on with one.
"""

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

from cluster.digest import model_sha256
from cluster.ray_workers import Pool
from cluster.resources import Shape
from cluster.store import LOCAL
from competitors.builtin.bases import build
from competitors.contract import Submission
from competitors.soup.recipe import SoupRecipe
from evaluation.evaluator import generate, make_full
from evaluation.results import RowResults, read_results
from evaluation.scorecard import Scorecard
from evaluation.splits import read_split
from orchestrator.config import Lineage, Reference, TournamentConfig
from orchestrator.field import exploit
from orchestrator.field.field import next_roster, read_roster
from orchestrator.planning import model_sources
from orchestrator.record.records import Roster, Sample, Samples, Seed
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds import scoring_calls
from orchestrator.rounds.entries import Entries
from orchestrator.rounds.evaluators import Evaluators
from orchestrator.rounds.verdict import Candidate, Verdict, beats_all, choose
from orchestrator.views.live import Board

log = logging.getLogger(__name__)


class Tournament:
    """One config on one cluster. `run` is the whole of it."""

    def __init__(
        self, config: TournamentConfig, run: RunDirectory, config_folder: Path, pool: Pool, board: Board, has_gpus: bool
    ) -> None:
        self.config, self.dir, self.config_folder = config, run, config_folder
        self.pool, self.board = pool, board
        self.evaluators = Evaluators(config, run, pool, has_gpus)
        self.entries = Entries(config, run, config_folder, pool, board, self.evaluators)
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
        seed = champion = base = await self.base(lineage)
        history: list[tuple[Roster, Verdict]] = []
        while (opened := self.open_round(lineage, history)) is not None:
            config, roster = opened
            recipes = [entry.recipe for entry in roster.entries]
            rounds = config.rounds_as_of(roster.round)
            scored = await self.entries.compete_round(lineage, roster.round, recipes, seed, base, rounds)
            verdict = self.judge(lineage, roster, champion, seed, scored, history)
            seed, champion = await self.promote(verdict, seed, champion, base)
            history.append((roster, verdict))
            self.board.verdict(verdict)
            if verdict.ends_lineage:
                break

    def open_round(
        self, lineage: Lineage, history: list[tuple[Roster, Verdict]]
    ) -> tuple[TournamentConfig, Roster] | None:
        """The next round's roster, on record, with the config as changed by then; None after the last round."""
        number = len(history) + 1
        with self.dir.changing():
            config = self.dir.with_changes(self.config)
            if number > config.all_rounds:
                return None
            roster = read_roster(self.dir, lineage.name, number)
            if roster is None:
                previous = history[-1] if history else (None, None)
                roster = next_roster(config, lineage.name, number, *previous)
                roster.write(self.dir.round(lineage.name, number) / "roster.json")
        self.board.round_begins(roster, config.all_rounds)
        return config, roster

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

    def judge(
        self,
        lineage: Lineage,
        roster: Roster,
        champion: Seed,
        seed: Seed,
        scored: dict[str, RowResults],
        history: list[tuple[Roster, Verdict]],
    ) -> Verdict:
        """The verdict of a round, on record."""
        path = self.dir.round(lineage.name, roster.round) / "verdict.json"
        verdict = Verdict.read_if_there(path)
        if verdict is not None:
            return verdict
        verdict = choose(
            lineage.name,
            roster.round,
            self._candidate(lineage, champion.label),
            self._candidate(lineage, seed.label),
            scored,
            self.config.selection,
            self.config.seed,
            history[-1][1].rounds_without_champion if history else 0,
        )
        return self._and_exploit(verdict, roster, scored, history).write(path)

    def _and_exploit(
        self, verdict: Verdict, roster: Roster, scored: dict[str, RowResults], history: list[tuple[Roster, Verdict]]
    ) -> Verdict:
        """The verdict with what the rounds that follow exploit, if one recipe has proved itself by now."""
        rules, verdicts = self.config.exploit, [*(before for _, before in history), verdict]
        already = history[-1][1].exploits if history else None
        if rules is None or already is not None:
            return verdict.model_copy(update={"exploits": already})
        trained = [e.recipe.name for e in roster.entries if e.recipe.trains and e.recipe.name in scored]
        separated = rules.when is not None and beats_all(
            {name: scored[name] for name in trained}, self.config.selection, self.config.seed
        )
        decided = exploit.decide(
            rules,
            roster,
            [one.winner for one in verdicts],
            [[standing.competitor for standing in one.entries] for one in verdicts],
            separated,
        )
        if decided is None:
            return verdict
        name, why = decided
        reason = f"{why}: from the next round on, all entries run {name} or its neighbours."
        return verdict.model_copy(update={"exploits": name, "reasons": [*verdict.reasons, reason]})

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
        if verdict.seed_next != seed.label or not self._blends:
            self._drop_continuations(verdict, known[verdict.seed_next])
        return known[verdict.seed_next], known[verdict.champion]

    async def sample(self, model: Seed, base: Seed, folder: Path) -> None:
        """What the model writes on a few test prompts, for the report."""
        wanted, path = self.config.evaluation.samples, folder / "samples.json"
        if path.exists() or not wanted:
            return
        rows = self.rows[:wanted]
        prompts, tokens = [prompt for prompt, _ in rows], self.config.evaluation.sample_tokens
        dtype = self.config.evaluation.dtype
        texts = await self.evaluators.call(generate, model.path, base.path, prompts, tokens, dtype)
        Samples(
            samples=[Sample(prompt=p, expected=c, completion=t) for (p, c), t in zip(rows, texts, strict=True)]
        ).write(path)

    async def _make(
        self, label: str, out: Path, known: dict[str, Seed], seed: Seed, base: Seed, verdict: Verdict
    ) -> Seed:
        """A full model folder of `label` at `out`."""
        if label in known:
            LOCAL.link_folder(known[label].path, out)
            return known[label].model_copy(update={"path": out})
        entry = self.dir.entry(verdict.lineage, verdict.round, label.partition("@")[0])
        submission = Submission.read(entry / "submission.json")
        sha256 = await self.evaluators.call(make_full, seed.path, entry / "submission", submission.form, base.path, out)
        continuation = entry / "continuation" if submission.has_continuation else None
        return Seed(label=label, path=out, sha256=sha256, continuation=continuation)

    def _drop_continuations(self, verdict: Verdict, seed: Seed) -> None:
        """An optimizer's state is twice the model: only what the next round can go on from, or blend, is kept.

        Up to this round: a resumed run passes here again, with later rounds on record.
        """
        for number in range(1, verdict.round + 1):
            for continuation in self.dir.round(verdict.lineage, number).glob("*/continuation"):
                if continuation != seed.continuation:
                    shutil.rmtree(continuation)

    @property
    def _blends(self) -> bool:
        """Whether a soup may come to blend submissions of several rounds on one seed."""
        return self.config.exploit is not None or any(isinstance(r, SoupRecipe) for r in self.config.competitors)

    async def _fetch(self, spec: str, key: str) -> tuple[Path, str]:
        """The folder and SHA-256 of a model that the config names."""
        folder = model_sources.check(spec, self.config_folder, key) or self.dir.model(spec)
        async with self.fetching.setdefault(spec, asyncio.Lock()):  # built once, whoever asks first
            if spec.startswith(model_sources.BUILTIN) and not folder.exists():
                name, shape = spec.removeprefix(model_sources.BUILTIN), Shape("trainer", 1, 0)
                await self.evaluators.call(build, name, folder, shape=shape)
        return folder, str(await self.evaluators.call(model_sha256, folder))

    async def _score_plain(self, name: str, model: Path, prompt: Any, folder: Path) -> None:
        if not (folder / "scorecard.json").exists():
            self.board.say(f"scoring {name}")
            job = self.evaluators.job(name, model, model, folder, prompt)
            card: Scorecard = await self.evaluators.call(scoring_calls.score_plain, job, folder / "progress.jsonl")
            self.board.say(f"{name}: validation loss {card.validation.loss:.4f}, test loss {card.test.loss:.4f}")

    def _candidate(self, lineage: Lineage, label: str) -> Candidate:
        """A scored model by its label: `base` or `competitor@round`."""
        name, _, number = label.partition("@")
        folder = self.dir.entry(lineage.name, int(number), name) if number else self.dir.round(lineage.name, 0)
        return Candidate(label, read_results(folder / "losses.parquet", "validation"))

    def _refuse_impossible(self) -> None:
        for recipe in self.config.competitors:
            shape = self.evaluators.shape("trainer", recipe.resources, recipe.is_gang)
            self.pool.refuse_impossible(shape, f"competitors[{recipe.name}]")
        self.pool.refuse_impossible(self.evaluators.shape("evaluator", self.config.evaluation.resources), "evaluation")
