"""The field of a round as a record: who competes, and where each recipe comes from."""

from typing import Literal

from cluster.records import Record
from competitors.kinds import Recipe

MadeBy = Literal["config", "entered", "evolution", "exploit"]


class RosterEntry(Record):
    """One recipe of a round."""

    recipe: Recipe
    made_by: MadeBy = "config"
    parent: str | None = None
    """The competitor that this one is a copy of."""
    since: int = 1
    """Its first round."""
    origins: dict[str, str] = {}
    """Of each value that differs from the parent's: where it comes from, in words."""

    @property
    def origin(self) -> str:
        """Where the recipe comes from, in words; empty for one that stands in the config."""
        if self.made_by == "entered":
            return f"entered in round {self.since}"
        if self.parent is None:
            return ""
        raw = self.recipe.model_dump(by_alias=True)
        changes = [f"{key} {_dig(raw, key):g} ({words})" for key, words in self.origins.items()]
        return f"a copy of {self.parent} with " + (", ".join(changes) or "its own data order")


def _dig(raw: object, key: str) -> float:
    for part in key.split("."):
        assert isinstance(raw, dict)
        raw = raw[part]
    assert isinstance(raw, int | float)
    return raw


class Roster(Record):
    """roster.json: who competes in a round, and where each recipe comes from.

    Written when the round begins and never changed, so that a resumed run enters the same field whatever was
    entered, withdrawn or evolved meanwhile.
    """

    lineage: str
    round: int
    phase: Literal["explore", "exploit"] = "explore"
    entries: list[RosterEntry]
    reasons: list[str] = []
    """What differs from the round before, in words."""
