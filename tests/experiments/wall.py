"""`python -m tests.experiments.wall [SIZE]`: how long four workers take for the arms `wide-*`, from their batches.

Those arms have the same real tokens and are trained in one process, which measures no such thing. On workers of their
own each step of a gang waits for whoever has most to do in it, and a round waits for the last of the entries that run
side by side. So steps of rows drawn at random are cut into passes as the trainer cuts them on CPUs, and padded tokens
are counted where they are most. What else a step takes (the optimizer, the exchange of gradients) is not counted, and
steps of one row a worker are sixteen times as many as those of sixteen.

The table goes into docs/experiments.md where that has marks for the size. The rows are needed, and so ../shared.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from statistics import mean

import numpy as np

from cluster.errors import UserError
from competitors.sft.passes import ENOUGH_TOKENS_ON_CPU, PASS_TOKENS_ON_CPU, by_length
from competitors.sft.stream import Counts
from tests.experiments.arms import WORKERS
from tests.experiments.cells import Cell
from tests.experiments.results import RUNS, Result, done
from tests.experiments.sizes import SIZES, digest
from tests.experiments.table import (
    DOCS,
    LONGER,
    WIDE,
    WIDE_OURS,
    Column,
    between_marks,
    chosen,
    columns,
    rows,
    with_interval,
)

BATCH = 16
"""Rows of each worker's part of a step of a recipe alone."""
STEPS = 2000
ROUND, ENTRY = re.compile(r"round \d+: "), re.compile(r" at batch (\d+)(?: on (\d+) workers)?, ([\d,]+) tokens\)")

Wait = Callable[[int, int], float]
"""Of (rows of a step, workers): the time of a step times the workers, in tokens, for each of its real tokens."""


def wait(lengths: Counts, rows: int, workers: int, a_pass: int = 0) -> float:
    """1 where nothing is padded and nobody waits; `a_pass` is what starting a pass takes, in tokens."""
    rng, real, taken = np.random.default_rng(0), 0, 0.0
    for _ in range(STEPS):
        step = rng.choice(lengths, rows, replace=False)
        each = np.zeros(workers)
        for cut in by_length(step, workers, ENOUGH_TOKENS_ON_CPU, PASS_TOKENS_ON_CPU):
            each += len(cut) * step[cut].max(axis=0) + a_pass
        real += int(step.sum())
        taken += workers * float(each.max())
    return taken / real


def of_a_tournament(chosen: str, wait: Wait) -> float:
    """Its time, in tokens of one worker, from the words of its result: each entry begins when as many workers as it
    takes are free, and a round ends with its last entry."""
    total = 0.0
    for one in ROUND.split(chosen)[1:]:
        busy = [0.0] * WORKERS
        for batch, gang, tokens in ENTRY.findall(one):
            workers = int(gang or 1)
            busy.sort()
            end = busy[workers - 1] + int(tokens.replace(",", "")) * wait(int(batch), workers) / workers
            busy[:workers] = [end] * workers
        total += max(busy)
    return total


def time_of(one: Result, wait: Wait) -> float:
    """In tokens of one worker."""
    if one.arm == "wide-ours":
        return of_a_tournament(one.chosen, wait)
    return one.tokens * wait(BATCH * WORKERS, WORKERS) / WORKERS


def waits(column: Column, a_pass: int) -> Wait:
    """Those of a setting's rows."""
    cell = Cell(column.setting, 0, RUNS / "wall" / digest(column.setting.run_with)).make()
    return cache(lambda rows, workers: wait(cell.lengths, rows, workers, a_pass))


def line(column: Column) -> list[str]:
    """A row of the table."""
    named = {row.name: chosen(row, column.results) for row in rows(column.setting.adapters)}
    ours, times, ratios = named[WIDE_OURS], list[str](), list[str]()
    for a_pass in (0, PASS_TOKENS_ON_CPU):
        of = waits(column, a_pass)
        took = [mean(time_of(one, of) for one in some) * WORKERS for some in (ours, named[WIDE])]
        times = times or [f"{time / column.setting.total_tokens:.2f}" for time in took]
        ratios.append(f"{took[0] / took[1]:.2f}")
    return [column.setting.title, *times, *ratios, *(_above(named[name], ours) for name in (WIDE, LONGER))]


def _above(results: Sequence[Result], ours: Sequence[Result]) -> str:
    """How far these end above the tournament, seed by seed, and with how many tokens."""
    if not results:
        return "not run"
    gap = [one.test - own.test for own, one in zip(ours, results, strict=True)]
    tokens = mean(one.tokens / own.tokens for own, one in zip(ours, results, strict=True))
    return f"{with_interval(gap, '+')} ({tokens:.2f})"


def text(size: str) -> str:
    """The table. UserError where there are no rows to count, or nothing to compare."""
    of = [one for one in columns(SIZES[size].settings, done(size)) if {"wide-ours"} & {r.arm for r in one.results}]
    if not of or any(one.setting.usable != one.setting for one in of):
        raise UserError(f"{size}: its arms on four workers, or the rows and the base of its settings, are not here")
    head = ["", "tournament", "best recipe alone", "ratio", "ratio with passes", "recipe above", "in equal time"]
    lines = [head, ["---"] * len(head), *(line(one) for one in of)]
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), ""])


def main() -> None:
    """Print a size's table and write it where it belongs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", nargs="?", default="full", choices=SIZES)
    asked = parser.parse_args()
    try:
        told = text(asked.size)
    except UserError as error:
        sys.exit(str(error))
    docs = between_marks(DOCS.read_text(), f"{asked.size}-wall", "tests.experiments.wall", lambda name: told)
    DOCS.write_text(docs)
    print(told)


if __name__ == "__main__":
    main()
