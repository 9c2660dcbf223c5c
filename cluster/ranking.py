"""Who comes before whom: the one rule by which models are ranked, ties included."""

import math
from collections.abc import Mapping


def ranked(losses: Mapping[str, float]) -> list[str]:
    """Names, lowest loss first; of equal losses that which stands first in `losses`, as a roster has it, and a loss
    that is no number comes last."""
    return sorted(losses, key=lambda name: (math.isnan(losses[name]), losses[name]))
