"""The report's charts: plotly figures as plain JSON, drawn in the page by the plotly.js that it carries.

Text is a neutral grey on nothing, so that a figure is readable on light and dark; the page's script then
takes the text's colour from its own style.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from cluster.text import plain
from evaluation.figures import FIGURES, figure_of, measured
from evaluation.figures.figure import Figure
from orchestrator.record.palette import COLOURS, DASHES, style
from orchestrator.record.snapshot import LineageSnapshot, Snapshot
from orchestrator.views.leaderboard import Leaderboard, RoundRow
from orchestrator.views.progress import train_curve

GREY = "#808690"
GRID = "rgba(128,134,144,.22)"
LABEL_LENGTH = 48


@dataclass(frozen=True)
class Chart:
    """One figure for the page, what it shows in words, and the axis ranges that a reader may switch between."""

    key: str
    figure: dict[str, Any]
    label: str
    whole: dict[str, Any] | None = None
    close: dict[str, Any] | None = None


def styles(snapshot: Snapshot) -> dict[str, tuple[str, str]]:
    """Colour and dash of each competitor that any lineage has had, in order of appearance; before the first round of
    all, of those in the config."""
    names = dict.fromkeys(name for lineage in snapshot.lineages for name in lineage.competitors)
    names = names or dict.fromkeys(recipe.name for recipe in snapshot.config.competitors)
    return {name: style(index) for index, name in enumerate(names)}


def figure_chart(snapshot: Snapshot, board: Leaderboard, name: str) -> Chart:
    """A figure of the test rows over rounds: a line for each lineage, a horizontal one for each reference."""
    config, figure = snapshot.config, figure_of(name)
    last = max(config.all_rounds, *(len(r.published or []) - 1 for r in config.references), 1)
    # What others published are losses per token.
    published = {r.name: r.published for r in config.references if r.published and name == "loss"}
    levels = {r.name: r.test[name] for r in board.references if name in r.test}
    rounds = {x.name: [r for r in x.rounds if name in r.test] for x in board.lineages}
    lines = {lineage: [r.test[name] for r in rows] for lineage, rows in rounds.items() if rows}
    traces = []
    for index, lineage in enumerate(board.lineages):
        if lineage.name in lines:
            traces.append(_lineage_trace(lineage.name, rounds[lineage.name], figure, *style(index)))
    for index, (other, values) in enumerate(published.items()):
        traces.append(_published_trace(other, values, COLOURS[(len(board.lineages) + index) % len(COLOURS)]))
    for index, (other, level) in enumerate(levels.items()):
        traces.append(_level_trace(other, level, last, figure, DASHES[(2 + index) % len(DASHES)]))
    whole = _range([*(v for values in (*lines.values(), *published.values()) for v in values), *levels.values()])
    late = [v for values in (*lines.values(), *published.values()) for v in values[1:]]
    near = [level for level in levels.values() if late and level <= 1.3 * max(late)]
    layout = _layout(said(figure), "round (0 is the base model)", whole)
    layout["height"] = 460 if name == "loss" else 340
    if figure.form.endswith("%"):
        layout["yaxis"] |= {"tickformat": ".0%"}
    layout["xaxis"] |= {"range": [-0.15, last + 0.15], "tick0": 0, "dtick": max(1, math.ceil(last / 12))}
    return Chart(
        key=f"test-{name}",
        figure=_json(traces, layout),
        label=_in_words(lines, levels, published, figure),
        whole=_axes(-0.15, last, whole),
        close=_axes(0.85, last, _range([*late, *near])) if late and last > 1 else None,
    )


def charted(board: Leaderboard) -> list[Figure]:
    """Figures with a chart of their own, the loss first: perplexity's would only say what the loss's says."""
    loss = FIGURES["loss"]
    return [loss, *(figure for figure in board.figures if figure not in (loss, FIGURES["perplexity"]))]


def said(figure: Figure) -> str:
    """A figure of the test rows, with its unit."""
    return f"test {figure.heading}"


def _lineage_trace(name: str, rounds: list[RoundRow], figure: Figure, colour: str, dash: str) -> dict[str, Any]:
    hover = []
    for r in rounds:
        did = "took the title" if r.dethroned else "defended the title"
        event = "the base model, as it is" if r.round == 0 else f"{as_label(r.champion.in_words)} {did}"
        figures = [f"test {as_label(one.title)} {one.text(r.test[one.name])}" for one in measured([r.test])]
        hover.append("<br>".join([event, *figures, f"validation loss {r.validation_loss:.4f}"]))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _legend(name, rounds[-1].test[figure.name], figure),
        "x": [r.round for r in rounds],
        "y": [_height(r.test[figure.name]) for r in rounds],
        "customdata": [[text] for text in hover],
        "line": {"color": colour, "width": 2.5, "dash": dash},
        "marker": {
            "size": 10,
            "color": colour,
            "line": {"width": 2, "color": colour},
            "symbol": ["circle" if r.dethroned or r.round == 0 else "circle-open" for r in rounds],
        },
        "hovertemplate": f"<b>{as_label(name)}</b>, round %{{x}}<br>%{{customdata[0]}}<extra></extra>",
    }


def _height(value: float) -> float | None:
    """A browser's JSON knows no number that is not finite: the line has a gap there."""
    return value if math.isfinite(value) else None


def _published_trace(name: str, values: list[float], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _legend(name, values[-1], FIGURES["loss"]),
        "x": list(range(len(values))),
        "y": values,
        "line": {"color": colour, "width": 1.5, "dash": "dash"},
        "marker": {"size": 6, "color": colour, "symbol": "diamond"},
        "hovertemplate": f"<b>{as_label(name)}</b>, round %{{x}}<br>published: %{{y:.4g}}<extra></extra>",
    }


def _level_trace(name: str, level: float, last: int, figure: Figure, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": _legend(name, level, figure),
        # A point at every round, so that hovering anywhere near finds one.
        "x": [-0.15, *range(last + 1), last + 0.15],
        "y": [_height(level)] * (last + 3),
        "line": {"color": GREY, "width": 2, "dash": dash},
        "hovertemplate": f"<b>{as_label(name)}</b>, only scored<br>{said(figure)}: {figure.text(level)}<extra></extra>",
    }


def train_charts(snapshot: Snapshot, lineage: LineageSnapshot) -> list[Chart]:
    """Train loss over tokens, one small figure for each round that has begun, all with the same frame."""
    rounds: dict[int, dict[str, list[tuple[float, float]]]] = {}
    for one in lineage.rounds:
        curves = {entry.name: curve for entry in one.entries if (curve := train_curve(entry.progress_file))}
        if curves:
            rounds[one.number] = curves
    # A round's first steps may start far above: they would flatten everything else.
    settled = [y for curves in rounds.values() for c in curves.values() for _, y in c[len(c) // 10 :]]
    frame = _range(settled, from_zero=False) if settled else None
    looks = styles(snapshot)
    charts = []
    for number, curves in rounds.items():
        traces = [_curve_trace(name, curve, *looks[name]) for name, curve in curves.items()]
        layout = _layout("", "tokens", frame) | {"height": 230, "showlegend": False}
        layout["margin"] = {"l": 44, "r": 10, "t": 8, "b": 40}
        ends = ", ".join(f"{name} {curve[-1][1]:.3f}" for name, curve in curves.items())
        label = f"Train loss over tokens in round {number} of {lineage.name}; it ended at: {ends}"
        charts.append(Chart(f"train-{lineage.name}-{number}", _json(traces, layout), label))
    return charts


def _curve_trace(name: str, curve: list[tuple[float, float]], colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": as_label(name),
        "x": [tokens for tokens, _ in curve],
        "y": [round(loss, 5) for _, loss in curve],
        "line": {"color": colour, "width": 1.7, "dash": dash},
        "hovertemplate": f"<b>{as_label(name)}</b><br>%{{x:,.0f}} tokens<br>train loss %{{y:.3f}}<extra></extra>",
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
    lines: dict[str, list[float]], levels: dict[str, float], published: dict[str, list[float]], figure: Figure
) -> str:
    """The chart for who cannot see it."""
    parts = [f"{name}: {', '.join(map(figure.text, values))}" for name, values in (lines | published).items()]
    parts += [f"{name}, a horizontal line at {figure.text(level)}" for name, level in levels.items()]
    return f"By round, {said(figure)}. " + ("; ".join(parts) or "Nothing is scored yet")


def _legend(name: str, value: float, figure: Figure) -> str:
    return f"{as_label(name)}  {figure.text(value)}"


def as_label(text: str) -> str:
    """A name as plotly shows it literally: its text is a small HTML, and its templates read `%{`."""
    return escape(plain(text.replace("%{", "% {"), LABEL_LENGTH), quote=False)


def _json(traces: list[dict[str, Any]], layout: dict[str, Any]) -> dict[str, Any]:
    """Checked by plotly, then plain data."""
    import plotly.graph_objects as go

    figure: dict[str, Any] = go.Figure(data=traces, layout=layout).to_plotly_json()
    figure["layout"].pop("template", None)
    return figure
