"""The small records that the loop itself leaves in the run directory."""

from pathlib import Path
from typing import Literal

from cluster.records import Record
from competitors.kinds import Recipe


class Seed(Record):
    """seed.json, champion.json: a full model folder and where it comes from. In round 0, the base."""

    label: str
    """`base`, or `competitor@round`."""
    path: Path
    sha256: str
    continuation: Path | None = None


class Rejection(Record):
    """rejected.json: a submission that failed inspection, and why."""

    reason: str


class Sample(Record):
    """One prompt, what is right, and what the model writes."""

    prompt: str
    expected: str
    completion: str


class Samples(Record):
    """samples.json."""

    samples: list[Sample]


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
