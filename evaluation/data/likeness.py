"""What makes two texts near-duplicates, and an index of texts that finds those of others.

A text is folded to its letters and digits: case, punctuation, white space and look-alikes of Latin letters do not
count. Two texts are alike if at least half (`ALIKE`) of the passages of seven letters that either has are in both:
so much is left of a text in which a word was changed, or whose sentences were swapped. Passages that stand in many
rows ("Answer the question below", a list of labels) say nothing, and are left out. Where fewer than `ENOUGH` are
left, as in a label, a short question or a form that is filled in with a word, likeness says nothing either.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from datasketch import MinHash

Passages = npt.NDArray[np.uint32]
"""Hashes of passages."""
Hash = TypeVar("Hash", np.uint32, np.uint64)
Lengths = npt.NDArray[np.int64]

LETTERS, ALIKE, ENOUGH = 7, 0.5, 30
"""Chosen on real data, where nearly all that is found with them is what a reader would call the same: docs/LOG.md."""

MANY = 30
"""A passage in more rows than these is nobody's own, and nor is a text that more others are like."""

BANDS, BAND_ROWS = 32, 3
"""Of the MinHashes: of texts with half of their passages in common 1 in 72 is missed, with six tenths 1 in 2,400."""

SLOTS = 24
"""Bits of a passage's hash by which it is looked up in tables."""


def normalised(text: str) -> str:
    """What makes two prompts the same: Unicode compatibility form, case and white space do not count."""
    # Casefolding can undo the normal form and the other way round, so the form is taken again.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def folded(text: str) -> str:
    """As `normalised`, and with look-alikes of Latin letters as those; the white space is left."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKC", text).translate(_look_alikes())
    return unicodedata.normalize("NFKC", plain.casefold())


def bare(text: str) -> str:
    """Short texts are the same if these are: the words, without the marks at their ends.

    Marks within a word or instead of one are left: they may be all that tells 1.5 from 15 and 5 - 3 from 5 + 3.
    """
    words = folded(text).split()
    return " ".join(filter(None, (word.strip(MARKS) for word in words))) or " ".join(words)


MARKS = ".,;:!?\"'`´‘’‚“”„«»‹›…¡¿。，、！？；：「」『』"


@cache
def _look_alikes() -> dict[int, str]:
    from string import ascii_letters

    from confusable_homoglyphs.confusables import confusables_data

    # Not in Unicode's list: letters that look like small capitals, and characters that cannot be seen at all.
    table: dict[int, str] = dict(zip(map(ord, "квмнтκτχηω"), "kbmhtktxnw", strict=True))
    table |= dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"), "")
    for letter in ascii_letters:
        for one in confusables_data.get(letter, []):
            if len(one["c"]) == 1 and not one["c"].isascii():
                table[ord(one["c"])] = "I" if letter == "l" and one["c"].isupper() else letter
    return table


@cache
def _counts() -> npt.NDArray[np.bool_]:
    """Whether a character counts, by its code: letters, digits, the marks on them, and symbols such as +."""
    kinds = (unicodedata.category(chr(code))[0] for code in range(0x110000))
    return np.fromiter((kind in "LNMS" for kind in kinds), dtype=np.bool_, count=0x110000)


def passages(texts: Sequence[str]) -> tuple[Passages, Lengths]:
    """The hashes of all passages of all texts, one text after the other, and how many each has."""
    whole = [folded(text).encode("utf-32-le", "surrogatepass") for text in texts]
    codes = np.frombuffer(b"".join(whole), dtype=np.uint32)
    is_letter = _counts()[codes]
    ends = np.cumsum([0, *(len(one) // 4 for one in whole)])
    ends = np.concatenate([[0], np.cumsum(is_letter)])[ends]  # now counted in letters
    letters = codes[is_letter].astype(np.uint64)
    hashes = np.zeros(max(len(letters) - LETTERS + 1, 0), dtype=np.uint64)
    for place in range(LETTERS):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += letters[place : place + len(hashes)]
    hashes ^= hashes >> np.uint64(29)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    is_within = np.repeat(ends[1:], np.diff(ends))[: len(hashes)] >= np.arange(len(hashes)) + LETTERS
    return (hashes >> np.uint64(32)).astype(np.uint32)[is_within], np.maximum(np.diff(ends) - LETTERS + 1, 0)


class CommonPassages:
    """Which passages stand in many of the texts that were counted."""

    def __init__(self) -> None:
        self._counts = np.zeros(1 << SLOTS, dtype=np.uint16)

    def count(self, texts: Sequence[str]) -> None:
        """Count the passages of some more texts, each once a text."""
        once, _ = _once_in_each(*passages(texts))
        np.add.at(self._counts, _slots(once), np.uint16(1))

    def without(self, texts: Sequence[str]) -> tuple[Passages, Lengths]:
        """As `passages`, but for those that are common."""
        hashes, lengths = passages(texts)
        is_rare = self._counts[_slots(hashes)] <= MANY
        return hashes[is_rare], _sums(is_rare, lengths)


class Texts:
    """An index of some thousand texts, which finds the near-duplicates of any number of others."""

    def __init__(self, common: CommonPassages, compares_short: bool) -> None:
        """With `compares_short`, texts that are the same but for case and marks are alike however short they are."""
        from datasketch import MinHash, MinHashLSH

        self._common, self._compares_short = common, compares_short
        self._same: dict[str, list[int]] = defaultdict(list)
        self._passages: dict[int, Passages] = {}
        self._is_there = np.zeros(1 << SLOTS, dtype=np.bool_)
        self._hash: MinHash = MinHash(num_perm=BANDS * BAND_ROWS, hashfunc=int)
        self._index = MinHashLSH(num_perm=BANDS * BAND_ROWS, params=(BANDS, BAND_ROWS))

    def add(self, key: int, text: str) -> None:
        """Put a text into the index."""
        if self._compares_short:
            self._same[bare(text)].append(key)
        own = _distinct(self._common.without([text])[0])
        if len(own) >= ENOUGH:
            self._passages[key] = own
            self._is_there[_slots(own)] = True
            self._index.insert(key, self._hash_of(own))

    def same_as(self, text: str) -> list[int]:
        """The keys of texts that are the same; none where short texts are not compared."""
        return self._same.get(bare(text), []) if self._compares_short else []

    def like(self, texts: Sequence[str]) -> dict[int, dict[int, float]]:
        """By the place in `texts`: the keys of near-duplicates, and the share of passages that both have."""
        hashes, lengths = _once_in_each(*self._common.without(texts))
        ends = np.cumsum(lengths)
        # Few texts have nearly so many passages in common with all that are here; those are worth a MinHash.
        shared = _sums(self._is_there[_slots(hashes)], lengths)
        promising = np.flatnonzero((lengths >= ENOUGH) & (shared >= lengths * ALIKE * 0.8))
        found = {place: self._like(hashes[ends[place] - lengths[place] : ends[place]]) for place in promising.tolist()}
        return {place: keys for place, keys in found.items() if keys}

    def forget(self, key: int) -> None:
        """Find a text no longer as like others, but as the same."""
        self._index.remove(key)
        del self._passages[key]

    def _like(self, own: Passages) -> dict[int, float]:
        shares = {key: _share(own, self._passages[key]) for key in self._index.query(self._hash_of(own))}
        return {key: share for key, share in sorted(shares.items()) if share >= ALIKE}

    def _hash_of(self, own: Passages) -> "MinHash":
        made = self._hash.copy()
        made.update_batch(own.tolist())
        return made


def _share(one: Passages, other: Passages) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def _once_in_each(hashes: Passages, lengths: Lengths) -> tuple[Passages, Lengths]:
    """Of each text's passages every one once: what one repeats counts as it does in a share."""
    row = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    once = _distinct(row << np.uint64(32) | hashes)
    return once.astype(np.uint32), np.bincount((once >> np.uint64(32)).astype(np.int64), minlength=len(lengths))


def _distinct(hashes: npt.NDArray[Hash]) -> npt.NDArray[Hash]:
    """As np.unique, many times as fast."""
    ordered = np.sort(hashes)
    is_first = np.ones(len(ordered), dtype=np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first]


def _slots(hashes: Passages) -> npt.NDArray[np.uint32]:
    return hashes & np.uint32((1 << SLOTS) - 1)


def _sums(flags: npt.NDArray[np.bool_], lengths: Lengths) -> Lengths:
    """How many flags are set within each text."""
    ends = np.concatenate([[0], np.cumsum(lengths)])
    sums: Lengths = np.diff(np.concatenate([[0], np.cumsum(flags)])[ends])
    return sums
