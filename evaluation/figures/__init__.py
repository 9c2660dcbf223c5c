"""Figures: what a model's results on a split come to. One table of them, for whoever scores, shows or compares.

A new figure is a file here that ends in its `FIGURE`, and a line in the table. Everything else follows from the
table: scoring measures what its figure asks for, the scorecard holds its value under its name, losses.parquet its
column, and tables show it under its title. A task of the lm-evaluation-harness is a figure too, by the task's name.
Importing this does not import torch.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from evaluation.figures import bits_per_byte, exact_match, loss, perplexity, rouge_l, token_accuracy
from evaluation.figures.figure import Figure
from evaluation.results import Array, RowResults, read_results

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        loss.FIGURE,
        perplexity.FIGURE,
        bits_per_byte.FIGURE,
        token_accuracy.FIGURE,
        exact_match.FIGURE,
        rouge_l.FIGURE,
    )
}
"""By name, in the order in which they are shown."""


def figure_of(name: str) -> Figure:
    """The figure of that name: one of the table, or else a task of the lm-evaluation-harness."""
    return FIGURES.get(name) or Figure(name, name, "", "higher", _scores, ".4f")


def results_file(folder: Path, name: str) -> Path:
    """Where a model's results lie that the figure of that name is made of, in the folder of its scorecard."""
    return folder / "losses.parquet" if name in FIGURES else folder / "harness" / f"{name}.parquet"


def costs_of(folder: Path, split: str, name: str) -> RowResults:
    """A model's results on a split as the figure of that name sees them: lower is better. BrokenRecord as of a file."""
    return figure_of(name).costs(read_results(results_file(folder, name), split))


def _scores(results: RowResults) -> tuple[Array, Array]:
    """A document's score, and that it is one."""
    return results.column("score"), results.tokens


def measured(scored: Iterable[Mapping[str, float]]) -> list[Figure]:
    """The figures, in order, that any of these has: some are there only where the config asks for them."""
    there = dict.fromkeys(name for figures in scored for name in figures)
    names = [name for name in FIGURES if name in there] + [name for name in there if name not in FIGURES]
    return [figure_of(name) for name in names]


def loss_in_words(figures: Mapping[str, float]) -> str:
    """A loss in nats per token, and in bits per byte beside it: models of different tokenizers compare by that."""
    per_byte = figures.get("bits_per_byte")
    beside = "" if per_byte is None else f" ({FIGURES['bits_per_byte'].text(per_byte)} bits/byte)"
    return FIGURES["loss"].text(figures.get("loss")) + beside
