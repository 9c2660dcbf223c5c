"""Comparison of two recipes by several runs of each: where the difference of their expected losses may lie.

Two things are chance in it. The runs, each from a random seed of its own: Welch's variance of two means (1947, "The
generalization of 'Student's' problem", Biometrika 34). And the rows: two recipes that are equally good take to single
rows differently, however many runs there are (compare.py, of the runs' means). Runs alone claim a difference of these
rows, not of the recipes. The two variances are added, with Satterthwaite's degrees of freedom; what runs differ in from
row to row is in both, so this errs less often than it says, never more. docs/trust.md has figures.
"""

from collections.abc import Sequence

import numpy as np

from evaluation.compare import Difference, gain
from evaluation.results import RowResults


def difference(above: Sequence[RowResults], below: Sequence[RowResults], level: float) -> Difference:
    """The loss of `above` over that of `below`, two runs of each at least, all on the same rows.

    Its two-sided interval errs with a chance of `level` at most. ValueError where they were scored on other tokens.
    """
    of_rows = gain(_mean(above), _mean(below))
    parts = [(_variance(runs), len(runs) - 1) for runs in (above, below)]
    parts.append((of_rows.standard_error**2, of_rows.groups - 1))
    return Difference.of(of_rows.mean, parts, level, of_rows.doubt)


def _mean(runs: Sequence[RowResults]) -> RowResults:
    """What the runs lose on each row on average."""
    first = runs[0]
    if not all(np.array_equal(run.tokens, first.tokens) for run in runs):
        raise ValueError("scored on other tokens: not comparable")
    return RowResults(np.mean([run.nats for run in runs], axis=0), first.tokens, group=first.group)


def _variance(runs: Sequence[RowResults]) -> float:
    """That of the mean of their losses."""
    return float(np.var([run.loss for run in runs], ddof=1)) / len(runs)
