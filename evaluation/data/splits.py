"""Cleaning a dataset and splitting it into train, validation and test, so that nothing held out is trained on.

Owns the files `train.parquet`, `held_out/*.parquet` and `manifest.json`. Which row goes where is a pure function
of the rows' content and the seed: neither their order nor the machine matters. The rows stay where the dataset keeps
them and pass by in batches.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from cluster.digest import sha256_of
from cluster.errors import BrokenRecord, UserError
from cluster.records import Record
from cluster.store import LOCAL
from cluster.text import plain
from evaluation.data.assignment import Catalogue, Read, catalogue, cut_slice, hold_out
from evaluation.data.conversations import NOT_SINGLE_TURN
from evaluation.data.leaks import batches, describe, find_leaks, sample
from evaluation.data.likeness import normalised
from evaluation.data.near_duplicates import HeldOutIndex, NearDuplicates, Pair
from evaluation.data.rendering import Rendered, values_of
from evaluation.data.split import Split, held_out_splits

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

__all__ = ["MANIFEST", "Manifest", "Row", "Split", "file_of", "make_splits", "read_held_out", "read_split"]

MANIFEST = "manifest.json"
MOST_SHORT = 0.1
"""Such a share of its rows a held-out split may lack, where no unit that is left would fit."""


def file_of(split: Split) -> str:
    """Where a split's rows lie in the folder of the data."""
    return f"{split}.parquet" if split in ("train", "slice") else f"held_out/{split}.parquet"


@dataclass(frozen=True)
class Row:
    """One cleaned row: the templates applied, and the first 16 hex digits of its content's SHA-256."""

    row_id: str
    prompt: str
    completion: str


COLUMNS = ["row_id", "prompt", "completion"]
"""Of every split's file, in the order of a row's fields."""


class Manifest(Record):
    """What became of a dataset's rows: `rows_read` = the sum of `counts` + the sum of `dropped`."""

    source: str
    prompt: str
    completion: str
    group: str | None = None
    """The column whose equal values keep rows together."""
    seed: int
    rows_read: int
    dropped: dict[str, int]
    """Rows left out, by the reason in words."""
    groups: int
    """Different prompts after normalisation."""
    near_duplicates: NearDuplicates | None = None
    """None in a manifest of before they were looked for."""
    counts: dict[Split, int]
    sha256: dict[Split, str]
    """Of the Parquet files."""
    fingerprint: str
    """SHA-256 over split and row_id of every row: equal for equal splits, whatever wrote the files."""


def make_splits(
    dataset: "Dataset",
    prompt: str,
    completion: str,
    validation: int,
    test: int,
    seed: int,
    out: Path,
    source: str,
    slice_rows: int = 0,
    group: str | None = None,
    near_duplicates: Literal["remove", "keep"] = "remove",
    turns: int = 1,
) -> Manifest:
    """Render, clean and split `dataset`, write the splits below `out`, the manifest last, and return it.

    `prompt` and `completion` are templates over the columns, as "{instruction}\\n"; a row's missing value renders
    as nothing. Rows with the same value in the column `group` stay together. `turns` is how often there
    are other rows to choose by, half of `validation` each. Raises UserError for a template or a
    group that names no column, and for too few rows.
    """
    dropped: Counter[str] = Counter()
    texts = Rendered(dataset, prompt, completion)
    declared = values_of(dataset, "data.group", group) if group is not None else None
    rows = catalogue(texts, declared, seed, dropped)

    def read(places: Sequence[int]) -> list[Pair]:
        return texts.at([int(rows.numbers[place]) for place in places])

    index = HeldOutIndex(sample(rows, read))
    wanted = held_out_splits(validation, test, turns)
    held_out = hold_out(rows, wanted, index, read)
    is_other = np.ones(len(rows), dtype=np.bool_)
    is_other[list(held_out.split_of)] = False
    leaks = find_leaks(rows, np.flatnonzero(is_other), index, read)
    if near_duplicates == "remove" and leaks:
        is_other[list(leaks)] = False
        dropped["near-duplicate of a held-out row"] = len(leaks)
    others = np.flatnonzero(is_other)
    kept = np.array(cut_slice(rows, others.tolist(), min(slice_rows, (len(rows) - sum(wanted.values())) // 10)), int)
    splits: dict[Split, npt.NDArray[np.int64]] = {"train": np.setdiff1d(others, kept, assume_unique=True)}
    splits |= {split: np.array(list(held_out.groups[split]), int) for split in wanted}
    _refuse_too_few(splits, wanted, rows, len(leaks), dropped[NOT_SINGLE_TURN])
    if len(kept):
        splits["slice"] = kept
    for split, places in splits.items():
        _write(rows, places, read, out / file_of(split), held_out.groups.get(split))
    return Manifest(
        source=source,
        prompt=prompt,
        completion=completion,
        group=group,
        seed=seed,
        rows_read=len(dataset),
        dropped=dict(sorted(dropped.items())),
        groups=rows.prompts,
        near_duplicates=describe(leaks, rows, held_out, index, near_duplicates, read),
        counts={split: len(places) for split, places in splits.items()},
        sha256={split: sha256_of(out / file_of(split)) for split in splits},
        fingerprint=_fingerprint(splits, rows),
    ).write(out / MANIFEST)


def _fingerprint(splits: dict[Split, npt.NDArray[np.int64]], rows: Catalogue) -> str:
    digest = hashlib.sha256()
    for split, places in splits.items():
        for place in places.tolist():
            digest.update(f"{split} {rows.row_id(place)}\n".encode())
    return digest.hexdigest()


def read_split(path: Path) -> list[Row]:
    """The rows of a split's Parquet file, in its order. BrokenRecord, naming it, if it is damaged."""
    return _rows(_table(path, COLUMNS))


def read_held_out(path: Path) -> tuple[list[Row], npt.NDArray[np.int64]]:
    """The rows of a held-out split's Parquet file, in its order, and the group of each, counted from 0: (rows,).

    Rows of one group are no independent evidence. In a file of before groups were kept they are those of one prompt.
    BrokenRecord, naming the file, if it is damaged.
    """
    table = _table(path, None)
    rows = _rows(table)
    if "group" in table.column_names:
        return rows, np.asarray(table["group"].to_numpy(), dtype=np.int64)
    names: dict[str, int] = {}
    prompts = (normalised(row.prompt) for row in rows)
    return rows, np.array([names.setdefault(prompt, len(names)) for prompt in prompts], dtype=np.int64)


def _rows(table: "pyarrow.Table") -> list[Row]:
    return [Row(*values) for values in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)]


def _table(path: Path, columns: list[str] | None) -> "pyarrow.Table":
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return file.read(columns)
    except ValueError as error:  # as pyarrow says of what is no Parquet
        reason = f"is cut off or damaged ({plain(error, 120)})"
        raise BrokenRecord(f"{path}: {reason}: put it back, or give another --run-dir") from error


def _refuse_too_few(
    splits: dict[Split, npt.NDArray[np.int64]],
    wanted: dict[Split, int],
    rows: Catalogue,
    leaks: int,
    others: int,
) -> None:
    """UserError when a held-out split cannot be filled, as far as rows that are never divided fill it, or nothing is
    left to train on."""
    got = {split: len(places) for split, places in splits.items()}
    if got["train"]:
        smallest = int(np.unique(rows.units[splits["train"]], return_counts=True)[1].min())
        short = {split: count - got[split] for split, count in wanted.items()}
        if all(gap == 0 or (gap < smallest and gap <= MOST_SHORT * wanted[split]) for split, gap in short.items()):
            return
    near = f"{leaks} of the others are near-duplicates of held-out rows; " if leaks else ""
    asked, found = (sum(counts[split] for split in wanted if split != "test") for counts in (wanted, got))
    turns = len(wanted) - 2
    without = f" ({others} dropped: {NOT_SINGLE_TURN})" if others else ""
    each = f" ({wanted['validation'] + wanted['proof']} a round, {turns} rounds)" if turns > 1 else ""
    raise UserError(
        f"data.validation: {asked}{each} and data.test: {wanted['test']} take {sum(wanted.values()) + 1} rows at least,"
        f" one of them to train on: after cleaning{without} there are {len(rows)} rows with {rows.prompts}"
        f" different prompts, and rows of one prompt, of one group or nearly alike are never divided; {near}"
        f"got {found} for validation, {got['test']} for test, {got['train']} for train"
    )


def _write(
    rows: Catalogue, places: npt.NDArray[np.int64], read: Read, path: Path, groups: dict[int, int] | None
) -> None:
    """Write a split; with `groups`, as a held-out one."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    if groups is not None:
        path.parent.chmod(0o700)
    fields = [(name, pyarrow.string()) for name in Row.__dataclass_fields__]
    schema = pyarrow.schema(fields if groups is None else [*fields, ("group", pyarrow.int64())])
    with LOCAL.writing(path) as temporary:
        if groups is not None:  # private before the first byte is in it
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        with pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
            for some in batches(places):
                columns = [[rows.row_id(place) for place in some], *map(list, zip(*read(some), strict=True))]
                if groups is not None:
                    columns.append([groups[place] for place in some])
                writer.write_batch(pyarrow.record_batch(columns, schema=schema))
