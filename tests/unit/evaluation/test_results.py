"""losses.parquet: columns by name, one row per held-out row."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.errors import BrokenRecord
from evaluation.results import RowResults, read_results, write_results


def results(rows: int, seed: int = 0) -> RowResults:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 9, rows).astype(float)
    return RowResults(tokens * 2.5, tokens, tokens * 4, further=rng.random(rows))


def test_the_loss_is_weighted_by_tokens():
    assert RowResults(np.array([1.0, 9.0]), np.array([1.0, 3.0])).loss == 2.5


def test_a_written_file_reads_back(tmp_path: Path):
    path, both = tmp_path / "losses.parquet", {"validation": results(5), "test": results(3, seed=1)}
    write_results(path, {name: [f"{name}{i}" for i in range(len(r.tokens))] for name, r in both.items()}, both)
    table = pq.read_table(path)
    assert table.column_names == ["split", "row_id", "nats", "tokens", "bytes", "group", "further"]
    assert [str(table.schema.field(name).type) for name in ("nats", "tokens", "bytes")] == ["double", "int64", "int64"]
    assert table["row_id"].to_pylist()[4:6] == ["validation4", "test0"]
    for name, written in both.items():
        read = read_results(path, name)
        for column in ("nats", "tokens", "bytes", "group", "further"):
            assert np.array_equal(read.column(column), written.column(column))
        assert np.array_equal(read.nats, written.nats)


def test_a_file_without_bytes_reads_too(tmp_path: Path):
    path = tmp_path / "losses.parquet"
    both = {"validation": results(5), "test": results(3)}
    write_results(path, {name: ["x"] * len(r.tokens) for name, r in both.items()}, both)
    pq.write_table(pq.read_table(path).drop_columns(["bytes", "further"]), path)
    read = read_results(path, "test")
    assert np.array_equal(read.nats, both["test"].nats)
    assert not read.bytes.any()


@pytest.mark.parametrize("spoil", ["gone", "cut", "empty"])
def test_a_file_that_cannot_be_read_is_one_line_that_says_what_to_do(tmp_path: Path, spoil: str):
    path, both = tmp_path / "losses.parquet", {"validation": results(5), "test": results(3)}
    write_results(path, {name: ["x"] * len(r.tokens) for name, r in both.items()}, both)
    if spoil == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 100 if spoil == "cut" else 0])
    with pytest.raises(BrokenRecord) as caught:
        read_results(path, "validation")
    assert str(caught.value).startswith(f"{path}: cannot be read, for it is ")
    assert "scores that model again" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("nats", [[1.0, np.inf], [np.inf, -np.inf], [np.nan, 1.0]])
def test_what_is_not_finite_is_said_without_a_warning(nats: list[float]):
    assert not np.isfinite(RowResults(np.array(nats), np.ones(2)).loss)


@pytest.mark.filterwarnings("error")
def test_no_tokens_have_no_loss():
    assert np.isnan(RowResults(np.zeros(2), np.zeros(2)).loss)
