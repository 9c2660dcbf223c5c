"""A run directory as a tournament would leave it, made in moments without training anything.

The verdicts come from the real `choose` over made-up per-row losses, so the record agrees with itself.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cluster.resources import Resources
from competitors.contract import Brief, Submission
from evaluation.data.near_duplicates import Example, NearDuplicates
from evaluation.data.split import Split
from evaluation.data.splits import Manifest
from evaluation.figures import costs_of
from evaluation.results import Array, RowResults, write_results
from evaluation.scorecard import Scorecard, SplitScore
from orchestrator.config.sections import Lineage
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.field.next_round import first_roster, next_roster
from orchestrator.field.roster import Roster
from orchestrator.field.spending import level
from orchestrator.record.records import Inspection, ModelFolder, Proof, Sample, Samples, Verdict
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot, SnapshotReader
from orchestrator.rounds.proving import challenger, prove
from orchestrator.rounds.recipes import compare_recipes
from orchestrator.rounds.verdict import Candidate, choose

ROWS = 60
COMPETITORS: list[dict[str, Any]] = [
    {"name": "lora-r16", "kind": "sft", "adapter": {"method": "lora", "rank": 16}, "learning_rate": 2e-4},
    {"name": "full", "kind": "sft", "learning_rate": 1e-5},
    {"name": "own", "kind": "python", "entrypoint": "my_recipes.soup:train"},
]
REFERENCES: list[dict[str, Any]] = [
    {"name": "instruct", "model": "meta-llama/Llama-3.2-3B-Instruct", "prompt": "chat"},
    {"name": "published llama", "published": [4.78, 0.87, 0.70]},
]
REPEATED: list[dict[str, Any]] = [
    {"name": f"{name}-{run}", "kind": "sft", "learning_rate": rate, "repeat_of": name}
    for name, rate in (("mild", 1e-5), ("hot", 2e-5), ("wild", 1e-3))
    for run in (1, 2, 3)
]
"""Three recipes of three runs each; see `repeated_loss`."""
Key = tuple[str, int, str]
"""Lineage, round, competitor."""


def falling_loss(lineage: str, number: int, competitor: str) -> float:
    """Validation loss of an entry: falls from round to round, differs by competitor. Round 0 is the base."""
    if number == 0:
        return 4.5 if lineage < "m" else 2.7
    return 0.6 + 0.3 / number + 0.01 * (sum(competitor.encode()) % 7)


def repeated_loss(lineage: str, number: int, competitor: str) -> float:
    """As falling_loss, of the runs of REPEATED: `hot` and `mild` are close, `wild` is worse."""
    if not number:
        return falling_loss(lineage, number, competitor)
    recipe, _, run = competitor.partition("-")
    return 0.6 + 0.3 / number + {"hot": 0.0, "mild": 0.004, "wild": 0.3}[recipe] + 0.01 * int(run)


def read(run: RunDirectory) -> Snapshot:
    """What is on record there now."""
    return SnapshotReader(run).read()


def fabricate(
    root: Path,
    *,
    lineages: tuple[str, ...] = ("llama", "sn9"),
    rounds: int = 2,
    settled: dict[str, int] | None = None,
    training: bool = False,
    competitors: list[dict[str, Any]] = COMPETITORS,
    references: list[dict[str, Any]] = REFERENCES,
    forfeits: dict[Key, str] | None = None,
    rejections: dict[Key, str] | None = None,
    loss: Callable[[str, int, str], float] = falling_loss,
    samples: list[tuple[str, str]] | None = None,
    settings: dict[str, Any] | None = None,
) -> tuple[TournamentConfig, RunDirectory]:
    """Write a run directory at `root`, all on record or as far as `settled` says.

    `settled` maps lineages to their settled rounds; one that it leaves out has nothing on record, and references
    are scored only in a whole run. With `training` the round after those has begun, and its entries report.
    `samples` are prompts and what is right; `settings` are further config keys.
    """
    config = TournamentConfig.model_validate(
        {
            "name": "demo",
            "seed": 17,
            "data": {"source": "builtin:demo", "prompt": "{question}\n", "completion": "{answer}", "max_tokens": 64}
            | {"validation": ROWS, "test": ROWS},
            "lineages": [{"name": name, "base": f"hub/{name}-3b"} for name in lineages],
            "references": references,
            "rounds": rounds,
            "budget": {"tokens": 100_000},
            "competitors": competitors,
        }
        | (settings or {})
    )
    run = RunDirectory(root)
    run.adopt(config)
    run.write(_manifest(config), run.manifest_file)
    whole = settled is None
    for lineage in config.lineages:
        if whole or lineage.name in (settled or {}):
            maker = _Maker(config, run, lineage, forfeits or {}, rejections or {}, loss, samples or [("1+1=", "2")])
            maker.make(rounds if settled is None else settled[lineage.name], training)
    for index, reference in enumerate(config.references):
        if whole and reference.model is not None:
            _score(run, reference.name, 3.0 - index / 10, run.reference(reference.name), 99 + index)
    return config, run


class _Maker:
    """Fabricates one lineage."""

    def __init__(
        self,
        config: TournamentConfig,
        run: RunDirectory,
        lineage: Lineage,
        forfeits: dict[Key, str],
        rejections: dict[Key, str],
        loss: Callable[[str, int, str], float],
        samples: list[tuple[str, str]],
    ) -> None:
        self.config, self.run, self.lineage = config, run, lineage.name
        self.forfeits, self.rejections, self.loss, self.samples = forfeits, rejections, loss, samples

    def make(self, rounds: int, training: bool) -> None:
        """Round 0 and `rounds` settled rounds after it; with `training` one more that has only begun."""
        folder, run = self.run.round(self.lineage, 0), self.run
        champion = seed = Candidate(BASE, _score(run, "base", self.loss(self.lineage, 0, "base"), folder, 0))
        run.write(ModelFolder(model=BASE, path=None, sha256="0" * 64), folder / "seed.json")
        self._sample(folder, BASE)
        roster, verdict = None, None
        for number in range(1, rounds + 1):
            roster, folder = self._open(roster, verdict), run.round(self.lineage, number)
            scored = {
                entry.recipe.name: losses
                for index, entry in enumerate(roster.entries)
                if (losses := self._entry(number, index, entry.recipe)) is not None
            }
            so_far = (verdict.spent, verdict.rounds_without_champion) if verdict else (0.0, 0)
            proof, rules = self._proof(number, champion, scored, so_far[0]), self.config.selection
            verdict = choose(self.lineage, number, champion, seed, scored, rules, proof, *so_far)
            recipes = compare_recipes(roster, scored, rules.confidence)
            verdict = verdict.model_copy(update={"recipes": recipes})
            known = {one.model: one for one in (champion, seed)}
            for name, losses in scored.items():
                known[ModelRef(name, number)] = Candidate(ModelRef(name, number), losses)
            champion, seed = known[verdict.champion], known[verdict.seed_next]
            run.write(ModelFolder(model=seed.model, path=folder / "seed", sha256="1" * 64), folder / "seed.json")
            if verdict.dethroned:
                crowned = ModelFolder(model=champion.model, path=folder / "champion", sha256="2" * 64)
                run.write(crowned, folder / "champion.json")
                self._sample(folder, champion.model)
                self._score_entry(champion.model.competitor, number)
            run.write(verdict, folder / "verdict.json")
        if training:
            roster = self._open(roster, verdict)
            for entry in roster.entries:
                self._begin(roster.round, entry.recipe, cut=True)

    def _open(self, before: Roster | None, verdict: Verdict | None) -> Roster:
        """The next round's field, on record."""
        config = self.config
        if before is None or verdict is None:
            roster = first_roster(self.lineage, config.competitors, config.changes)
        else:
            rules = (verdict.exploits, config.evolution, config.exploit)
            roster = next_roster(before, verdict.ranking, *rules, config.changes, config.seed)
        return self.run.write(roster, self.run.round(self.lineage, roster.round) / "roster.json")

    def _begin(self, number: int, recipe: Any, cut: bool) -> Path:
        """The folder of an entry that has its brief and has reported."""
        folder = self.run.entry(self.lineage, number, recipe.name)
        brief = Brief(
            tournament=self.config.name,
            lineage=self.lineage,
            round=number,
            competitor=recipe.name,
            seed_model=self.run.round(self.lineage, number - 1) / "seed",
            seed_sha256="1" * 64,
            seed_continuation=None,
            train_data=self.run.data / "train.parquet",
            max_tokens=self.config.data.max_tokens,
            budget=self.config.budget.allowance,
            progress=(0.0, 1.0),
            output_dir=folder / "submission",
            random_seed=1,
            resources=Resources(gpus=0),
        )
        self.run.write(brief, folder / "brief.json")
        _progress(folder / "progress.jsonl", self.loss(self.lineage, number, recipe.name), cut)
        (folder / "log.txt").write_text("printed\n")
        return folder

    def _entry(self, number: int, index: int, recipe: Any) -> RowResults | None:
        key = (self.lineage, number, recipe.name)
        folder = self._begin(number, recipe, cut=key in self.forfeits)
        cost: dict[str, Any] = {"train_seconds": 60.0 + index, "wall_seconds": 90.0 + index}
        cost |= {
            "competitor": recipe.name,
            "kind": recipe.kind,
            "seed_sha256": "1" * 64,
            "device_seconds": 90.0 + index,
        }
        if key in self.forfeits:
            lost = Submission(status="forfeit", reason=self.forfeits[key], **cost)
            self.run.write(lost, folder / "submission.json")
            return None
        done = {"form": "full", "sha256": "3" * 64, "train_tokens": 100_000 + index, "train_steps": 50}
        self.run.write(Submission(status="delivered", reason="", **done, **cost), folder / "submission.json")
        self.run.write(Inspection(form="full", reason=self.rejections.get(key, "")), folder / "inspection.json")
        if key in self.rejections:
            return None
        return self._score_entry(recipe.name, number, is_champion=False)

    def _score_entry(self, name: str | None, number: int, is_champion: bool = True) -> RowResults:
        assert name is not None
        loss, folder = self.loss(self.lineage, number, name), self.run.entry(self.lineage, number, name)
        return _score(self.run, f"{name}@{number}", loss, folder, 10 * number + sum(name.encode()), is_champion)

    def _proof(self, number: int, champion: Candidate, scored: dict[str, RowResults], spent: float) -> Proof | None:
        winner, rules = challenger(champion.validation, scored), self.config.selection
        if winner is None:
            return None
        models = (champion.model, ModelRef(winner, number))
        theirs, ours = (costs_of(self.run.scores(self.lineage, model), "proof", "loss") for model in models)
        chance = level(1 - rules.confidence, [self.config.rounds] * number, spent)
        return prove(
            (theirs, champion.validation), (ours, scored[winner]), chance, rules.margin_nats, (), list(scored.values())
        )

    def _sample(self, folder: Path, model: ModelRef) -> None:
        samples = [
            Sample(prompt=prompt, expected=expected, completion=f"what {model} of {self.lineage} writes")
            for prompt, expected in self.samples
        ]
        self.run.write(Samples(samples=samples), folder / "samples.json")


def _score(run: RunDirectory, model: str, loss: float, folder: Path, seed: int, is_champion: bool = True) -> RowResults:
    """Write losses.parquet and scorecard.json around `loss`; test comes out a little above validation.

    An entry has no test rows before it is champion.
    """
    tokens = np.random.default_rng(1).integers(5, 40, ROWS).astype(np.float64)  # the same rows for every model
    rng = np.random.default_rng(seed)
    validation, proof, test = (_results(tokens, mean, rng) for mean in (loss, loss, loss + 0.02))
    losses: dict[Split, RowResults] = {"validation": validation, "proof": proof}
    losses |= {"test": test} if is_champion else {}
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder / "losses.parquet", {split: [f"{i:016x}" for i in range(ROWS)] for split in losses}, losses)
    card = Scorecard(
        model=model,
        model_sha256="4" * 64,
        validation=SplitScore.of(validation, cut_short=0),
        proof=SplitScore.of(proof, cut_short=0),
        test=SplitScore.of(test, cut_short=0) if is_champion else None,
        device="cpu",
        dtype="float32",
        seconds=3.0,
    )
    run.write(card, folder / "scorecard.json")
    return validation


def _results(tokens: Array, loss: float, rng: np.random.Generator) -> RowResults:
    nats, texts = tokens * (loss + rng.normal(0, 0.02, ROWS)), {"matches": 0.25, "overlap": 0.5}
    judged = {name: np.where(np.arange(ROWS) < ROWS // 2, value, np.nan) for name, value in texts.items()}
    return RowResults(nats, tokens, 4 * tokens, hits=0.5 * tokens, **judged)


def _progress(path: Path, loss: float, cut: bool) -> None:
    """A training run of 50 steps towards `loss`, or one that dies after 12."""
    path.parent.mkdir(parents=True, exist_ok=True)
    events: list[dict[str, Any]] = [{"event": "started", "tokens": 0, "step": 0}]
    noise = np.random.default_rng(5).normal(0, 0.03, 51)
    for step in range(1, 13 if cut else 51):
        value = loss + 1.5 * float(np.exp(-step / 8)) + float(noise[step])
        events.append({"event": "step", "step": step, "tokens": step * 2000, "loss": value, "seconds": step * 1.2})
    path.write_text("".join(json.dumps(event | {"time": 1.8e9}) + "\n" for event in events), encoding="utf-8")


def _manifest(config: TournamentConfig) -> Manifest:
    half = config.data.validation // 2
    held = {"validation": config.data.validation - half, "proof": half, "test": config.data.test}
    return Manifest(
        source=str(config.data.source),
        prompt=config.data.prompt,
        completion=config.data.completion,
        seed=config.seed,
        rows_read=5017 + sum(held.values()),
        dropped={"duplicate": 130, "empty completion": 12, "near-duplicate of a held-out row": 17},
        groups=4800,
        near_duplicates=NearDuplicates(
            handling="remove",
            rows=17,
            by={"prompt": 15, "completion": 4},
            forms={"prompt": 2, "completion": 0},
            groups={split: count - 3 for split, count in held.items()},
            examples=[
                Example(split="test", held_out_row="3" * 16, side="prompt", share=0.86, text="Name <b>three</b> co…")
            ],
        ),
        counts={"train": 4858, **held},
        sha256=dict.fromkeys(("train", *held), "5" * 64),
        fingerprint="6" * 64,
    )
