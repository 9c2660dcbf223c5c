"""Token accuracy: the share of the completion's tokens that are the model's first choice."""

from typing import TYPE_CHECKING

from evaluation.figures.figure import Figure
from evaluation.results import Array, RowResults

if TYPE_CHECKING:
    import torch


def hits(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """1 where the target has the largest logit, else 0: (chunk,)."""
    return logits.argmax(-1) == targets


def sums(results: RowResults) -> tuple[Array, Array]:
    """A row's hits and its tokens."""
    return results.column("hits"), results.tokens


FIGURE = Figure("token_accuracy", "token accuracy", "share", "higher", sums, ".1%", measure=hits, column="hits")
