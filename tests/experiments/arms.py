"""The arms: what one might do with the same number of training tokens, one function each.

An arm gets a cell and an empty folder to work in, and returns its result. All its tokens count, those of models that
come to nothing too. Choosing among models is by validation loss; test rows only report.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from cluster.in_process import InProcessWorkers
from cluster.resources import Resources
from competitors.contract import Brief
from competitors.events import reporter
from competitors.sft import ray_train
from competitors.sft.recipe import SftRecipe
from competitors.sft.training import train
from orchestrator.config.loading import load_config
from orchestrator.driver import prepare
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import LineageSnapshot, RoundSnapshot, Snapshot, SnapshotReader
from orchestrator.tournament import Tournament
from tests.experiments import recipes
from tests.experiments.cells import Cell
from tests.experiments.counting import counted
from tests.experiments.results import Outcome, Point, Result
from tests.experiments.single import marks, train_and_score
from tests.experiments.sizes import LONGER, Setting

ROUNDS = 5
RANDOM_TRIALS = 4
"""As many as the tournament has recipes: more of them would leave each too little."""
WORKERS = 4
"""Of the machine on which wall-clock is compared."""


Run = Callable[[Cell, Path], Outcome]


@dataclass(frozen=True)
class Arm:
    """`on_ray`: its training runs in Ray's processes, which count for themselves."""

    run: Run
    on_ray: bool = False


def alone(recipe: SftRecipe, budgets: Callable[[Setting], float] = lambda setting: 1.0) -> Run:
    """One recipe with everything, or so many times that, and what its best checkpoint would have been."""

    def run(cell: Cell, folder: Path) -> Outcome:
        tokens = round(cell.setting.total_tokens * budgets(cell.setting))
        card, points = train_and_score(cell, recipe, tokens, folder, marks(cell))
        best = min(points, key=lambda one: one.validation)
        return Outcome(
            card.validation.loss, card.reported.loss, best_checkpoint=best, curve=tuple(points), chosen=recipe.summary
        )

    return run


def searched_at_random(cell: Cell, folder: Path) -> Outcome:
    """Recipes drawn at random, an equal part each, the best kept."""
    rng, part, spent = random.Random(cell.seed), cell.setting.total_tokens // RANDOM_TRIALS, 0
    best: Outcome | None = None
    curve: list[Point] = []
    for number in range(RANDOM_TRIALS):
        recipe = recipes.drawn(cell.setting.adapters, f"trial-{number}", recipes.draw(cell.setting.adapters, rng))
        card, points = train_and_score(cell, recipe, part, folder / recipe.name, (1.0,))
        spent += points[-1].tokens
        if best is None or card.validation.loss < best.validation:
            best = Outcome(card.validation.loss, card.reported.loss, chosen=recipe.summary)
        curve.append(Point(tokens=spent, validation=best.validation, test=best.test))
    assert best is not None
    best.curve = tuple(curve)
    return best


def tournament(
    field: Callable[[Cell], list[SftRecipe]], settings: Callable[[Cell], dict[str, Any]], workers: int = 1
) -> Run:
    """A tournament in this process, as if it had so many workers; what comes of it is its champion, be the last seed
    better or not."""

    def run(cell: Cell, folder: Path) -> Outcome:
        setting = cell.setting
        config = {
            "name": "experiment",
            "seed": cell.seed,
            "data": {
                "source": cell.source,
                "prompt": setting.prompt,
                "completion": setting.completion,
                "max_tokens": setting.max_tokens,
                "validation": setting.held_out,
                "test": setting.held_out,
            },
            "lineages": [{"name": setting.name, "base": str(cell.base)}],
            "competitors": [one.model_dump(mode="json", by_alias=True) for one in field(cell)],
            "evaluation": {"samples": 0},
            **settings(cell),
        }
        file = folder / "tournament.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        snapshot = _held(file, RunDirectory(folder / "run"), workers)
        assert snapshot.manifest is not None
        assert snapshot.manifest.fingerprint == cell.manifest.fingerprint, "its rows are others"
        return _outcome(snapshot.lineages[0])

    return run


def _held(file: Path, run: RunDirectory, room: int) -> Snapshot:
    """Hold the tournament of a config in this process, with no observers, who would take the interpreter's time."""
    config = load_config(file)
    with run.locked():
        prepare(config, file, run)
        workers = InProcessWorkers(trainers=1, evaluators=0, room=room)
        with patch.object(ray_train, "train_together", _by_one):
            asyncio.run(Tournament(config, run, file.parent, workers, lambda event: None).run())
    return SnapshotReader(run).read()


def _by_one(brief: Brief, recipe: SftRecipe) -> None:
    """A gang's training in this process, which ends where the gang's does (tests/integration/test_gang_training.py)."""
    whole = {"batch_size": recipe.batch, "gradient_accumulation": 1, "resources": Resources(gpus=0)}
    train(brief, recipe.model_copy(update=whole), reporter(brief.progress_file))


def _outcome(lineage: LineageSnapshot) -> Outcome:
    """The champion after each round over what everybody had trained on by then."""
    curve, spent = [], 0
    for one in lineage.settled:
        spent += sum(entry.submission.train_tokens for entry in one.entries if entry.submission)
        assert one.verdict is not None
        card = lineage.scorecard_of(one.verdict.champion)
        assert card is not None
        curve.append(Point(tokens=spent, validation=card.validation.loss, test=card.reported.loss))
    card = lineage.scorecard_of(lineage.champion)
    assert card is not None
    words = "; ".join(_in_words(one) for one in lineage.settled)
    return Outcome(card.validation.loss, card.reported.loss, curve=tuple(curve), chosen=f"{lineage.champion}: {words}")


def _in_words(one: RoundSnapshot) -> str:
    """A round's entries with their validation losses and what they trained on."""
    entries = []
    for entry in one.entries:
        loss = f"{entry.scorecard.validation.loss:.4f}" if entry.scorecard else entry.state
        tokens = entry.submission.train_tokens if entry.submission else 0
        recipe = entry.entry.recipe
        what = recipe.kind
        if isinstance(recipe, SftRecipe):
            gang = f" on {recipe.resources.workers} workers" if recipe.is_gang else ""
            what = f"{recipe.learning_rate:g} at batch {recipe.batch}{gang}"
        entries.append(f"{entry.name} {loss} ({what}, {tokens:,} tokens)")
    return f"round {one.number}: {', '.join(entries)}"


def whole_field(cell: Cell) -> list[SftRecipe]:
    """The tournament's competitors."""
    return recipes.field(cell.setting.adapters)


def equal_rounds(cell: Cell) -> dict[str, Any]:
    """As published: each recipe the same in each round, from the last winner, nothing else kept."""
    entries = ROUNDS * len(whole_field(cell))
    return {"rounds": ROUNDS, "budget": {"tokens": cell.setting.total_tokens // entries}}


def whole_budget(**allocation: Any) -> Callable[[Cell], dict[str, Any]]:
    """One budget for everything; without `allocation` by default settings."""

    def settings(cell: Cell) -> dict[str, Any]:
        changed = {"allocation": allocation} if allocation else {}
        return {"rounds": ROUNDS, "budget": {"total_tokens": cell.setting.total_tokens}, **changed}

    return settings


def low_field(cell: Cell) -> list[SftRecipe]:
    """The tournament's competitors with a quarter of their rates: the best rate lies beyond them."""
    return [one.model_copy(update={"learning_rate": one.learning_rate / 4}) for one in whole_field(cell)]


def any_one(cell: Cell) -> list[SftRecipe]:
    """One competitor, picked without looking."""
    field = whole_field(cell)
    return [random.Random(cell.seed).choice(field)]


def _alone(adapters: bool) -> dict[str, Arm]:
    arms = {}
    for recipe in recipes.field(adapters):
        arms[f"alone-{recipe.name}"] = Arm(alone(recipe))
        if recipe.schedule != "linear":
            arms[f"alone-{recipe.name}-to-zero"] = Arm(alone(recipes.to_zero(recipe)))
    arms |= {recipe.name: Arm(alone(recipe)) for recipe in recipes.grid(adapters)}
    # Data-parallel on four workers, each with a recipe's own batch, so that four times as many rows make a step: with
    # as many tokens as the tournament, and with as much time.
    for recipe in recipes.field(adapters):
        for name, one in ((recipe.name, recipe), (f"{recipe.name}-to-zero", recipes.to_zero(recipe))):
            wide = one.model_copy(update={"gradient_accumulation": WORKERS})
            if name == recipe.name or recipe.schedule != "linear":
                arms[f"wide-{name}"] = Arm(alone(wide))
                arms[f"longer-{name}"] = Arm(alone(wide, lambda setting: LONGER[setting.name]))
    return arms


def arms(adapters: bool) -> dict[str, Arm]:
    """Every arm by name, in the order of the table."""
    from tests.experiments import trials

    return {
        **_alone(adapters),
        "random": Arm(searched_at_random),
        "asha": Arm(trials.asha, on_ray=True),
        "tpe": Arm(trials.tpe, on_ray=True),
        "pbt": Arm(trials.population, on_ray=True),
        "naive": Arm(tournament(whole_field, equal_rounds)),
        "ours": Arm(tournament(whole_field, whole_budget())),
        "wide-ours": Arm(tournament(whole_field, whole_budget(workers=WORKERS), WORKERS)),
        "ours-no-race": Arm(tournament(any_one, whole_budget())),
        "ours-no-climb": Arm(tournament(whole_field, whole_budget(climb=False))),
        "ours-low": Arm(tournament(low_field, whole_budget())),
        "ours-low-no-climb": Arm(tournament(low_field, whole_budget(climb=False))),
        "ours-no-optimizer": Arm(tournament(whole_field, whole_budget(keep_optimizer=False))),
        "ours-one-line": Arm(tournament(whole_field, whole_budget(several_lines=False))),
    }


def measured(arm: Arm, name: str, cell: Cell, folder: Path, seconds: Callable[[], float]) -> Result:
    """Run an arm, counting what is trained on in this process."""
    began = seconds()
    with counted() as counter:
        outcome = arm.run(cell, folder)
    return Result(
        setting=cell.setting.name,
        seed=cell.seed,
        arm=name,
        run_with=cell.setting.run_with,
        finished=datetime.now(UTC),
        fingerprint=cell.manifest.fingerprint,
        tokens=counter.tokens + outcome.tokens,
        padded_tokens=counter.padded_tokens + outcome.padded_tokens,
        seconds=seconds() - began,
        validation=outcome.validation,
        test=outcome.test,
        best_checkpoint=outcome.best_checkpoint,
        curve=list(outcome.curve),
        chosen=outcome.chosen,
    )
