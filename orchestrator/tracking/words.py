"""What MLflow says in words: the notes on runs and models, in markdown, and values as parameters."""

import html
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cluster.text import as_code, discreet
from evaluation.figures import loss_in_words, measured
from evaluation.figures.figure import Figure
from evaluation.scorecard import Scorecard
from orchestrator.config.sections import Lineage, Reference
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import RosterEntry
from orchestrator.record.records import Verdict
from orchestrator.record.snapshot import LineageSnapshot, Snapshot
from orchestrator.tracking.location import CHART_FILTER, CHART_LINK, TREE_LINK
from orchestrator.tracking.points import champions

NOTE = "mlflow.note.content"
"""The tag that MLflow's UI shows as the description."""
NOTE_LIMIT, KEY_LIMIT, VALUE_LIMIT = 7_900, 250, 6_000  # MLflow's own are 8,000, 250 and 6,000
DESCRIPTION_LIMIT = 4_900
"""Of a registered model's version; MLflow's own is 5,000."""


def parameters(values: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Values as MLflow takes them: keys in its alphabet and distinct, texts that fit; what is not text, as JSON;
    and no passwords of URLs."""
    result: dict[str, str] = {}
    for key, value in values:
        name = stem = re.sub(r"[^\w. /:-]", "-", key, flags=re.ASCII)[:KEY_LIMIT].strip(" /.") or "value"
        count = 1
        while name in result:
            count += 1
            name = f"{stem[: KEY_LIMIT - 4]}-{count}"
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        result[name] = fitted(discreet(text), VALUE_LIMIT)
    return result


def fitted(text: str, limit: int) -> str:
    """`text`, cut with an ellipsis where it is longer than `limit`."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escaped(text: object) -> str:
    """Text as markdown that reads as the text: nothing in it is mark-up."""
    safe = re.sub(r"([\\`*_{}\[\]|~#])", r"\\\1", html.escape(str(text), quote=False))
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", safe)  # what would begin a list


def _listed(reasons: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(reason)}" for reason in reasons)


def about_experiment() -> str:
    """The description of the experiment."""
    return (
        f"[Chart of the test loss over rounds]({CHART_LINK}). In the [table of runs]({TREE_LINK}) each run at the top"
        " is one tournament of fine-tuning recipes: its plus sign opens its lineages (base models), their rounds, and"
        " each round's competitors.\n\n"
        f"The chart by hand: filter the runs with `{CHART_FILTER}`, sort them by test_loss, choose the chart view."
        " Each lineage is a line from its base model at step 0 down through its champions, each reference a"
        " horizontal line."
    )


EQUAL = (
    "In each round all recipes train from one seed model with the same data and budget. The best model seeds the"
    " next round, and becomes champion once it is proven better."
)
ALLOCATED = (
    "All recipes race briefly from the base model on the same rows. The best model goes on with everything that is"
    " left of the whole budget, and becomes champion once it is proven better."
)


def about_tournament(snapshot: Snapshot) -> str:
    """The chart's address, the leaderboard, and what it means. The UI folds away all but the first lines."""
    config = snapshot.config
    lines = [f"**[Chart: test loss of the champions, round by round]({CHART_LINK})**"]
    lines += ["", *(line for lineage in snapshot.lineages for line in _now(lineage))]
    lines += [
        "",
        f"Tournament **{escaped(config.name)}**: {len(config.lineages)} base models × {config.all_rounds} rounds ×"
        f" {len(config.competitors)} competing recipes, on {escaped(discreet(', '.join(config.data.sources)))}."
        f" {ALLOCATED if config.is_allocated else EQUAL} In the chart, step 0 is the base model and horizontal lines"
        " are references.",
    ]
    for lineage in snapshot.lineages:
        lines += _table_of(lineage)
    if snapshot.references:
        figures = measured(card.test_figures for card in snapshot.references.values())
        rows = [f"| {escaped(name)} | {_cells(figures, card)} |" for name, card in snapshot.references.items()]
        lines += ["", "### References", "", *_head(figures, "model"), *rows]
    lines += [
        "",
        "Losses are nats per completion token. Champions are chosen on validation rows; test rows only report.",
        "",
        f"Record: {as_code(str(snapshot.run.root))}. The whole report: `report.html` under Artifacts.",
    ]
    return fitted("\n".join(lines), NOTE_LIMIT)


def _now(lineage: LineageSnapshot) -> Iterator[str]:
    line = list(champions(lineage))
    if line:
        (_, _, first), (number, model, last) = line[0], line[-1]
        yield (
            f"- **{escaped(lineage.name)}**: champion {escaped(model)} after {number} rounds, test loss"
            f" {loss_in_words(last.test_figures)}, base {loss_in_words(first.test_figures)}"
        )


def _table_of(lineage: LineageSnapshot) -> list[str]:
    line = list(champions(lineage))
    if not line:
        return []
    dethroned = {verdict.round for verdict in lineage.verdicts if verdict.dethroned}
    heading = f"### {escaped(lineage.name)} (from {escaped(lineage.lineage.base)})"
    figures = measured(card.test_figures for _, _, card in line)
    rows = [
        f"| {number} | {escaped(model)}{' **new**' if number in dethroned else ''} | {_cells(figures, card)} |"
        for number, model, card in line
    ]
    return ["", heading, "", *_head(figures, "round", "champion"), *rows]


def _head(figures: list[Figure], *columns: str) -> list[str]:
    """The first lines of a table whose last columns are the figures of test rows."""
    titles = [*columns, *(f"test {figure.title}" for figure in figures)]
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]


def _cells(figures: list[Figure], card: Scorecard) -> str:
    return " | ".join(figure.text(card.test_figures.get(figure.name)) for figure in figures)


def about_lineage(lineage: LineageSnapshot) -> str:
    """Which base, who is champion, and what the last verdict was."""
    text = (
        f"**{escaped(lineage.name)}** starts from {as_code(lineage.lineage.base)}. `test_loss` over the steps is its"
        " champion's, round by round; step 0 is the base model as it is."
    )
    if lineage.verdicts:
        last = lineage.verdicts[-1]
        text += f"\n\nChampion after round {last.round}: **{escaped(last.champion)}**.\n{_listed(last.reasons)}"
    return fitted(text, NOTE_LIMIT)


def about_reference(reference: Reference) -> str:
    """Why this is a horizontal line, or a line that nobody trained."""
    name = escaped(reference.name)
    if reference.model is None:
        return f"**{name}**: a published series of test losses by round, drawn for comparison, not run here."
    how = "in the model's own chat format" if reference.prompt == "chat" else "on the same prompts as the champions"
    return f"**{name}**: {as_code(reference.model)}, only scored ({how}), a horizontal line over all rounds."


def about_round(verdict: Verdict | None) -> str:
    """The verdict's own words. The run's metrics are the champion's after the round."""
    if verdict is None:
        return "Competitors are training; the verdict comes when all are scored."
    of_recipes = [one.words for one in verdict.recipes if one.words]
    return fitted(_listed([*verdict.reasons, *of_recipes]), NOTE_LIMIT)


def about_entry(state: str, reason: str, outcome: str) -> str:
    """How an entry stands, or how it ended."""
    because = f": {escaped(reason)}" if reason else ""
    return fitted(f"{state.capitalize()}{because}." + (f"\n\n{escaped(outcome)}." if outcome else ""), NOTE_LIMIT)


def origins(entry: RosterEntry) -> Iterator[tuple[str, str]]:
    """Where each changed value of a recipe comes from, as parameters."""
    for key, words in entry.origins.items():
        yield f"origin.{key}", words


def outcome(verdict: Verdict, name: str) -> str:
    """What the round's verdict means for one competitor."""
    if (place := verdict.places.get(name)) is None:
        return "out of the round"
    result = [f"{place + 1} of {len(verdict.places)}"]
    model = ModelRef(name, verdict.round)
    if verdict.dethroned and verdict.champion == model:
        result.append("new champion")
    if verdict.seed_next == model:
        result.append("seeds the next round")
    return ", ".join(result)


def about_champion(verdict: Verdict, card: Scorecard, path: Path) -> str:
    """The description of a registered model's version."""
    champion = verdict.champion
    test = card.test_figures
    figures = ", ".join(f"test {figure.title} {figure.text(test[figure.name])}" for figure in measured([test]))
    return fitted(
        f"{escaped(champion.competitor)}, champion of {escaped(verdict.lineage)} since round {champion.round}:"
        f" {figures}.\n\n{_listed(verdict.reasons)}\n\n"
        f"The weights lie where the tournament left them, as a Hugging Face model folder: {as_code(str(path))}",
        DESCRIPTION_LIMIT,
    )


def about_champions(tournament: str, lineage: Lineage) -> str:
    """The description of a registered model."""
    return (
        f"Champions of the lineage **{escaped(lineage.name)}** (base {as_code(lineage.base)}) in the tournament"
        f" **{escaped(tournament)}**: one version for each champion crowned, the alias `champion` on the newest."
        " Nothing is copied: each version points at the Hugging Face model folder in the run directory."
    )
