"""Near-duplicates of held-out rows: which rows touch one, by their prompt or by their completion.

Owns the index of the held-out rows. All other rows only pass by it, however many there are; whether they are alike
among themselves is nobody's question. What makes two texts alike is in likeness.py.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from cluster.records import Record
from cluster.text import plain
from evaluation.data.likeness import MANY, CommonPassages, Texts

Side = Literal["prompt", "completion"]
SIDES: tuple[Side, ...] = ("prompt", "completion")
Pair = tuple[str, str]
"""A row's prompt and completion."""


class Touch(NamedTuple):
    """Which held-out row a row touches, with which of its texts, and how much of both is the same."""

    held_out: int
    side: Side
    share: float
    is_same: bool = False
    """But for case, white space and marks."""


class Example(Record):
    """A row that touches a held-out one. The text is its own, cut short: what is held out is not shown."""

    split: str
    held_out_row: str
    side: Side
    share: float
    text: str


class NearDuplicates(Record):
    """What was found, for data/manifest.json."""

    handling: Literal["remove", "keep"]
    rows: int
    """Rows that are not held out and touch one that is."""
    by: dict[Side, int]
    """How many of them do so with their prompt, with their completion; some with both."""
    forms: dict[Side, int]
    """Held-out texts that more than MANY rows are like: taken for a form, so that only the same text touches them."""
    groups: dict[str, int]
    """Of rows of one prompt, of one declared group or alike, in each held-out split."""
    examples: list[Example]


class HeldOutIndex:
    """The prompts and the completions of held-out rows, by the keys that they were put in with."""

    def __init__(self, sample: Iterable[Sequence[Pair]]) -> None:
        """`sample`, in batches, tells which passages are common: rows of the whole data, a random choice of them."""
        common = [CommonPassages(), CommonPassages()]
        for batch in sample:
            for passages, texts in zip(common, zip(*batch, strict=True), strict=True):
                passages.count(texts)
        # A short prompt may be all there is to a row; a short completion ("yes", "B", a label) is many rows' own.
        self._texts = {
            side: Texts(passages, compares_short=side == "prompt") for side, passages in zip(SIDES, common, strict=True)
        }
        self._found: dict[Side, Counter[int]] = {side: Counter() for side in SIDES}

    def add(self, key: int, row: Pair) -> None:
        """Put a held-out row in."""
        for texts, text in zip(self._texts.values(), row, strict=True):
            texts.add(key, text)

    def touched_by(self, rows: Sequence[Pair]) -> list[list[Touch]]:
        """What each of `rows` touches."""
        touches: list[list[Touch]] = [[] for _ in rows]
        for side, texts in zip(SIDES, zip(*rows, strict=True), strict=True):
            index = self._texts[side]
            likes = index.like(texts)
            for place, text in enumerate(texts):
                same = index.same_as(text)
                touches[place] += [Touch(key, side, 1.0, is_same=True) for key in same]
                found = likes.get(place, {}).items()
                touches[place] += [Touch(key, side, share) for key, share in found if key not in same]
        return touches

    def count(self, touches: Iterable[Touch]) -> None:
        """Take note of what a row that is not held out touches, and look no longer for what proves a form."""
        for touch in touches:
            if not touch.is_same:
                found = self._found[touch.side]
                found[touch.held_out] += 1
                if found[touch.held_out] == MANY + 1:
                    self._texts[touch.side].forget(touch.held_out)

    def is_meant(self, touch: Touch) -> bool:
        """Whether a touch counts after all rows have passed by: not of a form that is only filled in otherwise."""
        return touch.is_same or self._found[touch.side][touch.held_out] <= MANY

    @property
    def forms(self) -> dict[Side, int]:
        """How many texts of either side have turned out as forms."""
        return {side: sum(count > MANY for count in found.values()) for side, found in self._found.items()}


def example(split: str, row_id: str, touch: Touch, row: Pair) -> Example:
    """What is put on record of one row that touches a held-out one."""
    text = plain(row[SIDES.index(touch.side)], 120)
    return Example(split=split, held_out_row=row_id, side=touch.side, share=round(touch.share, 2), text=text)
