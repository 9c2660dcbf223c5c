"""The chart of a published experiment: the champions' test loss by competition, and bits per byte beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.record.palette import COLOURS
from orchestrator.views.leaderboard import Leaderboard, LineageRow
from tests.experiments.picture import GREY, draw

IMAGES = Path(__file__).parents[2] / "docs" / "images"
PANELS = {"loss": "test loss (nats per token)", "bits_per_byte": "test bits per byte"}
HEIGHT = 560
DASHES = ("solid", "dot")
REFERENCE_DASHES = ("dash", "dashdot", "longdash")


def draw_published(boards: Sequence[tuple[str, Leaderboard]], path: Path) -> None:
    """Draw the lineages of several forms of one experiment: a colour for each lineage, a dash for each form."""
    draw(figure(boards), path)


def figure(boards: Sequence[tuple[str, Leaderboard]]) -> dict[str, Any]:
    """Both panels as plotly has them; the names stand once, above."""
    last = max(len(row.rounds) for _, board in boards for row in board.lineages) - 1
    traces = []
    for panel, name in enumerate(PANELS):
        axes = {"xaxis": f"x{panel + 1}", "yaxis": f"y{panel + 1}", "showlegend": not panel}
        for (form, board), dash in zip(boards, DASHES, strict=False):
            for index, row in enumerate(board.lineages):
                traces.append(_lineage(row, name, f"{row.name}, {form}", COLOURS[index], dash) | axes)
        for reference, dash in zip(boards[0][1].references, REFERENCE_DASHES, strict=False):
            level = reference.test[name]
            line = {"color": GREY, "width": 2, "dash": dash}
            ends = {"x": [0, last], "y": [level, level], "mode": "lines", "name": reference.name, "line": line}
            traces.append({"type": "scatter", **ends, **axes})
    places = {"xaxis": [0.0, 0.46], "xaxis2": [0.54, 1.0]}
    ticks = {"title": {"text": "competition (0 is the base model)"}, "dtick": 1, "gridcolor": "#eee", "zeroline": False}
    return {
        "data": traces,
        "layout": {
            "width": 1100,
            "height": HEIGHT,
            "margin": {"l": 70, "r": 20, "t": 100, "b": 60},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "font": {"family": "Helvetica, Arial, sans-serif", "size": 15, "color": "#333"},
            "legend": {"orientation": "h", "x": 0, "y": 1.04, "yanchor": "bottom"},
            **{
                axis: {**ticks, "domain": domain, "anchor": axis.replace("xaxis", "y")}
                for axis, domain in places.items()
            },
            **{
                axis: {
                    "title": {"text": title},
                    "gridcolor": "#eee",
                    "rangemode": "tozero",
                    "anchor": axis.replace("yaxis", "x"),
                }
                for axis, title in zip(("yaxis", "yaxis2"), PANELS.values(), strict=True)
            },
        },
    }


def _lineage(row: LineageRow, figure_name: str, label: str, colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [one.round for one in row.rounds],
        "y": [one.test[figure_name] for one in row.rounds],
        "name": label,
        "line": {"color": colour, "width": 3, "dash": dash},
        "marker": {
            "size": 9,
            "symbol": ["circle" if r.dethroned or not r.round else "circle-open" for r in row.rounds],
        },
    }
