"""From a verdict to models: the next seed, and a new champion, each a full model folder of its own."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from cluster.errors import Forfeit
from competitors.contract import Submission
from evaluation.evaluator import score_also
from evaluation.generation import generate
from evaluation.scorecard import Scorecard
from evaluation.submissions.promotion import make_full
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Roster
from orchestrator.record.events import Noted
from orchestrator.record.records import ModelFolder, Sample, Samples, Verdict
from orchestrator.rounds.context import Context
from orchestrator.rounds.starts import stands_on


class Unfit(Exception):
    """A submission that won cannot become a full model: it is rejected, and the round is judged again without it."""

    def __init__(self, competitor: str, reason: str) -> None:
        super().__init__(f"{competitor}: {reason}")
        self.competitor, self.reason = competitor, reason


class Promotion:
    """Makes the models that a lineage goes on with. `prompts` are test rows (prompt, what is right) for samples."""

    def __init__(self, context: Context, base: ModelFolder, prompts: Sequence[tuple[str, str]], blends: bool) -> None:
        self.context, self.base, self.prompts, self.blends = context, base, prompts, blends

    async def promote(
        self, verdict: Verdict, seed: ModelFolder, champion: ModelFolder
    ) -> tuple[ModelFolder, ModelFolder]:
        """The folders of the next seed and of the champion after this verdict, on record.

        Each is merged once; the rest are links. Raises Unfit when a submission cannot be made a model of.
        """
        folder = self.context.run.round(verdict.lineage, verdict.round)
        known = {seed.model: seed, champion.model: champion}
        known[verdict.seed_next] = await self._made(verdict.seed_next, folder / "seed", known, verdict)
        if verdict.dethroned:
            known[verdict.champion] = await self._made(verdict.champion, folder / "champion", known, verdict)
            await self.report(known[verdict.champion], verdict.lineage)
            await self.sample(known[verdict.champion], folder)
        return known[verdict.seed_next], known[verdict.champion]

    async def _made(
        self, model: ModelRef, out: Path, known: dict[ModelRef, ModelFolder], verdict: Verdict
    ) -> ModelFolder:
        """A full model folder of `model` at `out`, and the record beside it."""
        run, file = self.context.run, out.with_suffix(".json")
        done = run.read(ModelFolder, file)
        if done is not None and done.model == model:
            return done
        if model in known:
            source = known[model].path
            assert source is not None
            await asyncio.to_thread(run.store.link_folder, source, out)  # a copy, where the disk knows no links
            return run.write(known[model].model_copy(update={"path": out}), file)
        return run.write(await self._merged(model, out, verdict), file)

    async def _merged(self, model: ModelRef, out: Path, verdict: Verdict) -> ModelFolder:
        run, entry = self.context.run, self.context.run.scores(verdict.lineage, model)
        seed = stands_on(run, verdict.lineage, model, self.base)
        assert model.competitor is not None
        assert seed.path is not None
        assert self.base.path is not None
        submission = run.read(Submission, entry / "submission.json")
        assert submission is not None
        assert submission.form is not None
        card = run.read(Scorecard, entry / "scorecard.json")
        scored = None if card is None else card.model_sha256
        check = self.context.evaluators.job("its seed", seed.path, self.base.path, entry / "seed-check")
        try:
            sha256 = await self.context.evaluators.call_on_submission(
                check, make_full, seed.path, entry / "submission", submission.form, self.base.path, out, scored
            )
        except Forfeit as reason:
            raise Unfit(model.competitor, f"cannot be made a full model of: {reason}") from reason
        continuation = entry / "continuation" if submission.has_continuation else None
        return ModelFolder(model=model, path=out, sha256=sha256, continuation=continuation)

    async def report(self, champion: ModelFolder, lineage: str) -> None:
        """Score a new champion on the test rows, as it is handed out. It reigns whatever comes of that."""
        folder = self.context.run.scores(lineage, champion.model)
        card = self.context.run.read(Scorecard, folder / "scorecard.json")
        assert card is not None
        if card.test is not None:
            return
        assert champion.path is not None
        assert self.base.path is not None
        evaluators = self.context.evaluators
        check = evaluators.job("the base", self.base.path, self.base.path, folder / "base-check")
        job = evaluators.job(str(champion.model), champion.path, self.base.path, folder)
        try:
            await evaluators.call_on_submission(check, score_also, job, "test")
        except Forfeit as reason:
            self.context.tell(Noted(f"{lineage}: {champion.model.in_words} has no test loss: {reason}"))

    async def sample(self, model: ModelFolder, folder: Path) -> None:
        """What the model writes on a few test prompts, for the report. One that can write nothing keeps its title."""
        config, run = self.context.config.evaluation, self.context.run
        if run.read(Samples, folder / "samples.json") is not None or not config.samples:
            return
        rows = self.prompts[: config.samples]
        asked = [prompt for prompt, _ in rows]
        assert model.path is not None
        assert self.base.path is not None
        check = self.context.evaluators.job("the base", self.base.path, self.base.path, folder / "base-check")
        try:
            texts = await self.context.evaluators.call_on_submission(
                check, generate, model.path, self.base.path, asked, config.sample_tokens, config.dtype
            )
        except Forfeit as reason:
            run.write(Samples(samples=[], reason=str(reason)), folder / "samples.json")
            return
        samples = [Sample(prompt=p, expected=c, completion=t) for (p, c), t in zip(rows, texts, strict=True)]
        run.write(Samples(samples=samples), folder / "samples.json")

    async def drop_continuations(self, before: Verdict, roster: Roster | None, seed: ModelFolder) -> None:
        """An optimizer's state is twice the model: only what the next round can go on from, or blend, is kept.

        `before` is the last round's verdict, `roster` the next round's, None where none follows. Where rows rotate the
        champion may be the seed again, by rows on which it is better than the seed.
        """
        if before.seed_next == before.seed_before and self.blends:
            return
        run, going_on = self.context.run, [entry.continues for entry in roster.entries] if roster else []
        if self.context.config.data.rotates and roster is not None and not before.champion.is_base:
            going_on.append(before.champion)
        kept = {run.scores(before.lineage, model) / "continuation" for model in going_on if model is not None}
        for number in range(1, before.round + 1):
            for continuation in run.round(before.lineage, number).glob("*/continuation"):
                if continuation != seed.continuation and continuation not in kept:
                    await asyncio.to_thread(run.store.remove, continuation)
