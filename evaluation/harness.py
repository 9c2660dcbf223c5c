"""Tasks of EleutherAI's lm-evaluation-harness, as held-out rows of their own.

A task's documents have roles as rows have: in an order by a hash, of four the first chooses, the second proves and two
only report. What the harness says of each document, under the task's own metric, lies in harness/TASK.parquet beside
losses.parquet in the column `score`; its mean is a figure by the task's name. `lm-eval` is an extra of ours: nothing
here is imported without tasks.
"""

import hashlib
import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from cluster.errors import UserError
from cluster.records import Settings
from cluster.text import plain
from evaluation.data.split import Split
from evaluation.results import RowResults

ROLES: tuple[Split, ...] = ("validation", "proof", "test", "test")


class HarnessTask(Settings):
    """A task by the harness's name; `metric` is one that it says of each document, by default its first."""

    task: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    metric: str | None = None
    documents: int | None = Field(None, ge=len(ROLES))
    """At most, of all roles together; None for all."""
    shots: int | None = Field(None, ge=0)
    """None for as many as the task says."""


def score_task(
    model: Any, tokenizer: Any, task: HarnessTask, split: Split, batch_tokens: int, chat: bool, include: Path | None
) -> tuple[list[str], RowResults]:
    """The ids and results of a task's documents in one role. UserError where the harness lacks the task or metric."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    chosen = documents(task, count_documents(task, include), split)
    longest = getattr(model.config, "max_position_embeddings", None) or 2048
    found = simple_evaluate(
        HFLM(pretrained=model, tokenizer=tokenizer, batch_size=max(1, batch_tokens // longest)),
        tasks=[task.task],
        num_fewshot=task.shots,
        samples={task.task: chosen},
        bootstrap_iters=0,
        apply_chat_template=chat,
        task_manager=_manager_of(task, include),
    )
    samples = {one["doc_id"]: one for one in reversed(found["samples"][task.task])}  # of several filters the first
    values = np.array([_value(task, samples[number]) for number in chosen])
    better = found["higher_is_better"][task.task].get(_metric(task, samples[chosen[0]]), True)
    ones = np.ones(len(chosen))
    return [str(number) for number in chosen], RowResults(np.nan * ones, ones, score=values if better else -values)


@cache
def count_documents(task: HarnessTask, include: Path | None) -> int:
    """How many documents a task has; fetches its data into the Hugging Face cache. UserError where it cannot be used.

    An evaluator looks at no network: the driver calls this before the tournament begins.
    """
    key = f"evaluation.harness[{task.task}]"
    try:
        manager = _manager_of(task, include)
    except ImportError as error:
        raise UserError(f"{key}: needs lm-eval: install the extra, as in pip install '.[harness]'") from error
    if task.task not in manager.all_subtasks:
        raise UserError(f"{key}: the lm-evaluation-harness has no single task of that name")
    try:
        count = len(manager.load(task.task)["tasks"][task.task].eval_docs)
    except Exception as error:
        raise UserError(f"{key}: cannot be loaded: {plain(error, 200)}") from error
    if count < len(ROLES):
        raise UserError(f"{key}: has {count} documents: too few to choose, to prove and to report")
    return count


def documents(task: HarnessTask, count: int, split: Split) -> list[int]:
    """The numbers of a task's documents in one role, of `count`. Where rows rotate, documents do not."""
    role = "validation" if split.startswith("validation") else split
    order = sorted(range(count), key=lambda number: hashlib.sha256(f"{task.task}/{number}".encode()).digest())
    own = [number for place, number in enumerate(order[: task.documents]) if ROLES[place % len(ROLES)] == role]
    return sorted(own)  # the harness takes them in this order, whatever it is given, and names them in the one given


def _metric(task: HarnessTask, sample: dict[str, Any]) -> str:
    return task.metric or str(sample["metrics"][0])


def _value(task: HarnessTask, sample: dict[str, Any]) -> float:
    value = sample.get(_metric(task, sample))
    if not isinstance(value, int | float | np.number):
        raise UserError(
            f"evaluation.harness[{task.task}].metric: there is no number called {_metric(task, sample)} of a document,"
            f" but {', '.join(map(str, sample['metrics']))}"
        )
    return float(value)


def _manager_of(task: HarnessTask, include: Path | None) -> Any:
    """What knows the task: the user's own folder, else the harness, whose thousands of tasks take seconds to list."""
    if include is not None and include.is_dir():
        own = _manager(str(include), False)
        if task.task in own.all_subtasks:
            return own
    return _manager(None, True)


@cache
def _manager(include: str | None, include_defaults: bool) -> Any:
    import datasets
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    return TaskManager(include_path=include, include_defaults=include_defaults)
