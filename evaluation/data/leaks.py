"""Looking through all rows that are not held out for those that touch one that is, and what is said of them."""

from collections.abc import Iterator
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from evaluation.data.assignment import Catalogue, HeldOut, Read
from evaluation.data.near_duplicates import SIDES, HeldOutIndex, NearDuplicates, Pair, Side, Touch, example
from evaluation.data.rendering import AT_ONCE

Places = npt.NDArray[np.int64]

SAMPLED_ROWS, SAMPLED_CHARACTERS = 50_000, 60_000_000
"""Of so many rows it is counted which passages are common; whichever is reached first."""

EXAMPLES = 3
"""On record for each side."""


def batches(places: Places) -> Iterator[list[int]]:
    """Places as many as are read together."""
    for start in range(0, len(places), AT_ONCE):
        yield places[start : start + AT_ONCE].tolist()


def sample(rows: Catalogue, read: Read) -> Iterator[list[Pair]]:
    """Texts of the first rows in the order of the hash, which are a random choice of all."""
    characters = 0
    for places in batches(np.arange(min(len(rows), SAMPLED_ROWS))):
        pairs = read(places)
        yield pairs
        characters += sum(len(prompt) + len(completion) for prompt, completion in pairs)
        if characters >= SAMPLED_CHARACTERS:
            break


def find_leaks(rows: Catalogue, places: Places, index: HeldOutIndex, read: Read) -> dict[int, list[Touch]]:
    """By place, in order: what those of the rows at `places` touch that touch a held-out row at all."""
    found: dict[int, list[Touch]] = {}
    for some in batches(places[np.argsort(rows.numbers[places])]):  # in the order in which the dataset lies
        for place, touches in zip(some, index.touched_by(read(some)), strict=True):
            if touches:
                index.count(touches)
                found[place] = touches
    meant = {place: [touch for touch in found[place] if index.is_meant(touch)] for place in sorted(found)}
    return {place: touches for place, touches in meant.items() if touches}


def describe(
    leaks: dict[int, list[Touch]],
    rows: Catalogue,
    held_out: HeldOut,
    index: HeldOutIndex,
    handling: Literal["remove", "keep"],
    read: Read,
) -> NearDuplicates:
    """What goes on record of the leaks."""
    by_side: dict[Side, dict[int, Touch]] = {side: {} for side in SIDES}
    for place, touches in leaks.items():
        for touch in touches:
            by_side[touch.side].setdefault(place, touch)
    split_of = held_out.split_of
    shown = [one for found in by_side.values() for one in islice(found.items(), EXAMPLES)]
    return NearDuplicates(
        handling=handling,
        rows=len(leaks),
        by={side: len(found) for side, found in by_side.items()},
        forms=index.forms,
        groups={split: len(set(held_out.groups[split].values())) for split in held_out.groups},
        examples=[
            example(split_of[touch.held_out], rows.row_id(touch.held_out), touch, read([place])[0])
            for place, touch in shown
        ],
    )
