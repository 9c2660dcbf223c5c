"""Where a lineage's training tokens went: on the champion's own line, into what its soups blend, lost, or elsewhere.

The champion's line is the entry that handed it in, what that went on from or was seeded by, and so on down to the base.
A soup on it has trained nothing itself: what it blends, and their lines, are counted as ingredients.
"""

from cluster.records import Record
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.field.whole_budget import LEFT_OVER
from orchestrator.record.snapshot import EntrySnapshot, LineageSnapshot, has_ended


class Tokens(Record):
    """Training tokens of one lineage."""

    spent: int = 0
    """By everybody, what was lost included."""
    on_champions_line: int = 0
    on_ingredients: int = 0
    """Of soups on the champion's line."""
    lost: int = 0
    """With processes that ended, and trained again."""

    @property
    def elsewhere(self) -> int:
        """On entries that the champion does not rest on."""
        return self.spent - self.on_champions_line - self.on_ingredients - self.lost

    @property
    def in_words(self) -> str:
        """One sentence."""
        if not self.spent:
            return "No tokens were trained."
        parts = [f"{self.on_champions_line / self.spent:.0%} on the champion's own line"]
        parts += [f"{self.on_ingredients / self.spent:.0%} on what it blends"] if self.on_ingredients else []
        parts += [f"{self.elsewhere / self.spent:.0%} on others"] if self.elsewhere else []
        parts += [f"{self.lost / self.spent:.1%} lost"] if self.lost else []
        return f"{self.spent:,} tokens were trained: {', '.join(parts)}."


def tokens_of(lineage: LineageSnapshot) -> Tokens:
    """The account of everything that is on record."""
    trained = [one.submission for round_ in lineage.rounds for one in round_.entries if one.submission is not None]
    own = line_of(lineage, lineage.champion)
    return Tokens(
        spent=sum(submission.train_tokens + submission.lost_tokens for submission in trained),
        on_champions_line=_trained(lineage, set(own)),
        on_ingredients=_trained(lineage, _ingredients(lineage, own) - set(own)),
        lost=sum(submission.lost_tokens for submission in trained),
    )


def left_over(config: TournamentConfig, lineage: LineageSnapshot) -> int | None:
    """Of a whole budget of tokens, what nobody trained with; None without one, and before the lineage has ended. What
    was lost with a process was not charged."""
    total = config.budget.total_tokens
    if total is None or not has_ended(config, lineage.verdicts):
        return None
    tokens = tokens_of(lineage)
    return max(0, total - tokens.spent + tokens.lost)


def left_over_in_words(config: TournamentConfig, lineage: LineageSnapshot) -> str:
    """A sentence with the reason; empty where nothing worth a word is left."""
    left, total = left_over(config, lineage), config.budget.total_tokens
    if left is None or total is None or left <= LEFT_OVER * total:
        return ""
    is_short = any(round_.roster.phase == "lines" for round_ in lineage.rounds)
    why = ": more passes over the data would overfit" if is_short else ""
    return f"{left:,} of the {total:,} of its budget are left over{why}."


def line_of(lineage: LineageSnapshot, model: ModelRef) -> list[ModelRef]:
    """The models that `model` rests on, itself first and the base last."""
    line = [model]
    while (entry := lineage.entry(line[-1])) is not None:
        line.append(_forebear(lineage, entry, line[-1].round))
    return line


def _ingredients(lineage: LineageSnapshot, line: list[ModelRef]) -> set[ModelRef]:
    """What the soups of a line blend, each with its own line."""
    found: set[ModelRef] = set()
    for model in line:
        entry = lineage.entry(model)
        for blended in _blended(entry) if entry is not None else []:
            own = line_of(lineage, blended)
            found |= {*own, *_ingredients(lineage, own)}
    return found


def _forebear(lineage: LineageSnapshot, entry: EntrySnapshot, number: int) -> ModelRef:
    """What an entry of round `number` started from."""
    went_on = entry.brief is None or entry.brief.seed_continuation is not None
    if entry.entry.continues is not None and went_on:
        return entry.entry.continues
    verdict = lineage.rounds[number - 2].verdict if number > 1 else None
    return BASE if verdict is None else verdict.seed_next


def _blended(entry: EntrySnapshot) -> list[ModelRef]:
    return [ModelRef.parse(one.label) for one in entry.brief.ingredients] if entry.brief is not None else []


def _trained(lineage: LineageSnapshot, models: set[ModelRef]) -> int:
    entries = [lineage.entry(model) for model in models]
    return sum(one.submission.train_tokens for one in entries if one is not None and one.submission is not None)
