"""What is lost of an update where weights are stored in fewer bits, and when they are stored in float32 instead.

bfloat16 tells apart numbers that differ by about a hundredth. What a short training adds to a weight is often less, and
then nothing of it is left: on a base in bfloat16 an update of 0.025 % of the weights lost 92 % of its norm and 56 % of
its gain, one of 0.25 % lost 48 % and 3 %, one of 1.2 % lost 14 % and nothing (docs/LOG.md).
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cluster.records import Record

if TYPE_CHECKING:
    import torch

MOST_LOST = 0.2
"""So much of an update's norm may be lost."""


class Rounding(Record):
    """An update of a model's weights, and what storing them in their own dtype would take from it."""

    dtype: str
    """The model's own, as torch calls it."""
    lost: float
    """The norm of what rounding takes from the update, by the update's."""

    @property
    def stored(self) -> str:
        """The dtype that the weights are stored in."""
        return "float32" if self.lost > MOST_LOST else self.dtype

    @property
    def in_words(self) -> str:
        """What became of the update, where that is not what one would expect; else empty."""
        if self.stored == self.dtype:
            return ""
        return f"stored in {self.stored}: {self.dtype} would lose {self.lost:.0%} of what it adds to its seed"


Weights = Mapping[str, "torch.Tensor"]


def rounding(before: Weights, after: Iterable[tuple[str, "torch.Tensor"]], dtype: "torch.dtype") -> Rounding:
    """What storing `after` in `dtype` takes from the update that made it out of `before`."""
    from torch.linalg import vector_norm

    update = taken = 0.0
    for name, weight in after:
        if name in before:
            update += float(vector_norm(weight - before[name])) ** 2
            taken += float(vector_norm(weight - weight.to(dtype))) ** 2
    lost = (taken / update) ** 0.5 if update else 0.0
    return Rounding(dtype=str(dtype).removeprefix("torch."), lost=lost)
