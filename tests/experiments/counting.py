"""Counting the training tokens of every arm the same way: what passes through the model, where it passes.

The trainer's forward pass is wrapped, so it does not matter who trains: one recipe, a tournament in this process, a
trial of Ray Tune. `tokens` are real ones, prompts included; `padded_tokens` is what a device computes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from competitors.sft.trainer import RecipeTrainer


@dataclass
class Counter:
    """Tokens so far."""

    tokens: int = 0
    padded_tokens: int = 0


@contextmanager
def counted() -> Iterator[Counter]:
    """Count what is trained on in this process while the block lasts."""
    counter, original = Counter(), RecipeTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        padded = inputs["input_ids"].numel()
        counter.padded_tokens += padded
        # Where nothing is padded there is no mask.
        counter.tokens += int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else padded
        return original(self, model, inputs, *rest, **named)

    with mock.patch.object(RecipeTrainer, "compute_loss", compute_loss):
        yield counter
