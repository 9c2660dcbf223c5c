"""Nearness: whether a model is another one with noise on top, scaled, rounded, or with a few of its weights changed.

Two trainings from one seed go different ways: with their rows in another order they end up half as far from each other
as either went, or further, and a blend of two a fifth from each. What is made of a model without training lies as near
to it as it is like it: 1 % of noise on the update is 0.01, and factors, single tensors and rounding make no difference.
Trainings on the same rows in the same order that differ by a step, or by a hundredth of their rate, come as near as
noise does: this says how near two models are, never how that came about.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high

import numpy as np

from cluster.store import LOCAL
from evaluation.submissions.adapters import merged
from evaluation.submissions.asked import asked_by, weights_of
from evaluation.submissions.examination import Form
from evaluation.submissions.weights import FLOATS, Tensor, as_stored, pieces

NEAR_ANOTHER = 0.1
"""A submission that lies nearer to another is all but that one. docs/trust.md has what was measured."""


@dataclass(frozen=True)
class Standing:
    """A model as it was handed in, and the full model that it stands on."""

    folder: Path
    form: Form
    seed: Path


def apart(ours: Standing, theirs: Standing, scratch: Path) -> float:
    """How far two models lie apart, by how far they moved from the seed of the first: the median over the tensors
    that either moved. Adapters are taken as they are scored, merged, for which `scratch` is a folder to use.

    Two models are never held at once: both are read from the disk, a piece of a tensor after the other.
    """
    asked = asked_by(ours.seed)
    try:
        pair = [_weights(one, scratch / name) for name, one in (("ours", ours), ("theirs", theirs))]
        by_key = [{asked.key(name): tensor for name, tensor in weights.items()} for weights in pair]
        tied = {asked.key(name) for name in asked.tied}
        found = [
            _tensors_apart(by_key[0][key], by_key[1][key], seed)
            for key, seed in asked.stored.items()
            if key not in tied and all(key in weights for weights in by_key) and seed.dtype in FLOATS
        ]
    finally:
        LOCAL.remove(scratch)
    moved = [one for one in found if one is not None]
    return median_high(moved) if moved else 0.0


def _weights(one: Standing, scratch: Path) -> Mapping[str, Tensor]:
    if one.form == "full":
        return weights_of(one.folder)
    merged(one.seed, one.folder).save_pretrained(scratch)
    return weights_of(scratch)


def _tensors_apart(ours: Tensor, theirs: Tensor, seed: Tensor) -> float | None:
    """How far two tensors lie apart but for a factor, by how far the one that moved more went; None: neither moved.

    Both are taken in the coarser of their dtypes, since what rounds a copy is no change of it.
    """
    sums = np.zeros(5)
    for one, other, before in zip(pieces(ours), pieces(theirs), pieces(seed), strict=True):
        a, b = as_stored(one, theirs.dtype).astype(float), as_stored(other, ours.dtype).astype(float)
        gap, a_moved, b_moved = a - b, a - before, b - before
        sums += gap @ gap, gap @ b, b @ b, a_moved @ a_moved, b_moved @ b_moved
    gap_squared, along, length, *moved = sums
    if not max(moved):
        return None
    left = gap_squared - along**2 / length if length else gap_squared
    return float(np.sqrt(max(0.0, left) / max(moved)))
