"""Cleaning a dataset and splitting it into train, validation and test, so that no prompt is on two sides.

Owns the files `train.parquet`, `held_out/*.parquet` and `manifest.json`. Which row goes where is a pure function
of the rows' content and the seed: neither their order nor the machine matters.
"""

import hashlib
import os
import string
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cluster.digest import sha256_of
from cluster.errors import BrokenRecord, UserError
from cluster.records import Record
from cluster.store import LOCAL
from cluster.text import plain

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from datasets import Dataset

Split = Literal["train", "validation", "proof", "test", "slice"]
"""`validation` chooses and `proof` proves titles: the two halves of the rows that `data.validation` asks for. `slice`:
training rows that no competitor trains on, by which soups choose. Not held out, often not there."""

FILES: dict[Split, str] = {
    "slice": "slice.parquet",
    "train": "train.parquet",
    "validation": "held_out/validation.parquet",
    "proof": "held_out/proof.parquet",
    "test": "held_out/test.parquet",
}
HELD_OUT: tuple[Split, ...] = ("validation", "proof", "test")
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Row:
    """One cleaned row: the templates applied, and the first 16 hex digits of its content's SHA-256."""

    row_id: str
    prompt: str
    completion: str


class Manifest(Record):
    """What became of a dataset's rows: `rows_read` = the sum of `counts` + the sum of `dropped`."""

    source: str
    prompt: str
    completion: str
    seed: int
    rows_read: int
    dropped: dict[str, int]
    """Rows left out, by the reason in words."""
    groups: int
    """Different prompts after normalisation."""
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
) -> Manifest:
    """Render, clean and split `dataset`, write the splits below `out`, the manifest last, and return it.

    `prompt` and `completion` are templates over the columns, as "{instruction}\\n"; a row's missing value renders
    as nothing. Raises UserError for a template that names no column, and for too few rows.
    """
    dropped: Counter[str] = Counter()
    rows = _clean(render(dataset, prompt, completion), dropped)
    splits = assign(rows, validation, test, seed, slice_rows)
    digest = hashlib.sha256()
    for split, members in splits.items():
        _write(members, out / FILES[split], held_out=split in HELD_OUT)
        digest.update("".join(f"{split} {row.row_id}\n" for row in members).encode())
    return Manifest(
        source=source,
        prompt=prompt,
        completion=completion,
        seed=seed,
        rows_read=len(dataset),
        dropped=dict(sorted(dropped.items())),
        groups=len({normalised(row.prompt) for row in rows}),
        counts={split: len(members) for split, members in splits.items()},
        sha256={split: sha256_of(out / FILES[split]) for split in splits},
        fingerprint=digest.hexdigest(),
    ).write(out / MANIFEST)


def read_split(path: Path) -> list[Row]:
    """The rows of a split's Parquet file, in its order. BrokenRecord, naming it, if it is damaged."""
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.read(["row_id", "prompt", "completion"]).to_pydict()
    except ValueError as error:  # as pyarrow says of what is no Parquet
        reason = f"is cut off or damaged ({plain(error, 120)})"
        raise BrokenRecord(f"{path}: {reason}: put it back, or give another --run-dir") from error
    return [Row(*values) for values in zip(*columns.values(), strict=True)]


def assign(rows: list[Row], validation: int, test: int, seed: int, slice_rows: int = 0) -> dict[Split, list[Row]]:
    """Divide cleaned rows: whole groups of one normalised prompt, in the order of sha256(seed, prompt).

    Going through the groups once, each goes to the first of validation, proof, test and slice that still has room for
    all of it, and to train where none has. Of `validation` rows one half chooses, and the other is the proof. So a
    held-out split gets exactly the rows asked for; a group too large for the room that is left is not cut and not
    waited for. A slice takes at most a tenth of what is not held out.
    Within a split, rows keep this order, and rows of one group go by row_id. Raises UserError when a held-out split
    cannot be filled or nothing is left to train on.
    """
    keys = {row.row_id: _order(seed, row.prompt) for row in rows}
    ordered = sorted(rows, key=lambda row: (keys[row.row_id], row.row_id))
    wanted: dict[Split, int] = {"validation": validation - validation // 2, "proof": validation // 2, "test": test}
    splits: dict[Split, list[Row]] = {"train": [], **{split: [] for split in wanted}}
    if (kept := min(slice_rows, (len(rows) - validation - test) // 10)) > 0:
        splits["slice"], wanted["slice"] = [], kept
    for _, grouped in groupby(ordered, key=lambda row: keys[row.row_id]):
        group = list(grouped)
        room = (split for split, count in wanted.items() if len(splits[split]) + len(group) <= count)
        splits[next(room, "train")] += group
    if not splits["train"] or any(len(splits[split]) < wanted[split] for split in HELD_OUT):
        raise UserError(
            f"data.validation: {validation} and data.test: {test} leave too little: after cleaning there are "
            f"{len(rows)} rows with {len(set(keys.values()))} different prompts, and prompts are never divided; "
            f"got {len(splits['validation']) + len(splits['proof'])} for validation, {len(splits['test'])} for test, "
            f"{len(splits['train'])} for train"
        )
    return splits


def prompt_groups(rows: list[Row]) -> "npt.NDArray[np.float64]":
    """(rows,) numbers, the same for rows that share a prompt."""
    import numpy as np

    return np.unique([normalised(row.prompt) for row in rows], return_inverse=True)[1].astype(np.float64)


def normalised(text: str) -> str:
    """What makes two texts the same: Unicode compatibility form, case and white space do not count."""
    # Casefolding can undo the normal form and the other way round, so the form is taken again.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def _order(seed: int, prompt: str) -> str:
    return hashlib.sha256(f"{seed}\0{normalised(prompt)}".encode()).hexdigest()


def render(dataset: "Dataset", prompt: str, completion: str) -> Iterator[tuple[str, str]]:
    """(prompt, completion) of every row, the templates applied."""
    templates = {"data.prompt": prompt, "data.completion": completion}
    used = {column for key, template in templates.items() for column in _columns(key, template, dataset)}
    # Only what the templates use: other columns may be images, or large.
    for values in dataset.select_columns(sorted(used)):
        shown = {column: "" if value is None else str(value) for column, value in values.items()}
        yield _fill(prompt, shown), _fill(completion, shown)


def _columns(key: str, template: str, dataset: "Dataset") -> set[str]:
    """The columns that a template names; UserError when it is malformed, or one of them holds nothing."""
    try:
        fields = [(name, form, conversion) for _, name, form, conversion in string.Formatter().parse(template)]
    except ValueError as error:
        raise UserError(f"{key}: {template!r} is not a template: {error} (a literal brace is written twice)") from error
    named = {name for name, _, _ in fields if name is not None}
    if any(form or conversion for _, form, conversion in fields):
        raise UserError(f"{key}: {template!r}: a field is just a column in braces, without ! or :")
    there = ", ".join(dataset.column_names)
    for column in sorted(named):
        if column not in dataset.column_names or _is_empty(dataset.data.column(column)):
            raise UserError(f"{key}: {template!r} names the column {column!r}; the columns are {there}")
    if not named:
        raise UserError(f"{key}: {template!r} names no column in braces; the columns are {there}")
    return named


def _is_empty(column: Any) -> bool:
    return bool(column.null_count == len(column))


def _fill(template: str, values: dict[str, str]) -> str:
    """Not str.format, to which `{a.b}` and `{a[0]}` mean something else than the column of that name."""
    parts = string.Formatter().parse(template)
    return "".join(text + (values[name] if name is not None else "") for text, name, _, _ in parts)


def _clean(rendered: Iterator[tuple[str, str]], dropped: Counter[str]) -> list[Row]:
    """Rows worth keeping, one for each normalised (prompt, completion); the others counted in `dropped`.

    Of rows that are the same but for case and white space the one with the smallest row_id stays, not the first,
    so that the order of the rows does not matter.
    """
    kept: dict[tuple[str, str], Row] = {}
    for prompt, completion in rendered:
        if not prompt.strip() or not completion.strip():
            dropped["empty prompt" if not prompt.strip() else "empty completion"] += 1
            continue
        row = Row(_row_id(prompt, completion), prompt, completion)
        key = (normalised(prompt), normalised(completion))
        if key in kept:
            dropped["duplicate"] += 1
            row = min(row, kept[key], key=lambda one: one.row_id)
        kept[key] = row
    return list(kept.values())


def _row_id(prompt: str, completion: str) -> str:
    return hashlib.sha256(f"{prompt}\0{completion}".encode()).hexdigest()[:16]


def _write(rows: list[Row], path: Path, held_out: bool) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    if held_out:
        path.parent.chmod(0o700)
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in Row.__dataclass_fields__}
    schema = pyarrow.schema([(name, pyarrow.string()) for name in columns])
    with LOCAL.writing(path) as temporary:
        if held_out:  # private before the first byte is in it
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), temporary)
