"""Racing: the worst entries of a round are stopped early, on their loss at fractions of the budget.

Asynchronous successive halving (Li et al. 2020, "A system for massively parallel hyperparameter tuning",
arXiv:1810.05934) in its stopping form: an entry that reaches a rung goes on if it is among the best share
`keep` of all that reached it so far, so nobody waits for anybody and the first one always goes on.
"""

import math

from pydantic import Field, field_validator

from cluster.records import Settings


class Racing(Settings):
    """`at` are shares of the budget at which running entries are scored on `rows` validation rows."""

    at: list[float] = Field(min_length=1)
    keep: float = Field(0.5, gt=0, lt=1)
    rows: int = Field(200, ge=1)

    @field_validator("at")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        if any(not 0 < x < 1 for x in value) or value != sorted(set(value)):
            raise ValueError("give rising shares of the budget between 0 and 1, such as [0.25, 0.5]")
        return value


def rank_at(loss: float, others: list[float]) -> int:
    """Place of `loss` among all at a rung so far, 1 the lowest; a loss that is not finite comes last."""
    return 1 + sum(1 for other in others if other < loss or (math.isnan(loss) and not math.isnan(other)))


def is_out(loss: float, others: list[float], keep: float) -> bool:
    """Whether an entry with `loss` is stopped, given the losses of `others` that reached the same rung before."""
    return rank_at(loss, others) > max(1, math.ceil(keep * (len(others) + 1)))
