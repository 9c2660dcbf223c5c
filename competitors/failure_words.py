"""A competitor's failure in words."""

from cluster.errors import Forfeit
from cluster.text import first_line


def describe(error: BaseException) -> str:
    """One line on what a competitor raised."""
    first = first_line(error)
    if isinstance(error, Forfeit):
        return first
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"ran out of memory: {first}" if first else "ran out of memory"
    return f"raised {type(error).__name__}: {first}" if first else f"raised {type(error).__name__}"
