"""What the workers of a gang do together: the same training as one worker, whatever the ZeRO stage."""

import itertools
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from cluster.resources import Resources
from competitors.contract import Allowance, Brief
from competitors.events import Event, read_events, reporter
from competitors.sft.recipe import SftRecipe
from competitors.sft.training import train
from orchestrator.field.scaling import carried, part_of_a_line, spread
from tests.tiny import tiny_model, tiny_rows

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
TOLERANCE = 1e-4
LORA: dict[str, Any] = {"adapter": {"method": "lora", "rank": 2}, "learning_rate": 0.1}
AVERAGE = {"score_weights": "tail_average", "tail": 0.5, "schedule": "constant"}
ZERO3 = {"deepspeed": "zero3"}

SAME: dict[str, dict[str, Any]] = {
    "ddp-full": {},
    "zero2-full": {"deepspeed": "zero2"},
    "zero3-lora": {**ZERO3, **LORA},
}
"""Recipes that end where one worker with the same global batch ends."""

UNEVEN: dict[str, dict[str, Any]] = {
    "ddp-uneven": {"gradient_accumulation": 2},
    "zero1-uneven": {"deepspeed": "zero1", "gradient_accumulation": 2},
    "zero2-uneven": {"deepspeed": "zero2", "gradient_accumulation": 2},
    "zero3-uneven": {**ZERO3, **LORA, "learning_rate": 0.02, "gradient_accumulation": 2},
}
"""The same over rows of many lengths, whose steps are several forward passes."""

COOLED = {"score_weights": "cool_down", "tail": 0.5}
DORA = {"adapter": {"method": "dora", "rank": 2}, "learning_rate": 0.15}
ACCUMULATED = {"gradient_accumulation": 2, "batch_size": 2, "weight_decay": 0.1}
MORE: dict[str, dict[str, Any]] = {
    "ddp-lora": LORA,
    "zero2-lora": {"deepspeed": "zero2", **LORA},
    "zero3-full": {**ZERO3},
    "ddp-accumulated": ACCUMULATED,
    "ddp-average": AVERAGE,
    "zero1-full": {"deepspeed": "zero1"},
    "zero1-lora": {"deepspeed": "zero1", **LORA},
    "zero1-accumulated": {"deepspeed": "zero1", **ACCUMULATED},
    "zero2-accumulated": {"deepspeed": "zero2", **ACCUMULATED},
    "zero2-average": {"deepspeed": "zero2", **AVERAGE},
    "zero2-cooled": {"deepspeed": "zero2", **COOLED},
    "zero2-dora": {"deepspeed": "zero2", **DORA},
    "zero2-checkpointed": {"deepspeed": "zero2", "gradient_checkpointing": True},
    "zero2-packed": {"deepspeed": "zero2", "packing": True, "batch_size": 1},
    "zero3-packed": {**ZERO3, "packing": True, "batch_size": 1},
    "zero2-fused": {"deepspeed": "zero2", "optimizer": "adamw_torch_fused"},
    "zero2-sgd": {"deepspeed": "zero2", "optimizer": "sgd", "learning_rate": 0.3},
    "zero2-rmsprop": {"deepspeed": "zero2", "optimizer": "rmsprop", "learning_rate": 0.001},
    "zero3-accumulated": {**ZERO3, **ACCUMULATED},
    "zero3-average": {**ZERO3, **AVERAGE},
    "zero3-cooled": {**ZERO3, **COOLED},
    "zero3-dora": {**ZERO3, **DORA},
    "zero3-lora-checkpointed": {**ZERO3, **LORA, "gradient_checkpointing": True},
    "zero3-sgd": {**ZERO3, "optimizer": "sgd", "learning_rate": 0.3},
    "zero3-rmsprop": {**ZERO3, "optimizer": "rmsprop", "learning_rate": 0.001},
    "zero3-offload": {"deepspeed": "zero3-offload"},
    "zero3-offload-lora": {"deepspeed": "zero3-offload", **LORA},
    "zero2-pissa": {"deepspeed": "zero2", "adapter": {"method": "pissa", "rank": 2}, "learning_rate": 0.1},
    "zero2-lora-plus": {
        "deepspeed": "zero2",
        "adapter": {"method": "lora", "rank": 2, "lora_plus_ratio": 8},
        "learning_rate": 0.03,
    },
    "zero2-frozen": {"deepspeed": "zero2", "freeze": ["embed_tokens"]},
    "zero3-ia3": {**ZERO3, "adapter": {"method": "ia3"}, "learning_rate": 0.3},
    "zero3-frozen": {**ZERO3, "freeze": ["embed_tokens"]},
    "zero3-head": {
        **ZERO3,
        "adapter": {**LORA["adapter"], "modules_to_save": ["lm_head"]},
        "learning_rate": 0.005,
    },
    "zero3-bfloat16-lora": {**ZERO3, **LORA, "dtype": "bfloat16"},
    "zero3-bfloat16": {**ZERO3, "dtype": "bfloat16"},
    "zero2-bfloat16": {"deepspeed": "zero2", "dtype": "bfloat16"},
}

TRUNK = SftRecipe(name="a", kind="sft", learning_rate=0.01, batch_size=8, resources=Resources(gpus=0))
LINES = {
    "line": part_of_a_line(TRUNK, is_last=False),
    "line-of-like-rows": part_of_a_line(TRUNK, is_last=False).model_copy(update={"group_by_length": True}),
    "line-of-small-steps": part_of_a_line(carried(TRUNK, 2), is_last=True),
}
"""Of one worker, from a trunk that was trained in steps of eight sequences."""


class Cases:
    """Entries of gangs, and of one worker to compare them with, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seed = tiny_model(folder / "seed")
        rows = tiny_rows(60)
        prompts = [r["instruction"] + " \n" for r in rows]
        pq.write_table(pa.table({"prompt": prompts, "completion": [r["response"] for r in rows]}), folder / "rows")
        uneven = [(row["instruction"] + " ") * (1 + i % 4) + "\n" for i, row in enumerate(rows)]
        answers = [" ".join([row["response"]] * (1 + i % 3)) for i, row in enumerate(rows)]
        pq.write_table(pa.table({"prompt": uneven, "completion": answers}), folder / "uneven")
        self.uneven = {"train_data": folder / "uneven"}
        self.cases: list[dict[str, Any]] = []

    def brief(self, name: str, workers: int, **changes: Any) -> Brief:
        out = self.folder / name / "submission"
        out.mkdir(parents=True, exist_ok=True)
        return Brief(
            tournament="t", lineage="l", round=1, competitor="a", seed_model=self.seed, seed_sha256="0",
            seed_continuation=None, train_data=self.folder / "rows", max_tokens=64, budget=Allowance(steps=10),
            progress=(0.0, 1.0), output_dir=out, random_seed=7, resources=Resources(gpus=0, workers=workers),
        ).model_copy(update=changes)  # fmt: skip

    def recipe(self, workers: int, settings: dict[str, Any]) -> SftRecipe:
        base = {"name": "a", "kind": "sft", "learning_rate": 0.01, "batch_size": 4, "warmup": 0}
        return SftRecipe.model_validate(base | settings | {"resources": {"gpus": 0, "workers": workers}})

    def add(self, name: str, settings: dict[str, Any], lost_at: int | None = None, **changes: Any) -> None:
        self.add_recipe(name, self.recipe(2, settings), **changes)
        self.cases[-1]["lost_at"] = lost_at

    def add_recipe(self, name: str, recipe: SftRecipe, **changes: Any) -> None:
        brief = self.brief(name, recipe.resources.workers, **changes)
        raw = {"brief": brief.model_dump(mode="json"), "recipe": recipe.model_dump(mode="json", by_alias=True)}
        self.cases.append(raw)

    def run(self) -> None:
        """All cases of gangs, on two workers."""
        path = self.folder / "cases.json"
        path.write_text(json.dumps(self.cases))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = [sys.executable, "-m", "tests.integration.gang_worker"]
        logs = [(self.folder / f"worker-{rank}.txt").open("w") for rank in (0, 1)]
        workers = [
            subprocess.Popen(
                [*command, str(rank), "2", port, str(path)], cwd=ROOT, stdout=logs[rank], stderr=logs[rank]
            )
            for rank in (0, 1)
        ]
        try:
            codes = [worker.wait(timeout=240) for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        assert codes == [0, 0], (self.folder / "worker-0.txt").read_text()[-3000:]

    def alone(self, name: str, settings: dict[str, Any], **changes: Any) -> Path:
        """The same with one worker and twice the batch."""
        whole = {k: v for k, v in settings.items() if k != "deepspeed"}
        brief = self.brief(name, 1, **changes)
        recipe = self.recipe(1, whole | {"batch_size": 2 * settings.get("batch_size", 4)})
        train(brief, recipe, reporter(brief.progress_file))
        return brief.output_dir.parent

    def ended(self, name: str) -> list[str]:
        return [(self.folder / name / f"ended-{rank}").read_text() for rank in (0, 1)]

    def events(self, name: str) -> list[Event]:
        return read_events(self.folder / name / "progress.jsonl")

    def same_as_alone(self, name: str, settings: dict[str, Any], tolerance: float = TOLERANCE, **changes: Any) -> float:
        """Assert that a gang ended where one worker ends; returns by how much their losses differ."""
        assert self.ended(name) == ["delivered", "delivered"]
        gang, alone = self.folder / name, self.alone(f"{name}-alone", settings, **changes)
        losses = [self.loss(gang), self.loss(alone)]
        assert losses[0] == pytest.approx(losses[1], abs=tolerance)
        assert losses[1] < self.loss_of(self.seed) - 0.005  # it did learn
        events = [read_events(folder / "progress.jsonl") for folder in (gang, alone)]
        assert train_loss(events[0]) == pytest.approx(train_loss(events[1]), abs=tolerance)
        assert (events[0][-1].step, events[0][-1].tokens) == (10, events[1][-1].tokens)
        if tolerance == TOLERANCE:
            same_continuation(gang / "continuation", alone / "continuation")
        return abs(losses[0] - losses[1])

    def loss(self, entry: Path) -> float:
        """Of a submission, on fixed rows: the mean over their tokens."""
        return self.loss_of(entry / "submission")

    def loss_of(self, submission: Path) -> float:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        is_adapter = (submission / "adapter_config.json").exists()
        model = AutoModelForCausalLM.from_pretrained(self.seed if is_adapter else submission)
        model = PeftModel.from_pretrained(model, submission) if is_adapter else model
        texts = [row["instruction"] + " \n" + row["response"] for row in tiny_rows(20)]
        ids = AutoTokenizer.from_pretrained(self.seed)(texts, return_tensors="pt", padding=True)
        labels = ids.input_ids.masked_fill(ids.attention_mask == 0, -100)
        with torch.no_grad():
            return float(model(**ids, labels=labels).loss)


@pytest.fixture(scope="module")
def gangs(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    """Every case, run."""
    cases = Cases(tmp_path_factory.mktemp("gangs"))
    for name, settings in SAME.items():
        cases.add(name, settings)
    for name, settings in UNEVEN.items():
        cases.add(name, settings, **cases.uneven)
    first = cases.alone("first-round", {"schedule": "constant"})
    with_tokenizer(cases.seed, first / "submission")
    later = {"seed_model": first / "submission", "seed_continuation": first / "continuation", "random_seed": 8}
    for stage in ("zero2", "zero3"):
        cases.add(f"{stage}-later", {"deepspeed": stage, "schedule": "constant", "continue": True}, **later)
    for name, line in LINES.items():
        cases.add_recipe(name, spread(line, Resources(gpus=0, workers=2)), **later, progress=(0.2, 0.6))
    # A gang that is lost after its checkpoint of step 6, and goes on in another ZeRO stage.
    cases.add("lost", {"deepspeed": "zero3", **AVERAGE}, lost_at=7)
    cases.add("lost", {"deepspeed": "zero2", **AVERAGE})
    cases.add("timed", {"deepspeed": "zero2"}, budget=Allowance(seconds=4), race_at=(0.2, 0.8))
    cases.add("stopped", {"deepspeed": "zero3"}, budget=Allowance(steps=400))
    (cases.folder / "stopped" / "stop").write_text("is among the worst at 25 % of its budget\n")
    cases.run()
    return cases


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    """The wider matrix, run."""
    cases = Cases(tmp_path_factory.mktemp("more"))
    for name, settings in MORE.items():
        cases.add(name, settings)
    cases.run()
    return cases


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_more_gangs_end_where_one_worker_ends(more: Cases, name: str):
    # Under DeepSpeed bfloat16 weights are trained beside float32 ones; one worker has float32 ones and autocast.
    tolerance = 0.01 if "bfloat16" in name else TOLERANCE
    print(f"{name}: {more.same_as_alone(name, MORE[name], tolerance):.1e} nats apart")


def with_tokenizer(seed: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(seed).save_pretrained(folder)


@pytest.mark.parametrize("name", SAME)
def test_a_gang_ends_where_one_worker_with_its_global_batch_ends(gangs: Cases, name: str):
    gangs.same_as_alone(name, SAME[name])


@pytest.mark.parametrize("name", UNEVEN)
def test_a_gang_ends_where_one_worker_ends_however_many_passes_a_step_has(gangs: Cases, name: str):
    gangs.same_as_alone(name, UNEVEN[name], **gangs.uneven)


def train_loss(events: list[Event]) -> float:
    """The mean over all steps; each event says that of the steps since the one before it."""
    told = [event for event in events if event.event == "step"]
    steps = [(0, 0.0)] + [(event.step or 0, event.loss or 0.0) for event in told]
    return sum((b[0] - a[0]) * b[1] for a, b in itertools.pairwise(steps)) / steps[-1][0]


def same_continuation(one: Path, other: Path) -> None:
    for file in ("trunk.safetensors", "optimizer.safetensors"):
        left, right = load_file(one / file), load_file(other / file)
        assert left.keys() == right.keys()
        for name in left:
            assert (left[name] - right[name]).abs().max() < 1e-3, name
    records = [json.loads((folder / "continuation.json").read_text()) for folder in (one, other)]
    assert records[0] == records[1]


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_a_gang_goes_on_from_the_trunk_and_optimizer_of_one_worker(gangs: Cases, stage: str):
    first = gangs.folder / "first-round"
    later = {"seed_model": first / "submission", "seed_continuation": first / "continuation", "random_seed": 8}
    settings = {"schedule": "constant", "continue": True}
    alone = gangs.alone(f"{stage}-later-alone", settings, **later)
    notes = [event.text for event in gangs.events(f"{stage}-later") if event.event == "note"]
    assert notes == ["goes on with the seed's optimizer"]
    assert gangs.loss(gangs.folder / f"{stage}-later") == pytest.approx(gangs.loss(alone), abs=TOLERANCE)
    same_continuation(gangs.folder / f"{stage}-later" / "continuation", alone / "continuation")


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_grows_to_a_gang_is_the_line_of_one_worker(gangs: Cases, name: str):
    first = gangs.folder / "first-round"
    later = {"seed_model": first / "submission", "seed_continuation": first / "continuation", "random_seed": 8}
    brief = gangs.brief(f"{name}-alone", 1, **later, progress=(0.2, 0.6))
    train(brief, LINES[name], reporter(brief.progress_file))
    assert gangs.ended(name) == ["delivered", "delivered"]
    assert "goes on with the seed's optimizer" in [event.text for event in gangs.events(name)]
    entries = (name, f"{name}-alone", "first-round")
    for file in ("submission/model", "continuation/trunk", "continuation/optimizer"):
        gang, alone, before = (load_file(gangs.folder / entry / f"{file}.safetensors") for entry in entries)
        assert gang.keys() == alone.keys()
        assert max((gang[key] - alone[key]).abs().max() for key in gang) < TOLERANCE, file
        assert max((alone[key] - before[key]).abs().max() for key in gang) > 20 * TOLERANCE, file  # it did train


def test_a_lost_gang_goes_on_from_its_last_checkpoint_in_any_stage(gangs: Cases):
    assert gangs.ended("lost") == ["delivered", "delivered"]
    events = gangs.events("lost")
    steps = [event.step or 0 for event in events if event.event == "step"]
    back = next(i for i in range(1, len(steps)) if steps[i] <= steps[i - 1])
    assert steps[back] > 6
    assert "a worker was lost: goes on from step 6" in [event.text for event in events]
    alone = gangs.alone("never-lost", AVERAGE)
    assert gangs.loss(gangs.folder / "lost") == pytest.approx(gangs.loss(alone), abs=TOLERANCE)
    same_continuation(gangs.folder / "lost" / "continuation", alone / "continuation")


def test_workers_agree_on_the_time_and_race_on_the_way(gangs: Cases):
    assert gangs.ended("timed") == ["delivered", "delivered"]
    events = gangs.events("timed")
    races = [event for event in events if event.event == "checkpoint"]
    assert [race.fraction for race in races] == [0.2, 0.8]
    assert all(race.folder == f"checkpoint-{race.step}" for race in races)
    assert [event.event for event in events][-1] == "ended"


def test_a_stop_file_ends_every_worker_with_its_text(gangs: Cases):
    assert gangs.ended("stopped") == ["Forfeit: is among the worst at 25 % of its budget"] * 2
    assert not (gangs.folder / "stopped/submission/model.safetensors").exists()
