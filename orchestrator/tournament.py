"""The tournament: rounds over lineages, from a checked config to a record in the run directory.

Every step looks first whether its result lies in the run directory, so the same call starts a tournament
and goes on with one.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from cluster.digest import model_sha256
from cluster.errors import BrokenRecord, Forfeit, LimitReached, UserError
from cluster.metered import ACCOUNT, Metered
from cluster.resources import Shape
from cluster.workers import Workers
from competitors.builtin.bases import build
from competitors.soup.recipe import SoupRecipe
from evaluation.data.raw_places import raw_places
from evaluation.data.split import Split
from evaluation.data.splits import read_split
from evaluation.figures import costs_of, loss_in_words
from evaluation.results import SPLITS, RowResults, read_results
from evaluation.scorecard import Scorecard, SplitScore
from orchestrator.config.sections import Lineage, Reference
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.field.roster import Roster
from orchestrator.field.spending import level
from orchestrator.field.whole_budget import Corpus
from orchestrator.planning import model_sources
from orchestrator.planning.budget import count_corpus, refuse_hours_without_gpus
from orchestrator.record.changes import still_needed, take_in
from orchestrator.record.events import ChampionCrowned, Noted, RoundBegan, TournamentEvent, VerdictReached
from orchestrator.record.records import Inspection, ModelFolder, Verdict
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import has_ended
from orchestrator.rounds.competition import compete_in_round
from orchestrator.rounds.context import Context
from orchestrator.rounds.costs import Costs
from orchestrator.rounds.entry import reject
from orchestrator.rounds.evaluators import Evaluators
from orchestrator.rounds.judging import Settled, judge
from orchestrator.rounds.opening import next_field, placed_as_now, refuse_impossible
from orchestrator.rounds.promotion import Promotion, Unfit
from orchestrator.rounds.proving import challenger, guarded, prove, score_champion_for_proof, score_for_proof
from orchestrator.rounds.scoring_calls import score
from orchestrator.rounds.verdict import Candidate


class Tournament:
    """One config on one set of workers. `run` is the whole of it."""

    def __init__(
        self,
        config: TournamentConfig,
        run: RunDirectory,
        config_folder: Path,
        workers: Workers,
        tell: Callable[[TournamentEvent], None],
    ) -> None:
        metered = Metered(workers)
        evaluators = Evaluators(config, run, metered)
        withheld = [run.root, *raw_places(config.data.source, config_folder)]
        self.context = Context(config, run, config_folder, metered, evaluators, tell, withheld)
        self.costs, self.too_dear = Costs(config, run, metered), list[LimitReached]()
        self.config, self.dir, self.evaluators, self.tell = config, run, evaluators, tell
        self.fetching: dict[str, asyncio.Lock] = {}
        self.prompts = [(row.prompt, row.completion) for row in read_split(run.split("test"))]

    async def run(self) -> None:
        """All lineages and references, side by side; returns when every round is on record.

        LimitReached where a round would cost too much: when all that had begun before is settled.
        """
        refuse_hours_without_gpus(self.config, self.context.workers.has_gpus)
        refuse_impossible(still_needed(self.config, self.dir), self.dir, self.context.workers)
        self.costs.require_left()
        try:
            async with asyncio.TaskGroup() as both:
                watch = both.create_task(self.costs.watch())
                async with asyncio.TaskGroup() as group:
                    for lineage in self.config.lineages:
                        group.create_task(self.run_lineage(lineage))
                    for reference in self.config.references:
                        if reference.model is not None:
                            group.create_task(self.score_reference(reference, reference.model))
                watch.cancel()
        finally:
            self.costs.record()
        if self.too_dear:
            raise self.too_dear[0]

    async def run_lineage(self, lineage: Lineage) -> None:
        """The rounds of one lineage: all train from one seed, each is scored as it lands, then the verdict."""
        ACCOUNT.set(lineage.name)
        base = await self.base(lineage)
        promotion = Promotion(self.context, base, self.prompts, self._blends)
        await promotion.sample(base, self.dir.round(lineage.name, 0))
        seed = champion = base
        history: list[Settled] = []
        corpus = await self.corpus(lineage, base) if self.config.is_allocated else None
        while True:
            try:
                opened = self.open_round(lineage, history, corpus)
            except LimitReached as too_dear:
                self.too_dear.append(too_dear)
                self.tell(Noted(f"{too_dear}"))
                return
            if history:
                await promotion.drop_continuations(history[-1].verdict, opened and opened[1], seed)
            if opened is None:
                break
            config, roster = opened
            rounds = config.rounds_as_of(roster.round)
            scored = await compete_in_round(self.context, roster, rounds, seed, champion, base)
            planned = [config.rounds_as_of(number) for number in range(1, roster.round + 1)]
            verdict, seed, champion = await self.settle(roster, champion, seed, scored, history, planned, promotion)
            self.costs.end(lineage.name)
            history.append(Settled(roster, verdict))

    def open_round(
        self, lineage: Lineage, history: list[Settled], corpus: Corpus | None
    ) -> tuple[TournamentConfig, Roster] | None:
        """The next round's roster, on record, with the config as changed by then; None after the last round.

        LimitReached where it would cost too much.
        """
        number = len(history) + 1
        with self.dir.changing():
            for words in take_in(self.dir):
                self.tell(Noted(words))
            config = self.dir.with_changes(self.config)
            if has_ended(config, [settled.verdict for settled in history]):
                return None
            there = self.dir.roster(lineage.name, number)
            roster = there or next_field(self.dir, config, lineage.name, history, corpus, self.context.workers)
            self.costs.begin(roster, [settled.roster for settled in history])
            if there is None:
                self.dir.write(roster, self.dir.round(lineage.name, number) / "roster.json")
            roster = placed_as_now(roster, config.competitors)
        self.tell(RoundBegan(roster, config.all_rounds))
        return config, roster

    async def corpus(self, lineage: Lineage, base: ModelFolder) -> Corpus:
        """How much there is to train on, in the tokens of the lineage's base."""
        file = self.dir.round(lineage.name, 0) / "corpus.json"
        if (done := self.dir.read(Corpus, file)) is not None:
            return done
        assert base.path is not None
        arguments = (self.dir.split("train"), base.path, self.config.data.max_tokens)
        return self.dir.write(await self.evaluators.call(count_corpus, *arguments, shape=Shape("trainer", 1, 0)), file)

    async def settle(
        self,
        roster: Roster,
        champion: ModelFolder,
        seed: ModelFolder,
        scored: dict[str, RowResults],
        history: list[Settled],
        planned: list[int],
        promotion: Promotion,
    ) -> tuple[Verdict, ModelFolder, ModelFolder]:
        """The verdict of a round and the models it leads to: the next seed and the champion.

        The verdict is the last record of a round. What won and cannot be promoted is rejected, and the round judged
        without it.
        """
        path = self.dir.round(roster.lineage, roster.round) / "verdict.json"
        before = self._candidate(roster, champion.model), self._candidate(roster, seed.model)
        done = self.dir.read(Verdict, path)
        while True:
            try:
                verdict = done or await self.judge(roster, *before, scored, history, planned, champion, promotion.base)
                next_seed, next_champion = await promotion.promote(verdict, seed, champion)
            except Unfit as unfit:
                if done is not None:
                    raise BrokenRecord(f"{path}: a model that it names is gone, and {unfit}") from unfit
                self.reject(ModelRef(unfit.competitor, roster.round), roster.lineage, unfit.reason)
                del scored[unfit.competitor]
                continue
            break
        if done is None:
            self.dir.write(verdict, path)
        self.tell(VerdictReached(verdict, again=done is not None))
        if verdict.dethroned:
            self._tell_of_champion(verdict, next_champion, again=done is not None)
        return verdict, next_seed, next_champion

    async def judge(
        self,
        roster: Roster,
        champion: Candidate,
        seed: Candidate,
        scored: dict[str, RowResults],
        history: list[Settled],
        planned: list[int],
        reigns: ModelFolder,
        base: ModelFolder,
    ) -> Verdict:
        """The verdict of a round. Who leads the champion is scored on the rows that prove first; else Unfit.

        `reigns` is the champion's folder.
        """
        rules, proof = self.config.selection, None
        seen = scored  # as entries have read them, unless it is another figure that chooses
        if rules.metric != "loss":
            split = self.config.choosing(roster.round)
            seen = {name: self._seen(roster.lineage, ModelRef(name, roster.round), split) for name in scored}
        if (name := challenger(champion.validation, seen)) is not None:
            model = ModelRef(name, roster.round)
            assert base.path is not None
            try:
                await score_for_proof(self.context, base.path, roster.lineage, model)
            except Forfeit as reason:
                raise Unfit(name, str(reason)) from reason
            await score_champion_for_proof(self.context, roster.lineage, reigns, base)
            chance = level(1 - rules.confidence, planned, history[-1].verdict.spent if history else 0.0)
            theirs, ours = (self._seen(roster.lineage, one, "proof") for one in (champion.model, model))
            looked_after = guarded(rules, *(self._proof_score(roster.lineage, one) for one in (champion.model, model)))
            both = (theirs, champion.validation), (ours, seen[name])
            earlier = [one.tail for settled in reversed(history) for one in settled.verdict.entries]
            proof = prove(*both, chance, rules.margin_nats, looked_after, list(seen.values()), earlier)
        return judge(self.config, roster, champion, seed, scored, proof, history, seen)

    def reject(self, model: ModelRef, lineage: str, reason: str) -> None:
        """Put on record that a submission is out though it was scored."""
        entry = self.dir.scores(lineage, model)
        inspection = self.dir.read(Inspection, entry / "inspection.json")
        assert inspection is not None
        reject(self.dir, entry, inspection.form, reason)
        self.tell(Noted(f"{lineage} round {model.round} {model.competitor}: rejected: {reason}"))

    def _tell_of_champion(self, verdict: Verdict, champion: ModelFolder, again: bool) -> None:
        card = self._scorecard(verdict.lineage, verdict.champion)
        assert champion.path is not None
        self.tell(ChampionCrowned(verdict.lineage, verdict.champion, card.test_figures, champion.path, again))

    async def base(self, lineage: Lineage) -> ModelFolder:
        """Round 0: the base model, scored as it is."""
        folder, key = self.dir.round(lineage.name, 0), f"lineages[{lineage.name}].base"
        path = await self._fetch(lineage.base, key)
        done = self.dir.read(ModelFolder, folder / "seed.json")
        if done is None:
            sha256 = await self.evaluators.call(model_sha256, path)
            done = self.dir.write(ModelFolder(model=BASE, path=None, sha256=sha256), folder / "seed.json")
        elif _is_newer(path, folder / "seed.json") and await self.evaluators.call(model_sha256, path) != done.sha256:
            raise UserError(
                f"{key}: {path} is another model than the one that the tournament began with: put that back, or give"
                " another --run-dir"
            )
        await self._score_as_it_is(f"{lineage.name} base", path, "plain", folder, key)
        return done.model_copy(update={"path": path})

    async def score_reference(self, reference: Reference, model: str) -> None:
        """Score a reference once, on its own prompt format if asked."""
        folder, key = self.dir.reference(reference.name), f"references[{reference.name}].model"
        if self.dir.read(Scorecard, folder / "scorecard.json") is None:
            path = await self._fetch(model, key)
            await self._score_as_it_is(reference.name, path, reference.prompt, folder, key)

    @property
    def _blends(self) -> bool:
        """Whether a soup may come to blend submissions of several rounds on one seed."""
        return self.config.exploit is not None or any(isinstance(r, SoupRecipe) for r in self.config.competitors)

    async def _fetch(self, spec: str, key: str) -> Path:
        """The folder of a model that the config names."""
        folder = self.dir.model(spec)
        if not folder.is_dir():
            folder = model_sources.check(spec, self.context.config_folder, key) or folder
        async with self.fetching.setdefault(spec, asyncio.Lock()):  # built once, whoever asks first
            if spec.startswith(model_sources.BUILTIN) and not folder.exists():
                name = spec.removeprefix(model_sources.BUILTIN)
                await self.evaluators.call(build, name, folder, shape=Shape("trainer", 1, 0))
        return folder

    async def _score_as_it_is(
        self, name: str, model: Path, prompt: Literal["plain", "chat"], folder: Path, key: str
    ) -> None:
        """A base's or a reference's scorecard. Nobody chooses among them, so they are scored on the test rows too."""
        if self.dir.read(Scorecard, folder / "scorecard.json") is not None:
            return
        self.tell(Noted(f"scoring {name}"))
        job = self.evaluators.job(name, model, model, folder)
        job = job.model_copy(update={"prompt": prompt, "splits": SPLITS})
        try:
            card = await self.evaluators.call(score, job, folder / "progress.jsonl")
        except Forfeit as reason:
            raise UserError(f"{key}: {reason}") from reason
        validation, test = loss_in_words(card.validation.figures), loss_in_words(card.test_figures)
        self.tell(Noted(f"{name}: validation loss {validation}, test loss {test}"))

    def _candidate(self, roster: Roster, model: ModelRef) -> Candidate:
        """A scored model with its results on the rows that choose in a round."""
        split = self.config.choosing(roster.round)
        losses = read_results(self.dir.scores(roster.lineage, model) / "losses.parquet", split)
        return Candidate(model, self._seen(roster.lineage, model, split), losses.loss)

    def _seen(self, lineage: str, model: ModelRef, split: Split) -> RowResults:
        """A scored model's results on a split as the metric that chooses sees them."""
        return costs_of(self.dir.scores(lineage, model), split, self.config.selection.metric)

    def _scorecard(self, lineage: str, model: ModelRef) -> Scorecard:
        card = self.dir.read(Scorecard, self.dir.scores(lineage, model) / "scorecard.json")
        assert card is not None
        return card

    def _proof_score(self, lineage: str, model: ModelRef) -> SplitScore:
        score = self._scorecard(lineage, model).proof
        assert score is not None
        return score


def _is_newer(model: Path, record: Path) -> bool:
    """Whether a file of a model may have been changed since something was put on record about it.

    By the time that no copy keeps; another link to a file changes it as well.
    """
    return any(file.stat().st_ctime >= record.stat().st_ctime for file in model.rglob("*") if file.is_file())
