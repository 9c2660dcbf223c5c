"""What the runs of repeated recipes say of the recipes: the only place that does. A pure function of a round's scores.

Each round is a comparison of its own: whatever its runs started from, they all did.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from evaluation.repeats import difference
from evaluation.results import RowResults
from orchestrator.field.roster import Roster
from orchestrator.record.records import RecipeStanding

FEWEST_RUNS = 2
"""One says nothing of how far another would lie from it."""


@dataclass(frozen=True)
class _Repeated:
    """A recipe, how many runs of it were entered, and the results of those that were scored."""

    name: str
    runs: int
    scored: list[RowResults]

    @property
    def loss(self) -> float:
        return fmean(one.loss for one in self.scored)

    @property
    def counted(self) -> str:
        return (
            f"{len(self.scored)} of {self.runs} runs of {self.name} {'was' if len(self.scored) == 1 else 'were'} scored"
        )


def compare_recipes(roster: Roster, scored: Mapping[str, RowResults], confidence: float) -> list[RecipeStanding]:
    """Every recipe that is repeated in this round, the one of the lowest mean loss first; those of too few runs last.

    `scored` are results on the rows that choose. Of R recipes each of the R (R − 1) / 2 pairs has its part of the
    chance to err (Bonferroni), since the first was picked by the same losses: all claims together hold with
    `confidence`.
    """
    recipes = _repeated(roster, scored)
    known = sorted((one for one in recipes if len(one.scored) >= FEWEST_RUNS), key=lambda one: one.loss)
    level = (1 - confidence) / max(1, len(known) * (len(known) - 1) // 2)
    standings = [_behind(one, known[0], level, confidence) for one in known[1:]]
    if known:
        standings.insert(0, _standing(known[0], _spread(known[0]) if len(known) == 1 else ""))
    few = [one for one in recipes if len(one.scored) < FEWEST_RUNS]
    return [*standings, *(_standing(one, f"{one.counted}: too few to speak of the recipe.") for one in few)]


def _repeated(roster: Roster, scored: Mapping[str, RowResults]) -> list[_Repeated]:
    """In the roster's order."""
    runs: dict[str, list[str]] = {}
    for entry in roster.entries:
        if entry.recipe.repeat_of is not None:
            runs.setdefault(entry.recipe.repeat_of, []).append(entry.recipe.name)
    return [_Repeated(recipe, len(own), [scored[n] for n in own if n in scored]) for recipe, own in runs.items()]


def _standing(one: _Repeated, words: str, **behind: float) -> RecipeStanding:
    losses = [run.loss for run in one.scored]
    return RecipeStanding(
        recipe=one.name,
        runs=one.runs,
        losses=losses,
        validation_loss=fmean(losses) if losses else None,
        deviation=stdev(losses) if len(losses) >= FEWEST_RUNS else None,
        words=words,
        **behind,
    )


def _spread(only: _Repeated) -> str:
    losses = [run.loss for run in only.scored]
    return f"{only.counted}: another random seed changes the loss by {stdev(losses):.4f} nats (standard deviation)."


def _behind(one: _Repeated, first: _Repeated, level: float, confidence: float) -> RecipeStanding:
    """A recipe beside the one of the lowest mean loss."""
    found = difference(one.scored, first.scored, level)
    interval = f"{found.low:+.4f} to {found.high:+.4f} at {100 * confidence:g}% confidence".replace("-", "−")
    lead = f"mean loss of {first.name} is {found.mean:.4f} nats below that of {one.name} ({interval})"
    if found.low <= 0:
        words = f"The {lead}: training noise and the choice of rows alone could make this difference."
    elif len(first.scored) < first.runs:
        words = f"The {lead}. But only {first.counted}, and the others may have been worse: nothing is claimed."
    elif found.doubt:
        words = f"The {lead}. But nothing is claimed: {found.doubt}."
    else:
        words = f"{first.name} is better than {one.name} from this seed model with this budget: the {lead}."
    return _standing(one, words, behind=found.mean, behind_low=found.low, behind_high=found.high)
