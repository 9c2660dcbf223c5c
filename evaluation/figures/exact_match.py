"""Exact match: the share of rows of which the model writes the very completion, white space apart."""

from evaluation.figures.figure import Figure, of_texts


def matches(written: str, completion: str) -> float:
    """1 where both are the same words, else 0."""
    return float(written.split() == completion.split())


FIGURE = Figure(
    "exact_match", "exact match", "share", "higher", of_texts("matches"), ".1%", judge=matches, column="matches"
)
