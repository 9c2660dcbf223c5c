"""spent.json: the device time that a tournament has held so far, what that costs, and how long it ran."""

from collections import Counter

from cluster.prices import cost
from cluster.records import Record


class Spent(Record):
    """Of calls that were placed, on trainers and evaluators, those that were lost or ended too. Not of what is idle."""

    seconds: dict[str, dict[str, float]] = {}
    """By lineage, and under "" of none; then by kind of device: see cluster/prices.py."""
    wall_seconds: float = 0.0
    """For which drivers ran its rounds, added up: not what they prepare, nor the time between two of them."""
    prices: dict[str, float] = {}
    """As they were given last: all that was spent is reckoned by them."""
    limit: float | None = None

    @property
    def cost(self) -> float | None:
        """So far; None where there are no prices."""
        return sum(cost(held, self.prices) for held in self.seconds.values()) if self.prices else None

    def cost_of(self, lineage: str) -> float:
        """What one lineage has cost."""
        return cost(self.seconds.get(lineage, {}), self.prices)

    @property
    def hours(self) -> dict[str, float]:
        """Of devices, by kind."""
        found = Counter[str]()
        for held in self.seconds.values():
            found.update(held)
        return {kind: seconds / 3600 for kind, seconds in found.items()}

    @property
    def in_words(self) -> str:
        """The cost so far and for what; empty where there are no prices."""
        if self.cost is None:
            return ""
        of = f" of at most {self.limit:,.2f}" if self.limit is not None else ""
        hours = ", ".join(f"{hours:,.2f} hours of {kind}" for kind, hours in sorted(self.hours.items()))
        return f"{self.cost:,.2f}{of}" + (f" ({hours})" if hours else "")
