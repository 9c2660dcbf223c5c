"""Scoring a model: on a split or two, with its scorecard and its rows on disk, or on a few rows of one.

All functions take plain arguments, so they run with and without Ray.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from cluster.digest import model_sha256
from cluster.errors import Forfeit, UserError
from cluster.records import Record
from cluster.rounding import Rounding
from cluster.store import LOCAL
from evaluation.chat import stop_id
from evaluation.data.split import Split
from evaluation.data.splits import Row, read_held_out, read_split
from evaluation.figures import FIGURES, figure_of, results_file
from evaluation.generation import write
from evaluation.harness import HarnessTask, score_task
from evaluation.loading import Dtype, loaded, tokenizer_of
from evaluation.probe import probe
from evaluation.results import Array, RowResults, write_results
from evaluation.scorecard import Scorecard, SplitScore
from evaluation.scoring import EncodedRow, encode_rows, pad_id, score
from evaluation.submissions.faults import of_submission

WORST_NATS = 100.0
"""Per token: what no number counts as. A uniform guess among a million tokens has 14."""


class ScoringJob(Record):
    """One model to score.

    `model` is a full model's folder; with `adapter`, an adapter's folder that stands on it; with `seed`, a submission
    of which only the weights count, and the rest is the seed's. `tokenizer` is the folder whose tokenizer is used: the
    lineage's base for submissions, the model's own for references.
    """

    name: str
    model: Path
    adapter: Path | None = None
    seed: Path | None = None
    tokenizer: Path
    held_out: Path
    max_tokens: int
    batch_tokens: int
    prompt: Literal["plain", "chat"] = "plain"
    dtype: Dtype = "auto"
    splits: tuple[Split, ...] = ("validation",)
    """Which rows, those that choose first: all for bases and references. Those on which a winner proves itself, and a
    champion's test rows, come later."""
    written_rows: int = 0
    """Of how many rows of a split the model also writes the completion by itself."""
    written_tokens: int = 64
    harness: tuple[HarnessTask, ...] = ()
    include: Path | None = None
    """A folder with tasks of the user's own, where there are any."""
    out: Path

    @property
    def adds_to(self) -> Path:
        """A folder whose scorecard and rows it writes, or adds to."""
        return self.out


def score_model(job: ScoringJob, progress: Callable[[float], None] = lambda fraction: None) -> Scorecard:
    """Score a model on the job's splits; write losses.parquet and then scorecard.json into `job.out`.

    Rows that lie there already are of no scorecard, and may be damaged: they go. Raises Forfeit, and writes nothing,
    for a model that cannot be loaded or whose loss is not finite.
    """
    began = time.monotonic()
    for name in ("loss", *(one.task for one in job.harness)):
        LOCAL.remove(results_file(job.out, name))
    tokenizer = tokenizer_of(job.tokenizer)
    scored: dict[Split, _Scored] = {}
    roundings: list[Rounding] = []
    with _model_of(job, roundings.append) as model:
        for index, split in enumerate(job.splits):

            def report(fraction: float, before: int = index) -> None:
                progress((before + fraction) / len(job.splits))

            scored[split] = _score_split(job, split, model, tokenizer, report)
            _refuse_endless(scored[split], split)
        device, dtype = str(model.device), str(model.dtype).removeprefix("torch.")
    stop = stop_id(tokenizer, job.prompt == "chat")
    card = Scorecard(
        model=job.name,
        model_sha256=model_sha256(job.adapter or job.model),
        prompt=job.prompt,
        stop=None if stop is None else str(tokenizer.convert_ids_to_tokens(stop)),
        validation=scored[job.splits[0]].total,
        **{split: scored[split].total for split in job.splits[1:]},
        device=device,
        dtype=dtype,
        merge=roundings[0] if roundings else None,
        seconds=time.monotonic() - began,
    )
    _write_rows(job, scored)
    return card.write(job.out / "scorecard.json")


def score_also(job: ScoringJob, *splits: Split) -> Scorecard:
    """Score more splits, and add them to the scorecard and the rows that lie in `job.out`.

    Raises Forfeit where the loss is not finite, but for test rows: these only report, and take no title away.
    """
    card = Scorecard.read(job.out / "scorecard.json")
    with _model_of(job) as model:
        tokenizer = tokenizer_of(job.tokenizer)
        scored = {split: _score_split(job, split, model, tokenizer) for split in splits}
    for split, one in scored.items():
        if split != "test":
            _refuse_endless(one, split)
    _write_rows(job, scored)
    totals: dict[str, SplitScore] = {split: one.total for split, one in scored.items()}
    return card.model_copy(update=totals).write(job.out / "scorecard.json")


def score_again(job: ScoringJob) -> None:
    """Score a model that has its scorecard on other rows that choose, and add them to the rows that lie in `job.out`.

    It has passed before, so where it has no finite loss on a row that is merely a very bad one.
    """
    tokenizer = tokenizer_of(job.tokenizer)
    with _model_of(job) as model:
        scored = {split: _score_split(job, split, model, tokenizer, is_new=False) for split in job.splits}
    for split, one in scored.items():
        nats = np.where(np.isfinite(one.results.nats), one.results.nats, WORST_NATS * one.results.tokens)
        scored[split] = one._replace(results=one.results.with_columns({"nats": nats}))
    _write_rows(job, scored)


class _Scored(NamedTuple):
    """One model on one split."""

    row_ids: list[str]
    results: RowResults
    total: SplitScore


def _score_split(
    job: ScoringJob,
    split: Split,
    model: Any,
    tokenizer: Any,
    progress: Callable[[float], None] = lambda fraction: None,
    is_new: bool = True,
) -> _Scored:
    rows, groups = read_held_out(job.held_out / f"{split}.parquet")
    encoded = encode_rows(rows, tokenizer, job.max_tokens, chat=job.prompt == "chat")
    if is_new and split == job.splits[0]:  # every model is scored on these before any others
        probe(model, encoded, pad_id(tokenizer))
    results = score(model, encoded, job.batch_tokens, pad_id(tokenizer), progress).grouped(groups.astype(np.float64))
    if not results.tokens.any():
        raise UserError(f"data.max_tokens: {job.max_tokens} cuts the whole completion of every {split} row away")
    if job.written_rows:
        results = results.with_columns(_judged(job, rows, encoded, model, tokenizer))
    total = SplitScore.of(results, sum(row.cut for row in encoded))
    total.figures.update(_score_tasks(job, split, model, tokenizer))
    return _Scored([row.row_id for row in rows], results, total)


def _score_tasks(job: ScoringJob, split: Split, model: Any, tokenizer: Any) -> dict[str, float]:
    """The figures of the harness's tasks on their documents of the split, whose results go into files of their own."""
    figures = {}
    for task in job.harness:
        chat = job.prompt == "chat"
        ids, results = score_task(model, tokenizer, task, split, job.batch_tokens, chat, job.include)
        write_results(results_file(job.out, task.task), {split: ids}, {split: results})
        figures[task.task] = figure_of(task.task).compute(results)
    return figures


def _judged(
    job: ScoringJob, rows: list[Row], encoded: list[EncodedRow], model: Any, tokenizer: Any
) -> dict[str, Array]:
    """What figures of texts say of the first rows, which are a random sample: they lie in the order of their hashes.

    By column, (rows,) each; no number for the rows of which nothing was written, as where the prompt alone is too long.
    """
    asked = [i for i, row in enumerate(encoded[: job.written_rows]) if row.completion_tokens]
    prompts = [encoded[i].ids[: encoded[i].start] for i in asked]
    stop = stop_id(tokenizer, job.prompt == "chat")
    if not asked:
        raise UserError(f"data.max_tokens: {job.max_tokens} leaves nothing of the first {job.written_rows} completions")
    texts = write(model, tokenizer, prompts, stop, job.written_tokens, job.batch_tokens)
    columns = {}
    for figure in FIGURES.values():
        if figure.judge is not None:
            column = columns[figure.column] = np.full(len(rows), np.nan)
            column[asked] = [figure.judge(text, rows[i].completion) for i, text in zip(asked, texts, strict=True)]
    return columns


def _refuse_endless(scored: _Scored, split: Split) -> None:
    if not math.isfinite(scored.results.loss):
        raise Forfeit(f"its loss on the {split} rows is not finite")


def _write_rows(job: ScoringJob, scored: dict[Split, _Scored]) -> None:
    row_ids = {split: one.row_ids for split, one in scored.items()}
    write_results(job.out / "losses.parquet", row_ids, {split: one.results for split, one in scored.items()})


def score_slice(job: ScoringJob, rows: int) -> float:
    """Loss on the first `rows` of the rows that choose, in nats per completion token; nothing is written.

    Rows lie in the order of their hashes, so the first ones are a random sample.
    """
    tokenizer = tokenizer_of(job.tokenizer)
    encoded = encode_rows(read_split(job.held_out / f"{job.splits[0]}.parquet")[:rows], tokenizer, job.max_tokens)
    with _model_of(job) as model:
        probe(model, encoded, pad_id(tokenizer))
        return score(model, encoded, job.batch_tokens, pad_id(tokenizer)).loss


@contextmanager
def _model_of(job: ScoringJob, note: Callable[[Rounding], None] = lambda rounding: None) -> Iterator[Any]:
    """The job's model. One that cannot be loaded is its maker's fault; what an adapter stands on is our own."""
    with ExitStack() as stack:
        with of_submission("the model cannot be loaded", job.model) if job.adapter is None else nullcontext():
            model = stack.enter_context(loaded(job.model, job.adapter, job.dtype, job.seed, note))
        yield model
