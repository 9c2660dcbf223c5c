"""Counting the training tokens of every arm the same way: what passes through the model, where it passes.

TRL's training step is wrapped, so it does not matter who trains: one recipe, a tournament in this process, a trial of
Ray Tune. `tokens` are real ones, prompts included; `padded_tokens` is what a device computes.
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
    counter, original = Counter(), RecipeTrainer.training_step

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        counter.padded_tokens += inputs["input_ids"].numel()
        counter.tokens += int(inputs["attention_mask"].sum())
        return original(self, model, inputs, *rest, **named)

    with mock.patch.object(RecipeTrainer, "training_step", training_step):
        yield counter
