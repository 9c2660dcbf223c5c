"""Rows a second that are split with near-duplicates looked for, from a file on the disk, and the memory that takes.

`ROWS=2000000 pytest -s -n 0 tests/benchmarks/test_near_duplicates.py` for another number than 100,000. The rows are
pieced together from the package's own words, about as long as those of real instruction data.
"""

import json
import os
import random
import resource
import time
from pathlib import Path

from evaluation.builtin.data import quickstart
from evaluation.data import sources
from evaluation.data.splits import make_splits

ROWS = int(os.environ.get("ROWS", 100_000))


def write(path: Path) -> None:
    rng = random.Random(0)
    words = [word for row in quickstart() for word in f"{row['instruction']} {row['response']}".split()]
    with path.open("w") as file:
        for _ in range(ROWS):
            texts = (" ".join(rng.choices(words, k=rng.randint(10, 90))) for _ in range(2))
            file.write(json.dumps(dict(zip(("instruction", "response"), texts, strict=True))) + "\n")


def test_rows_a_second(tmp_path: Path):
    write(tmp_path / "rows.jsonl")
    size = (tmp_path / "rows.jsonl").stat().st_size / 1e6
    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    began = time.perf_counter()
    rows = sources.load("rows.jsonl", tmp_path)
    read, peak = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    used = time.process_time()
    make_splits(rows, "{instruction}\n", "{response}", 1000, 1000, 0, tmp_path / "data", "benchmark")
    seconds, used = time.perf_counter() - read, time.process_time() - used
    print(
        f"\n{len(rows):,} rows, {size:,.0f} MB of JSONL: read in {read - began:.0f} s, split in {seconds:.0f} s "
        f"({used:.0f} s of one core), {len(rows) / seconds:,.0f} rows/s; memory {empty:,.0f} MB before, "
        f"{peak:,.0f} MB read, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB at the end"
    )
