"""The colours of lines: the same for a lineage or a competitor wherever it is drawn."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, which the colour-blind can tell apart, less its yellow and black."""
DASHES = ("solid", "dash", "dot", "dashdot")


def style(index: int) -> tuple[str, str]:
    """Colour and dash of the line number `index`: past the palette's end the dash changes."""
    return COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]
