"""Who comes before whom: the one rule by which models are ranked, ties included."""

import math
from collections.abc import Mapping


def ranked(losses: Mapping[str, float]) -> list[str]:
    """Names, lowest loss first; equal losses go by name, and a loss that is no number comes last."""
    return sorted(losses, key=lambda name: (math.isnan(losses[name]), losses[name], name))
