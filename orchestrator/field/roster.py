"""The field of a round as a record: who competes, with what budget, from what, and where each recipe comes from."""

from typing import Literal

from cluster.records import Record
from competitors.contract import Allowance
from competitors.kinds import Recipe
from orchestrator.field.model_ref import ModelRef

MadeBy = Literal["config", "entered", "evolution", "exploit", "allocation"]

Phase = Literal["explore", "exploit", "race", "climb", "line", "lines", "soup"]
"""Equal rounds explore recipes or exploit one; a whole budget is raced for, climbs, and goes into one line, or on
short data into several, which soups blend: see allocation.py."""


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
    budget: Allowance | None = None
    """What it may spend in this round; None only in a field that is not on record."""
    continues: ModelRef | None = None
    """The submission that it goes on from, on what that stands on, with its trunk, its optimizer and its place in the
    data; None for one that starts from the round's seed."""
    span: tuple[float, float] | None = None
    """Where this round starts and ends on its schedule, as shares of the whole of that; None: as the round lies among
    all rounds."""
    data_order: int | None = None
    """Entries of the same number see the rows in the same order; None: in one of its own."""

    @property
    def origin(self) -> str:
        """Where the recipe comes from, in words; empty for one that stands in the config."""
        if self.made_by == "entered":
            return f"entered in round {self.since}"
        if self.parent is None:
            return ""
        raw = self.recipe.model_dump(by_alias=True)
        changes = [f"{key} {_dig(raw, key):g} ({words})" for key, words in self.origins.items()]
        if self.made_by == "allocation":
            start = f"goes on from {self.continues.in_words}" if self.continues else "starts on the last seed"
            return start + (f" with {', '.join(changes)}" if changes else "")
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
    phase: Phase = "explore"
    entries: list[RosterEntry]
    reasons: list[str] = []
    """What differs from the round before, in words."""
