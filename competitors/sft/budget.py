"""How much of the budget is spent, and the learning rate that follows from it.

A schedule is a function of the share of the budget that is spent, whichever of tokens, steps or seconds is
furthest along, so that it ends where the budget ends, and can span one round or the whole lineage.
"""

import math
import time
from collections.abc import Callable

from cluster.errors import Forfeit
from competitors.contract import Allowance
from competitors.sft.stream import Counts

VIRTUAL_STEPS = 10_000
"""transformers' schedules are functions of whole steps: they are asked on this scale."""


class Meter:
    """Measures one round's budget from its first training step. Times are in seconds."""

    def __init__(self, budget: Allowance, tokens_after: Counts, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget, self.tokens_after, self.clock = budget, tokens_after, clock
        self.began: float | None = None

    def start(self, spent_seconds: float = 0.0) -> None:
        """Call when the first step begins, or the first after an interruption that `spent_seconds` came before."""
        self.began = self.clock() - spent_seconds

    def leave_out(self, seconds: float) -> None:
        """Not to be charged: nothing was trained in them."""
        if self.began is not None:
            self.began += seconds

    @property
    def seconds(self) -> float:
        """Since the first step began; 0 before it."""
        return 0.0 if self.began is None else self.clock() - self.began

    def tokens(self, step: int) -> int:
        """Training tokens spent after `step` steps."""
        return int(self.tokens_after[min(step, len(self.tokens_after) - 1)])

    def spent(self, step: int) -> float:
        """Share of the budget spent after `step` steps, 0 to 1.

        The steps that fit were counted beforehand; the last one of them is 1, so a schedule ends where training does.
        """
        shares = [0.0]
        if self.budget.seconds is not None:
            shares.append(self.seconds / self.budget.seconds)
        if self.budget.tokens is not None or self.budget.steps is not None:
            shares.append(self.tokens(step) / int(self.tokens_after[-1]))
        return min(1.0, max(shares))

    def share(self, step: int) -> float:
        """Share of the budget as it was given that is spent after `step` steps, 0 to 1.

        Less than `spent` by what is left over where no whole step fits any more: where several rounds make up one
        schedule, a round then lies where it would in an uninterrupted training.
        """
        shares = [0.0 if self.budget.seconds is None else self.seconds / self.budget.seconds]
        shares += [self.tokens(step) / self.budget.tokens] if self.budget.tokens is not None else []
        shares += [step / self.budget.steps] if self.budget.steps is not None else []
        return min(1.0, max(shares))

    def is_spent(self, step: int) -> bool:
        """Whether training ends after `step` steps."""
        return step >= len(self.tokens_after) - 1 or self.spent(step) >= 1.0


def share_out(budget: Allowance, share: float, trials: int, side_by_side: int) -> Allowance:
    """What each of `trials` may spend at most so that all of them, none ended early, stay within `share` of `budget`.

    Tokens and steps are split among the trials. Seconds are those of the clock on the wall: trials that run side
    by side share them. Raises Forfeit when there is not a step or token for each.
    """
    split = {
        name: int(amount * share) // trials
        for name, amount in (("tokens", budget.tokens), ("steps", budget.steps))
        if amount is not None
    }
    for name, amount in split.items():
        if amount < 1:
            have = getattr(budget, name)
            raise Forfeit(f"a budget of {have} {name} is too small for {trials} trials on {share:g} of it")
    seconds = None if budget.seconds is None else budget.seconds * share / math.ceil(trials / side_by_side)
    return Allowance(seconds=seconds, **split)


def remainder(budget: Allowance, tokens: int, steps: int, seconds: float) -> Allowance | None:
    """What is left of `budget` after so much of it; None when any of its limits is reached."""
    spent = {"tokens": tokens, "steps": steps, "seconds": seconds}
    left = {name: amount - spent[name] for name, amount in budget.model_dump().items() if amount is not None}
    return Allowance(**left) if min(left.values()) > 0 else None


def rate_factor(
    schedule: Callable[[int], float], position: tuple[float, float], spent: float, cool_down: float
) -> float:
    """What the peak learning rate is multiplied with.

    `schedule` maps virtual steps to a factor; `position` is where this round starts and ends on it, as shares
    of its whole span; `spent` is the round's share done. With `cool_down` > 0, the last such share of the
    round leaves the schedule where it is and goes linearly to zero.
    """
    start, end = position
    trunk = 1.0 - cool_down
    if cool_down and spent > trunk:
        held = schedule(round((start + (end - start)) * VIRTUAL_STEPS))
        return held * (1.0 - spent) / cool_down
    return schedule(round((start + (end - start) * spent / trunk) * VIRTUAL_STEPS))
