"""Tournaments that take milliseconds: the real loop and the real record, workers that only pretend to work.

What runs in a worker is replaced by its name; everything that the driver decides, writes and resumes is real.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.bucket.staging import Stage
from cluster.errors import Forfeit
from cluster.in_process import InProcessWorkers
from cluster.store import LOCAL, Store
from cluster.workers import Workers
from competitors.contract import Brief, Submission
from competitors.entry import forfeit
from evaluation.data.split import Split
from evaluation.results import RowResults, write_results
from evaluation.scorecard import Scorecard, SplitScore
from evaluation.submissions.inspection import Findings
from evaluation.submissions.nearness import Standing
from orchestrator import driver
from orchestrator.config.tournament import TournamentConfig
from orchestrator.planning.preparation import make_data
from orchestrator.record.events import TournamentEvent
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot, SnapshotReader
from orchestrator.rounds.deadlines import Watch
from orchestrator.tournament import Tournament
from tests.tiny import tiny_model, tiny_rows, write_jsonl

ROWS = 50  # no fewer can prove a title

LossOf = Callable[[str, int], float]
"""From a competitor and a round to its mean loss in nats; round 0 is the base."""


def falling(name: str, number: int) -> float:
    """A loss that falls from round to round, and differs a little by competitor."""
    return 4.0 if number == 0 else 3.0 / number + sum(name.encode()) % 7 / 100


class FakedWorkers(InProcessWorkers):
    """Pretends to train and to score. `acts` replace what a competitor does, `faults` what an evaluator does.

    A fault is called with the function's name and arguments before it would run, and may raise. `apart_of` says how far
    two submissions lie apart, each given as `a in round-001`. `machine` is what
    InProcessWorkers are told of it.
    """

    def __init__(
        self,
        loss_of: LossOf = falling,
        acts: dict[str, Callable[[Brief], None]] | None = None,
        fault: Callable[[str, tuple[Any, ...]], None] = lambda name, args: None,
        store: Store = LOCAL,
        apart_of: Callable[[str, str], float] = lambda ours, theirs: 1.0,
        **machine: Any,
    ) -> None:
        super().__init__(trainers=4, **machine)
        self.apart_of = apart_of
        self.loss_of, self.acts, self.fault, self.store = loss_of, acts or {}, fault, store
        self.calls: list[str] = []

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if isinstance(function, Stage):
            return function(lambda staged, *args: self._run(staged, args))
        name = function.__name__
        self.calls.append(f"{name} {args[1]}" if name == "score_also" else name)
        self.fault(name, args)
        faked = {
            "compete": self._compete,
            "inspect": lambda folder, *_: Findings(content=(folder / "config.json").read_text(), distance=None),
            "score": self._score,
            "score_model": self._score,
            "score_also": self._score_also,
            "score_again": lambda job: [self._score_split(job, split) for split in job.splits],
            "score_checkpoint": lambda job, *_: self.loss_of(job.name.partition("@")[0], 1),
            "make_full": self._make_full,
            "lend": lambda seed, submission, form, out, *_: self.store.link_folder(submission, out),
            "apart": lambda ours, theirs, _: self.apart_of(*(_named(one) for one in (ours, theirs))),
            "generate": lambda model, tokenizer, prompts, *_: ["yes" for _ in prompts],
        }
        return faked.get(name, function)(*args)

    def _compete(self, brief: Brief, recipe: Any) -> Submission:
        try:
            self.acts.get(brief.competitor, hand_in)(brief)
        except Forfeit as reason:
            return forfeit(brief, recipe.kind, str(reason), 0.0)
        return Submission(
            competitor=brief.competitor, kind=recipe.kind, status="delivered", reason="used its budget", form="full",
            sha256=hashlib.sha256(f"{brief.competitor}@{brief.round}".encode()).hexdigest(),
            seed_sha256=brief.seed_sha256, train_tokens=brief.budget.tokens or 100,
            has_continuation=(brief.continuation_dir / "continuation.json").is_file(),
        )  # fmt: skip

    def _score(self, job: Any, *_: Any) -> Scorecard:
        LOCAL.remove(job.out / "losses.parquet")
        validation, *others = (self._score_split(job, split) for split in job.splits)
        scores = {"validation": validation, **dict(zip(job.splits[1:], others, strict=True))}
        card = Scorecard(model=job.name, model_sha256="", device="", dtype="", seconds=0.0, **scores)
        return card.write(job.out / "scorecard.json", store=self.store)

    def _score_also(self, job: Any, split: Split) -> Scorecard:
        card = Scorecard.read(job.out / "scorecard.json")
        card = card.model_copy(update={split: self._score_split(job, split)})
        return card.write(job.out / "scorecard.json", store=self.store)

    def _score_split(self, job: Any, split: Split) -> SplitScore:
        name, _, number = job.name.partition("@")
        results = made_up(self.loss_of(name, int(number or 0)), f"{job.name}/{split}")
        write_results(job.out / "losses.parquet", {split: [str(i) for i in range(ROWS)]}, {split: results})
        return SplitScore.of(results, 0)

    def _make_full(self, seed: Path, submission: Path, form: str, tokenizer: Path, out: Path, *_: Any) -> str:
        self.store.link_folder(submission, out)
        return hashlib.sha256((submission / "config.json").read_bytes()).hexdigest()


def _named(one: Standing) -> str:
    return f"{one.folder.parent.name} in {one.folder.parent.parent.name}" if one.folder.name == "submission" else "base"


def hand_in(brief: Brief) -> None:
    """A submission that says who made it, and what it went on from; it leaves a continuation."""
    brief.output_dir.mkdir(parents=True, exist_ok=True)
    before = brief.seed_continuation
    after = "nobody" if before is None else f"{before.parent.name} in {before.parent.parent.name}"
    words = {"by": brief.competitor, "on": brief.seed_sha256, "after": after}
    (brief.output_dir / "config.json").write_text(json.dumps(words))
    brief.continuation_dir.mkdir(exist_ok=True)
    (brief.continuation_dir / "continuation.json").write_text("{}")
    (brief.output_dir / "model.safetensors").write_bytes(b"")


def made_up(loss: float, key: str) -> RowResults:
    """Results of `loss` on average, with a little noise of their own in every row."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))
    tokens = np.full(ROWS, 10.0)
    noise = rng.standard_normal(ROWS) * 0.02
    nats = tokens * (loss + noise - noise.mean())
    return RowResults(nats, tokens, 5 * tokens, hits=tokens // 2)


def faked_config(inputs: Path, **settings: Any) -> TournamentConfig:
    """Two rounds of two competitors; `inputs` get a base and data if they have none yet."""
    if not (inputs / "base").exists():
        tiny_model(inputs / "base")
        write_jsonl(inputs / "rows.jsonl", tiny_rows(220))
    return TournamentConfig.model_validate(
        {
            "name": "faked",
            "data": {"source": str(inputs / "rows.jsonl"), "prompt": "{instruction}", "completion": "{response}"}
            | {"validation": 2 * ROWS, "test": ROWS, "max_tokens": 32},
            "lineages": [{"name": "l", "base": str(inputs / "base")}],
            "rounds": 2,
            "budget": {"steps": 10},
            "competitors": [
                {"name": name, "kind": "python", "entrypoint": "tests.recipes:writes_nothing"} for name in ("a", "b")
            ],
            "evaluation": {"samples": 1},
        }
        | settings
    )


def allocated(inputs: Path, **settings: Any) -> TournamentConfig:
    """A whole budget, of which a race, a climb and a line of two rounds are made."""
    field = [{"name": name, "kind": "sft", "learning_rate": 1e-3} for name in ("a", "b")]
    fixed = {"rounds": 4, "budget": {"total_tokens": 100_000}, "competitors": field}
    fixed["allocation"] = {"several_lines": False}  # these few rows are passed many times
    return faked_config(inputs, **(fixed | settings))


def climbing(name: str, number: int) -> float:
    """Losses of a tournament whose second child of `a` leads."""
    return 4.0 - number / 2 - (0.1 if name.startswith("a") else 0.0) - (0.1 if name == "a.2b" else 0.0)


def play(
    config: TournamentConfig,
    folder: Path,
    workers: Workers | None = None,
    store: Store = LOCAL,
    tell: Callable[[TournamentEvent], None] = lambda event: None,
) -> Snapshot:
    """Run the tournament in `folder`, or go on with it, as the driver does but for observers."""
    run = RunDirectory(folder, store)
    workers = workers or FakedWorkers(store=store)
    with run.locked():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(driver, "make_data", _make_data_once)
            driver.prepare(config, folder.parent / "faked.yaml", run)
        try:
            asyncio.run(Tournament(run.with_changes(config), run, folder.parent, workers, tell).run())
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from group
        finally:
            workers.close()
    return SnapshotReader(run).read()


def deadlines_bind(patch: pytest.MonkeyPatch, *competitors: str) -> None:
    """Only these are ended when they are late: on a busy machine so may be whoever does nothing wrong."""
    overdue = Watch.overdue
    patch.setattr(Watch, "overdue", lambda self: overdue(self) if self.brief.competitor in competitors else None)


_made: dict[str, dict[Path, tuple[int, bytes]]] = {}
"""By what it was made of, data that was made: each file's mode and bytes by its path."""


def _make_data_once(config: TournamentConfig, config_file: Path, out: Path) -> None:
    """As `make_data`, which splits the same rows of a file once: most tournaments of a test file have the same."""
    rows = Path(str(config.data.source))
    key = f"{config.data} {config.seed} {config.slice_rows} {rows.stat() if rows.is_file() else config_file}"
    if key not in _made:
        make_data(config, config_file, out)
        files = [path for path in out.rglob("*") if path.is_file()]
        _made[key] = {path.relative_to(out): (path.stat().st_mode, path.read_bytes()) for path in files}
        return
    for name, (mode, content) in _made[key].items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
        (out / name).chmod(mode)
