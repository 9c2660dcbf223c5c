"""`python -m tests.experiments.picture SIZE`: docs/images/equal-tokens.png, the README's first picture.

Test loss of the best model so far over the tokens that everybody together trained on, mean over seeds, an arm a line.
Drawn with plotly in a headless Chromium, as reports are.
"""

import argparse
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from orchestrator.record.palette import COLOURS
from tests.browser import browser_page
from tests.experiments import recipes
from tests.experiments.results import Result, done
from tests.experiments.sizes import SIZES
from tests.experiments.table import GRID, Column, chosen, columns, rows

IMAGE = Path(__file__).parents[2] / "docs" / "images" / "equal-tokens.png"
GREY = "#9aa0a6"
WIDTH, HEIGHT = 1100, 620
BELOW, ABOVE = 0.2, 0.55
"""How far the axis goes beyond the ends of the lines, in parts of the distance between these."""
LABEL = 20
"""Pixels from one label to the next."""
POINTS = 60


@dataclass(frozen=True)
class Line:
    """One arm: `stepped` where a model stays the best until another one is, and does not train on in between."""

    arm: str
    label: str
    colour: str
    width: int = 2
    stepped: bool = True
    dash: str = "solid"


def lines(column: Column) -> list[Line]:
    """The arms of the picture: the recipes alone in grey, dashed where to zero; what is without a part dotted."""
    field = recipes.field(column.setting.adapters)
    alone = [Line(f"alone-{one.name}", f"{one.name} alone", GREY, 2, False) for one in field]
    to_zero = [
        Line(f"alone-{one.name}-to-zero", f"{one.name} alone, to zero", GREY, 2, False, "dash")
        for one in field
        if one.schedule != "linear"
    ]
    row = next(row for row in rows(column.setting.adapters) if row.name == GRID)
    best = chosen(row, column.results)[:1]  # one line of twelve that were trained
    grid = [Line(one.arm, f"{GRID}, with 12 budgets:", "#333", 2, False, "dash") for one in best]
    without = [
        Line(f"ours-{arm}", f"without {what}", COLOURS[0], 1, dash="dot")
        for arm, what in (("no-race", "the race"), ("no-climb", "the climb"), ("no-optimizer", "the optimizer"))
    ]
    searches = [
        Line("random", "random search", COLOURS[4]),
        Line("asha", "ASHA", COLOURS[2]),
        Line("tpe", "TPE with ASHA", COLOURS[5]),
        Line("pbt", "population-based training", COLOURS[3]),
        Line("naive", "equal rounds", COLOURS[1]),
    ]
    return [*alone, *to_zero, *grid, *searches, *without, Line("ours", "the tournament", COLOURS[0], 4)]


def averaged(results: Sequence[Result], total_tokens: int) -> tuple[list[int], list[float]]:
    """Tokens and the mean over seeds of the best model's test loss by then, from where every seed has one.

    Seeds have their points at other tokens, so each is read on one scale as the step function that it is.
    """
    scale = [round(total_tokens * n / POINTS) for n in range(1, POINTS + 1)]
    tokens, losses = [], []
    for at in scale:
        known = [bisect_right([point.tokens for point in one.curve], at) for one in results]
        if all(known):
            tokens.append(at)
            losses.append(mean(one.curve[count - 1].test for one, count in zip(results, known, strict=True)))
    return tokens, losses


def trace(line: Line, results: Sequence[Result], total_tokens: int) -> dict[str, Any] | None:
    """One line as plotly has it; None where nothing is done of it."""
    own = [one for one in results if one.arm == line.arm and one.curve]
    if not own:
        return None
    if line.stepped:
        tokens, losses = averaged(own, total_tokens)
    else:  # looked at at the same shares with every seed
        curves = list(zip(*(one.curve for one in own), strict=True))
        tokens = [round(mean(point.tokens for point in points)) for points in curves]
        losses = [mean(point.test for point in points) for points in curves]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*tokens, total_tokens],
        "y": [*losses, mean(one.test for one in own)],
        "name": line.label,
        "line": {
            "color": line.colour,
            "width": line.width,
            "dash": line.dash,
            "shape": "hv" if line.stepped else "linear",
        },
    }


def figure(column: Column) -> dict[str, Any]:
    """The whole picture."""
    total_tokens = column.setting.total_tokens
    drawn = [trace(line, column.results, total_tokens) for line in lines(column)]
    traces = [one for one in drawn if one is not None]
    ends = sorted(float(one["y"][-1]) for one in traces)
    font = {"family": "Helvetica, Arial, sans-serif", "size": 15, "color": "#333"}
    labels, leaders = [], []
    for one, place in _apart(traces, ends):
        colour = one["line"]["color"] if one["line"]["color"] != GREY else "#6b7075"
        words = f"{one['name']} {one['y'][-1]:.3f}"
        words = f"<b>{words}</b>" if one["line"]["width"] > 2 else words
        text = {"text": words, "font": {"color": colour, "size": 13}}
        labels.append({"x": 1.035, "xref": "paper", "xanchor": "left", "y": place, "showarrow": False, **text})
        ends_of_it = {"x0": 1.0, "y0": one["y"][-1], "x1": 1.033, "y1": place}
        leaders.append({"type": "line", "xref": "paper", **ends_of_it, "line": {"color": colour, "width": 1}})
    return {
        "data": traces,
        "layout": {
            "width": WIDTH,
            "height": HEIGHT,
            "margin": {"l": 70, "r": 300, "t": 20, "b": 60},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "font": font,
            "showlegend": False,
            "annotations": labels,
            "shapes": leaders,
            "xaxis": {
                "title": {"text": "tokens trained on by everybody"},
                "range": [0, total_tokens],
                "gridcolor": "#eee",
            },
            "yaxis": {"title": {"text": "test loss (nats per token)"}, "range": _range(ends), "gridcolor": "#eee"},
        },
    }


def _range(ends: Sequence[float]) -> list[float]:
    """From below the best end, where labels need room, to well above the worst: the first points of all lie higher."""
    spread = ends[-1] - ends[0]
    return [ends[0] - BELOW * spread, ends[-1] + ABOVE * spread]


def _apart(traces: Sequence[dict[str, Any]], ends: Sequence[float]) -> list[tuple[dict[str, Any], float]]:
    """Each line with the height of its label: as near to its end as the labels beside it let it be.

    Labels that would touch are a block, which stands as high as its lines end on average, and not below the axis.
    """
    gap = (ends[-1] - ends[0]) * (1 + BELOW + ABOVE) * LABEL / (HEIGHT - 80)
    ordered = sorted(traces, key=lambda one: float(one["y"][-1]))
    blocks: list[list[float]] = []  # of heights where the blocks' lowest labels would be
    for number, one in enumerate(ordered):
        blocks.append([float(one["y"][-1]) - number * gap])
        while len(blocks) > 1 and mean(blocks[-2]) > mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    lowest = [mean(block) for block in blocks for _ in block]
    bottom = _range(ends)[0] + gap / 2
    heights = [max(low, bottom) + number * gap for number, low in enumerate(lowest)]
    return list(zip(ordered, heights, strict=True))


def draw(drawn: dict[str, Any], path: Path) -> None:
    """Write a figure as an image."""
    import plotly.io

    page_text = plotly.io.to_html(drawn, include_plotlyjs=True, config={"displayModeBar": False})
    with browser_page(WIDTH + 16, HEIGHT + 16) as page:
        page.set_content(page_text)
        page.wait_for_selector(".main-svg")
        path.parent.mkdir(parents=True, exist_ok=True)
        page.locator(".plotly-graph-div").screenshot(path=str(path))


def main() -> None:
    """Draw a size's first setting of which anything is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", nargs="?", default="full", choices=SIZES)
    parser.add_argument("--to", type=Path, default=IMAGE)
    asked = parser.parse_args()
    draw(figure(columns(SIZES[asked.size].settings, done(asked.size))[0]), asked.to)


if __name__ == "__main__":
    main()
