"""Racing: the worst entries of a round are stopped early, on their loss at fractions of the budget.

Asynchronous successive halving (Li et al. 2020, "A system for massively parallel hyperparameter tuning",
arXiv:1810.05934) in its stopping form: an entry that reaches a rung goes on if it is among the best share
`keep` of all that reached it so far, so nobody waits for anybody and the first one always goes on.
"""

import math


def rank_at(loss: float, others: list[float]) -> int:
    """Place of `loss` among all at a rung so far, 1 the lowest; a loss that is not finite comes last."""
    return 1 + sum(1 for other in others if other < loss or (math.isnan(loss) and not math.isnan(other)))


def is_out(loss: float, others: list[float], keep: float) -> bool:
    """Whether an entry with `loss` is stopped, given the losses of `others` that reached the same rung before."""
    return rank_at(loss, others) > max(1, math.ceil(keep * (len(others) + 1)))
