"""A search without Ray: its config, how its budget is shared, what a trial does, what is made of the trials."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from safetensors.torch import load_file

from cluster.errors import Forfeit
from cluster.resources import Resources
from competitors.contract import Allowance, Brief, model_form, read_events, reporter
from competitors.search.recipe import SearchRecipe
from competitors.search.record import SearchRecord, Trial
from competitors.search.trial import run_trial
from competitors.search.tune import LONGER, Search, covered, drawn, marks
from competitors.sft.recipe import SftRecipe
from competitors.sft.slice_loss import take_slice
from competitors.sft.training import train
from tests.tiny import tiny_model, tiny_rows

RATES = {"learning_rate": {"low": 1e-4, "high": 0.1, "log": True}}


def recipe(**settings: Any) -> SearchRecipe:
    return SearchRecipe.model_validate({"name": "s", "kind": "search", "space": RATES} | settings)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    tiny_model(folder / "seed")
    rows = tiny_rows(60)
    prompts = [r["instruction"] + " \n" for r in rows]
    pq.write_table(pa.table({"prompt": prompts, "completion": [r["response"] for r in rows]}), folder / "train.parquet")
    return folder


@pytest.fixture
def brief(tmp_path: Path, inputs: Path) -> Brief:
    (tmp_path / "entry" / "submission").mkdir(parents=True)
    return Brief(
        tournament="t", lineage="l", round=1, competitor="s", seed_model=inputs / "seed", seed_sha256="0",
        seed_continuation=None, train_data=inputs / "train.parquet", max_tokens=64, budget=Allowance(steps=40),
        progress=(0.0, 0.5), output_dir=tmp_path / "entry" / "submission", random_seed=7, resources=Resources(gpus=0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": {"learning_rat": [1e-3]}}, 'space: unknown key "learning_rat"; did you mean "learning_rate"?'),
        ({"space": {"adapter.rnk": [1]}}, 'space: unknown key "adapter.rnk"; did you mean "adapter.rank"?'),
        ({"space": {"resources.gpus": [1]}}, 'space: unknown key "resources.gpus"'),
        ({"space": {"name": ["a"]}}, 'space: unknown key "name"'),
        ({"space": {}}, "at least 1 item"),
        ({"space": {"learning_rate": []}}, "at least 1 item"),
        ({"space": {"learning_rate": {"low": 0.1, "high": 0.01}}}, "low (0.1) has to be below high (0.01)"),
        ({"space": {"learning_rate": {"low": 0, "high": 0.1, "log": True}}}, "low (0) has to be above 0"),
        ({"space": {"learning_rate": {"low": 0, "hihg": 1}}}, 'unknown key "hihg"; did you mean "high"?'),
        ({"space": {"learning_rate": 1e-3}}, "valid dictionary"),
        (
            {"space": {"learning_rate": {"low": -1, "high": 0.1}}},
            "space.learning_rate: -1 does not fit: Input should be greater than 0",
        ),
        (
            {"space": RATES | {"optimizer": ["adamw_torch", "adam"]}},
            "space.optimizer: 'adam' does not fit: unknown optimizer \"adam\"",
        ),
        ({"recipe": {"adapter": {"method": "lora"}}, "space": {"adapter.rank": [2, 0]}}, "recipe.learning_rate: this"),
        (
            {"recipe": {"adapter": {"method": "lora"}}, "space": RATES | {"adapter.rank": [2, 0]}},
            "space.adapter.rank: 0 does not fit",
        ),
        ({"space": RATES | {"adapter.rank": [2]}}, "recipe.adapter.method: this key is required"),
        ({"space": RATES | {"adapter": ["none"], "adapter.rank": [2]}}, "adapter.rank is a part of adapter"),
        ({"recipe": {"scedule": "cosine"}}, 'recipe: unknown key "scedule"; did you mean "schedule"?'),
        ({"recipe": {"resources": {"gpus": 1}}}, "recipe.resources: resources belongs to the search itself"),
        ({"recipe": {"deepspeed": "zero2"}}, "a trial is one process"),
        ({"resources": {"cpus": 0}}, "resources.cpus"),
        ({"trials": 1}, "greater than or equal to 2"),
    ],
)
def test_what_is_wrong_is_said_when_the_config_is_read(settings: dict[str, Any], message: str):
    with pytest.raises(ValidationError) as error:
        recipe(**settings)
    assert message in str(error.value)


def test_a_trial_is_the_recipe_with_its_own_values():
    search = recipe(
        recipe={"adapter": {"method": "dora"}, "batch_size": 4},
        space=RATES | {"adapter.rank": {"low": 2, "high": 8}, "optimizer_args.foo": ["x", "y"]},
        resources={"workers": 3, "cpus": 2},
    )
    made = search.made({"learning_rate": 0.01, "adapter.rank": 4, "optimizer_args.foo": "y"})
    assert (made.learning_rate, made.batch_size, made.optimizer_args) == (0.01, 4, {"foo": "y"})
    assert made.adapter is not None
    assert (made.adapter.method, made.adapter.rank) == ("dora", 4)
    assert (made.resources.workers, made.resources.cpus) == (1, 2)
    assert search.is_gang
    assert search.recipe == {"adapter": {"method": "dora"}, "batch_size": 4}
    assert recipe(space=RATES | {"batch_size": [4, 8]}).made({"learning_rate": 1, "batch_size": 8}).batch_size == 8
    # A choice is drawn by its place, so that its values may be anything.
    search = recipe(space=RATES | {"adapter": ["none", {"method": "lora"}]})
    assert drawn(search, {"learning_rate": 0.5, "adapter": 1}) == {"learning_rate": 0.5, "adapter": {"method": "lora"}}


def test_only_a_search_without_a_trial_for_a_cpu_needs_a_gpu():
    assert recipe(space=RATES | {"liger": [True, False]}).needs_gpu is None
    assert recipe(recipe={"liger": True}).needs_gpu == "liger: its kernels need a GPU"


def test_marks_and_the_time_that_is_charged():
    assert marks(0.25, 2) == (0.25, 0.5, 1.0)
    assert marks(0.3, 3) == pytest.approx((0.3, 0.9, 1.0))
    assert marks(1, 2) == (1.0,)
    assert covered([]) == 0
    assert covered([(5, 7), (0, 2), (1, 3)]) == 5
    assert covered([(0, 10), (2, 3)]) == 10


def sft(**settings: Any) -> SftRecipe:
    return SftRecipe.model_validate(
        {"name": "s", "kind": "sft", "learning_rate": 0.01, "batch_size": 4, "warmup": 0} | settings
    )


def trial(brief: Brief, best: Path, **settings: Any) -> tuple[list[tuple[int, float]], list[dict[str, Any]]]:
    """Runs a trial to its last mark, where Tune ends it: what was passed, and its marks."""
    passed = list[tuple[int, float]]()

    def tell(count: int, loss: float) -> None:
        passed.append((count, loss))
        if count == 3:
            raise SystemExit(0)

    brief.output_dir.rmdir()
    with pytest.raises(SystemExit):
        run_trial(brief, sft(**settings), take_slice(brief.train_data, 10, 1), (0.25, 0.5, 1.0), best, tell)
    return passed, [event for event in read_events(brief.progress_file) if event["event"] == "mark"]


def test_a_trial_is_compared_at_its_marks_and_saves_what_is_best(brief: Brief, tmp_path: Path):
    best = tmp_path / "best"
    best.write_text("3.3")
    passed, found = trial(brief, best)
    assert [count for count, _ in passed] == [1, 2, 3]
    assert [event["step"] for event in found] == [10, 20, 40]
    assert [event["slice_loss"] for event in found] == [loss for _, loss in passed]
    assert found[2]["slice_loss"] < found[0]["slice_loss"]
    for event in found:
        assert (event["saved"] is not None) == (event["slice_loss"] < 3.3)
    assert model_form(Path(found[2]["saved"])) == "full"
    assert model_form(brief.output_dir) is None  # it does not hand in


def test_what_is_scored_and_saved_is_what_would_be_handed_in(brief: Brief, tmp_path: Path):
    """With a tail average the loss at the last mark is that of the average, and the trunk trains on as it was."""
    settings = {"score_weights": "tail_average", "tail": 0.5, "schedule": "constant"}
    _, found = trial(brief, tmp_path / "best", **settings)
    whole = brief.model_copy(update={"output_dir": tmp_path / "whole" / "submission"})
    whole.output_dir.mkdir(parents=True)
    held_back = take_slice(brief.train_data, 10, 1)
    train(whole, sft(**settings), reporter(whole.progress_file), held_back=held_back)
    saved, handed_in = (load_file(f / "model.safetensors") for f in (Path(found[2]["saved"]), whole.output_dir))
    for name, tensor in handed_in.items():
        np.testing.assert_allclose(saved[name], tensor, atol=1e-6)


def test_the_slice_is_not_trained_on(brief: Brief):
    held_back = take_slice(brief.train_data, 15, 1)
    train(brief, sft(), reporter(brief.progress_file), held_back=held_back)
    seen = np.load(brief.continuation_dir / "seen.npy")
    assert seen.sum() == 160
    assert seen[held_back].sum() == 0
    assert np.delete(seen, held_back).min() >= 3


def test_a_trial_that_diverges_says_so(brief: Brief, tmp_path: Path):
    brief.output_dir.rmdir()
    with pytest.raises(Forfeit, match="its loss was nan after 25% of its part of the budget"):
        run_trial(
            brief, sft(learning_rate=1e30, max_grad_norm=1e30), take_slice(brief.train_data, 10, 1), (0.25, 1.0),
            tmp_path / "best", lambda count, loss: None,
        )  # fmt: skip


class Trials:
    """A search whose trials are made up: they lie on the disk as a trial would leave them."""

    def __init__(self, brief: Brief) -> None:
        self.search = Search(brief, recipe(trials=4, slice_rows=10), reporter(brief.progress_file))
        self.search.folder.mkdir(parents=True)

    def add(self, name: str, rate: float, part: Allowance | None = None) -> Trial:
        config = {"learning_rate": rate}
        folder = self.search.folder / name
        folder.mkdir()
        self.search.trials[name] = Trial(folder, config, config, part or self.search.part)
        return self.search.trials[name]

    def report(self, name: str, event: str, **values: Any) -> None:
        reporter(self.search.folder / name / "progress.jsonl")({"event": event, **values})
        self.search.poll(now=True)

    def mark(self, name: str, steps: int, loss: float, spent: float = 1.0) -> None:
        """At a mark, with a saved model of which only the folder is there."""
        saved = self.search.folder / name / f"checkpoint-{steps}"
        saved.mkdir()
        (saved / "which").write_text(f"{name} {steps}")
        self.report(name, "mark", step=steps, tokens=10 * steps, spent=spent, slice_loss=loss, saved=str(saved))


def kept(brief: Brief) -> list[str]:
    return [path.read_text() for path in brief.output_dir.glob("checkpoint-*/which")]


def test_the_best_model_so_far_is_what_counts_when_the_entry_is_ended(brief: Brief):
    trials = Trials(brief)
    assert trials.search.part == Allowance(steps=5)
    for name, rate in (("a", 0.1), ("b", 0.2)):
        trials.add(name, rate)
        trials.report(name, "started", tokens=0, step=0)
    trials.mark("a", 1, 3.0, 0.2)
    assert kept(brief) == ["a 1"]
    trials.mark("b", 1, 2.5, 0.2)
    trials.mark("a", 5, 2.7)
    assert kept(brief) == ["b 1"]
    assert trials.search.best_file.read_text() == "2.5"
    trials.report("b", "step", step=3, tokens=30)
    events = read_events(brief.progress_file)
    assert [event["event"] for event in events].count("started") == 1
    assert {key: events[-1][key] for key in ("step", "tokens", "loss")} == {"step": 8, "tokens": 80, "loss": 2.5}

    # b was cut off between two reports: it may have spent all of its part. What is left trains b's rate.
    assert trials.search.longer() == {"learning_rate": 0.2, LONGER: {"tokens": None, "seconds": None, "steps": 30}}
    assert (
        "best of 2 trials: learning_rate 0.2 (slice loss 2.5000 nats)" in read_events(brief.progress_file)[-1]["text"]
    )


@pytest.mark.parametrize(("loss", "reason"), [(2.0, ""), (2.9, ""), (None, "its process died")])
def test_the_longer_training_is_submitted_where_it_is_better(brief: Brief, loss: float | None, reason: str):
    trials = Trials(brief)
    trials.add("a", 0.1)
    trials.report("a", "started", tokens=0, step=0)
    trials.mark("a", 5, 2.5)
    config = trials.search.longer()
    assert config is not None
    longer = trials.add(LONGER, 0.1, Allowance(**config[LONGER]))
    longer.reason = reason
    if loss is not None:
        for folder in ("submission", "continuation"):
            (longer.folder / folder).mkdir()
            (longer.folder / folder / "which").write_text("longer")
        trials.report(LONGER, "mark", step=35, tokens=350, spent=1.0, slice_loss=loss, saved=None)
    assert trials.search.submit() == "best of 1 trials: learning_rate 0.1"
    record = SearchRecord.read(brief.output_dir.parent / "search.json")
    better = loss == 2.0
    assert record.submitted == ("longer" if better else "trial")
    assert (brief.output_dir / "which").exists() == better == brief.continuation_dir.exists()
    assert kept(brief) == ([] if better else ["a 5"])
    notes = [event["text"] for event in read_events(brief.progress_file) if event["event"] == "note"]
    if not better:
        assert notes[-1].endswith(reason or "its slice loss was 2.9000")
    assert record.longer is not None
    assert record.longer.loss == loss
    last = json.loads(brief.progress_file.read_text().splitlines()[-1])
    assert (last["event"], last["step"]) == ("ended", 5 if loss is None else 40)


def test_a_search_whose_trials_all_fail_forfeits_with_the_first_reason(brief: Brief):
    trials = Trials(brief)
    trials.add("a", 0.1)
    trials.search.failures = ["ran out of memory", "raised ValueError: other"]
    assert trials.search.longer() is None
    with pytest.raises(Forfeit, match="all 1 trials failed, the first: ran out of memory"):
        trials.search.submit()
