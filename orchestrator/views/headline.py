"""What comes of a tournament in a sentence, and beside each champion the models that it is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.figures import figure_of
from orchestrator.config.sections import Reference
from orchestrator.views.leaderboard import Leaderboard, LineageRow, ReferenceRow


@dataclass(frozen=True)
class Headline:
    """A row of a lineage's headline: the figures of a model's test rows, and how much lower the champion's loss is."""

    what: str
    detail: str
    test: dict[str, float]
    change: str
    """Of the champion against this model, in words; empty for the champion."""


def in_a_sentence(board: Leaderboard) -> str:
    """What became of each lineage's test loss, and how the champion compares with the best reference, per byte."""
    settled = [row for row in board.lineages if len(row.rounds) > 1]
    if not settled:
        return "No round is settled yet."
    return "; ".join(_outcome(row, board.references) for row in settled) + "."


def _outcome(row: LineageRow, references: Sequence[ReferenceRow]) -> str:
    base, last = row.rounds[0], row.rounds[-1]
    rounds = f"{last.round} round{'s' if last.round != 1 else ''}"
    losses = [figure_of("loss").text(one.test_loss) for one in (base, last)]
    if last.champion.is_base:
        return f"{row.name}: nothing has proved better than the base model ({losses[0]}) in {rounds}"
    words = f"{row.name}: test loss {losses[0]} → {losses[1]} in {rounds}"
    known = [one for one in references if "bits_per_byte" in one.test]
    if not known or "bits_per_byte" not in last.test:
        return words
    best = min(known, key=lambda one: one.test["bits_per_byte"])
    against = change(last.test["bits_per_byte"], best.test["bits_per_byte"])
    which = best.name if len(known) == 1 else f"the best reference, {best.name}"
    said = {"the same": "as high as"}.get(against, f"{against} {'as' if against.endswith('as high') else 'than'}")
    return f"{words}, per byte {said} that of {which}"


def change(ours: float | None, theirs: float | None) -> str:
    """How our loss compares with theirs, in words; a dash where one of them is not known."""
    if ours is None or not theirs:
        return "–"
    if ours >= 2 * theirs > 0:
        return f"{ours / theirs:.1f} times as high"
    percent = f"{abs(1 - ours / theirs):.1%}"
    return "the same" if percent == "0.0%" else f"{percent} {'lower' if ours < theirs else 'higher'}"


def headlines(
    board: Leaderboard, references: Sequence[Reference], row: LineageRow, recipes: Mapping[str, str]
) -> list[Headline]:
    """A lineage's base and champion, what the tournament scored beside them, and what others published."""
    base, last = row.rounds[0], row.rounds[-1]
    ours = last.test
    if last.champion.competitor is None:
        champion, detail = "champion: still the base model", "no entry has proved better yet"
    else:
        champion, detail = f"champion: {last.champion.in_words}", recipes[str(last.champion)]
    rows = [
        Headline("base model", row.base, base.test, change(ours.get("loss"), base.test.get("loss"))),
        Headline(champion, detail, ours, ""),
    ]
    for r in board.references:
        words = change(ours.get("bits_per_byte"), r.test.get("bits_per_byte")) + " per byte"
        rows.append(Headline(r.name, f"{r.model}, only scored", r.test, words))
    for published in references:
        if values := published.published:
            number = min(last.round, len(values) - 1)  # of the same round, as long as there is one
            detail, words = f"published, after round {number}", change(ours.get("loss"), values[number]) + " per token"
            rows.append(Headline(published.name, detail, {"loss": values[number]}, words))
    return rows
