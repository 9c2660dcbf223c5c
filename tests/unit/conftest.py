"""What all unit tests have in common."""

from tests.in_haste import libraries_stay

__all__ = ["libraries_stay"]
