"""report.html: the whole tournament on one page that needs nothing but a browser.

Drawn from the record in the run directory alone. This file gathers what the page says; charts.py
draws, report.html.j2 is the page.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.text import discreet
from evaluation.figures import figure_of
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import RosterEntry
from orchestrator.record.events import State
from orchestrator.record.records import Sample
from orchestrator.record.snapshot import LineageSnapshot, Snapshot
from orchestrator.views import charts
from orchestrator.views.charts import Chart
from orchestrator.views.columns import RECIPE_COLUMNS, shown_in
from orchestrator.views.headline import Headline, headlines, in_a_sentence
from orchestrator.views.leaderboard import EntryRow, Leaderboard, LineageRow, RoundRow, build
from orchestrator.views.overfitting import Fit, fits
from orchestrator.views.tokens import left_over_in_words, line_of, tokens_of
from orchestrator.views.words import duration, signed

OPEN_ROUNDS = 6
"""In a lineage of more rounds than these only the last one's table is unfolded."""


@dataclass(frozen=True)
class Interval:
    """Where an improvement, its lower bound and the bar to clear lie on a scale of 0 to 100."""

    low: float
    mean: float
    bar: float
    proven: bool


@dataclass(frozen=True)
class Ancestor:
    """A model on the way from the base to the champion. Of those, only champions have test figures."""

    name: str
    detail: str
    test: dict[str, float]


@dataclass(frozen=True)
class Before:
    """One prompt, and what the base and the champion make of it."""

    base: Sample
    champion: Sample | None


@dataclass(frozen=True)
class LineageView:
    """One lineage as the page shows it."""

    row: LineageRow
    headlines: list[Headline]
    ancestry: list[Ancestor]
    charts: list[Chart]
    samples: list[Before]
    recipes: dict[str, str]
    """Every entry's recipe in a few words, with where it comes from: a line keeps its trunk's name, at another rate."""
    fits: list[Fit] = field(default_factory=list)
    """What its champions gained on validation, and on test."""
    tokens: str = ""
    """Where its training tokens went, in a sentence."""

    @property
    def last(self) -> RoundRow:
        """The newest settled round, or round 0."""
        return self.row.rounds[-1]

    @property
    def entries(self) -> list[EntryRow]:
        """Every entry of every settled round."""
        return [entry for round_ in self.row.rounds for entry in round_.entries]

    @property
    def entries_of(self) -> dict[str, dict[int, EntryRow]]:
        """The same of each competitor, by round."""
        found: dict[str, dict[int, EntryRow]] = {}
        for model in self.recipes:
            found.setdefault(model.rpartition("@")[0], {})
        for round_ in self.row.rounds:
            for entry in round_.entries:
                found[entry.competitor][round_.round] = entry
        return found


def write_report(snapshot: Snapshot, state: State) -> Path:
    """Write report.html from what is on record, finished or not, and return its path."""
    run = snapshot.run
    run.store.write_text(run.report_file, page(snapshot, build(snapshot, state)))
    return run.report_file


def page(snapshot: Snapshot, board: Leaderboard) -> str:
    """The report as one HTML page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names, reasons and samples are other people's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "figure": _figure,
        "quoted": _quoted,
        "discreet": discreet,
        "signed": signed,
        "title_of": lambda name: figure_of(name).title,
    }
    config = snapshot.config
    metric = figure_of(config.selection.metric)
    return environment.get_template("report.html.j2").render(
        config=config,
        board=board,
        lineages=[
            _lineage_view(snapshot, lineage, board, row)
            for lineage, row in zip(snapshot.lineages, board.lineages, strict=True)
        ],
        sentence=in_a_sentence(board),
        figures=board.figures,
        metric=metric,
        best=f"{'lowest' if metric.better == 'lower' else 'highest'} validation {metric.title}",
        said=charts.said,
        columns=shown_in("report", config.selection.metric),
        recipe_columns=RECIPE_COLUMNS,
        are_repeated=any(round_.recipes for row in board.lineages for round_ in row.rounds),
        charts=[(figure, charts.figure_chart(snapshot, board, figure.name)) for figure in charts.charted(board)],
        styles=charts.styles(snapshot),
        intervals=lambda row: intervals(row, config.selection.margin_nats),
        open_rounds=OPEN_ROUNDS,
        manifest=snapshot.manifest,
        spent=snapshot.spent,
        environment=_pretty(snapshot.environment),
        config_yaml=discreet(config.to_yaml()),
        config_file=snapshot.run.config_file,
        plotly_js=get_plotlyjs(),
    )


def describe(entry: RosterEntry) -> str:
    """A recipe in a few words, such as `sft, lora r16, adamw_torch, 0.0002 linear, batch 16`, and its origin."""
    words = f"{entry.recipe.kind}, {entry.recipe.summary}"
    repeats = f"a run of {entry.recipe.repeat_of}" if entry.recipe.repeat_of else ""
    return "; ".join(part for part in (words[:120], repeats, entry.origin) if part)


def intervals(row: RoundRow, margin_nats: float) -> dict[str, Interval]:
    """The winner's improvement on the rows that prove, on the scale of the round."""
    known = {e.competitor: (e.improvement_low, e.improvement_seen) for e in row.entries}
    both = {name: (low, mean) for name, (low, mean) in known.items() if low is not None and mean is not None}
    ends = [0.0, margin_nats, *(value for pair in both.values() for value in pair)]
    start, span = min(ends), (max(ends) - min(ends)) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - start) / span, 1)

    return {
        name: Interval(place(low), place(mean), place(margin_nats), row.dethroned and low > margin_nats)
        for name, (low, mean) in both.items()
    }


def _lineage_view(snapshot: Snapshot, lineage: LineageSnapshot, board: Leaderboard, row: LineageRow) -> LineageView:
    train_charts = charts.train_charts(snapshot, lineage)
    recipes = {
        str(ModelRef(entry.name, one.number)): describe(entry.entry) for one in lineage.rounds for entry in one.entries
    }
    if not row.rounds:
        return LineageView(row, [], [], train_charts, [], recipes)
    return LineageView(
        row=row,
        headlines=headlines(board, snapshot.config.references, row, recipes),
        ancestry=[_ancestor(row, model, recipes) for model in reversed(line_of(lineage, lineage.champion))],
        fits=fits(snapshot, lineage),
        tokens=f"{tokens_of(lineage).in_words} {left_over_in_words(snapshot.config, lineage)}".rstrip(),
        charts=train_charts,
        samples=_samples(lineage),
        recipes=recipes,
    )


def _ancestor(row: LineageRow, model: ModelRef, recipes: dict[str, str]) -> Ancestor:
    if model.competitor is None:
        return Ancestor("base model", row.base, row.rounds[0].test)
    reigned = (round_.test for round_ in row.rounds if round_.champion == model)
    return Ancestor(model.in_words, recipes[str(model)], next(reigned, {}))


def _samples(lineage: LineageSnapshot) -> list[Before]:
    if lineage.samples is None:
        return []
    champion = lineage.champion
    ours = None if champion.is_base else lineage.rounds[champion.round - 1].samples
    after = {sample.prompt: sample for sample in ours.samples} if ours else {}
    return [Before(sample, after.get(sample.prompt)) for sample in lineage.samples.samples]


def _figure(test: dict[str, float], name: str) -> str:
    return figure_of(name).text(test.get(name))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _pretty(value: Any) -> str | None:
    return None if value is None else json.dumps(value, indent=1, ensure_ascii=False)
