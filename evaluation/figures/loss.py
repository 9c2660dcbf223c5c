"""Loss: mean negative log-likelihood per completion token, in nats, token-weighted over the split."""

from typing import TYPE_CHECKING

from evaluation.figures.figure import Figure
from evaluation.results import Array, RowResults

if TYPE_CHECKING:
    import torch


def nats(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """-log p of each target: (chunk,)."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, targets, reduction="none")


def sums(results: RowResults) -> tuple[Array, Array]:
    """A row's nats and its tokens."""
    return results.nats, results.tokens


FIGURE = Figure("loss", "loss", "nats/token", "lower", sums, ".4f", measure=nats, column="nats")
