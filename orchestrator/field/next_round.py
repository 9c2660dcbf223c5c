"""Who enters the next round: exploit, or else evolution, then what was entered and withdrawn. A pure function."""

from collections.abc import Sequence

from competitors.contract import Allowance
from competitors.kinds import Recipe
from orchestrator.field.changes import Change, with_changes
from orchestrator.field.evolution import Evolution, evolve
from orchestrator.field.exploit import Exploit, exploit
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.field.whole_budget import Whole


def with_budget(roster: Roster, budget: Allowance) -> Roster:
    """The roster with the same budget for each of its entries."""
    return roster.model_copy(update={"entries": [e.model_copy(update={"budget": budget}) for e in roster.entries]})


def with_equal_shares(whole: Whole, spent: float, roster: Roster, rounds_left: int, has_gpus: bool) -> Roster:
    """The roster with equal shares of what is left of a whole budget, if all rounds spend the same. GPU time is fewer
    seconds for an entry on more GPUs."""
    trains = sum(entry.recipe.trains for entry in roster.entries)
    each = max(0.0, whole.total - spent) / rounds_left / trains
    entries = [e.model_copy(update={"budget": whole.allowance(each, e.recipe, has_gpus)}) for e in roster.entries]
    return roster.model_copy(update={"entries": entries})


def first_roster(lineage: str, recipes: Sequence[Recipe], changes: Sequence[Change]) -> Roster:
    """Round 1: the config's competitors, with what was changed before it began."""
    entries, reasons = with_changes([RosterEntry(recipe=recipe) for recipe in recipes], changes, 1)
    return Roster(lineage=lineage, round=1, entries=entries, reasons=reasons)


def next_roster(
    previous: Roster,
    ranking: list[str],
    exploits: str | None,
    evolution: Evolution | None,
    exploit_rules: Exploit | None,
    changes: Sequence[Change],
    random_seed: int,
) -> Roster:
    """The round after `previous`, of which `ranking` names the scored competitors, best first.

    In this order: an exploited recipe (`exploits`) takes all places, or else evolution replaces the worst; then
    what was entered and withdrawn for this round.
    """
    number = previous.round + 1
    entries, phase, reasons = previous.entries, previous.phase, list[str]()
    if exploit_rules is not None and exploits is not None and phase == "explore":
        entries, reasons = exploit(entries, exploits, exploit_rules, number)
        phase = "exploit"
    elif evolution is not None and phase == "explore":
        entries, reasons = evolve(entries, ranking, evolution, random_seed, previous.lineage, number)
    entries, said = with_changes(entries, changes, number)
    return Roster(lineage=previous.lineage, round=number, phase=phase, entries=entries, reasons=[*reasons, *said])
