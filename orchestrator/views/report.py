"""report.html: the whole tournament on one page that needs nothing but a browser.

Drawn from the record in the run directory alone. This file gathers what the page says; charts.py
draws, report.html.j2 is the page.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.store import LOCAL
from evaluation.splits import Manifest
from orchestrator.config import TournamentConfig
from orchestrator.field.field import everyone
from orchestrator.record.records import RosterEntry, Sample, Samples
from orchestrator.record.run_directory import RunDirectory, read_json
from orchestrator.views import charts
from orchestrator.views.charts import Chart, name_of
from orchestrator.views.leaderboard import EntryRow, Leaderboard, LineageRow, ReferenceRow, RoundRow, State, build
from orchestrator.views.live import duration

OPEN_ROUNDS = 6
"""In a lineage of more rounds than these only the last one's table is unfolded."""


@dataclass(frozen=True)
class Figure:
    """A row of a lineage's headline: a model's test loss, and how much lower the champion's is."""

    what: str
    detail: str
    test_loss: float
    test_bits_per_byte: float | None
    change: str
    """Of the champion against this model, in words; empty for the champion."""


@dataclass(frozen=True)
class Interval:
    """Where an improvement, its lower bound and the bar to clear lie on a scale of 0 to 100."""

    low: float
    mean: float
    bar: float
    proven: bool


@dataclass(frozen=True)
class Ancestor:
    """A model on the way from the base to the champion."""

    name: str
    detail: str
    test_loss: float | None


@dataclass(frozen=True)
class Before:
    """One prompt, and what the base and the champion make of it."""

    base: Sample
    champion: Sample | None


@dataclass(frozen=True)
class LineageView:
    """One lineage as the page shows it."""

    row: LineageRow
    figures: list[Figure]
    ancestry: list[Ancestor]
    charts: list[Chart]
    samples: list[Before]
    recipes: dict[str, str]
    """Every competitor's recipe in a few words, with where it comes from."""

    @property
    def last(self) -> RoundRow:
        """The newest settled round, or round 0."""
        return self.row.rounds[-1]

    @property
    def entries(self) -> list[EntryRow]:
        """Every entry of every settled round."""
        return [entry for round_ in self.row.rounds for entry in round_.entries]


def write_report(config: TournamentConfig, run: RunDirectory, state: State) -> Path:
    """Write report.html from what is on record, finished or not, and return its path."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    board = build(config, run, state)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names, reasons and samples are other people's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "loss": _loss,
        "signed": _signed,
        "person": name_of,
        "quoted": _quoted,
    }
    environment.filters["discreet"] = discreet
    page = environment.get_template("report.html.j2").render(
        config=config,
        board=board,
        lineages=[_lineage_view(config, run, board, row) for row in board.lineages],
        loss_charts=[charts.loss_chart(config, board, unit) for unit in ("nats", "bits")],
        styles=charts.styles(config, run),
        intervals=lambda row: intervals(row, config.selection.margin_nats),
        open_rounds=OPEN_ROUNDS,
        manifest=Manifest.read_if_there(run.manifest_file),
        environment=_pretty(read_json(run.environment_file)),
        config_yaml=discreet(config.to_yaml()),
        config_file=run.config_file,
        plotly_js=get_plotlyjs(),
    )
    LOCAL.write_text(run.report_file, page)
    return run.report_file


def describe(entry: RosterEntry) -> str:
    """A recipe in a few words, such as `sft, lora r16, adamw_torch, 0.0002 linear, batch 16`, and its origin."""
    words = f"{entry.recipe.kind}, {entry.recipe.summary}"
    return "; ".join(part for part in (words[:120], entry.origin) if part)


def discreet(text: str) -> str:
    """A report is passed on: the user and password in a URL of the config are not for everyone."""
    return re.sub(r"://[^/\s@'\"]+@", "://…@", text)


def change(ours: float, theirs: float) -> str:
    """How our loss compares with theirs, in words."""
    percent = f"{abs(1 - ours / theirs):.1%}"
    return "the same" if percent == "0.0%" else f"{percent} {'lower' if ours < theirs else 'higher'}"


def intervals(row: RoundRow, margin_nats: float) -> dict[str, Interval]:
    """Each scored entry's improvement on one scale for the round."""
    known = {e.competitor: (e.improvement_low, e.improvement) for e in row.entries}
    both = {name: (low, mean) for name, (low, mean) in known.items() if low is not None and mean is not None}
    ends = [0.0, margin_nats, *(value for pair in both.values() for value in pair)]
    start, span = min(ends), (max(ends) - min(ends)) or 1.0

    def place(value: float) -> float:
        return round(100 * (value - start) / span, 1)

    return {
        name: Interval(place(low), place(mean), place(margin_nats), low > margin_nats)
        for name, (low, mean) in both.items()
    }


def ancestry(row: LineageRow) -> list[str]:
    """Labels from the base to the champion: each model's parent is what the round before it named as seed."""
    label = row.rounds[-1].champion
    labels = [label]
    while label != "base":
        label = row.rounds[int(label.rpartition("@")[2]) - 1].seed_next
        labels.append(label)
    return labels[::-1]


def _lineage_view(config: TournamentConfig, run: RunDirectory, board: Leaderboard, row: LineageRow) -> LineageView:
    train_charts = charts.train_charts(config, run, row.name)
    recipes = {name: describe(entry) for name, entry in everyone(config, run, row.name).items()}
    if not row.rounds:
        return LineageView(row, [], [], train_charts, [], recipes)
    return LineageView(
        row=row,
        figures=_figures(config, board.references, row, recipes),
        ancestry=[_ancestor(row, label, recipes) for label in ancestry(row)],
        charts=train_charts,
        samples=_samples(run, row),
        recipes=recipes,
    )


def _figures(
    config: TournamentConfig, references: list[ReferenceRow], row: LineageRow, recipes: dict[str, str]
) -> list[Figure]:
    base, last = row.rounds[0], row.rounds[-1]
    champion = f"champion: {name_of(last.champion)}" if last.champion != "base" else "champion: still the base model"
    detail = recipes.get(last.champion.rpartition("@")[0], "no entry has proved better yet")
    figures = [
        Figure("base model", row.base, base.test_loss, base.test_bits_per_byte, change(last.test_loss, base.test_loss)),
        Figure(champion, detail, last.test_loss, last.test_bits_per_byte, ""),
    ]
    for r in references:
        words = change(last.test_bits_per_byte, r.test_bits_per_byte) + " per byte"
        figures.append(Figure(r.name, f"{r.model}, only scored", r.test_loss, r.test_bits_per_byte, words))
    for published in config.references:
        if values := published.published:
            number = min(last.round, len(values) - 1)  # of the same round, as long as there is one
            detail, words = f"published, after round {number}", change(last.test_loss, values[number]) + " per token"
            figures.append(Figure(published.name, detail, values[number], None, words))
    return figures


def _ancestor(row: LineageRow, label: str, recipes: dict[str, str]) -> Ancestor:
    name, _, number = label.rpartition("@")
    if not name:
        return Ancestor("base model", row.base, row.rounds[0].test_loss)
    entry = next(e for e in row.rounds[int(number)].entries if e.competitor == name)
    return Ancestor(name_of(label), recipes[name], entry.test_loss)


def _samples(run: RunDirectory, row: LineageRow) -> list[Before]:
    base = Samples.read_if_there(run.round(row.name, 0) / "samples.json")
    if base is None:
        return []
    number = row.rounds[-1].champion.rpartition("@")[2]
    ours = Samples.read_if_there(run.round(row.name, int(number)) / "samples.json") if number.isdigit() else None
    after = {sample.prompt: sample for sample in ours.samples} if ours else {}
    return [Before(sample, after.get(sample.prompt)) for sample in base.samples]


def _loss(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return f"{value:.4f}".replace("-", "−")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _pretty(value: Any) -> str | None:
    return None if value is None else json.dumps(value, indent=1, ensure_ascii=False)
