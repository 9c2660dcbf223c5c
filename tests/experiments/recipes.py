"""The recipes of all arms, in one place: the tournament's field, the grid, and the space that searches draw from.

Full fine-tuning of a model of 260k parameters, or LoRA on one of 15M. Rates of the space are drawn for a batch of 16
and carried to the batch that is drawn (rate × √(b/16), β₂ ^ (b/16)), so that no search wastes its trials on rates
that are out of place.
"""

import random
from typing import Any

from competitors.sft.recipe import SftRecipe

CHOICES: dict[str, tuple[Any, ...]] = {
    "batch": (1, 4, 16),
    "schedule": ("linear", "cosine", "constant_with_warmup"),
    "warmup": (0.03, 0.1),
    "beta2": (0.95, 0.99),
}
"""What a search chooses among. beta2 is that at a batch of 16."""
RATES = {False: (1e-3, 1.6e-2), True: (2.5e-4, 4e-3)}
"""Lowest and highest at a batch of 16, by whether adapters are trained: LoRA on 15M parameters diverges at 4e-3."""
ADAPTER = {"method": "lora", "rank": 16}


def field(adapters: bool) -> list[SftRecipe]:
    """The tournament's competitors: what somebody enters who does not know which will do."""
    rates = ("2.5e-4", "5e-4", "1e-3", "2e-3") if adapters else ("1e-3", "2e-3", "4e-3", "8e-3")
    shapes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("cosine", {"schedule": "cosine"}),
        ("linear", {"schedule": "linear"}),
        ("cosine", {"schedule": "cosine", "warmup": 0.1}),
        ("constant", {"schedule": "constant_with_warmup"}),
    )
    return [
        recipe(adapters, f"{word}-{rate}", learning_rate=float(rate), **settings)
        for rate, (word, settings) in zip(rates, shapes, strict=True)
    ]


def grid(adapters: bool) -> list[SftRecipe]:
    """Twelve recipes, linearly to zero: four rates at each of three batches."""
    low, _ = RATES[adapters]
    return [
        drawn(adapters, f"grid-{batch}-{rate:g}", {"rate": rate, "batch": batch, "schedule": "linear"})
        for batch in CHOICES["batch"]
        for rate in (2 * low, 4 * low, 8 * low, 16 * low)
    ]


def to_zero(one: SftRecipe) -> SftRecipe:
    """The same recipe, its rate going linearly to zero after its warm-up."""
    return one.model_copy(update={"schedule": "linear"})


def recipe(adapters: bool, name: str, **settings: Any) -> SftRecipe:
    """A recipe with what all have in common."""
    common: dict[str, Any] = {"kind": "sft", "betas": (0.9, 0.95), "batch_size": 16, "checkpoints": 0}
    if adapters:
        common["adapter"] = ADAPTER
    return SftRecipe.model_validate({"name": name, **common, **settings})


def drawn(adapters: bool, name: str, values: dict[str, Any], **settings: Any) -> SftRecipe:
    """The recipe at a point of the space: rate (at a batch of 16), batch, schedule, warmup, beta2 (at 16)."""
    share = values["batch"] / 16
    return recipe(
        adapters,
        name,
        learning_rate=values["rate"] * share**0.5,
        batch_size=values["batch"],
        betas=(0.9, values.get("beta2", 0.95) ** share),
        schedule=values["schedule"],
        warmup=values.get("warmup", 0.03),
        **settings,
    )


def draw(adapters: bool, rng: random.Random) -> dict[str, Any]:
    """A point of the space at random: the rate evenly in its logarithm."""
    low, high = RATES[adapters]
    rate = low * (high / low) ** rng.random()
    return {"rate": rate, **{name: rng.choice(values) for name, values in CHOICES.items()}}
