import gzip
import json
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from cluster.errors import UserError
from evaluation.data import sources
from evaluation.data.sources import load

ROWS = [{"instruction": "one", "response": "1"}, {"instruction": "two", "response": "2"}]


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_importing_is_light() -> None:
    code = "import sys, evaluation.data.sources, evaluation.data.splits; "
    code += "sys.exit(any(name in sys.modules for name in ('datasets', 'torch', 'pyarrow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_jsonl_glob_reads_files_by_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data" / "b.jsonl", [{"instruction": "two", "response": "2"}])
    write_jsonl(tmp_path / "data" / "a.jsonl", [{"instruction": "one", "response": "1"}])
    assert load("data/*.jsonl", tmp_path).to_list() == ROWS


def test_a_list_of_sources_and_a_column_that_some_lack(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"instruction": "one", "response": "1"}])
    write_jsonl(tmp_path / "b.jsonl", [{"instruction": "two", "response": "2", "input": "x"}])
    rows = load(["a.jsonl", "b.jsonl"], tmp_path).to_list()
    assert [row["input"] for row in rows] == [None, "x"]


MIXED = [{"a": 1}, {"a": 2, "b": None}, {"a": None}, {"a": 0.5, "b": "x", "c": {"d": [1]}}, {"b": "y"}]


@pytest.mark.parametrize("at_once", [1, 2, 4, 100])
def test_rows_of_many_parts_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(sources, "AT_ONCE", at_once)
    write_jsonl(tmp_path / "a.jsonl", MIXED)
    rows = load("a.jsonl", tmp_path)
    assert rows.column_names == ["a", "b", "c"]
    assert rows.to_list() == [{"a": None, "b": None, "c": None} | row for row in MIXED]
    write_jsonl(tmp_path / "b.jsonl", [{"a": 1}, {"a": 2}, {"a": "x"}])
    with pytest.raises(UserError, match=r"values do not go together: .*b\.jsonl, row 3: 'a' is text, and a number"):
        load("b.jsonl", tmp_path)


def test_of_many_rows_only_a_part_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "AT_ONCE", 10)
    write_jsonl(tmp_path / "a.jsonl", [{"text": str(n) * 10_000} for n in range(1, 201)])
    before = pyarrow.total_allocated_bytes()
    rows = load("a.jsonl", tmp_path)
    assert rows.data.nbytes > 4_000_000
    assert pyarrow.total_allocated_bytes() - before < 1_000_000
    assert rows[150]["text"] == "151" * 10_000


def test_csv_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('instruction,response\none,1\n"two",2\n')
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    assert load("x.csv", tmp_path).to_list() == ROWS
    assert load("x.parquet", tmp_path).to_list() == ROWS


def test_a_csv_field_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"a,b,,\n{'x' * 140_000},2,,\n")
    (row,) = load("x.csv", tmp_path).to_list()
    assert (len(row["a"]), row["b"]) == (140_000, "2")


def test_the_configs_folder_comes_before_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, config = tmp_path / "here", tmp_path / "config"
    write_jsonl(here / "both.jsonl", ROWS)
    write_jsonl(here / "only_here.jsonl", ROWS)
    write_jsonl(config / "both.jsonl", ROWS[:1])
    monkeypatch.chdir(here)
    assert len(load("both.jsonl", config)) == 1
    assert len(load("only_here.jsonl", config)) == 2


def test_saved_dataset_and_saved_splits(tmp_path: Path) -> None:
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=saved, other=saved.select([0])).save_to_disk(str(tmp_path / "two"))
    datasets.DatasetDict(a=saved, b=saved).save_to_disk(str(tmp_path / "none"))
    assert load("one", tmp_path).to_list() == ROWS
    assert load("two", tmp_path).to_list() == ROWS
    with pytest.raises(UserError, match=r"none has the splits a, b"):
        load("none", tmp_path)


def test_builtin(tmp_path: Path) -> None:
    assert set(load("builtin:quickstart", tmp_path).column_names) == {"instruction", "response", "task"}
    with pytest.raises(UserError, match="quickstart"):
        load("builtin:quick", tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"a": 1}\n\n[1]\n', r"a\.jsonl, line 3: .*object.*list"),
        ("a.json", '[{"a": 1}, 5]', r"a\.json, item 2: .*object.*int"),
        (
            "a.jsonl",
            '{"a": 1}\n{"a": "x"}\n',
            r"do not go together: .*a\.jsonl, row 2: 'a' is text, and a number",
        ),
        ("a.jsonl", '{"a": "x"}\n{"a": null}\n{"a": 1}\n', r"a\.jsonl, row 3: 'a' is a number, and text before"),
        ("a.jsonl", '{"a": {"b": 1}}\n{"a": {"b": "x"}}\n', r"do not go together: a\.jsonl: "),
        ("a.csv", "a;b\n1;2\n", r"a\.csv, line 1: one column, 'a;b': is it separated by ';'"),
        ("a.tsv", "a,b\n1,2\n", r"a\.tsv, line 1: one column, 'a,b': is it separated by ','"),
        ("a.jsonl.gz", "x", r"a\.jsonl\.gz: Not a gzipped file"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"a\.csv, line 3: more fields"),
        ("a.csv", "a,b,a\n1,2,3\n", r"a\.csv: two columns are named 'a'"),
        ("a.csv", 'a,b\n"1"x,2\n', r"a\.csv, line 2: not CSV"),
        ("a.parquet", "PAR1 nothing", r"a\.parquet: not Parquet"),
        ("a.jsonl", "\n", r"a\.jsonl holds no rows"),
        ("a.txt", "x", r"a\.txt: unknown kind of file.*\.jsonl"),
    ],
)
def test_a_bad_file_is_named_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8_name_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": "b"}\n{"a": "\xff"}\n')
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n3,\xff\n4,5\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: not UTF-8 .*: save the file as UTF-8"):
        load("a.jsonl", tmp_path)
    with pytest.raises(UserError, match=r"a\.csv, line 3: not UTF-8 .*: save the file as UTF-8"):
        load("a.csv", tmp_path)


def test_compressed_files_and_tabs(tmp_path: Path) -> None:
    jsonl = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    tabs = b"instruction\tresponse\none\t1\ntwo\t2\n"
    files = {"a.jsonl.gz": jsonl, "a.json.gz": json.dumps(ROWS).encode(), "a.csv.gz": tabs.replace(b"\t", b",")}
    for name, content in files.items() | {"a.tsv.gz": tabs}.items():
        (tmp_path / name).write_bytes(gzip.compress(content))
        assert load(name, tmp_path).to_list() == ROWS
    (tmp_path / "a.tsv").write_bytes(tabs)
    assert load("a.tsv", tmp_path).to_list() == ROWS
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(jsonl)[:-12])
    with pytest.raises(UserError, match=r"cut\.jsonl\.gz: "):
        load("cut.jsonl.gz", tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"nothing matches 'data/\*\.jsonl'"):
        load("data/*.jsonl", tmp_path)
    with pytest.raises(UserError) as caught:
        load("x.csv", Path.cwd())
    assert str(caught.value).count(str(Path.cwd())) == 1
    with pytest.raises(UserError, match=r"folder: not a folder saved by"):
        load("folder", tmp_path)
    with pytest.raises(UserError, match="list is empty"):
        load([], tmp_path)


def test_the_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(name: str, config: str | None, split: str) -> None:
        asked.append((name, config, split))
        raise ConnectionError("Couldn't reach the Hub\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    for source in ("hf://org/name", "hf://org/name:main@test[:10]"):
        with pytest.raises(UserError, match=r"hf://org/name.*Couldn't reach.*HF_HUB_OFFLINE.*files") as caught:
            load(source, tmp_path)
        assert "\n" not in str(caught.value)
    assert asked == [("org/name", None, "train"), ("org/name", "main", "test[:10]")]
