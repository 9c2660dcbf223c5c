"""Short data: several short lines in the place of one that would pass over the rows many times. Pure functions.

    lines   from one common trunk, each on an order of the data of its own, its rate to zero within one to three passes:
            first one of each length, then as many of the best length as the budget holds, eight in all at most
    soup    the mean of the best two, three, … of their ends (Wortsman et al. 2022, "Model soups", arXiv:2203.05482);
            which of these is best is for the validation rows to say

More passes than about three overfit; what is left of the budget buys more lines, and their mean is better than each.
"""

from collections.abc import Sequence

from competitors.soup.recipe import SoupRecipe
from orchestrator.field.whole_budget import Past

LONGEST_LINE_PASSES = 2.7
"""A line that would pass over the data more often is cut into several."""
LENGTHS = (1.0, 2.0, 3.0)
USUAL_LENGTH = 2.0
"""Passes of a line where there is no round to try several in."""
STEPS_OF_A_PASS, FEWEST_STEPS_OF_A_PASS = 100, 50
FEW_ROWS, LARGEST_BATCH = 4, 16
"""A line takes as many rows a step as leave a pass 100 steps, or up to 4 where that still leaves it 50: with fewer rows
a step it overfits sooner, with more it does not come far (docs/LOG.md, 2026-11-25 and 2026-11-29: short data)."""
SHORTEST_LINE_PASSES = 0.5
STRETCH = 1.25
"""So many times the best length may lines be, so that nothing is left over."""
MOST_LINES = 8
MOST_BLENDED = 8


def batch_of_a_line(rows: int, at_least: int) -> int:
    """Sequences of an optimizer step of a line over `rows` rows; `at_least` is what everybody raced with."""
    batch = max(rows / STEPS_OF_A_PASS, min(FEW_ROWS, rows / FEWEST_STEPS_OF_A_PASS))
    return max(at_least, min(LARGEST_BATCH, round(batch)))


def lengths(left_passes: float, rounds_left: int, history: Sequence[Past]) -> list[float]:
    """How many passes each line of the next round makes; none where it is time for soups, or nothing is left.

    `left_passes` are those over the data that the budget still holds; the last of several rounds blends. With one round
    there is nothing to blend in, and one line that is not too long is all there is.
    """
    before = [past for past in history if past.roster.phase == "lines"]
    if rounds_left < 2:
        return [] if before else [min(left_passes, LONGEST_LINE_PASSES)]
    if not before and rounds_left > 2 and left_passes >= sum(LENGTHS):
        return list(LENGTHS)
    run = sum(len(past.roster.entries) for past in before)
    if left_passes < SHORTEST_LINE_PASSES or run >= MOST_LINES:
        return []
    length = _best_length(before) if before else USUAL_LENGTH
    count = min(MOST_LINES - run, max(1 if before else 2, round(left_passes / length)))
    return [min(left_passes / count, STRETCH * length)] * count


def _best_length(before: Sequence[Past]) -> float:
    """Of the lengths that were tried, the one of the lowest validation loss; the usual one where none was scored."""
    names = [entry.recipe.name for entry in before[0].roster.entries]
    tried = {name: length for name, length in zip(names, LENGTHS, strict=False) if name in before[0].losses}
    best = min(tried, key=lambda name: (before[0].losses[name], name), default=None)
    return USUAL_LENGTH if best is None or len(names) != len(LENGTHS) else tried[best]


def soups(history: Sequence[Past]) -> list[SoupRecipe]:
    """The means of the best two, three, … of all lines so far."""
    losses = {name: loss for past in history if past.roster.phase == "lines" for name, loss in past.losses.items()}
    ranked = sorted(losses, key=lambda name: (losses[name], name))
    return [
        SoupRecipe(name=f"soup-of-{count}", kind="soup", of=ranked[:count])
        for count in range(2, min(len(ranked), MOST_BLENDED) + 1)
    ]
