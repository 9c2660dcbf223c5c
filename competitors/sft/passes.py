"""How the rows of an optimizer step are put into forward passes: by length, so that little of it is padding.

Which rows a step takes, and so its mathematics, is settled in stream.py; this is only about their places. Every
worker computes the same cut from the lengths of the whole step. Nothing here loads torch: `plan` asks it too.
"""

import numpy as np

from competitors.sft.recipe import SftRecipe
from competitors.sft.stream import Counts

PASS_TOKENS_ON_CPU, PASS_TOKENS_ON_GPU = 64, 2048
"""What starting another pass costs, in tokens of padding: small on a CPU, where few tokens keep it busy."""
ENOUGH_TOKENS_ON_CPU = 1024
"""A CPU computes no faster with more tokens in a pass, and only takes more memory."""

PLAIN_LOGITS_BYTES = 2**26
"""So large may the logits be that exist at once on a CPU; torch cuts what is more into chunks."""

UPDATING_IN_BACKWARD = ("lomo", "adalomo")
"""Optimizers that change the weights in the backward pass: more passes would be more steps."""


def pass_limit_tokens(recipe: SftRecipe, max_tokens: int, on_gpu: bool) -> int:
    """The most tokens, padding counted, of one worker's forward pass: `batch_size` rows of `max_tokens` or less.

    Packed rows are laid end to end, and attention other than flash attention masks what lies between them instead
    of skipping it, so that its work grows with the square of a pass.
    """
    whole = recipe.batch_size * max_tokens
    if recipe.optimizer in UPDATING_IN_BACKWARD:
        return whole
    if recipe.packing and "flash" not in (recipe.attention or ""):
        return max_tokens
    return whole if on_gpu else min(whole, max(max_tokens, ENOUGH_TOKENS_ON_CPU))


def by_length(lengths: Counts, workers: int, limit_tokens: int, pass_tokens: int) -> list[Counts]:
    """Indices of a step's rows, (rows, workers) for each pass: in order of length, cut where that costs least.

    Neighbours in that order go to different workers, so that all have the same number of rows in every pass and
    about as much to do. A pass costs `pass_tokens` and its padded tokens, and has at most `limit_tokens` of them
    for a worker (or one row). The longest pass comes first: it shows whether memory holds it.
    """
    order = np.argsort(lengths, kind="stable").reshape(-1, workers)
    longest = lengths[order[:, -1]]
    count = len(order)
    cost, start = np.zeros(count + 1), np.zeros(count + 1, np.int64)
    for end in range(1, count + 1):
        fitting = min(max(1, limit_tokens // int(longest[end - 1])), end)
        starts = np.arange(end - fitting, end)
        costs = cost[starts] + (end - starts) * longest[end - 1] + pass_tokens
        best = int(costs.argmin())
        cost[end], start[end] = costs[best], starts[best]
    passes = []
    end = count
    while end:
        passes.append(order[start[end] : end])
        end = int(start[end])
    return passes


def in_order(rows: int, workers: int, batch_size: int) -> list[Counts]:
    """Indices of a step's rows, (rows, workers) for each pass: `batch_size` for a worker, as they come."""
    order = np.arange(rows).reshape(-1, workers)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
