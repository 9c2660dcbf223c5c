"""Which row goes where: pure functions of the rows' content, the declared groups and the seed.

Of each row only a few numbers are remembered, so that millions fit; its text is read again where it is looked at.
Rows that must not part (of one prompt, of one declared group) are a `unit`. Units are gone through in the order of a
hash. Each goes to the first of validation, proof, test and slice that still has room for all of it, and to train where
none has: so a held-out split gets the rows asked for, but for what no unit fits into, and a unit too large for the room
that is left is not cut and not waited for. A unit that is alike to held-out ones joins their split, as a part of their
group; where it has no room, or would tie validation to test, it is not held out.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.data.conversations import NOT_SINGLE_TURN
from evaluation.data.likeness import normalised
from evaluation.data.near_duplicates import HeldOutIndex, Pair
from evaluation.data.split import Split

Numbers = npt.NDArray[np.uint64]
Read = Callable[[Sequence[int]], list[Pair]]
"""The texts of rows at some places of a catalogue."""


@dataclass(frozen=True)
class Catalogue:
    """The cleaned rows in the order in which they are gone through, each (rows,)."""

    numbers: Numbers
    """Where each is in the dataset."""
    row_ids: Numbers
    units: Numbers
    """Equal for rows that must not part, which lie side by side."""
    prompts: int
    """How many different ones there are, after normalisation."""

    def __len__(self) -> int:
        return len(self.numbers)

    def row_id(self, place: int) -> str:
        """The first 16 hex digits of the row's content's SHA-256."""
        return f"{self.row_ids[place]:016x}"

    def in_units(self, places: Iterable[int]) -> Iterator[list[int]]:
        """Rising places, those of one unit together."""
        unit: list[int] = []
        for place in places:
            if unit and self.units[place] != self.units[unit[0]]:
                yield unit
                unit = []
            unit.append(place)
        if unit:
            yield unit


@dataclass(frozen=True)
class HeldOut:
    """The places of the rows of each held-out split, in order, each with its group."""

    groups: dict[Split, dict[int, int]]

    @property
    def split_of(self) -> dict[int, Split]:
        """The split of every held-out row."""
        return {place: split for split, members in self.groups.items() for place in members}


def catalogue(
    rows: Iterable[Pair | None], declared: Iterable[str | None] | None, seed: int, dropped: Counter[str]
) -> Catalogue:
    """The rows worth keeping, one for each normalised (prompt, completion); the others counted in `dropped`, None
    as not a single-turn conversation.

    Of rows that are the same but for case and white space the one with the smallest row_id stays, not the first,
    so that the order of the rows does not matter.
    """
    numbers, row_ids, contents, prompts, groups = (array("Q") for _ in range(5))
    of_group = iter(declared) if declared is not None else None
    for number, row in enumerate(rows):
        group = next(of_group) if of_group is not None else None
        if row is None:
            dropped[NOT_SINGLE_TURN] += 1
            continue
        prompt, completion = row
        if not prompt.strip() or not completion.strip():
            dropped["empty prompt" if not prompt.strip() else "empty completion"] += 1
            continue
        same = normalised(prompt)
        numbers.append(number)
        row_ids.append(_hash(f"{prompt}\0{completion}"))
        contents.append(_hash(f"{same}\0{normalised(completion)}"))
        prompts.append(_hash(f"{seed}\0{same}"))
        groups.append(0 if group is None else _hash(group))
    columns = [np.array(column, dtype=np.uint64) for column in (numbers, row_ids, prompts, groups)]
    content = np.array(contents, dtype=np.uint64)
    by_content = np.lexsort((columns[1], content))
    is_first = np.diff(content[by_content], prepend=content[by_content][:1] + np.uint64(1)) != 0
    if twice := int((~is_first).sum()):
        dropped["duplicate"] += twice
    number, row_id, prompt_key, group_key = (column[by_content[is_first]] for column in columns)
    units = prompt_key if declared is None else _united(prompt_key, group_key)
    order = np.lexsort((row_id, units))
    return Catalogue(number[order], row_id[order], units[order], len(np.unique(prompt_key)))


def hold_out(rows: Catalogue, wanted: dict[Split, int], index: HeldOutIndex, read: Read) -> HeldOut:
    """Choose the held-out rows, and put them into `index` by their places. Short of room, a split is not full."""
    members: dict[Split, list[int]] = {split: [] for split in wanted}
    split_of: dict[int, Split] = {}
    groups = Groups()
    for unit in rows.in_units(range(len(rows))):
        if all(len(members[split]) == count for split, count in wanted.items()):
            break
        room = [split for split, count in wanted.items() if len(members[split]) + len(unit) <= count]
        if not room:
            continue
        texts = read(unit)
        touched = {touch.held_out for touches in index.touched_by(texts) for touch in touches}
        splits = {split_of[place] for place in touched} or {room[0]}
        if len(splits) > 1 or not splits <= set(room):
            continue
        split = splits.pop()
        for place, text in zip(unit, texts, strict=True):
            index.add(place, text)
            split_of[place] = split
        members[split] += unit
        groups.join([*unit, *touched])
    return HeldOut({split: groups.numbered(places) for split, places in members.items()})


def cut_slice(rows: Catalogue, places: Iterable[int], count: int) -> list[int]:
    """Which of the training rows at `places` to keep from all entries: whole units, `count` rows at most."""
    kept: list[int] = []
    for unit in rows.in_units(places):
        if len(kept) == count:
            break
        if len(kept) + len(unit) <= count:
            kept += unit
    return kept


class Groups:
    """Which of some numbers belong together, directly or by way of others."""

    def __init__(self) -> None:
        self._next: dict[int, int] = {}

    def join(self, members: Iterable[int]) -> None:
        """Put all `members` and what belongs to them together."""
        first: int | None = None
        for member in members:
            root = self.of(member)
            first = root if first is None else first
            self._next[root] = first

    def of(self, member: int) -> int:
        """A number that stands for the group of `member`."""
        while (parent := self._next.setdefault(member, member)) != member:
            self._next[member] = self._next[parent]  # the way gets shorter for the next one
            member = parent
        return member

    def numbered(self, members: Iterable[int]) -> dict[int, int]:
        """Each member's group, counted from 0 in the order in which they come up."""
        names: dict[int, int] = {}
        return {member: names.setdefault(self.of(member), len(names)) for member in members}


def _united(prompts: Numbers, declared: Numbers) -> Numbers:
    """A unit's name for every row, where rows of one prompt and rows of one declared group (0 is none) are of one.

    It is put together from the names of all its prompts, so that a unit of many is not likelier to come first.
    """
    names, prompt_of = np.unique(prompts, return_inverse=True)
    groups, first_in = Groups(), dict[int, int]()
    for prompt, group in zip(prompt_of.tolist(), declared.tolist(), strict=True):
        groups.join([prompt, first_in.setdefault(group, prompt)] if group else [prompt])
    unit_of = np.fromiter(groups.numbered(range(len(names))).values(), dtype=np.int64, count=len(names))
    combined = np.zeros(len(names), dtype=np.uint64)
    np.bitwise_xor.at(combined, unit_of, names)
    return combined[unit_of[prompt_of]]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
