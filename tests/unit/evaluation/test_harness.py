"""Tasks of the lm-evaluation-harness: their documents have roles, and what is said of each is on record."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.errors import UserError
from evaluation import harness
from evaluation.evaluator import score_also, score_model
from evaluation.figures import costs_of
from evaluation.harness import HarnessTask, count_documents, documents
from evaluation.results import read_results
from tests.tiny import tiny_model, write_jsonl
from tests.unit.evaluation.submissions.making import held_out, job

DOCUMENTS = 24


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with a task of our own: which of two words comes next."""
    data = write_jsonl(tmp_path / "docs.jsonl", [{"q": f"what is {i} ?", "a": i % 2} for i in range(DOCUMENTS)])
    task = {
        "task": "tiny_words",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": ["cat", "dog"],
        "doc_to_target": "{{a}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny_words.yaml").write_text(yaml.safe_dump(task))
    return tmp_path / "tasks"


def test_a_tasks_documents_are_split_and_each_has_its_score(tmp_path: Path, tasks: Path):
    held_out(tmp_path / "held_out")
    folder, task = tiny_model(tmp_path / "m"), HarnessTask(task="tiny_words")
    card = score_model(job(tmp_path, folder, harness=(task,), include=tasks))
    score_also(job(tmp_path, folder, harness=(task,), include=tasks), "proof")
    network, codec = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    theirs = simple_evaluate(HFLM(pretrained=network, tokenizer=codec), tasks=["tiny_words"], task_manager=manager)
    right = {one["doc_id"]: one["acc"] for one in theirs["samples"]["tiny_words"]}
    for split in ("validation", "proof"):
        read = read_results(tmp_path / "out" / "harness" / "tiny_words.parquet", split)
        assert read.column("score").tolist() == [right[number] for number in documents(task, DOCUMENTS, split)]
    costs = costs_of(tmp_path / "out", "validation", "tiny_words")
    assert card.validation.figures["tiny_words"] == -costs.loss
    assert 0 < -costs.loss < 1


def test_documents_have_one_role_each_and_a_limit_is_a_sample():
    task = HarnessTask(task="t")
    roles = {split: documents(task, 100, split) for split in ("validation", "proof", "test")}
    assert sorted(number for numbers in roles.values() for number in numbers) == list(range(100))
    assert [len(numbers) for numbers in roles.values()] == [25, 25, 50]
    few = documents(HarnessTask(task="t", documents=40), 100, "proof")
    assert len(few) == 10
    assert set(few) < set(roles["proof"])
    assert np.ptp(few) > 50


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (
            HarnessTask(task="tiny_word"),
            r"evaluation.harness\[tiny_word\]: the lm-evaluation-harness has no single task",
        ),
        (HarnessTask(task="broken"), r"evaluation.harness\[broken\]: cannot be loaded"),
    ],
)
def test_a_task_that_cannot_be_used_is_one_line(
    tmp_path: Path, tasks: Path, task: HarnessTask, words: str, monkeypatch: pytest.MonkeyPatch
):
    # To list the harness's own takes seconds.
    monkeypatch.setattr(
        harness, "_manager", lambda include, defaults: TaskManager(include_path=str(tasks), include_defaults=False)
    )
    broken = yaml.safe_load((tasks / "tiny_words.yaml").read_text()) | {"task": "broken"}
    broken["dataset_kwargs"] = {"data_files": {"test": str(tmp_path / "absent.jsonl")}}
    (tasks / "broken.yaml").write_text(yaml.safe_dump(broken))
    with pytest.raises(UserError, match=words):
        count_documents(task, tasks)


def test_a_metric_that_the_task_does_not_have_is_one_line(tmp_path: Path, tasks: Path):
    held_out(tmp_path / "held_out")
    asked = job(
        tmp_path, tiny_model(tmp_path / "m"), harness=(HarnessTask(task="tiny_words", metric="f1"),), include=tasks
    )
    with pytest.raises(
        UserError, match=r"evaluation.harness\[tiny_words\].metric: there is no number called f1 .* acc"
    ):
        score_model(asked)
