"""Results: what one model did on each held-out row, as columns, and the file losses.parquet that keeps them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cluster.errors import BrokenRecord
from cluster.store import LOCAL
from cluster.text import plain
from evaluation.data.split import Split

if TYPE_CHECKING:
    import pyarrow

SPLITS: tuple[Split, ...] = ("validation", "proof", "test")
Array = npt.NDArray[np.float64]

COUNTS = ("tokens", "bytes", "group")
"""Columns that are whole numbers."""


class RowResults:
    """Per-row columns of one model on one split, in the split's row order, each (rows,) float64.

    `nats`: summed negative log-likelihood of the completion's tokens.
    `tokens`: how many tokens that is; 0 where the completion was cut away.
    `bytes`: the UTF-8 length of the completion text that they are; 0 where it was cut away.
    `group`: rows of one number belong together, as those of one prompt do; without it each is a group of its own.
    Further sums that a figure needs are `measured`, by the name of their column.
    """

    def __init__(
        self, nats: Array, tokens: Array, bytes: Array | None = None, group: Array | None = None, **measured: Array
    ) -> None:
        self.nats, self.tokens = nats, tokens
        self.bytes = np.zeros_like(tokens) if bytes is None else bytes
        self.group = np.arange(len(tokens), dtype=np.float64) if group is None else group
        known = {"nats": nats, "tokens": tokens, "bytes": self.bytes, "group": self.group}
        self.columns: dict[str, Array] = known | measured
        assert len({column.shape for column in self.columns.values()}) == 1

    def grouped(self, group: Array) -> "RowResults":
        """The same rows, told which of them belong together."""
        return self.with_columns({"group": group})

    def with_columns(self, columns: Mapping[str, Array]) -> "RowResults":
        """The same rows with more columns, or others in their place."""
        return RowResults(**{**self.columns, **columns})

    def column(self, name: str) -> Array:
        """A column by its name."""
        return self.columns[name]

    @property
    def loss(self) -> float:
        """Nats per completion token, weighted by tokens over the split; no number where a row is none."""
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            return float(self.nats.sum() / self.tokens.sum())


def write_results(path: Path, row_ids: Mapping[Split, list[str]], results: Mapping[Split, RowResults]) -> None:
    """Write losses.parquet: columns split, row_id, nats, tokens, bytes and those that were measured besides.

    Rows of other splits that lie there already stay. BrokenRecord, naming the file, where it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for split, scored in results.items():
        columns = {
            name: column.astype(np.int64) if name in COUNTS else column for name, column in scored.columns.items()
        }
        tables.append(pa.table({"split": [split] * len(row_ids[split]), "row_id": row_ids[split], **columns}))
    if path.exists():
        tables.insert(0, _table(path, [("split", "not in", list(results))]))
    with LOCAL.writing(path) as temporary:
        pq.write_table(pa.concat_tables(tables, promote_options="default"), temporary)


def read_results(path: Path, split: Split) -> RowResults:
    """The per-row results of one split from a losses.parquet. BrokenRecord, naming it, if it is gone or damaged."""
    table = _table(path, [("split", "=", split)])
    names = [name for name in table.column_names if name not in ("split", "row_id")]
    return RowResults(**{name: table[name].to_numpy().astype(np.float64) for name in names})


def _table(path: Path, filters: list[tuple[str, str, Any]]) -> "pyarrow.Table":
    import pyarrow.parquet as pq

    again = "remove the scorecard.json beside it, and the same command scores that model again"
    try:
        return pq.read_table(path, filters=filters)
    except FileNotFoundError as error:
        raise BrokenRecord(f"{path}: cannot be read, for it is missing: {again}") from error
    except ValueError as error:  # as pyarrow says of what is no Parquet
        raise BrokenRecord(
            f"{path}: cannot be read, for it is cut off or damaged ({plain(error, 120)}): {again}"
        ) from error
