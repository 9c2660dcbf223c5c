"""Scoring a model: on both splits, with its scorecard and its rows on disk, or on a few rows of one.

All functions take plain arguments, so they run with and without Ray.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

from cluster.digest import model_sha256
from cluster.errors import Forfeit, UserError
from cluster.records import Record
from evaluation.faults import of_submission
from evaluation.loading import Dtype, loaded
from evaluation.probe import probe
from evaluation.results import SPLITS, RowResults, write_results
from evaluation.scorecard import Scorecard, SplitScore
from evaluation.scoring import encode_rows, pad_id, score
from evaluation.splits import read_split


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
    out: Path


def score_model(job: ScoringJob, progress: Callable[[float], None] = lambda fraction: None) -> Scorecard:
    """Score a model on both splits; write losses.parquet and then scorecard.json into `job.out`.

    Raises Forfeit, and writes nothing, for a model that cannot be loaded or whose loss is not finite.
    """
    from transformers import AutoTokenizer

    began = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(job.tokenizer, trust_remote_code=False)
    results: dict[str, RowResults] = {}
    row_ids: dict[str, list[str]] = {}
    cut_short: dict[str, int] = {}
    with _model_of(job) as model:
        for index, split in enumerate(SPLITS):
            rows = read_split(job.held_out / f"{split}.parquet")
            encoded = encode_rows(rows, tokenizer, job.max_tokens, chat=job.prompt == "chat")

            def report(fraction: float, before: int = index) -> None:
                progress((before + fraction) / len(SPLITS))

            if split == SPLITS[0]:
                probe(model, encoded, pad_id(tokenizer))
            results[split] = score(model, encoded, job.batch_tokens, pad_id(tokenizer), report)
            _refuse_no_loss(results[split], split, job.max_tokens)
            row_ids[split] = [row.row_id for row in rows]
            cut_short[split] = sum(row.cut for row in encoded)
        device, dtype = str(model.device), str(model.dtype).removeprefix("torch.")
    card = Scorecard(
        model=job.name,
        model_sha256=model_sha256(job.adapter or job.model),
        prompt=job.prompt,
        validation=SplitScore.of(results["validation"], cut_short["validation"]),
        test=SplitScore.of(results["test"], cut_short["test"]),
        device=device,
        dtype=dtype,
        seconds=time.monotonic() - began,
    )
    write_results(job.out / "losses.parquet", row_ids, results)
    return card.write(job.out / "scorecard.json")


def _refuse_no_loss(results: RowResults, split: str, max_tokens: int) -> None:
    if not results.tokens.any():
        raise UserError(f"data.max_tokens: {max_tokens} cuts the whole completion of every {split} row away")
    if not math.isfinite(results.loss):
        raise Forfeit(f"its loss on the {split} rows is not finite")


def score_slice(job: ScoringJob, rows: int) -> float:
    """Loss on the first `rows` validation rows, in nats per completion token; nothing is written.

    Rows lie in the order of their hashes, so the first ones are a random sample.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.tokenizer, trust_remote_code=False)
    encoded = encode_rows(read_split(job.held_out / "validation.parquet")[:rows], tokenizer, job.max_tokens)
    with _model_of(job) as model:
        probe(model, encoded, pad_id(tokenizer))
        return score(model, encoded, job.batch_tokens, pad_id(tokenizer)).loss


@contextmanager
def _model_of(job: ScoringJob) -> Iterator[Any]:
    """The job's model. One that cannot be loaded is its maker's fault; what an adapter stands on is our own."""
    with ExitStack() as stack:
        with of_submission("the model cannot be loaded", job.model) if job.adapter is None else nullcontext():
            model = stack.enter_context(loaded(job.model, job.adapter, job.dtype, job.seed))
        yield model
