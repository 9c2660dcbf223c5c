"""What changes in the field while a tournament runs, and where those changes are applied."""

from collections.abc import Sequence

from pydantic import Field, model_validator

from cluster.records import Settings
from competitors.kinds import Recipe
from orchestrator.field.roster import RosterEntry


class Change(Settings):
    """What changed in the field while the tournament ran, from the start of round `from_round` on, in every lineage.

    `tournament enter`, `withdraw` and `extend` add these to the run directory's tournament.yaml, so running that
    file again repeats them.
    """

    from_round: int = Field(ge=1)
    enter: list[Recipe] = []
    withdraw: str | None = None
    extend: int | None = Field(None, ge=1)
    asked: int = Field(0, ge=0)
    """Its number among those that were asked for from elsewhere, in a store; 0 for one that was put here at once."""

    @model_validator(mode="after")
    def _one_of_three(self) -> "Change":
        if bool(self.enter) + (self.withdraw is not None) + (self.extend is not None) != 1:
            raise ValueError("give one of enter, withdraw and extend")
        return self

    @property
    def in_words(self) -> str:
        """What changes, and from when on."""
        if self.extend is not None:
            return f"{self.extend} more round{'s' * (self.extend > 1)}"
        if self.withdraw is not None:
            return f"{self.withdraw}: is out from round {self.from_round} on"
        return f"{', '.join(recipe.name for recipe in self.enter)}: enters in round {self.from_round}"


def rounds_in_all(rounds: int, changes: Sequence[Change], as_of: int | None = None) -> int:
    """How many rounds there are to be, with those that were added; with `as_of` those added by that round's start."""
    return rounds + sum(c.extend or 0 for c in changes if as_of is None or c.from_round <= as_of)


def with_changes(
    entries: list[RosterEntry], changes: Sequence[Change], number: int
) -> tuple[list[RosterEntry], list[str]]:
    """The field of round `number` after what was entered and withdrawn for it, and what that was in words."""
    said: list[str] = []
    for change in changes:
        if change.from_round == number:
            entries, words = _changed(entries, change, number)
            said += words
    return entries, said


def _changed(entries: list[RosterEntry], change: Change, number: int) -> tuple[list[RosterEntry], list[str]]:
    if change.withdraw is not None:
        kept = [entry for entry in entries if entry.recipe.name != change.withdraw]
        # It may have made way by itself meanwhile, and a field is never empty.
        return (kept, [f"{change.withdraw} was withdrawn."]) if kept and len(kept) < len(entries) else (entries, [])
    names = {entry.recipe.name for entry in entries}
    new = [
        RosterEntry(recipe=recipe, made_by="entered", since=number)
        for recipe in change.enter
        if recipe.name not in names
    ]
    return entries + new, [f"{entry.recipe.name} was entered." for entry in new]
