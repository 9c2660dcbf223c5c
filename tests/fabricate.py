"""A run directory as a tournament would leave it, made in moments without training anything.

The verdicts come from the real `choose` over made-up per-row losses, so the record agrees with itself.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from competitors.contract import Submission
from evaluation.results import Array, RowResults, write_results
from evaluation.scorecard import Scorecard, SplitScore
from evaluation.splits import Manifest
from orchestrator.config import Lineage, TournamentConfig
from orchestrator.record.records import Rejection, Sample, Samples, Seed
from orchestrator.record.run_directory import RunDirectory
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
Key = tuple[str, int, str]
"""Lineage, round, competitor."""


def falling_loss(lineage: str, number: int, competitor: str) -> float:
    """Validation loss of an entry: falls from round to round, differs by competitor. Round 0 is the base."""
    if number == 0:
        return 4.5 if lineage < "m" else 2.7
    return 0.6 + 0.3 / number + 0.01 * (sum(competitor.encode()) % 7)


def fabricate(
    root: Path,
    *,
    lineages: tuple[str, ...] = ("llama", "sn9"),
    rounds: int = 2,
    settled: dict[str, int] | None = None,
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
    are scored only in a whole run. `samples` are prompts and what is right; `settings` are further config keys.
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
            "selection": {"resamples": 200},
        }
        | (settings or {})
    )
    run = RunDirectory(root)
    run.adopt(config)
    _manifest(config).write(run.manifest_file)
    whole = settled is None
    for lineage in config.lineages:
        if whole or lineage.name in (settled or {}):
            maker = _Maker(config, run, lineage, forfeits or {}, rejections or {}, loss, samples or [("1+1=", "2")])
            maker.make(rounds if settled is None else settled[lineage.name])
    for index, reference in enumerate(config.references):
        if whole and reference.model is not None:
            _score(reference.name, 3.0 - index / 10, run.reference(reference.name), 99 + index)
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

    def make(self, rounds: int) -> None:
        """Round 0 and `rounds` settled rounds after it."""
        folder = self.run.round(self.lineage, 0)
        champion = seed = Candidate("base", _score("base", self.loss(self.lineage, 0, "base"), folder, 0))
        Seed(label="base", path=folder / "seed", sha256="0" * 64).write(folder / "seed.json")
        self._sample(folder, "base")
        without = 0
        for number in range(1, rounds + 1):
            scored = {
                recipe.name: losses
                for index, recipe in enumerate(self.config.competitors)
                if (losses := self._entry(number, index, recipe.name, recipe.kind)) is not None
            }
            rules, folder = self.config.selection, self.run.round(self.lineage, number)
            verdict = choose(self.lineage, number, champion, seed, scored, rules, self.config.seed, without)
            verdict.write(folder / "verdict.json")
            known = {c.label: c for c in (champion, seed)}
            known |= {f"{name}@{number}": Candidate(f"{name}@{number}", losses) for name, losses in scored.items()}
            champion, seed, without = known[verdict.champion], known[verdict.seed_next], verdict.rounds_without_champion
            Seed(label=seed.label, path=folder / "seed", sha256="1" * 64).write(folder / "seed.json")
            if verdict.dethroned:
                Seed(label=champion.label, path=folder / "champion", sha256="2" * 64).write(folder / "champion.json")
                self._sample(folder, champion.label)

    def _entry(self, number: int, index: int, name: str, kind: str) -> RowResults | None:
        folder = self.run.entry(self.lineage, number, name)
        key = (self.lineage, number, name)
        loss = self.loss(*key)
        _progress(folder / "progress.jsonl", loss, cut=key in self.forfeits)
        cost = {"train_seconds": 60.0 + index, "wall_seconds": 90.0 + index, "device_seconds": 90.0 + index}
        if key in self.forfeits:
            Submission(
                competitor=name, kind=kind, status="forfeit", reason=self.forfeits[key], seed_sha256="1" * 64, **cost
            ).write(folder / "submission.json")
            return None
        Submission(
            competitor=name,
            kind=kind,
            status="delivered",
            reason="",
            form="full",
            sha256="3" * 64,
            seed_sha256="1" * 64,
            train_tokens=100_000 + index,
            train_steps=50,
            **cost,
        ).write(folder / "submission.json")
        if key in self.rejections:
            Rejection(reason=self.rejections[key]).write(folder / "rejected.json")
            return None
        return _score(f"{name}@{number}", loss, folder, 10 * number + index)

    def _sample(self, folder: Path, label: str) -> None:
        Samples(
            samples=[
                Sample(prompt=prompt, expected=expected, completion=f"what {label} of {self.lineage} writes")
                for prompt, expected in self.samples
            ]
        ).write(folder / "samples.json")


def _score(model: str, loss: float, folder: Path, seed: int) -> RowResults:
    """Write losses.parquet and scorecard.json around `loss`; test comes out a little above validation."""
    tokens = np.random.default_rng(1).integers(5, 40, ROWS).astype(np.float64)  # the same rows for every model
    rng = np.random.default_rng(seed)
    validation, test = (_results(tokens, mean, rng) for mean in (loss, loss + 0.02))
    losses = {"validation": validation, "test": test}
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder / "losses.parquet", {split: [f"{i:016x}" for i in range(ROWS)] for split in losses}, losses)
    Scorecard(
        model=model,
        model_sha256="4" * 64,
        validation=SplitScore.of(validation, cut_short=0),
        test=SplitScore.of(test, cut_short=0),
        device="cpu",
        dtype="float32",
        seconds=3.0,
    ).write(folder / "scorecard.json")
    return validation


def _results(tokens: Array, loss: float, rng: np.random.Generator) -> RowResults:
    return RowResults(tokens * (loss + rng.normal(0, 0.02, ROWS)), tokens, 4 * tokens, hits=0.5 * tokens)


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
    held = {"validation": config.data.validation, "test": config.data.test}
    return Manifest(
        source=str(config.data.source),
        prompt=config.data.prompt,
        completion=config.data.completion,
        seed=config.seed,
        rows_read=5000 + sum(held.values()),
        dropped={"duplicate": 130, "empty completion": 12},
        groups=4800,
        counts={"train": 4858, **held},
        sha256=dict.fromkeys(("train", "validation", "test"), "5" * 64),
        fingerprint="6" * 64,
    )
