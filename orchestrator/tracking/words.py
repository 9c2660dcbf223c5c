"""What MLflow says in words: the notes on runs and models, and values as parameters."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from evaluation.scorecard import Scorecard
from orchestrator.config import Lineage, Reference, TournamentConfig
from orchestrator.record.records import RosterEntry
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.verdict import Verdict
from orchestrator.views.leaderboard import Leaderboard, LineageRow

CHART_FILTER = 'tags.chart = "rounds"'
"""Finds the runs that are lines of the chart: lineages and references."""
CHART_LINK = "{chart}"
"""Stands in a note for the address of the chart, which only the sender knows."""
NOTE_LIMIT, KEY_LIMIT, VALUE_LIMIT = 7_900, 250, 6_000  # MLflow's own are 8,000, 250 and 6,000


def parameters(values: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Values as MLflow takes them: keys in its alphabet and distinct, texts that fit; what is not text, as JSON."""
    result: dict[str, str] = {}
    for key, value in values:
        name = stem = re.sub(r"[^\w. /:-]", "-", key, flags=re.ASCII)[:KEY_LIMIT].strip(" /.") or "value"
        count = 1
        while name in result:
            count += 1
            name = f"{stem[: KEY_LIMIT - 4]}-{count}"
        result[name] = fitted(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), VALUE_LIMIT)
    return result


def fitted(text: str, limit: int) -> str:
    """`text`, cut with an ellipsis where it is longer than `limit`."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def joined(source: str | list[str]) -> str:
    """A data source in one line."""
    return source if isinstance(source, str) else ", ".join(source)


def about_experiment() -> str:
    """The description of the experiment."""
    return (
        f"[Chart of the test loss over rounds]({CHART_LINK}). Each run at the top is one tournament of fine-tuning"
        " recipes: its plus sign opens its lineages (base models), their rounds, and each round's competitors.\n\n"
        f"The chart by hand: filter the runs with `{CHART_FILTER}`, sort them by test_loss, choose the chart view."
        " Each lineage is a line from its base model at step 0 down through its champions, each reference a"
        " horizontal line."
    )


def about_tournament(config: TournamentConfig, run: RunDirectory, board: Leaderboard | None) -> str:
    """The chart's address, the leaderboard, and what it means. The UI folds away all but the first lines."""
    lines = [f"**[Chart: test loss of the champions, round by round]({CHART_LINK})**"]
    lines += ["", *(_now(row) for row in board.lineages if row.rounds)] if board else []
    lines += [
        "",
        f"Tournament **{config.name}**: {len(config.lineages)} base models × {config.all_rounds} rounds ×"
        f" {len(config.competitors)} competing recipes, on {joined(config.data.source)}. In each round all recipes"
        " train from one seed model with the same data and budget. The best seeds the next round, and becomes champion"
        " once it is proven better. In the chart, step 0 is the base model and horizontal lines are references.",
    ]
    for lineage in board.lineages if board else []:
        lines += _table_of(lineage)
    if board and board.references:
        lines += ["", "### References", "", "| model | test loss | bits per byte |", "|---|---|---|"]
        lines += [f"| {r.name} | {r.test_loss:.4f} | {r.test_bits_per_byte:.4f} |" for r in board.references]
    lines += [
        "",
        "Losses are nats per completion token. Champions are chosen on validation rows; test rows only report.",
        "",
        f"Record: `{run.root}`. The whole report: `report.html` under Artifacts.",
    ]
    return fitted("\n".join(lines), NOTE_LIMIT)


def _now(lineage: LineageRow) -> str:
    first, last = lineage.rounds[0], lineage.rounds[-1]
    return (
        f"- **{lineage.name}**: champion {last.champion} after {last.round} rounds, test loss {last.test_loss:.4f}"
        f" (base {first.test_loss:.4f})"
    )


def _table_of(lineage: LineageRow) -> list[str]:
    lines = ["", f"### {lineage.name} (from {lineage.base})", ""]
    lines += ["| round | champion | test loss | bits per byte | perplexity |", "|---|---|---|---|---|"]
    for row in lineage.rounds:
        new = " **new**" if row.dethroned else ""
        scores = f"{row.test_loss:.4f} | {row.test_bits_per_byte:.4f} | {row.test_perplexity:.3f}"
        lines.append(f"| {row.round} | {row.champion}{new} | {scores} |")
    return lines


def about_lineage(lineage: Lineage, verdicts: list[Verdict]) -> str:
    """Which base, who is champion, and what the last verdict was."""
    text = (
        f"**{lineage.name}** starts from `{lineage.base}`. `test_loss` over the steps is its champion's, round by"
        " round; step 0 is the base model as it is."
    )
    if verdicts:
        text += f"\n\nChampion after round {verdicts[-1].round}: **{verdicts[-1].champion}**."
        text += "".join(f"\n- {reason}" for reason in verdicts[-1].reasons)
    return fitted(text, NOTE_LIMIT)


def about_reference(reference: Reference) -> str:
    """Why this is a horizontal line, or a line that nobody trained."""
    if reference.published is not None:
        return f"**{reference.name}**: a published series of test losses by round, drawn for comparison, not run here."
    how = "in the model's own chat format" if reference.prompt == "chat" else "on the same prompts as the champions"
    return f"**{reference.name}**: `{reference.model}`, only scored ({how}), a horizontal line over all rounds."


def about_round(verdict: Verdict) -> str:
    """The verdict's own words. The run's metrics are the champion's after the round."""
    return fitted("\n".join(f"- {reason}" for reason in verdict.reasons), NOTE_LIMIT)


def about_competitor(tags: dict[str, str]) -> str:
    """How the entry ended."""
    outcome = f"\n\n{tags['outcome']}." if tags.get("outcome") else ""
    reason = f": {tags['reason']}" if tags["reason"] else ""
    return fitted(f"{tags['status'].capitalize()}{reason}.{outcome}", NOTE_LIMIT)


def origins(entry: RosterEntry) -> Iterator[tuple[str, str]]:
    """Where each changed value of a recipe comes from, as parameters."""
    for key, words in entry.origins.items():
        yield f"origin.{key}", words


def outcome(verdict: Verdict, name: str) -> str:
    """What the round's verdict means for one competitor."""
    places = [standing.competitor for standing in verdict.entries]
    if name not in places:
        return "out of the round"
    result = [f"{places.index(name) + 1} of {len(places)}"]
    label = f"{name}@{verdict.round}"
    if verdict.dethroned and verdict.champion == label:
        result.append("new champion")
    if verdict.seed_next == label:
        result.append("seeds the next round")
    return ", ".join(result)


def about_champion(verdict: Verdict, card: Scorecard, path: Path) -> str:
    """The description of a registered model's version."""
    name, _, number = verdict.champion.partition("@")
    reasons = "".join(f"\n- {reason}" for reason in verdict.reasons)
    return (
        f"{name}, champion of {verdict.lineage} since round {number}: test loss {card.test.loss:.4f} nats per"
        f" token, {card.test.bits_per_byte:.4f} bits per byte.\n{reasons}\n\n"
        f"The weights lie where the tournament left them, as a Hugging Face model folder: `{path}`"
    )


def about_champions(config: TournamentConfig, lineage: str) -> str:
    """The description of a registered model."""
    base = next((x.base for x in config.lineages if x.name == lineage), "")
    return (
        f"Champions of the lineage **{lineage}** (base `{base}`) in the tournament **{config.name}**: one version for"
        " each champion crowned, the alias `champion` on the newest. Nothing is copied: each version points at the"
        " Hugging Face model folder in the run directory."
    )
