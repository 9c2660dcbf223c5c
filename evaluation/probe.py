"""The second wall: does a model read only what stands before a token, and each row alone? Asked before it is scored.

A model that is built from the seed's config out of plain weights can hardly do otherwise. But a loss is worth nothing
where it can see the answer, or where it depends on who else is in the batch, so it is tried on a few rows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.errors import Forfeit
from evaluation.scoring import EncodedRow, completion_head, pad_rows, score

ROWS = 4
LONGEST = 512
"""So many tokens of a row are looked at."""
SEES_NATS = {"float32": 1e-4, "float64": 1e-4}
"""How far the same shapes may differ in what stands before a change: kernels are not always the same."""
ALONE_NATS = {"float32": 2e-3, "float64": 2e-3}
"""How far a row's loss per token may differ with its batch: sums are in another order there."""
NARROW_SEES, NARROW_ALONE = 0.02, 0.1
"""The same in 16 bits."""


def probe(model: Any, encoded: Sequence[EncodedRow], padding: int) -> None:
    """Forfeit unless a few of these rows are read causally, and alone as among others."""
    rows = [_cut(row) for row in encoded if row.completion_tokens]
    rows = sorted(rows, key=lambda row: len(row.ids))[:: max(1, len(rows) // ROWS)][:ROWS]
    if not rows:
        return
    rows[0] = _short(rows[0])  # so that it is padded among the others
    dtype = str(model.dtype).removeprefix("torch.")
    model.eval()
    seen = _seen_ahead(model, rows, padding)
    if not seen <= SEES_NATS.get(dtype, NARROW_SEES):
        raise Forfeit(
            f"is not causal: other words at the end of a row change what stands before them by {seen:.2g} nats"
        )
    swayed = _swayed(model, rows, padding)
    if not swayed <= ALONE_NATS.get(dtype, NARROW_ALONE):
        raise Forfeit(f"a row's loss depends on which others are in its batch, by {swayed:.2g} nats a token")


def _cut(row: EncodedRow) -> EncodedRow:
    """A row of which a completion token is left within `LONGEST`, from its end."""
    skipped = max(0, len(row.ids) - LONGEST)
    return EncodedRow(row.ids[skipped:], max(1, row.start - skipped), row.cut, row.bytes)


def _short(row: EncodedRow) -> EncodedRow:
    """The row up to its first completion token."""
    return EncodedRow(row.ids[: row.start + 1], row.start, row.cut, row.bytes)


def _seen_ahead(model: Any, rows: Sequence[EncodedRow], padding: int) -> float:
    """By how much, at most, log-probabilities change where only later tokens did."""
    import torch

    ids, mask, _, _, _ = pad_rows(rows, padding, model.device)
    changed, where = ids.clone(), []
    vocabulary = model.get_input_embeddings().weight.shape[0]
    for index, row in enumerate(rows):
        kept = max(1, len(row.ids) - max(1, len(row.ids) // 4))
        changed[index, kept : len(row.ids)] = (ids[index, kept : len(row.ids)] + 1 + index) % vocabulary
        where += [(index, position) for position in range(kept)]
    places = torch.tensor(where, device=model.device)
    head = completion_head(model, rows[0], padding)
    largest = 0.0
    with torch.inference_mode():
        for one, other in zip(head(ids, mask, places), head(changed, mask, places), strict=True):
            moved = (one.log_softmax(-1) - other.log_softmax(-1)).abs().max()
            largest = float(np.fmax(largest, moved.item())) if torch.isfinite(one).all() else largest
    return largest


def _swayed(model: Any, rows: Sequence[EncodedRow], padding: int) -> float:
    """By how much, at most, the loss per token of a row differs alone and among the others, padded."""
    among = score(model, rows, 10**9, padding)
    alone = np.array([score(model, [row], 10**9, padding).nats[0] for row in rows])
    finite = np.isfinite(among.nats) & np.isfinite(alone)  # a loss that is none is said so elsewhere
    differences = np.abs(among.nats[finite] - alone[finite]) / among.tokens[finite]
    return float(np.max(differences, initial=0.0))
