"""The report's charts: plotly figures as plain JSON, drawn in the page by the plotly.js that it carries.

Text is a neutral grey on nothing, so that a figure is readable on light and dark; the page's script then
takes the text's colour from its own style.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

from competitors.contract import read_events
from orchestrator.config import TournamentConfig
from orchestrator.field.field import everyone
from orchestrator.record.run_directory import RunDirectory
from orchestrator.views.leaderboard import Leaderboard, RoundRow, field_of

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, which the colour-blind can tell apart, less its yellow and black."""
DASHES = ("solid", "dash", "dot", "dashdot")
GREY = "#808690"
GRID = "rgba(128,134,144,.22)"
CURVE_POINTS = 120

Unit = Literal["nats", "bits"]
UNITS = {"nats": "nats per completion token", "bits": "bits per byte"}


@dataclass(frozen=True)
class Chart:
    """One figure for the page, what it shows in words, and the axis ranges that a reader may switch between."""

    key: str
    figure: dict[str, Any]
    label: str
    whole: dict[str, Any] | None = None
    close: dict[str, Any] | None = None


def style(index: int) -> tuple[str, str]:
    """Colour and dash of the line number `index`: past the palette's end the dash changes."""
    return COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]


def styles(config: TournamentConfig, run: RunDirectory) -> dict[str, tuple[str, str]]:
    """Colour and dash of each competitor that any lineage has had, in order of appearance."""
    names = dict.fromkeys(name for lineage in config.lineages for name in everyone(config, run, lineage.name))
    return {name: style(index) for index, name in enumerate(names)}


def loss_chart(config: TournamentConfig, board: Leaderboard, unit: Unit) -> Chart:
    """Test loss over rounds: a line for each lineage, a horizontal one for each reference."""
    last = max(config.all_rounds, *(len(r.published or []) - 1 for r in config.references), 1)
    # Published losses are per token: nobody printed the bytes.
    published = {r.name: r.published for r in config.references if r.published and unit == "nats"}
    levels = {r.name: r.test_loss if unit == "nats" else r.test_bits_per_byte for r in board.references}
    lines = {x.name: [_height(r, unit) for r in x.rounds] for x in board.lineages if x.rounds}
    traces = []
    for index, lineage in enumerate(board.lineages):
        if lineage.rounds:
            traces.append(_lineage_trace(lineage.name, lineage.rounds, unit, *style(index)))
    for index, (name, values) in enumerate(published.items()):
        traces.append(_published_trace(name, values, COLOURS[(len(board.lineages) + index) % len(COLOURS)]))
    for index, (name, level) in enumerate(levels.items()):
        traces.append(_level_trace(name, level, last, unit, DASHES[(2 + index) % len(DASHES)]))
    whole = _range([*(v for values in (*lines.values(), *published.values()) for v in values), *levels.values()])
    late = [v for values in (*lines.values(), *published.values()) for v in values[1:]]
    near = [level for level in levels.values() if late and level <= 1.3 * max(late)]
    layout = _layout(UNITS[unit], "round (0 is the base model)", whole)
    layout["height"] = 460 if unit == "nats" else 340
    layout["xaxis"] |= {"range": [-0.15, last + 0.15], "tick0": 0, "dtick": max(1, math.ceil(last / 12))}
    return Chart(
        key=f"loss-{unit}",
        figure=_json(traces, layout),
        label=_in_words(lines, levels, published, UNITS[unit]),
        whole=_axes(-0.15, last, whole),
        close=_axes(0.85, last, _range([*late, *near])) if late and last > 1 else None,
    )


def _height(row: RoundRow, unit: Unit) -> float:
    return row.test_loss if unit == "nats" else row.test_bits_per_byte


def _lineage_trace(name: str, rounds: list[RoundRow], unit: Unit, colour: str, dash: str) -> dict[str, Any]:
    events = ["the base model, as it is"] + [
        f"{plain(name_of(r.champion))} took the title"
        if r.dethroned
        else f"{plain(name_of(r.champion))} defended the title"
        for r in rounds[1:]
    ]
    hover = [[e, r.validation_loss, r.test_loss, r.test_bits_per_byte] for e, r in zip(events, rounds, strict=True)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _legend(name, _height(rounds[-1], unit)),
        "x": [r.round for r in rounds],
        "y": [_height(r, unit) for r in rounds],
        "customdata": hover,
        "line": {"color": colour, "width": 2.5, "dash": dash},
        "marker": {
            "size": 10,
            "color": colour,
            "line": {"width": 2, "color": colour},
            "symbol": ["circle" if r.dethroned or r.round == 0 else "circle-open" for r in rounds],
        },
        "hovertemplate": f"<b>{plain(name)}</b>, round %{{x}}<br>%{{customdata[0]}}<br>"
        "test loss %{customdata[2]:.4f}<br>validation loss %{customdata[1]:.4f}<br>"
        "%{customdata[3]:.4f} bits per byte<extra></extra>",
    }


def _published_trace(name: str, values: list[float], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _legend(name, values[-1]),
        "x": list(range(len(values))),
        "y": values,
        "line": {"color": colour, "width": 1.5, "dash": "dash"},
        "marker": {"size": 6, "color": colour, "symbol": "diamond"},
        "hovertemplate": f"<b>{plain(name)}</b>, round %{{x}}<br>published: %{{y:.4g}}<extra></extra>",
    }


def _level_trace(name: str, level: float, last: int, unit: Unit, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _legend(name, level),
        # A point at every round, so that hovering anywhere near finds one.
        "x": [-0.15, *range(last + 1), last + 0.15],
        "y": [level] * (last + 3),
        "line": {"color": GREY, "width": 2, "dash": dash},
        "hovertemplate": f"<b>{plain(name)}</b>, only scored<br>test loss %{{y:.4f}} {UNITS[unit]}<extra></extra>",
    }


def train_charts(config: TournamentConfig, run: RunDirectory, lineage: str) -> list[Chart]:
    """Train loss over tokens, one small figure for each round that has begun, all with the same frame."""
    rounds: dict[int, dict[str, list[tuple[float, float]]]] = {}
    for number in range(1, config.all_rounds + 1):
        names = [entry.recipe.name for entry in field_of(config, run, lineage, number)]
        paths = {name: run.entry(lineage, number, name) / "progress.jsonl" for name in names}
        curves = {name: curve for name, path in paths.items() if (curve := train_curve(path))}
        if curves:
            rounds[number] = curves
    # A round's first steps may start far above: they would flatten everything else.
    settled = [y for curves in rounds.values() for c in curves.values() for _, y in c[len(c) // 10 :]]
    frame = _range(settled, from_zero=False) if settled else None
    looks = styles(config, run)
    charts = []
    for number, curves in rounds.items():
        traces = [_curve_trace(name, curve, *looks[name]) for name, curve in curves.items()]
        layout = _layout("", "tokens", frame) | {"height": 230, "showlegend": False}
        layout["margin"] = {"l": 44, "r": 10, "t": 8, "b": 40}
        ends = ", ".join(f"{name} {curve[-1][1]:.3f}" for name, curve in curves.items())
        label = f"Train loss over tokens in round {number} of {lineage}; it ended at: {ends}"
        charts.append(Chart(f"train-{lineage}-{number}", _json(traces, layout), label))
    return charts


def train_curve(path: Path) -> list[tuple[float, float]]:
    """(tokens, train loss) of one entry, averaged down to so many points that lines stay readable."""
    steps = ((e.get("tokens"), e.get("loss")) for e in read_events(path) if e.get("event") == "step")
    # What a competitor reports is its own affair: it may be no number.
    points = [(x, y) for x, y in steps if isinstance(x, int | float) and isinstance(y, int | float)]
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = max(1, math.ceil(len(points) / CURVE_POINTS))
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    return [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in bins]


def _curve_trace(name: str, curve: list[tuple[float, float]], colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(name),
        "x": [tokens for tokens, _ in curve],
        "y": [round(loss, 5) for _, loss in curve],
        "line": {"color": colour, "width": 1.7, "dash": dash},
        "hovertemplate": f"<b>{plain(name)}</b><br>%{{x:,.0f}} tokens<br>train loss %{{y:.3f}}<extra></extra>",
    }


def _layout(y_title: str, x_title: str, y_range: tuple[float, float] | None) -> dict[str, Any]:
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "showline": True, "ticks": "outside"}
    axis |= {"tickcolor": GRID, "automargin": True}
    return {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": GREY, "size": 13, "family": "system-ui, sans-serif"},
        "margin": {"l": 56, "r": 12, "t": 10, "b": 50},
        "height": 460,
        "hovermode": "closest",
        "dragmode": False,  # else a finger that scrolls the page zooms the chart
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {**axis, "title": {"text": x_title}, "showgrid": False},
        "yaxis": {**axis, "title": {"text": y_title}} | ({"range": list(y_range)} if y_range else {}),
    }


def _range(values: Sequence[float], from_zero: bool = True) -> tuple[float, float]:
    """A y range with some air; from zero where that wastes no more than half of it."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    air = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return (0.0 if from_zero and low < 0.5 * high else low - air), high + air


def _axes(first: float, last: int, y_range: tuple[float, float]) -> dict[str, Any]:
    """What plotly's relayout takes to show the rounds from `first` on."""
    return {"xaxis.range": [first, last + 0.15], "yaxis.range": list(y_range)}


def _in_words(
    lines: dict[str, list[float]], levels: dict[str, float], published: dict[str, list[float]], unit: str
) -> str:
    """The chart for who cannot see it."""
    parts = [f"{name}: {', '.join(f'{v:.3f}' for v in values)}" for name, values in (lines | published).items()]
    parts += [f"{name}, a horizontal line at {level:.3f}" for name, level in levels.items()]
    return f"Test loss by round in {unit}. " + ("; ".join(parts) or "Nothing is scored yet")


def _legend(name: str, value: float) -> str:
    return f"{plain(name)}  {value:.3f}"


def name_of(label: str) -> str:
    """`full@2` as a person says it."""
    name, _, number = label.rpartition("@")
    return f"{name} of round\N{NO-BREAK SPACE}{number}" if name else "the base model"


def plain(text: str) -> str:
    """A name as plotly shows it literally: its text is a small HTML, and its templates read `%{`."""
    line = " ".join(text.split()).replace("%{", "% {")
    return escape(line if len(line) <= 48 else line[:47] + "…", quote=False)


def _json(traces: list[dict[str, Any]], layout: dict[str, Any]) -> dict[str, Any]:
    """Checked by plotly, then plain data."""
    import plotly.graph_objects as go

    figure: dict[str, Any] = go.Figure(data=traces, layout=layout).to_plotly_json()
    figure["layout"].pop("template", None)
    return figure
