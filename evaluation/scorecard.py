"""What scoring a model on the held-out splits yields: a small scorecard, and one row per held-out row."""

import math
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from cluster.records import Record
from cluster.store import LOCAL

SPLITS = ("validation", "test")
Split = Literal["validation", "test"]
Array = npt.NDArray[np.float64]


class RowLosses:
    """Per-row sums of one model on one split, in the split's row order.

    `nats` (rows,) float64: summed negative log-likelihood of the completion's tokens.
    `tokens` (rows,) float64: how many tokens that is; 0 where the completion was cut away.
    """

    def __init__(self, nats: Array, tokens: Array) -> None:
        assert nats.shape == tokens.shape
        self.nats, self.tokens = nats, tokens

    @property
    def loss(self) -> float:
        """Nats per completion token, weighted by tokens over the split."""
        return float(self.nats.sum() / self.tokens.sum())


class SplitScore(Record):
    """One model's score on one split."""

    loss: float
    """Mean negative log-likelihood per completion token, in nats, token-weighted over the split."""
    perplexity: float
    bits_per_byte: float
    """Bits per byte of UTF-8 completion text, comparable across tokenizers. Rows whose completion was cut
    away count in neither sum."""
    rows: int
    tokens: int
    bytes: int
    rows_cut_away: int
    """Rows that count zero tokens because `max_tokens` cut their whole completion away."""
    rows_cut_short: int
    """Rows of which `max_tokens` cut a part of the completion."""

    @classmethod
    def of(cls, losses: RowLosses, completion_bytes: Array, cut_short: int) -> Self:
        """Sum up per-row losses; `completion_bytes` (rows,) is the UTF-8 length of what was scored."""
        counted = losses.tokens > 0
        n_bytes = int(completion_bytes[counted].sum())
        loss = losses.loss
        return cls(
            loss=loss,
            perplexity=math.exp(min(loss, 700.0)),
            bits_per_byte=float(losses.nats.sum()) / math.log(2) / n_bytes,
            rows=len(losses.nats),
            tokens=int(losses.tokens.sum()),
            bytes=n_bytes,
            rows_cut_away=int((~counted).sum()),
            rows_cut_short=cut_short,
        )


class Scorecard(Record):
    """scorecard.json: one model on both held-out splits. `losses.parquet` beside it has the rows."""

    model: str
    model_sha256: str
    prompt: Literal["plain", "chat"] = "plain"
    validation: SplitScore
    test: SplitScore
    device: str
    dtype: str
    seconds: float
    """Wall time of the scoring, loading the model included."""


def write_losses(path: Path, row_ids: dict[str, list[str]], losses: dict[str, RowLosses]) -> None:
    """Write losses.parquet: columns split, row_id, nats, tokens."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables(
        pa.table(
            {
                "split": [split] * len(row_ids[split]),
                "row_id": row_ids[split],
                "nats": losses[split].nats,
                "tokens": losses[split].tokens.astype(np.int64),
            }
        )
        for split in SPLITS
    )
    with LOCAL.writing(path) as temporary:
        pq.write_table(table, temporary)


def read_losses(path: Path, split: Split) -> RowLosses:
    """The per-row losses of one split from a losses.parquet."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, filters=[("split", "=", split)])
    return RowLosses(table["nats"].to_numpy().astype(np.float64), table["tokens"].to_numpy().astype(np.float64))
