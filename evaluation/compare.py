"""Paired comparison of models on the same held-out rows, with the price of having picked the best of N.

Each entry's improvement over the incumbent is the difference of their losses on the same rows. Rows are
resampled (paired bootstrap, Efron & Tibshirani 1993), the same draw for every entry, and the bound uses the
distribution of the largest studentised deviation over all entries (White 2000, "A reality check for data
snooping"; Romano & Wolf 2005 for studentising), so that it holds for whichever entry turns out best. A
diverged entry has a large standard error of its own and so does not widen the others' bounds.
"""

from dataclasses import dataclass

import numpy as np

from evaluation.results import Array, RowResults


@dataclass(frozen=True)
class Improvement:
    """How much lower an entry's loss is than the incumbent's, in nats per token; positive is better."""

    mean: float
    low: float
    """One-sided lower bound, simultaneous over all the entries compared."""
    standard_error: float


def improvements(
    incumbent: RowResults, entries: dict[str, RowResults], confidence: float, resamples: int, seed: int
) -> dict[str, Improvement]:
    """Improvement of each entry over the incumbent, with simultaneous one-sided bounds.

    All losses are over the same rows in the same order, with the same token counts (one tokenizer).
    ValueError if they are not. A pure function of its arguments.
    """
    if not entries:
        return {}
    for name, results in entries.items():
        if not np.array_equal(results.tokens, incumbent.tokens):
            raise ValueError(f"{name} was scored on other tokens than the incumbent: not comparable")
    gains = np.stack([incumbent.nats - results.nats for results in entries.values()], axis=1)  # (rows, entries)
    means = gains.sum(axis=0) / incumbent.tokens.sum()
    draws = _resampled_means(gains, incumbent.tokens, resamples, seed)  # (resamples, entries)
    errors = draws.std(axis=0)
    # An entry equal to the incumbent in every row has no spread: its deviation is exactly 0.
    studentised = np.divide(draws - means, errors, out=np.zeros_like(draws), where=errors > 0)
    critical = float(np.quantile(studentised.max(axis=1), confidence))
    return {
        name: Improvement(float(mean), float(mean - max(critical, 0.0) * error), float(error))
        for name, mean, error in zip(entries, means, errors, strict=True)
    }


def _resampled_means(gains: Array, tokens: Array, resamples: int, seed: int) -> Array:
    """Token-weighted mean gains of `resamples` draws of the rows with replacement: (resamples, entries)."""
    rng = np.random.default_rng(seed)
    rows = len(tokens)
    chunk = max(1, 20_000_000 // rows)  # 160 MB of counts at a time
    parts = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=size).astype(np.float64)  # (size, rows)
        parts.append((counts @ gains) / (counts @ tokens)[:, None])
    return np.concatenate(parts)
