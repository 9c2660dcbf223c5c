"""What gain a config's rows can prove: the power of the test by which titles change hands."""

from math import sqrt
from pathlib import Path

from cluster.records import Record
from evaluation.compare import FEWEST_GROUPS
from evaluation.data.splits import file_of, read_held_out
from evaluation.figures import FIGURES
from evaluation.harness import ROLES
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.spending import level

USUAL_SPREAD = 0.15
"""Nats per token by which the gain of one fine-tune over another differs from row to row: 0.09 to 0.17 between children
of one seed on LaMini and FLAN, 0.2 to 0.3 between models that are further apart (docs/LOG.md, 2026-11-28)."""
POWER = 0.8
FURTHER = (0.005, 0.01, 0.02)
"""Nats for which the rows are said that would prove them."""


class Power(Record):
    """What can be proven in one round, at the usual spread of gains."""

    metric: str
    rows: int
    """That prove: half of `data.validation`; where texts choose, as many of them as a model writes of."""
    level: float
    """The chance of a false title that a round may take when none before it proved anything."""
    gain_nats: float | None
    """A true gain that is proven in four rounds of five; None where it is not the loss that chooses."""
    rows_for: dict[str, int]
    """For smaller gains, in nats: what `data.validation` would have to be."""


def power_of(config: TournamentConfig, groups: int | None = None) -> Power:
    """That of `config`, for rows that each stand alone, or in so many groups."""
    from scipy.stats import norm

    rounds, rows, metric = config.all_rounds, proving_rows(config, groups), config.selection.metric
    one = level(1 - config.selection.confidence, [rounds], 0.0)
    if metric != "loss":
        return Power(metric=metric, rows=rows, level=one, gain_nats=None, rows_for={})
    needed = float(norm.isf(one) + norm.ppf(POWER)) * USUAL_SPREAD
    can = config.selection.margin_nats + needed / sqrt(max(rows, 1))
    of_a_group = proving_rows(config) / max(rows, 1)
    smaller = [nats for nats in FURTHER if nats < can and nats > config.selection.margin_nats]
    margin = config.selection.margin_nats
    rows_for = {f"{nats:g}": 2 * round(of_a_group * (needed / (nats - margin)) ** 2) for nats in smaller}
    return Power(metric=metric, rows=rows, level=one, gain_nats=can, rows_for=rows_for)


def proving_rows(config: TournamentConfig, groups: int | None = None) -> int:
    """How many rows titles are proven on, or `groups` of rows that belong together where these are fewer;
    where a task chooses that has all its documents, the fewest that do."""
    rows, metric = config.data.validation_rows // 2, config.selection.metric
    for task in config.evaluation.harness:
        if task.task == metric:
            return FEWEST_GROUPS if task.documents is None else task.documents // len(ROLES)
    rows = min(rows, config.evaluation.written_rows) if FIGURES[metric].judge is not None else rows
    return rows if groups is None else min(rows, groups)


def groups_that_prove(data: Path) -> int | None:
    """How many groups of rows prove, of the splits in `data`; None where they are not there."""
    path = data / file_of("proof")
    return len(set(read_held_out(path)[1].tolist())) if path.is_file() else None


def too_few_rows(config: TournamentConfig, groups: int | None = None) -> list[str]:
    """A line where no title can ever be proven; else none."""
    if proving_rows(config, groups) >= FEWEST_GROUPS:
        return []
    if groups is not None and proving_rows(config) >= FEWEST_GROUPS:
        return [
            f"data.validation: {config.data.validation}: the rows that prove are {groups} groups of rows,"
            f" and with fewer than {FEWEST_GROUPS} nothing is proven: the base stays champion. Give more"
        ]
    metric = config.selection.metric
    nothing = f"with fewer than {FEWEST_GROUPS} rows nothing is proven: the base stays champion"
    if config.data.validation_rows // 2 >= FEWEST_GROUPS:
        return [f"selection.metric: {metric} has {proving_rows(config)} rows that prove, and {nothing}"]
    half = f"data.validation: {config.data.validation_rows}: one half proves titles, and {nothing}"
    return [f"{half}. Give {2 * FEWEST_GROUPS} at least"]


def in_words(power: Power) -> str:
    """The power in a sentence or two."""
    if power.gain_nats is None:
        return f"titles: by {power.metric}, on {power.rows:,} rows that prove or more"
    words = (
        f"titles: with {power.rows:,} rows that prove, a true gain of {power.gain_nats:.3f} nats takes the title in"
        f" four rounds of five, where gains differ from row to row by {USUAL_SPREAD:g} nats, as they usually do"
    )
    more = ", ".join(f"{nats} need data.validation: {rows:,}" for nats, rows in power.rows_for.items())
    return words + (f"; {more}" if more else "")
