"""Paired comparison of two models on the same held-out rows: how much is gained, and how much of it is beyond doubt.

A gain is the difference of two models' losses on the same rows. Rows of one group (one prompt, one conversation,
near-duplicates) stand together or not at all, so the groups are what is counted. Its lower bound is the smaller of
two: Student's, and that of Hall (1992, "On the removal of skewness by transformation", JRSS B 54), without which few
rows that lose much make a model look better than it is as long as none of them is seen. Skewness is taken from more
rows than the mean, where there are more. docs/trust.md has how often this errs, by the shape of the gains.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cbrt, log, sqrt
from typing import Self

import numpy as np

from evaluation.results import Array, RowResults

FEWEST_GROUPS = 50
"""With fewer, no gain is beyond doubt."""
FEWEST_TO_BE_TYPICAL = 3
ENOUGH_TO_BE_TYPICAL = 8
"""A field of fewer is judged with entries of the rounds before."""
MOST_SKEWED = -2.25
"""Where the gains of a field's models are typically more skewed than this, few rows lose much: whoever was picked from
the field was picked for having few of them among the rows that choose, and its own gains no longer tell. Then its bound
allows for such rows that were not met."""
MOST_OF_ONE_GROUP = 0.2
"""Where one group that loses has more of the gains' spread than this, others like it may not have been met."""

SAME_NATS = 1e-6
"""Per token: the same weights, merged in another way or from other factors, differ on no row by more than 2e-7; a model
of 6,000 parameters and the same one step on, at a rate of 1e-6, differ by 6e-6 on some row, larger ones by more."""


@dataclass(frozen=True)
class Tail:
    """How the gains of a model, or typically those of a field, lie on the side of the rows that lose."""

    skewness: float
    """Of the groups' gains."""
    worst: float
    """By how many nats the group that loses most falls behind the mean gain."""


@dataclass(frozen=True)
class Gain:
    """How much lower one model's loss is than another's on the same rows, in nats per token; positive is better."""

    mean: float
    standard_error: float
    skewness: float
    """Of the groups' gains."""
    groups: int
    doubt: str = ""
    """Why nothing is proven by these rows, however large the gain; empty where something can be."""
    worst: float = 0.0
    """By how many nats the group that loses most falls behind the mean gain."""
    tokens: float = 1.0
    """Of all rows that the mean is over."""
    worst_unseen: float = 0.0
    """By how many nats a group falls behind of a kind that may not have been met; 0 where there is no such kind."""

    @property
    def tail(self) -> Tail:
        """What a field's typical one is made of."""
        return Tail(self.skewness, self.worst)

    def of_a_field(self, tail: Tail | None) -> Self:
        """The same of the best of a field of typically such a tail: so is its own at least, on all the rows that there
        are, though those on which it was picked show less; and where that is long, there may be rows as bad as the
        field's worst of which these rows hold none."""
        if tail is None:
            return self
        unseen = tail.worst if tail.skewness <= MOST_SKEWED else 0.0
        worst = max(self.worst_unseen, unseen)
        return replace(self, skewness=min(self.skewness, tail.skewness), worst_unseen=worst)

    def unseen(self, level: float) -> float:
        """What rows of a kind that was not met cost the mean, in nats per token: of a kind that makes up a share q of
        all groups none is met with a chance of (1 − q)^groups, so q is below −ln(level) / groups but for `level`."""
        return -log(level) * self.worst_unseen / self.tokens

    def low(self, level: float) -> float:
        """One-sided lower bound, which errs with a chance of `level` in (0, 0.5) at most: where there may be rows that
        were not met, half of that is theirs."""
        if not self.worst_unseen:
            return self._low(level)
        return self._low(level / 2) - self.unseen(level / 2)

    def _low(self, level: float) -> float:
        from scipy.stats import t

        if not self.standard_error:
            return self.mean
        student = float(t.isf(level, self.groups - 1))
        deviation = self.standard_error * sqrt(self.groups)
        halls = deviation * _studentised(student, self.skewness, self.groups)
        return self.mean - max(student * self.standard_error, halls)


def _studentised(normal: float, skewness: float, groups: int) -> float:
    """Hall's transformation backwards: the mean's deviation, in standard deviations of one group, at a normal's."""
    root = sqrt(groups)
    if abs(skewness) < 1e-6:
        return normal / root
    return 3 / skewness * (cbrt(1 + skewness * (normal / root - skewness / (6 * groups))) - 1)


@dataclass(frozen=True)
class Difference:
    """A difference in nats per token, and where it may lie."""

    mean: float
    low: float
    high: float
    doubt: str = ""
    """Why it proves nothing, however large it is; empty where it can."""

    @classmethod
    def of(cls, mean: float, parts: Sequence[tuple[float, int]], level: float, doubt: str = "") -> Self:
        """With a two-sided interval that errs with a chance of `level`, from independent `parts` of its variance with
        their degrees of freedom (Welch 1947, Satterthwaite 1946)."""
        from scipy.stats import t

        variance = sum(part for part, _ in parts)
        freedom = variance**2 / sum(part**2 / own for part, own in parts if part) if variance else 1.0
        reach = float(t.isf(level / 2, freedom)) * sqrt(variance)
        return cls(mean, mean - reach, mean + reach, doubt)


def gap(chose: Gain, tested: Gain, level: float) -> Difference:
    """How much more a model gains on rows that chose it than on rows that did not: what overfitting shows as.

    Of gains over one other model, how hard the rows of either split are makes no difference.
    """
    parts = [(one.standard_error**2, max(one.groups - 1, 1)) for one in (chose, tested)]
    return Difference.of(chose.mean - tested.mean, parts, level)


def gain(over: RowResults, of: RowResults, *also: tuple[RowResults, RowResults]) -> Gain:
    """The gain of `of` over `over`. `also` are the two on other rows, for the shape of the gains alone.

    ValueError where they were scored on other tokens, as by another tokenizer.
    """
    mean, deviations, tokens = _by_group(over, of)
    pooled = np.concatenate([deviations, *(_by_group(*pair)[1] for pair in also)])
    groups, squares = len(deviations), float((deviations**2).sum())
    spread = float((pooled**2).mean()) ** 0.5
    worst = float(-min(pooled.min(initial=0.0), 0.0))
    few = f"{groups} different prompts are too few, {FEWEST_GROUPS} are needed" if groups < FEWEST_GROUPS else ""
    return Gain(
        mean=mean,
        standard_error=sqrt(squares * groups / max(groups - 1, 1)) / tokens,
        skewness=float((pooled**3).mean()) / spread**3 if spread else 0.0,
        groups=groups,
        doubt=few,
        worst=worst,
        tokens=tokens,
        worst_unseen=worst if worst**2 > MOST_OF_ONE_GROUP * float((pooled**2).sum()) else 0.0,
    )


def is_same(one: RowResults, other: RowResults) -> bool:
    """Whether two models are one in effect: on no row do their losses differ by more than sums in another order do."""
    if not np.array_equal(one.tokens, other.tokens):
        return False
    return bool((np.abs(one.nats - other.nats) <= SAME_NATS * one.tokens).all())


def row_distance(one: RowResults, other: RowResults) -> float:
    """How far two models' losses lie apart on a row, in nats per token (the root of the mean square); infinite where
    they were scored on other tokens."""
    if not np.array_equal(one.tokens, other.tokens):
        return float("inf")
    counted = one.tokens > 0
    return float(np.sqrt(np.mean(((one.nats - other.nats)[counted] / one.tokens[counted]) ** 2)))


def typical(field: Sequence[Tail], earlier: Sequence[Tail] = ()) -> Tail | None:
    """How the gains of a field over a champion typically lie, on the rows that the best of it was picked on; None where
    too few were asked. `earlier` are those of fields before, the latest first, for a small field.

    Medians: one odd model says nothing of the others, and being picked does not move them.
    """
    asked = [*field, *earlier[: max(ENOUGH_TO_BE_TYPICAL - len(field), 0)]]
    if len(asked) < FEWEST_TO_BE_TYPICAL:
        return None
    return Tail(*(float(np.median(part)) for part in zip(*((one.skewness, one.worst) for one in asked), strict=True)))


def _by_group(over: RowResults, of: RowResults) -> tuple[float, Array, float]:
    """The mean gain, each group's deviation from it in nats (groups,), and how many tokens there are."""
    if not np.array_equal(of.tokens, over.tokens):
        raise ValueError("scored on other tokens: not comparable")
    _, group = np.unique(over.group, return_inverse=True)
    gained = np.bincount(group, over.nats - of.nats)
    tokens = np.bincount(group, over.tokens)
    counted = tokens > 0
    mean = float(gained.sum() / tokens.sum())
    return mean, (gained - mean * tokens)[counted], float(tokens.sum())
