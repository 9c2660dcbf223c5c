"""Short data: several short lines in the place of one that would pass over the rows many times. Pure functions.

    lines   from one common trunk, each on an order of the data of its own, its rate to zero within one to three passes:
            first one of each length, then as many of the best length as the budget holds
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
MOST_LINES = 8
MOST_BLENDED = 8


def lengths(left_passes: float, rounds_left: int, history: Sequence[Past]) -> list[float]:
    """How many passes each line of the next round makes; none where it is time for soups, or nothing is left.

    `left_passes` are those over the data that the budget still holds; the last of several rounds blends.
    """
    before = [past for past in history if past.roster.phase == "lines"]
    rounds = rounds_left - 1 if before or rounds_left > 1 else 1
    if rounds < 1:
        return []
    if not before and rounds > 1 and left_passes >= sum(LENGTHS):
        return list(LENGTHS)
    length = _best_length(before)
    run = sum(len(past.roster.entries) for past in before)
    affordable = min(MOST_LINES - run, int(left_passes / length))
    if not before and affordable < 2:
        return [left_passes]
    return [length] * max(0, -(-affordable // rounds))


def _best_length(before: Sequence[Past]) -> float:
    """Of the lengths that were tried, the one of the lowest validation loss; the usual one where none were."""
    tried = [past for past in before if len(past.roster.entries) == len(LENGTHS)][:1]
    for past in tried:
        names = [entry.recipe.name for entry in past.roster.entries]
        spans = dict(zip(names, LENGTHS, strict=True))
        tokens = [past.tokens.get(name, 0) for name in names]
        if tokens == sorted(set(tokens)) and past.losses.keys() & spans.keys():
            return spans[min(past.losses.keys() & spans.keys(), key=lambda name: (past.losses[name], name))]
    return USUAL_LENGTH


def soups(history: Sequence[Past]) -> list[SoupRecipe]:
    """The means of the best two, three, … of all lines so far."""
    losses = {name: loss for past in history if past.roster.phase == "lines" for name, loss in past.losses.items()}
    ranked = sorted(losses, key=lambda name: (losses[name], name))
    return [
        SoupRecipe(name=f"soup-of-{count}", kind="soup", of=ranked[:count])
        for count in range(2, min(len(ranked), MOST_BLENDED) + 1)
    ]
