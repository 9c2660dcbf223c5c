"""Loss: mean negative log-likelihood per completion token, in nats, token-weighted over the split."""

from typing import TYPE_CHECKING

from evaluation.figures.figure import Figure
from evaluation.results import RowResults

if TYPE_CHECKING:
    import torch


def nats(logits: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    """-log p of each target: (chunk,)."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, targets, reduction="none")


def compute(results: RowResults) -> float:
    """The mean over the split's tokens."""
    return results.loss


FIGURE = Figure("loss", "loss", "nats/token", "lower", compute, ".4f", nats, "nats")
