"""Where a tournament's rows come from: files, a saved dataset, the Hugging Face Hub, or the data that comes along.

Files are read here line by line rather than by `datasets`, so that an error can name the file and the line.
"""

import glob
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader, TextIOWrapper
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from cluster.text import plain, said_by

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset

Row = dict[str, Any]

AT_ONCE = 20_000
"""Rows of files that are in memory at once."""

MOST_CHARACTERS = 2**31 - 1
"""Of one field of a CSV file: Python's own limit is for programs that expect short ones."""

HUB, BUILTIN = "hf://", "builtin:"


def load(source: str | list[str], folder: Path) -> "Dataset":
    """All rows of `source`, the `data.source` of a config that lies in `folder`.

    - `data/*.jsonl`, `x.csv`, `x.tsv`, `x.jsonl.gz`, `x.parquet`: a path or glob, or a list of them, read in that
      order. Relative ones are looked for in `folder` first, then, where nothing is there, in the current directory.
    - a folder written by `datasets.save_to_disk`: its `train` split, or the only one.
    - `hf://org/name`, optionally with `:config` and `@split` (default `train`), through `datasets.load_dataset`.
    - `builtin:quickstart`: made on the spot.

    A column that a file lacks is None in its rows. Raises UserError naming the source, the file and the line.
    """
    from datasets import concatenate_datasets

    parts = [_load_one(one, folder) for one in ([source] if isinstance(source, str) else source)]
    if not parts:
        raise UserError("data.source: the list is empty")
    try:
        dataset = parts[0] if len(parts) == 1 else concatenate_datasets(parts)
    except ValueError as error:
        raise UserError(f"data.source: the columns of {source} do not go together: {said_by(error)}") from error
    if not len(dataset):
        raise UserError(f"data.source: {source} holds no rows")
    return dataset


def _load_one(source: str, folder: Path) -> "Dataset":
    if source.startswith(BUILTIN):
        from evaluation.builtin.data import rows

        return _from_rows(rows(source.removeprefix(BUILTIN)))
    if source.startswith(HUB):
        return _from_hub(source)
    paths = _find(source, folder)
    if len(paths) == 1 and paths[0].is_dir():
        return _saved(paths[0])
    try:
        return _from_rows(row for path in paths for row in _read(path))
    except UserError:
        raise
    except (ValueError, TypeError, OverflowError) as error:  # pyarrow's errors are among these
        where = _first_unlike(paths) or f"{source}: {said_by(error)}"
        raise UserError(f"data.source: a column's values do not go together: {where}") from error


KINDS = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}


def _first_unlike(paths: list[Path]) -> str | None:
    """In words, the first row of files in which a column holds another kind of value than before."""
    kinds: dict[str, str] = {}
    for path in paths:
        for number, row in enumerate(_read(path), start=1):
            for column, value in row.items():
                kind = KINDS.get(type(value))
                if kind is not None and kinds.setdefault(column, kind) != kind:
                    return f"{path}, row {number}: {column!r} is {kind}, and {kinds[column]} before"
    return None


def _from_rows(rows: Iterable[Row]) -> "Dataset":
    """One column for every key that any row has. Of many rows few are in memory at once: the others lie in files."""
    from datasets import Dataset
    from datasets.fingerprint import generate_random_fingerprint
    from datasets.table import InMemoryTable

    remaining = iter(rows)
    tables = [_table(list(islice(remaining, AT_ONCE)))]
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # what is mapped stays when its name is gone
        while some := list(islice(remaining, AT_ONCE)):
            tables.append(_mapped(_table(some), Path(folder) / f"{len(tables)}.arrow"))
        table = _joined(tables)
    return Dataset(InMemoryTable(table), fingerprint=generate_random_fingerprint())


def _table(rows: list[Row]) -> "pyarrow.Table":
    from datasets import Dataset

    columns = list(dict.fromkeys(key for row in rows for key in row))
    return Dataset.from_dict({column: [row.get(column) for row in rows] for column in columns}).data.table


def _mapped(table: "pyarrow.Table", path: Path) -> "pyarrow.Table":
    """The same table, of which a page is in memory while it is looked at."""
    import pyarrow

    with pyarrow.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()


def _joined(tables: list["pyarrow.Table"]) -> "pyarrow.Table":
    """One below the other. A column that was whole numbers first and fractions later is fractions."""
    import pyarrow

    if len(tables) == 1:
        return tables[0]
    bare = [table.replace_schema_metadata() for table in tables]  # each one's tells of its own columns only
    return pyarrow.concat_tables(bare, promote_options="permissive")


def _find(source: str, folder: Path) -> list[Path]:
    """The files (or the one folder) that `source` names; UserError when there are none."""
    if found := matches(source, folder):
        return found
    looked_in = dict.fromkeys([str(folder.resolve()), str(Path.cwd())])
    raise UserError(f"data.source: nothing matches {source!r} in {' nor in '.join(looked_in)}")


def matches(source: str, folder: Path) -> list[Path]:
    """The files (or the one folder) that `source` names, sorted by name; none where it names a data set elsewhere."""
    if source.startswith((BUILTIN, HUB)):
        return []
    for base in (folder, Path.cwd()):
        whole = base / Path(source).expanduser()
        if whole.exists():  # a name with glob characters in it is still a name
            return [whole]
        found = [Path(match) for match in sorted(glob.glob(str(whole), recursive=True))]
        if files := [path for path in found if path.is_file()]:
            return files
        if len(found) == 1:
            return found
    return []


def _read(path: Path) -> Iterator[Row]:
    suffix = _suffix(path)
    if suffix not in READERS:
        raise UserError(f"data.source: {path}: unknown kind of file; known are {', '.join(READERS)}")
    try:
        yield from READERS[suffix](path)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or said_by(error)}") from error


def _suffix(path: Path) -> str:
    """What kind of file it is, compressed or not."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _not(kind: str, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 ({said_by(error)}): save the file as UTF-8"
    return f"not {kind}: {said_by(error)}"


def _json_lines(path: Path) -> Iterator[Row]:
    with _opened(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except ValueError as error:  # not JSON, or not UTF-8
                raise UserError(f"{path}, line {number}: {_not('JSON', error)}") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: a row must be an object {{…}}, not {type(row).__name__}")
            yield row


def _json(path: Path) -> Iterator[Row]:
    """A JSON array of objects, or JSON lines under the wrong name."""
    with _opened(path) as file:
        text = file.read()
    if not text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield from _json_lines(path)
        return
    try:
        rows = json.loads(text.decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path}: {_not('JSON', error)}") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}, item {number}: a row must be an object {{…}}, not {type(row).__name__}")
        yield row


def _csv(path: Path) -> Iterator[Row]:
    import csv

    between = "\t" if _suffix(path) == ".tsv" else ","
    with _opened(path) as file, TextIOWrapper(file, "utf-8-sig", newline="") as stream:
        csv.field_size_limit(MOST_CHARACTERS)
        reader = csv.DictReader(stream, restval=None, strict=True, delimiter=between)
        try:
            names = list(reader.fieldnames or ())
            if twice := [name for name in names if name and names.count(name) > 1]:
                raise UserError(f"{path}: two columns are named {twice[0]!r}")
            if len(names) == 1 and (other := next((c for c in ";\t|," if c in names[0] and c != between), None)):
                asked = f"is it separated by {other!r}? Here it must be {between!r}"
                raise UserError(f"{path}, line 1: one column, {plain(names[0], 60)!r}: {asked}")
            for row in reader:
                if None in row:
                    raise UserError(f"{path}, line {reader.line_num}: more fields than the header has")
                yield row
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {_first_not_utf8(path)}: {_not('CSV', error)}") from error
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num + 1}: {_not('CSV', error)}") from error


def _first_not_utf8(path: Path) -> int:
    """The line of what is not UTF-8: a reader has decoded more than the line that it is at."""
    with _opened(path) as file:
        return next(
            number for number, line in enumerate(file, start=1) if line.decode(errors="ignore").encode() != line
        )


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not Parquet: {said_by(error)}") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}


def _saved(folder: Path) -> "Dataset":
    from datasets import Dataset, load_from_disk

    hint = f"{folder}: not a folder saved by datasets.save_to_disk (for files in it give {folder}/*.jsonl)"
    with _said_of_datasets(hint):
        loaded = load_from_disk(str(folder))
    if isinstance(loaded, Dataset):
        return loaded
    if "train" not in loaded and len(loaded) != 1:
        raise UserError(f"data.source: {folder} has the splits {', '.join(loaded)}, none of them named train")
    return loaded["train"] if "train" in loaded else next(iter(loaded.values()))


def _from_hub(source: str) -> "Dataset":
    from datasets import load_dataset

    rest, _, split = source.removeprefix(HUB).partition("@")
    name, _, config = rest.partition(":")
    if not name.strip("/"):
        raise UserError(f"data.source: {source}: write hf://org/name, hf://org/name:config or hf://org/name@split")
    remedy = (
        "check the name, `hf auth login` if it is gated, set HF_HUB_OFFLINE=1 if it is in the cache, "
        "or give files (data.source: data/*.jsonl)"
    )
    with _said_of_datasets(f"cannot load {source}", f"; {remedy}"):
        return load_dataset(name, config or None, split=split or "train")


@contextmanager
def _said_of_datasets(what: str, remedy: str = "") -> Iterator[None]:
    """Say as a UserError whatever the block raises.

    For a single call of `datasets`, which passes on what its many backends raise, errors without a base in common.
    With faults.py this is the other place in evaluation/ that catches broadly.
    """
    try:
        yield
    except Exception as error:
        raise UserError(f"data.source: {what}: {said_by(error)}{remedy}") from error
