"""Figures: what a model's results on a split come to. One table of them, for whoever scores, shows or compares.

A new figure is a file here that ends in its `FIGURE`, and a line in the table. Everything else follows from the
table: scoring measures what its figure asks for, the scorecard holds its value under its name, losses.parquet its
column, and tables show it under its title. Importing this does not import torch.
"""

from collections.abc import Iterable, Mapping

from evaluation.figures import bits_per_byte, exact_match, loss, perplexity, rouge_l, token_accuracy
from evaluation.figures.figure import Figure

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


def measured(scored: Iterable[Mapping[str, float]]) -> list[Figure]:
    """The figures, in order, that any of these has: those of texts are there where models were to write some."""
    there = {name for figures in scored for name in figures}
    return [figure for name, figure in FIGURES.items() if name in there]


def loss_in_words(figures: Mapping[str, float]) -> str:
    """A loss in nats per token, and in bits per byte beside it: models of different tokenizers compare by that."""
    per_byte = figures.get("bits_per_byte")
    beside = "" if per_byte is None else f" ({FIGURES['bits_per_byte'].text(per_byte)} bits/byte)"
    return FIGURES["loss"].text(figures.get("loss")) + beside
