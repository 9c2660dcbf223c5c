"""What gain a config's rows can prove: the power of the test by which titles change hands."""

from math import sqrt

from cluster.records import Record
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

    rows: int
    """That prove: half of `data.validation`."""
    level: float
    """The chance of a false title that a round may take when none before it proved anything."""
    gain_nats: float
    """A true gain that is proven in four rounds of five."""
    rows_for: dict[str, int]
    """For smaller gains, in nats: what `data.validation` would have to be."""


def power_of(config: TournamentConfig) -> Power:
    """That of `config`, for rows that each stand alone."""
    from scipy.stats import norm

    rounds, rows = config.all_rounds, config.data.validation // 2
    one = level(1 - config.selection.confidence, [rounds], 0.0)
    needed = float(norm.isf(one) + norm.ppf(POWER)) * USUAL_SPREAD
    can = config.selection.margin_nats + needed / sqrt(max(rows, 1))
    smaller = [nats for nats in FURTHER if nats < can and nats > config.selection.margin_nats]
    rows_for = {f"{nats:g}": 2 * round((needed / (nats - config.selection.margin_nats)) ** 2) for nats in smaller}
    return Power(rows=rows, level=one, gain_nats=can, rows_for=rows_for)


def in_words(power: Power) -> str:
    """The power in a sentence or two."""
    words = (
        f"titles: with {power.rows:,} rows that prove, a true gain of {power.gain_nats:.3f} nats takes the title in"
        f" four rounds of five, where gains differ from row to row by {USUAL_SPREAD:g} nats, as they usually do"
    )
    more = ", ".join(f"{nats} need data.validation: {rows:,}" for nats, rows in power.rows_for.items())
    return words + (f"; {more}" if more else "")
